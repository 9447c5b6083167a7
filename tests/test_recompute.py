"""Every figure of the claims' table and of the headline is what an independent script makes of the raw records."""

import pytest
import recompute

from tpsnet_lib.analysis.final_runs import finals
from tpsnet_lib.analysis.training import against_published
from tpsnet_lib.claims.judge import judge_claims
from tpsnet_lib.runs.records import Store, committed_folder


@pytest.mark.slow
def test_every_interval_count_and_verdict_of_the_claims_is_recomputed_to_the_printed_digit() -> None:
    again = recompute.table()
    rows = judge_claims(Store(committed_folder()))
    assert {row.name for row in rows} == again.keys()
    for row in rows:
        (value, low, high, n), p, said = again[row.name]
        assert (row.verdict, row.n) == (said, n), row.name
        assert row.p == pytest.approx(p, rel=1e-6, abs=1e-12), row.name
        if n:
            ours = row.estimate.value, row.estimate.low, row.estimate.high
            assert ours == pytest.approx((value, low, high), abs=1e-9), row.name


def test_the_headline_is_recomputed_from_the_logits() -> None:
    found = [final for final in finals(Store(committed_folder())) if len(final.opened) > 1]
    original = {"accuracy": 0.9484, "n": 10_000}
    ours = []
    for final in found:
        accuracy, gap = final.accuracy(), against_published(final, original, found)
        ours.append((accuracy.value, accuracy.low, accuracy.high, accuracy.n, gap.value, gap.high - gap.value))
    assert sorted(ours) == [pytest.approx(row) for row in sorted(recompute.headline())]


def test_the_script_sees_a_changed_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = recompute.runs(recompute.ONE)
    before = recompute.accuracies(found)
    row = found[0]
    monkeypatch.setitem(row["metrics"], "validation_accuracy", row["metrics"]["validation_accuracy"] + 1e-4)
    assert recompute.accuracies(recompute.runs(recompute.ONE)) != before
