"""A plan of `card_plan` carried out: so many minutes of a card, in one command or in several that go on with it.

Beside the records lies `card.json`: when the minutes began, the speed that is planned with, and of every part the
minutes that were predicted and those that it took. What a crash leaves behind is gone on with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tpsnet_lib.analysis.cost import run_flops
from tpsnet_lib.config import RunConfig
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.files import TpsnetError, project_root, read_json, write_json, write_whole
from tpsnet_lib.runs import card_plan, export
from tpsnet_lib.runs.card_plan import PACK_MINUTES, Scale
from tpsnet_lib.runs.experiments import Experiment, experiments_folder, load_experiment, pending
from tpsnet_lib.runs.local_backend import RunOptions, run_all
from tpsnet_lib.runs.provenance import commit, git, hardware, now
from tpsnet_lib.runs.records import Store

PIECE = 14 * 2**20  # bytes of a file that travels
MOST_FILES, MOST_BYTES = 8, 62 * 2**20  # that travel together
Measure = Callable[[], dict[str, Any]]  # with `speed`: the FLOP/s of runs side by side
Bench = tuple[float, Callable[[], dict[str, Any]]]  # minutes, as predicted, and what measures


@dataclass
class Card:
    """Minutes of a card, and how they are spent: `minutes` from the first command on, of which this one has
    `options.minutes`. `measure` says how fast the card is; without it, a share of its peak is assumed."""

    minutes: float
    scale: Scale
    options: RunOptions
    measure: Measure | None = None
    benches: Mapping[str, Bench] = field(default_factory=dict)  # after the queue
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        began, where = time.time(), resolve_device(self.options.device)
        self.store: Store = self.options.store
        self.cuda, self.precision = where.type == "cuda", native_precision(where)
        if self.path.is_file():
            self.state = read_json(self.path)
        else:
            self.state = {"began": began, "started": now(), "minutes": self.minutes, "hardware": hardware(where)}
            self.state |= {"speed": 0.0, "experiments": {}, "parts": []}
        self.ends = self.state["began"] + 60 * (self.state["minutes"] - PACK_MINUTES)
        if self.options.minutes is not None:
            self.ends = min(self.ends, began + 60 * (self.options.minutes - PACK_MINUTES))
        if self.left <= 0:
            over = f"the {self.state['minutes']:g} minutes that began at {self.state['started']} are over"
            raise TpsnetError(f"{over}: delete {self.path} to begin others")
        for name, text in self.state["experiments"].items():  # of an earlier command, on a machine that lost them
            if not _file(name).exists():
                write_whole(_file(name), text)

    @property
    def path(self) -> Path:
        """Where the state is kept."""
        return self.store.writable / "card.json"

    @property
    def left(self) -> float:
        """Minutes that are left to this command."""
        return float(self.ends - time.time()) / 60

    @property
    def left_of_all(self) -> float:
        """Minutes that are left to this command and those after it."""
        return float(self.state["began"] - time.time()) / 60 + float(self.state["minutes"]) - PACK_MINUTES

    def spend(self) -> bool:
        """Do what comes next until the time is up or nothing waits; returns whether something still waits.

        Raises `TpsnetError` where the winner cannot be declared, or runs could not be finished; `Interrupted` after
        Ctrl-C, with checkpoints."""
        names = {part: f"{self.scale.prefix}_{part}" for part in ("choices", "members", "best", "best_split")}
        _require_clean_tree()
        if not _file(names["best"]).exists() and not self._choose(names):
            return True
        if names["best"] in self.state["experiments"]:
            self._require_declaration([_file(name) for name in names.values()])
        both = [load_experiment(names["best"]), load_experiment(names["best_split"])]
        if not self._run(both, len(self.scale.seeds) + 1):
            return True
        done = [self._run([load_experiment(name)], beside, queued=True) for name, beside in self.scale.queue.items()]
        return not all([*done, *(self._bench(name) for name in self.benches)])

    def _choose(self, names: Mapping[str, str]) -> bool:
        """Try the choices and declare the best; False when the time was up before."""
        if not self.state["speed"]:
            self.state["bench"] = self.measure() if self.measure else {"speed": card_plan.PEAK * card_plan.SHARE}
            self.state["speed"] = self.state["bench"]["speed"]
            self._save()
        if not _file(names["choices"]).exists():
            tried = card_plan.choices(self.scale, self.precision, self.state["minutes"], self._speed())
            self._write(names["choices"], "Which ways of making the images harder pay in a short run?", tried)
        choices = load_experiment(names["choices"])
        if not self._run([choices], len(choices.runs)):
            return False
        label, record = card_plan.winner([choices], self.store)
        if not _file(names["members"]).exists():
            tried = card_plan.members(self.scale, label, record.config)
            self._write(names["members"], "Do ASAM or other networks pay, for as many operations?", tried)
        members = load_experiment(names["members"])
        if not self._run([members], len(members.runs)):
            return False
        label, record = card_plan.winner([choices, members], self.store)
        run = card_plan.best(self.scale, record.config, self.left_of_all, self._speed())
        split = replace(run, data=record.config.data)
        question = f"What does the best choice on validation images ({label}) reach in the minutes that were left?"
        self._write(names["best_split"], "What does it reach on images that it was not fitted on?", {label: split})
        self._write(names["best"], question, {label: run}, self.scale.seeds, final=True)
        return True

    def _speed(self) -> float:
        """FLOP/s of the card: of the parts that were run here so far, else as it was measured at first."""
        done = [part for part in self.state["parts"] if part["finished"] and part["flops"]]
        flops = sum(part["flops"] for part in done)
        return flops / (60 * sum(part["minutes"] for part in done)) if done else float(self.state["speed"])

    def _write(
        self, name: str, question: str, runs: Mapping[str, RunConfig], seeds: Sequence[int] = (0,), final: bool = False
    ) -> None:
        minutes = card_plan.predicted_minutes(list(runs.values()) * len(seeds), self._speed())
        text = card_plan.declaration(question, runs, minutes, seeds, final)
        self.state["experiments"][name] = text
        self.state["declared_from"] = commit()
        write_whole(_file(name), text)
        self._save()

    def _run(self, experiments: list[Experiment], beside: int, queued: bool = False) -> bool:
        """Run what waits of some experiments, so many side by side on a card; whether nothing waits any more.

        Runs that are `queued` start only if they end within the plan's minutes, unless they were begun."""
        waiting = pending(experiments, self.store)
        if not waiting or self.left <= 0:
            return not waiting
        configs = [run.config.with_precision(self.precision) for _, run in waiting]
        each = card_plan.predicted_minutes(configs[:beside], self._speed())
        begun = any(self.store.checkpoint(config.id).is_file() for config in configs)
        if queued and each > self.left_of_all and not begun:
            return False
        name = experiments[0].name
        part = next((part for part in self.state["parts"] if part["name"] == name), None)
        if part is None:
            part = {"name": name, "runs": len(configs), "epochs": configs[0].train.epochs, "minutes": 0.0}
            part |= {"predicted_minutes": card_plan.predicted_minutes(configs, self._speed()), "finished": False}
            part["flops"] = sum(run_flops(config) for config in configs)
            self.state["parts"].append(part)
            self._save()
        began, before = time.time(), part["minutes"]
        if killed := part.pop("since", None):  # nothing says how long it ran: all of the time since counts
            before += (began - killed) / 60
        part["since"] = began
        jobs = [(replace(experiment, minutes=each), run) for experiment, run in waiting]

        def note(*_: Any) -> None:
            part["minutes"] = before + (time.time() - began) / 60
            self._save()

        beside = beside if self.cuda else 1
        try:
            run_all(jobs, replace(self.options, workers=beside, minutes=self.left, on_record=note))
        finally:
            part["finished"] = not pending(experiments, self.store)
            del part["since"]
            note()
        return bool(part["finished"])

    def _bench(self, name: str) -> bool:
        """Measure what has its result in the state then, if there is time; whether it is measured."""
        minutes, measure = self.benches[name]
        measured = self.state.setdefault("benches", {})
        if name not in measured and minutes <= self.left:
            began = time.time()
            measured[name] = measure()
            part = {"name": name, "runs": 1, "epochs": 0, "predicted_minutes": minutes, "finished": True, "flops": 0}
            self.state["parts"].append(part | {"minutes": (time.time() - began) / 60})
            self._save()
        return name in measured

    def _save(self) -> None:
        write_json(self.path, self.state)

    def _require_declaration(self, files: list[Path]) -> None:
        """Commit the declaration; where no git is, it goes home first and comes back with its commit."""
        if _has_git():
            _commit(files, f"Declare what {self.state['minutes']:g} minutes of a card are spent on")
        elif commit() == self.state["declared_from"]:
            names = " ".join(file.relative_to(project_root()).as_posix() for file in files)
            raise TpsnetError(
                f"the best is declared: commit {names}, then run the same command with TPSNET_COMMIT as that commit"
            )

    def pack(self, folder: Path) -> list[Path]:
        """Write what goes home into a folder, in files that may travel: the state, the declarations, the finished
        records of the store and, where there is room, the checkpoint of a run that is not finished."""
        folder.mkdir(parents=True, exist_ok=True)
        self._save()
        write_json(folder / "card.json", self.state)
        finished = [r for r in Store(self.store.writable).all() if not r.failed and r.path.is_dir()]
        files = [folder / "card.json"]
        for name, text in self.state["experiments"].items():
            write_whole(folder / "experiments" / f"{name}.yaml", text)
            files.append(folder / "experiments" / f"{name}.yaml")
        if finished:
            files += export.export_pieces(finished, folder / "records.tar", PIECE)
        for checkpoint in sorted(self.store.writable.glob(".work/*/checkpoint")):
            size = sum(file.stat().st_size for file in files) + checkpoint.stat().st_size
            if size <= MOST_BYTES and len(files) + -(-checkpoint.stat().st_size // PIECE) <= MOST_FILES:
                files += export.split_file(checkpoint, folder / f"checkpoint.{checkpoint.parent.name}", PIECE)
        return files

    def table(self) -> str:
        """What was predicted beside what was measured, for people."""
        head = f"{'part':<22}{'runs':>5}{'epochs':>8}{'predicted':>12}{'measured':>12}"
        return "\n".join([head, *map(_row, self.state["parts"])])


def _row(part: Mapping[str, Any]) -> str:
    took = f"{part['minutes']:.1f} min" if part["finished"] else "not finished"
    predicted = f"{part['predicted_minutes']:.1f} min"
    return f"{part['name']:<22}{part['runs']:>5}{part['epochs']:>8g}{predicted:>12}{took:>14}"


def _file(name: str) -> Path:
    return experiments_folder() / f"{name}.yaml"


def _has_git() -> bool:
    return "TPSNET_COMMIT" not in os.environ and commit() != "unknown"


def _require_clean_tree() -> None:
    """Before minutes are spent: what is declared in them must stand in a clean commit."""
    if _has_git() and commit().endswith("+"):
        raise TpsnetError("tracked files differ from the commit, so nothing can be declared from it: commit them first")
    if not _has_git() and "TPSNET_COMMIT" not in os.environ:
        raise TpsnetError("there is no git here: give the commit of this copy as TPSNET_COMMIT")


def _commit(files: list[Path], message: str) -> None:
    """Commit files that differ from the last commit."""
    names = "--", *map(str, files)
    added = git("add", *names)
    if git("diff", "--cached", "--quiet", *names).returncode == 0 and not added.returncode:
        return
    if (done := git("commit", "-q", "-m", message, *names)).returncode:
        reason = (done.stderr or done.stdout).decode(errors="replace").strip()[:200]
        raise TpsnetError(f"git could not commit the declaration: {reason}")
