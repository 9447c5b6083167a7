"""W&B mirrors what the records say, and is never in the way: no login, no wait, no run that fails because of it."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUIET, TINY, tiny
from forks import run as run_in_fork

from tpsnet_lib.cli import main
from tpsnet_lib.errors import Interrupted
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.record_files import write_failure
from tpsnet_lib.runs.records import Record, Store, read_record
from tpsnet_lib.runs.search_space import drawn_values
from tpsnet_lib.runs.wandb_mirror import Mirror

TRAIN = [word for section, fields in TINY.items() for name, value in fields.items()
         for word in ("--set", f"{section}.{name}={json.dumps(value)}")]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project to work in, and a home without a W&B key."""
    pytest.importorskip("wandb")
    (tmp_path / "pyproject.toml").write_text('name = "tpsnet"\n')
    (tmp_path / "report" / "experiments").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    ours = {"WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ERROR_REPORTING"}  # set by the mirror, unset again afterwards
    for name in ours | {name for name in os.environ if name.startswith("WANDB_")}:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    return tmp_path


def packets(path: Path) -> Iterator[Any]:
    """The records in a `.wandb` file: 7 bytes of header, then blocks of 32 KiB in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record as Packet

    content, at, whole = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Packet.FromString(whole)
            whole = b""


def read_back(path: Path) -> dict[str, Any]:
    """What an offline run holds: its names, config, rows, summary and exit code."""
    found: dict[str, Any] = {"config": {}, "rows": [], "summary": {}, "exit": None}
    for packet in packets(path):
        kind = packet.WhichOneof("record_type")
        if kind == "run":
            found.update(id=packet.run.run_id, name=packet.run.display_name, group=packet.run.run_group)
            found["config"].update({item.key: json.loads(item.value_json) for item in packet.run.config.update})
        elif kind == "config":
            found["config"].update({item.key: json.loads(item.value_json) for item in packet.config.update})
        elif kind == "history":
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in packet.history.item}
            found["rows"].append({key: value for key, value in row.items() if not key.startswith("_")})
        elif kind == "summary":
            items = packet.summary.update
            found["summary"].update({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
        elif kind == "exit":
            found["exit"] = packet.exit.exit_code
    return found


def runs(project: Path) -> list[Path]:
    """The offline runs of a project, in the order of their making."""
    return sorted((project / "report" / "local" / "wandb").glob("offline-run-*/*.wandb"))


def only_run(project: Path) -> dict[str, Any]:
    (path,) = runs(project)
    return read_back(path)


def approximately(rows: list[dict[str, float]]) -> list[Any]:
    return [pytest.approx(row, rel=1e-5) for row in rows]  # a record keeps six digits


@pytest.mark.slow
def test_an_offline_run_holds_what_its_record_says(project: Path, tiny_record: Record) -> None:
    with Mirror("offline") as mirror:
        mirror.record(tiny_record, "an experiment", "a label")
    found = only_run(project)
    assert (found["id"], found["group"], found["name"]) == (tiny_record.id, "an experiment", "a label")
    assert found["config"]["model.blocks"] == [1, 1]
    assert found["config"]["train.lr"] == 0.05
    assert found["config"]["data.dataset"] == found["config"]["stamp"] == "shapes10"
    assert found["config"].items() >= {**drawn_values(tiny_record.config), "seed": 0}.items()
    assert len(found["rows"]) == 2
    assert found["rows"] == tiny_record.history()
    assert found["summary"].items() >= tiny_record.metrics.items()
    assert found["exit"] == 0


def test_train_sends_each_epoch_and_the_metrics(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # the second time there is nothing to train and nothing to send
        assert main.main(["train", *TRAIN, "--device", "cpu", "--wandb", "offline"]) == 0
    (record,) = Store(project / "report" / "local" / "records").all()
    found = only_run(project)
    assert (found["id"], found["exit"]) == (record.id, 0)
    assert len(found["rows"]) == 2
    assert found["rows"] == approximately(record.history())
    assert found["summary"].items() >= record.metrics.items()
    assert "wandb" not in capfd.readouterr().err
    folder = project / "report" / "local" / "wandb"
    assert [path for path in project.rglob("*wandb*") if folder not in (path, *path.parents)] == []


def test_a_run_taken_up_again_is_mirrored_whole(project: Path) -> None:
    config, store = tiny(train__epochs=3), Store(project / "records")

    def train(stop_after: float) -> Record:
        with Mirror("offline") as mirror:

            def on_epoch(row: dict[str, float]) -> None:
                mirror.epoch(config, "g", "l", row)
                if row["epoch"] == stop_after:
                    os.kill(os.getpid(), signal.SIGTERM)

            record = load_or_run(config, replace(QUIET, on_epoch=on_epoch), store=store)
            mirror.record(record, "g", "l")
        return record

    with pytest.raises(Interrupted):
        train(stop_after=2)
    assert [(run["exit"], len(run["rows"])) for run in map(read_back, runs(project))] == [(1, 2)]
    record = train(stop_after=0)
    assert len(record.history()) == 3
    second = read_back(runs(project)[-1])
    assert (second["exit"], second["rows"]) == (0, approximately(record.history()))


@pytest.mark.slow
def test_run_mirrors_new_and_old_records_once_each(project: Path) -> None:
    experiment = {"question": "?", "base": TINY, "runs": [{"label": "a"}]}
    (project / "report" / "experiments" / "pair.yaml").write_text(yaml.safe_dump(experiment))
    command = ["run", "pair", "--device", "cpu"]
    assert main.main(command) == 0
    assert runs(project) == []
    experiment["runs"] += [{"label": "b", "train.lr": 0.01}]
    (project / "report" / "experiments" / "pair.yaml").write_text(yaml.safe_dump(experiment))
    for _ in range(2):
        assert main.main([*command, "--wandb", "offline"]) == 0
    found = [read_back(path) for path in runs(project)]
    records = Store(project / "report" / "local" / "records").all()
    assert len(records) == 2
    assert sorted(run["id"] for run in found) == [record.id for record in records]
    assert sorted(run["name"] for run in found) == ["a", "b"]
    assert {run["group"] for run in found} == {"pair"}
    for run in found:
        assert run["rows"] == next(record.history() for record in records if record.id == run["id"])


def test_a_failed_run_says_why(project: Path, tiny_record: Record) -> None:
    path = write_failure(project / "records", tiny(seed=7), "the loss is not a number", tiny_record.provenance)
    with Mirror("offline") as mirror:
        mirror.record(read_record(path), "g", "l")
    found = only_run(project)
    assert (found["summary"]["failed"], found["rows"], found["exit"]) == ("the loss is not a number", [], 1)


@pytest.mark.slow
def test_off_writes_nothing_and_imports_no_wandb(project: Path) -> None:
    code = (
        "import sys\nfrom tpsnet_lib.cli import main\ncode = main.main(sys.argv[1:])\n"
        "sys.exit(code or any(name.split('.')[0] == 'wandb' for name in sys.modules))"
    )
    environment = {**os.environ, "WANDB_MODE": "online"}
    assert (
        run_in_fork(code, "train", *TRAIN, "--device", "cpu", folder=project, environment=environment).returncode == 0
    )
    assert (project / "report" / "local" / "records").is_dir()
    assert not list(project.rglob("*wandb*"))


@pytest.mark.parametrize("key", ["", "0123456789" * 4])
@pytest.mark.slow
def test_online_without_a_key_or_a_server_goes_on_offline(project: Path, key: str) -> None:
    """In a process of its own, so that the end of W&B's own process is waited for too; the server's port is shut, and
    is not waited for as long as a server is."""
    code = (
        "import sys\nfrom tpsnet_lib.cli import main\nfrom tpsnet_lib.runs import wandb_mirror\n"
        "wandb_mirror.SERVER['init_timeout'] = 2.0\nsys.exit(main.main(sys.argv[1:]))"
    )
    environment = {**os.environ, "WANDB_BASE_URL": "http://127.0.0.1:9"} | ({"WANDB_API_KEY": key} if key else {})
    words = ["train", *TRAIN, "--device", "cpu", "--wandb", "online"]
    done = run_in_fork(code, *words, folder=project, environment=environment)
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if "wandb" in line]
    assert warning.startswith("tpsnet: --wandb online: " + ("" if key else "no key found"))
    assert str(project / "report" / "local" / "wandb") in warning
    found = only_run(project)
    assert (len(found["rows"]), found["exit"]) == (2, 0)


def test_without_the_package_it_says_so_and_trains(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main.main(["train", *TRAIN, "--device", "cpu", "--wandb", "offline"]) == 0
    out, err = capsys.readouterr()
    assert "validation accuracy" in out
    (line,) = [line for line in err.splitlines() if "wandb" in line]
    assert "is not installed" in line


@pytest.mark.parametrize("part", ["log", "finish", "define_metric"])
def test_an_error_of_wandb_stops_neither_training_nor_the_record(
    part: str, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("W&B is broken\nin many lines")

    monkeypatch.setattr(wandb.Run, part, broken)
    assert main.main(["train", *TRAIN, "--device", "cpu", "--wandb", "offline"]) == 0
    out, err = capsys.readouterr()
    assert "validation accuracy" in out
    (line,) = [line for line in err.splitlines() if "W&B" in line]
    assert line.startswith("tpsnet: --wandb offline: W&B is broken in many lines: going on as off; ")
