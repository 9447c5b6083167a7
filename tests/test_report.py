"""The landing page says what the records say, names synthetic data, and changes when the records change."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny

from tpsnet_lib.files import DataError
from tpsnet_lib.publish import report
from tpsnet_lib.study.evaluate import TestResult
from tpsnet_lib.study.records import Record


def opened(record: Record, accuracy: float) -> TestResult:
    said = {"accuracy": accuracy, "low": accuracy - 0.01, "high": accuracy + 0.01, "n": 10_000}
    exact = {f"exact_{name}": value for name, value in said.items()}
    return TestResult(Path(), {**said, **exact, "exact_n": 9979, "fingerprint": {"stamp": "CIFAR-10"}}, torch.empty(0))


def test_swapping_two_records_changes_the_answer(tiny_record: Record) -> None:
    other = replace(tiny_record, config=tiny(train__epochs=9))
    first = report._answer([("a", tiny_record, opened(tiny_record, 0.95)), ("b", other, opened(other, 0.94))])
    swapped = report._answer([("a", other, opened(other, 0.95)), ("b", tiny_record, opened(tiny_record, 0.94))])
    assert first != swapped
    assert "95.00% (94.00 to 96.00)" in first
    assert "0.16 points above it" in first
    assert "0.84 points below it" in report._answer([("b", other, opened(other, 0.94))])
    assert "No committed record has been opened" in report._answer([])


def test_a_page_from_synthetic_images_says_so_first(tiny_record: Record, tiny_store: object) -> None:
    facts = {"host": "here"}
    sections = report.landing(facts, tiny_store, tiny_record, synthetic=True)  # type: ignore[arg-type]
    assert sections[0].id == "synthetic"
    assert "say nothing about CIFAR-10" in sections[0].html
    own = next(section for section in sections if section.id == "own")
    assert "shapes10" in own.html
    assert f"{100 * tiny_record.metrics['validation_accuracy']:.2f}%" in own.html


def test_without_data_the_report_falls_back_and_a_wrong_place_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TPSNET_DATA", raising=False)
    monkeypatch.setattr("tpsnet_lib.data.find_root", lambda *_: None)
    assert report._dataset("quick", {}).startswith("shapes10")
    assert report._dataset("smoke", {}).startswith("shapes10")
    with pytest.raises(DataError, match=str(tmp_path)):
        report._dataset("quick", {"data": str(tmp_path)})
