"""Processes that die at a file operation: killed, by a power cut that takes what was not synced, or interrupted.

Whatever the moment, what was finished stays, and the same command, given again, ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from . import HANG, HELD, LOST, TRACEBACK, WRONG, Outcome
from .operations import DEAD, Operation, Operations
from .scenes import ask, command, config, copy, in_a_process, numbers, project, train_words, workshop

EVERY = int(os.environ.get("TPSNET_KILL_POINTS", "1000"))  # operations of a scene and a mode that are tried at most
MODES = {"kill": EVERY, "power cut": EVERY, "interrupt": min(EVERY, 8)}
SHORT = 1  # in the short form
RECORD = "/[0-9a-f]{12}$"  # the end of a fact's name that is a record
TIMES = {"seconds", "images_per_second", "started", "finished", "opened", "command"}


@dataclass(frozen=True)
class Scene:
    """A state of a project, and the command that dies in it."""

    name: str
    before: tuple[tuple[str, ...], ...]  # commands that lead to the state
    act: Callable[[], int]  # the command
    after: tuple[tuple[str, ...], ...] = ()  # commands after which what it wrote is compared
    prepare: Callable[[], object] = field(default=lambda: None)
    all_or_none: bool = False  # of its records


def scenes() -> list[Scene]:
    """What is killed. Each state has a finished record that stands by and must stay as it is."""
    words = [tuple(train_words(seed)) for seed in (1, 2, 3)]
    ids = [config(seed).id for seed in (1, 2, 3)]
    test = ("test", ids[0], "--exploratory", "--device", "cpu")
    export = ("records", "export", "--out", "sent.tar")
    elsewhere = ("--out", "elsewhere")
    brought = ("records", "import", "sent.tar", *elsewhere)
    return [
        Scene("train", (words[1],), command(*words[0])),
        Scene("replace", (words[1],), command(*words[0]), prepare=_without_weights),
        Scene("fail", (words[1],), _too_large),
        Scene("open", (words[1], words[0]), command(*test)),
        Scene("publish", (words[1], words[0], test), command("records", "publish", *ids[:2], "--weights")),
        Scene("publish trials", (*words,), command("records", "publish", "e")),
        Scene("export", (words[1], words[0]), command(*export), (brought,)),
        Scene("import", (*words, export), command(*brought), all_or_none=True),
    ]


def _without_weights() -> None:
    """The record of a run that was kept without weights, as a search keeps it."""
    from tpsnet_lib.runs.load_or_run import load_or_run
    from tpsnet_lib.train import TrainOptions

    load_or_run(config(1), TrainOptions("cpu", progress="none"))


def _too_large() -> int:
    """A run that cannot be finished, as a worker of a search tries it."""
    from tpsnet_lib import train
    from tpsnet_lib.runs.local_backend import WorkerSettings, work
    from tpsnet_lib.runs.records import default_store

    def batches(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    train.batches = batches  # type: ignore
    try:
        work(config(4), False, WorkerSettings(default_store(), training=train.TrainOptions("cpu")))
    except KeyboardInterrupt:
        return 130
    return 0


def facts() -> dict[str, Any]:
    """All that is kept in a project, without the times that differ from run to run."""
    from tpsnet_lib.runs import openings
    from tpsnet_lib.runs.records import Store, committed_folder, local_folder
    from tpsnet_lib.runs.test_set import find_test

    found: dict[str, Any] = {}
    for folder in (local_folder(), committed_folder(), Path("elsewhere").resolve()):
        store, name = Store(folder), folder.parent.name + "/" + folder.name
        for record in store.all():
            result = find_test(record, store)
            found[f"{name}/{record.id}"] = {
                "metrics": _timeless(record.metrics),
                "weights": _weights(record) if record.has_weights else "",
                "test": _timeless(result.metrics) if result else {},
            }
        found[f"{name} faults"] = [str(fault)[:200] for fault in openings.faults(store)]
        lines = [(line.get("event"), line.get("record")) for line in openings.read(openings.log_of(folder))]
        found[f"{name} log"] = sorted({f"{event} {record}" for event, record in lines})
    allowed = {".locks", ".lock", ".work", ".openings.jsonl.lock"}
    dots = [path for path in Path().rglob(".*") if path.name not in allowed]
    found["left over"] = sorted(map(str, dots + [path for path in Path().rglob(".work/*") if any(path.rglob("*"))]))
    return found


def _timeless(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in TIMES}


def _weights(record: Any) -> str:
    state = record.load_model().state_dict()
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()


def training(short: bool) -> Iterator[Outcome]:
    """Kills of what makes records."""
    yield from outcomes(short, ("train", "replace", "fail"))


def opening(short: bool) -> Iterator[Outcome]:
    """Kills of the opening of the test set, and of publishing."""
    yield from outcomes(short, ("open", "publish", "publish trials"))


def carrying(short: bool) -> Iterator[Outcome]:
    """Kills of export and import."""
    yield from outcomes(short, ("export", "import"))


def outcomes(short: bool, names: Sequence[str]) -> Iterator[Outcome]:
    """Some scenes, every mode, every operation."""
    with workshop() as shop:
        project(shop / "new")
        for scene in (scene for scene in scenes() if scene.name in names):
            state = state_of(scene, shop / "state")
            finished = ask(state, facts)
            total, whole = undisturbed(scene, copy(state, shop / "tried"))
            if whole == finished:
                raise RuntimeError(f"{scene.name}: the command changes nothing, so nothing can be lost")
            for mode, at_most in MODES.items():
                if short and mode == "interrupt":
                    continue
                last = total + (mode == "power cut")  # which may also come after the end
                for number in numbers(last, SHORT if short else at_most):
                    yield _tried(scene, mode, number, copy(state, shop / "tried"), finished, whole)


def state_of(scene: Scene, folder: Path) -> Path:
    copy(folder.with_name("new"), folder)
    for words in scene.before:
        if (end := in_a_process(folder, command(*words))).code:
            raise RuntimeError(f"{scene.name}: {words[0]} ended with {end.code}: {end.said}")
    ask(folder, scene.prepare)
    return folder


def undisturbed(scene: Scene, folder: Path) -> tuple[int, dict[str, Any]]:
    """The number of operations of a scene's command, and the facts at its end."""

    def act() -> int:
        operations = Operations(folder, lambda operation: None)
        operations.install()
        scene.act()
        return operations.count

    total = ask(folder, act)
    return total, _after(scene, folder)


def _after(scene: Scene, folder: Path) -> dict[str, Any]:
    for words in scene.after:
        in_a_process(folder, command(*words))
    found: dict[str, Any] = ask(folder, facts)
    return found


def again(act: Callable[[], int]) -> dict[str, Any]:
    """What the next process finds at its start, and what is there when it has ended."""
    from tpsnet_lib.runs.records import default_store

    default_store()
    default_store("elsewhere")
    start = facts()
    code = act()
    return {"start": start, "code": code, "facts": facts()}


def _stands(before: dict[str, Any], now: dict[str, Any] | None) -> bool:
    """Whether a record is as it was; one kept without weights, or not opened, may have them by now."""
    return now is not None and all(now[part] == value for part, value in before.items() if value)


def _tried(
    scene: Scene, mode: str, number: int, folder: Path, finished: dict[str, Any], whole: dict[str, Any]
) -> Outcome:
    def act() -> int:
        def at(operation: Operation) -> None:
            if operation.number != number:
                return
            (folder.parent / "where").write_text(f"{operation.name} {Path(operation.path).relative_to(folder)}")
            operation.half()
            if mode == "interrupt":
                raise KeyboardInterrupt
            if mode == "power cut":
                operations.power_cut()
            os._exit(DEAD)

        operations = Operations(folder, at)
        operations.install()
        code = scene.act()
        if mode == "power cut":
            operations.power_cut()
        return code

    (folder.parent / "where").write_text("after the end")
    first = in_a_process(folder, act)
    where = (folder.parent / "where").read_text()
    fault = f"{scene.name}, {mode} at operation {number} ({where})"
    if first.code is None:
        return Outcome(fault, HANG)
    if "Traceback" in first.said:
        return Outcome(fault, TRACEBACK, first.said)
    try:
        found = ask(folder, partial(again, scene.act))
    except RuntimeError as error:
        return Outcome(fault, TRACEBACK, str(error))
    if found["code"] != 0 and not scene.after:
        return Outcome(fault, WRONG, f"the command given again ended with {found['code']}")
    if mode == "power cut" and first.code == 0 and not scene.after:  # it came after the end: what was done stays done
        finished = whole
    lost = gone(scene, finished, whole, found, folder)
    return Outcome(fault, LOST if lost else HELD, lost)


def gone(scene: Scene, finished: dict[str, Any], whole: dict[str, Any], found: dict[str, Any], folder: Path) -> str:
    """What is lost after a fault, in words: of what was finished at the next start, of all when the command has been
    given `again`; nothing, as a rule."""
    kept = {name: fact for name, fact in finished.items() if re.search(RECORD, name)}
    if differ := [name for name, fact in kept.items() if not _stands(fact, found["start"].get(name))]:
        return f"at the next start {differ} differ"
    if scene.all_or_none:
        new = [name for name in whole if re.search(RECORD, name) and name not in finished]
        if 0 < len([name for name in new if name in found["start"]]) < len(new):
            return "some came, and some did not"
    at_last = _after(scene, folder) if scene.after else found["facts"]
    for name in whole.keys() | at_last.keys():
        if whole.get(name) != at_last.get(name):
            return f"{name}: {whole.get(name)} became {at_last.get(name)}"
    return ""
