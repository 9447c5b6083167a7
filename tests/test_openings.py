"""The test set opens for what a commit declared final before it trained, and no opening is without its line."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import QUIET, tiny

from tpsnet_lib.cli import main
from tpsnet_lib.errors import RecordError
from tpsnet_lib.runs import experiments, openings, test_set
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.publish import publish_record
from tpsnet_lib.runs.record_files import WEIGHTS, row_sum, write_sums
from tpsnet_lib.runs.records import Record, Store, committed_folder, read_record
from tpsnet_lib.whole_files import write_json


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def trained_from(record: Record, commit: str, folder: Path) -> Store:
    """A store with a copy of a record that says that it was trained from a commit."""
    copy = publish_record(record, folder, weights=True)
    made = json.loads((copy / "provenance.json").read_text())
    write_json(copy / "provenance.json", {**made, "commit": commit})
    write_sums(copy)
    return Store(folder)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own under git, with an experiment that is not final and, in a later commit, is."""
    root = tmp_path / "project"
    (root / "report" / "experiments").mkdir(parents=True)
    (root / "pyproject.toml").write_text('name = "tpsnet"\n')
    declare(root, final=False)
    git(root.parent, "init", "-q", str(root))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "not final")
    declare(root, final=True)
    git(root, "commit", "-qam", "final")
    monkeypatch.chdir(root)
    return root


def declare(root: Path, final: bool) -> None:
    tree = {"question": "?", "base": tiny().to_dict(), "final": final}
    (root / "report" / "experiments" / "e.yaml").write_text(yaml.safe_dump(tree))
    experiments._load.cache_clear()


def test_a_run_that_a_commit_declared_final_is_opened_once(project: Path, tiny_record: Record, tmp_path: Path) -> None:
    store = trained_from(tiny_record, git(project, "rev-parse", "HEAD"), tmp_path / "store")
    record = store.load(tiny_record.id)
    result = test_set.open_test(record, store=store, device="cpu")
    assert (result.metrics["n"], result.metrics["experiment"], result.metrics["not_choosing"]) == (2000, "e", False)
    assert result.metrics["low"] < result.metrics["accuracy"] < result.metrics["high"]
    assert test_set.open_test(record, store=store, device="cpu").metrics == result.metrics
    lines = openings.read(openings.log_of(store.writable))
    assert [(line["event"], line["record"]) for line in lines] == [("opening", record.id), ("result", record.id)]
    assert lines[0]["declaration"] == result.metrics["declaration"]
    assert list(openings.faults(store)) == []
    assert test_set.score(record, device="cpu")[1]["correct"] == result.metrics["correct"]


def test_a_run_of_another_length_is_told_which_length_was_declared(project: Path, tiny_record: Record) -> None:
    longer = replace(tiny_record, config=tiny(train__epochs=9))
    declared = tiny().train.epochs
    with pytest.raises(RecordError, match=rf"final \(e declares it with {declared:g} epochs; these are 9\)"):
        test_set.declaration(longer)


@pytest.mark.parametrize(
    ("commit", "said"),
    [
        ("HEAD~1", "did not declare it final in commit"),
        ("dirty", "is not a clean one"),
        ("unknown", "is not a clean one"),
        ("0" * 40, "has no report/experiments/e.yaml"),
    ],
)
def test_a_run_that_was_declared_later_or_nobody_knows_when_stays_shut(
    project: Path, tiny_record: Record, tmp_path: Path, commit: str, said: str
) -> None:
    head = git(project, "rev-parse", "HEAD~1" if commit == "HEAD~1" else "HEAD")
    made_from = {"HEAD~1": head, "dirty": f"{head[:12]}+"}.get(commit, commit)
    store = trained_from(tiny_record, made_from, tmp_path / "store")
    with pytest.raises(
        RecordError, match=f"the test set stays shut.*{said}.*`tpsnet test {store.writable}/.*--exploratory"
    ):
        test_set.open_test(store.load(tiny_record.id), store=store, device="cpu")
    assert not openings.log_of(store.writable).exists()
    result = test_set.open_test(store.load(tiny_record.id), store=store, device="cpu", exploratory=True)
    assert result.metrics["not_choosing"] is True


@pytest.fixture
def opened(tiny_record: Record, tmp_path: Path) -> Store:
    """A store with one opened record."""
    store = Store(publish_record(tiny_record, tmp_path / "store", weights=True).parent)
    test_set.open_test(store.load(tiny_record.id), store=store, device="cpu", exploratory=True)
    assert list(openings.faults(store)) == []
    return store


def test_an_opening_that_is_cut_short_is_completed_and_never_without_its_line(
    tiny_record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(publish_record(tiny_record, tmp_path / "store", weights=True).parent)
    with monkeypatch.context() as patch:
        patch.setattr(test_set, "_complete_log", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            test_set.open_test(store.load(tiny_record.id), store=store, device="cpu", exploratory=True)
    assert [line["event"] for line in openings.read(openings.log_of(store.writable))] == ["opening"]
    test_set.open_test(store.load(tiny_record.id), store=store, device="cpu", exploratory=True)
    assert [line["event"] for line in openings.read(openings.log_of(store.writable))] == ["opening", "result"]
    assert list(openings.faults(store)) == []


def test_a_result_that_is_copied_to_another_store_keeps_its_lines(
    opened: Store, tiny_record: Record, tmp_path: Path
) -> None:
    record = opened.load(tiny_record.id)
    kept = Store(publish_record(record, tmp_path / "kept", weights=True).parent)
    openings.require_whole(kept)
    assert [line["event"] for line in openings.read(openings.log_of(kept.writable))] == ["opening", "result"]


def test_what_is_done_to_the_log_or_to_a_result_is_seen(opened: Store, tiny_record: Record) -> None:
    file, result = openings.log_of(opened.writable), opened.writable / tiny_record.id / "test"
    whole, first = file.read_text(), file.read_text().splitlines(keepends=True)[0]
    for changed, said in [
        ("", "has no line in"),
        (whole.removeprefix(first), "the lines above line 1 are not those"),
        (whole.replace("0.", "1.", 1), "are not those|has accuracy"),
        (whole.replace('"opened": "2', '"opened": "3', 1), "the lines above line 2 are not those"),
    ]:
        file.write_text(changed)
        assert any(re.search(said, fault) for fault in openings.faults(opened)), said
    file.write_text(whole)
    scores = json.loads((result / "metrics.json").read_text())
    write_json(result / "metrics.json", {**scores, "nll": 0.0})
    write_sums(result)
    assert any("is not the result" in fault for fault in openings.faults(opened))
    with pytest.raises(RecordError, match="is not the result"):
        openings.require_whole(opened)
    assert list(test_set.miscounted(opened)) == []
    write_json(result / "metrics.json", {**scores, "low": 0.0})
    write_sums(result)
    (named,) = test_set.miscounted(opened)
    assert "has low 0.0, and its logits come to" in named
    shutil.rmtree(result)
    assert any("is gone" in fault for fault in openings.faults(opened))
    again = test_set.open_test(opened.load(tiny_record.id), store=opened, device="cpu", exploratory=True)
    assert again.metrics["again"] == 1


def test_a_result_that_was_put_there_by_hand_is_refused(opened: Store, tiny_record: Record, tmp_path: Path) -> None:
    other = Store(shutil.copytree(opened.writable, tmp_path / "other", ignore=shutil.ignore_patterns("*.jsonl")))
    with pytest.raises(RecordError, match="has no line in"):
        test_set.open_test(other.load(tiny_record.id), store=other, device="cpu", exploratory=True)


def test_a_torn_last_line_swallows_no_other(opened: Store) -> None:
    file = openings.log_of(opened.writable)
    with file.open("a") as log:
        log.write('{"event": "open')
    openings.append(file, {"event": "opening", "record": "0" * 12, "opened": "today"})
    assert json.loads(file.read_text().splitlines()[-1])["record"] == "0" * 12
    assert [line["event"] for line in openings.read(file)] == ["opening", "result", "opening"]
    assert not any("line 3" in fault for fault in openings.faults(opened))


@pytest.mark.parametrize("text", ["[]", "{", "1", '{"record": 1}', "[" * 100_000, "\x00"])
def test_a_line_that_is_no_opening_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "openings.jsonl").write_text(f"{text}\n")
    with pytest.raises(RecordError, match=r"line 1 is (torn|no opening)"):
        openings.read(tmp_path / "openings.jsonl")


def test_the_committed_log_agrees_with_the_committed_results() -> None:
    assert list(openings.faults(Store(committed_folder()))) == []


def test_verify_says_what_is_wrong(opened: Store, tiny_record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["records", "verify", "--out", str(opened.writable)]) == 0
    openings.log_of(opened.writable).unlink()
    assert main.main(["records", "verify", "--out", str(opened.writable)]) == 1
    assert "has no line in openings.jsonl" in capsys.readouterr().err
    assert read_record(opened.writable / tiny_record.id).id == tiny_record.id


def test_verify_finds_a_final_result_that_no_commit_had_declared(
    project: Path, tiny_record: Record, tmp_path: Path
) -> None:
    store = trained_from(tiny_record, git(project, "rev-parse", "HEAD"), tmp_path / "store")
    result = test_set.open_test(store.load(tiny_record.id), store=store, device="cpu")
    assert list(test_set.undeclared(store)) == []
    write_json(result.path / "metrics.json", {**result.metrics, "declaration": "0" * 64})
    write_sums(result.path)
    assert any("names another declaration" in fault for fault in test_set.undeclared(store))
    write_json(result.path / "metrics.json", result.metrics)
    write_sums(result.path)
    late = trained_from(tiny_record, git(project, "rev-parse", "HEAD~1"), tmp_path / "late")
    shutil.copytree(result.path, late.writable / tiny_record.id / "test")
    assert any("did not declare it final in commit" in fault for fault in test_set.undeclared(late))


@pytest.mark.slow
def test_a_changed_digit_anywhere_in_a_record_a_row_or_the_log_is_seen(
    opened: Store, tiny_record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"fingerprint": {"stamp": "shapes10"}}
    row = {"config": tiny(seed=7).to_dict(), "metrics": {"validation_accuracy": 0.5}, "provenance": made, "curve": []}
    trials = opened.writable / "made.trials.jsonl"
    trials.write_text(json.dumps({"id": tiny(seed=7).id, "trial": row, "sha256": row_sum(row)}) + "\n")
    verify = ["records", "verify", "--out", str(opened.writable)]
    assert main.main(verify) == 0
    for path in sorted(opened.writable.rglob("*")):
        whole = path.read_bytes() if path.suffix in (".json", ".csv", ".jsonl") or path.name == "SHA256SUMS" else b""
        places = [place for place in range(len(whole)) if whole[place : place + 1].isdigit()]
        for place in places[:: max(1, len(places) // 10)] + places[-1:]:
            digit = (int(whole[place : place + 1]) + 1) % 10
            path.write_bytes(whole[:place] + str(digit).encode() + whole[place + 1 :])
            assert main.main(verify) == 1, (path, place)
            assert "Traceback" not in capsys.readouterr().err
            path.write_bytes(whole)
    assert main.main(verify) == 0


def test_a_later_score_of_opened_weights_is_a_line_of_the_log_and_the_count_is_the_recorded_one(
    opened: Store, tiny_record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = test_set.find_test(tiny_record, opened)
    assert recorded is not None
    assert main.main(["test", tiny_record.id, "--out", str(opened.writable), "--log", "--device", "cpu"]) == 0
    assert f"{recorded.metrics['correct']:,} correct on the 2,000" in capsys.readouterr().out
    last = openings.read(openings.log_of(opened.writable))[-1]
    assert (last["event"], last["correct"]) == ("score", recorded.metrics["correct"])
    assert list(openings.faults(opened)) == []


def test_what_was_said_on_the_test_set_outlasts_the_weights(opened: Store, tiny_record: Record) -> None:
    said = test_set.find_test(tiny_record, opened)
    (opened.writable / tiny_record.id / WEIGHTS).unlink()
    load_or_run(tiny_record.config, QUIET, store=opened, keep_weights=True)
    kept = test_set.find_test(opened.load(tiny_record.id), opened)
    assert (kept.metrics, opened.load(tiny_record.id).has_weights) == (said.metrics, True)
    assert list(openings.faults(opened)) == []
