"""A plan of `card_plan` carried out: minutes of a card, spent by one command or by several that go on with it.

Beside the records lies `card.json`: when the minutes began, the speed that is planned with, and of every part the
minutes that were predicted and those that it took, of a bench its result too. Where git is, results are committed as
they come; where none is, `report/card.sh` packs them, and `bring_home` commits them on the machine that has it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tpsnet_lib import captured_step
from tpsnet_lib.config import RunConfig
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.files import TpsnetError, project_root, read_json, write_json, write_whole
from tpsnet_lib.runs import card_plan, publish
from tpsnet_lib.runs.card_plan import PACK_MINUTES, Part, Row, Scale
from tpsnet_lib.runs.experiments import collect, experiments_folder, load_experiment, pending
from tpsnet_lib.runs.local_backend import RunOptions, run_all
from tpsnet_lib.runs.provenance import commit, git, hardware, now
from tpsnet_lib.runs.records import Store, committed_folder
from tpsnet_lib.runs.search_results import Job, Unfinished


def begin(minutes: float, scale: Scale, options: RunOptions) -> CardRun:
    """A plan of so many minutes, or the one that was begun, of which this command has `options.minutes`.

    Raises `TpsnetError` where the minutes are over."""
    began, path = time.time(), options.store.writable / "card.json"
    state: dict[str, Any] = {"began": began, "started": now(), "minutes": minutes, "speed": 0.0}
    state |= {"hardware": hardware(resolve_device(options.training.device)), "experiments": {}, "parts": []}
    if path.is_file():
        state = read_json(path)
    ends = state["began"] + 60 * (state["minutes"] - PACK_MINUTES)
    if options.minutes is not None:
        ends = min(ends, began + 60 * (options.minutes - PACK_MINUTES))
    run = CardRun(scale, options, path, state, ends)
    if run.left <= 0:
        over = f"the {state['minutes']:g} minutes that began at {state['started']} are over"
        raise TpsnetError(f"{over}: delete {path} to begin others")
    run.restore_experiments()
    return run


@dataclass
class CardRun:
    """Minutes of a card, and how they are spent; see `begin`."""

    scale: Scale
    options: RunOptions
    path: Path  # of the state
    state: dict[str, Any]
    ends: float  # by `time.time()`, of this command

    @property
    def left(self) -> float:
        """Minutes that are left to this command."""
        return (self.ends - time.time()) / 60

    @property
    def left_of_all(self) -> float:
        """Minutes that are left to this command and those after it."""
        return float(self.state["began"] - time.time()) / 60 + float(self.state["minutes"]) - PACK_MINUTES

    def spend(self) -> list[str]:
        """Do what comes next until the time is up or nothing waits; returns the names of what still waits.

        Raises `TpsnetError` where no choice could be finished or nothing can be declared; `Interrupted` after Ctrl-C,
        with checkpoints."""
        _require_clean_tree()
        best = self._name("best")
        if not (_file(best).exists() or self._choose()) or not self._train_best():
            return [best, *self.scale.queue]
        return [name for name, row in self.scale.queue.items() if not self._do(name, row)]

    def _train_best(self) -> bool:
        """Train the declared runs, once their declaration is committed; whether nothing waits of them any more."""
        files = [_file(name) for name in self.state["experiments"]]
        if files and _has_git():
            _commit(files, f"Declare what {self.state['minutes']:g} minutes of a card are spent on")
        elif not self._is_declared():
            names = " ".join(file.relative_to(project_root()).as_posix() for file in files)
            way_on = f"bring home and commit {names}, and write the commit to {self.path.with_name('declared')}"
            print(f"tpsnet: the best is declared: {way_on}", flush=True)
        return self._run([self._name("best"), self._name("best_split")], len(self.scale.seeds) + 1)

    def _do(self, name: str, row: Row) -> bool:
        """Do a row of the queue if its minutes are left; whether nothing waits of it any more."""
        return self._bench(name, row) if "minutes" in row else self._run([name], row["workers"], queued=True)

    def _name(self, part: str) -> str:
        return f"{self.scale.prefix}_{part}"

    def _choose(self) -> bool:
        """Try the choices and declare the best; False when the time was up before."""
        choices, members = self._name("choices"), self._name("members")
        if not self.state["speed"]:
            self._bench("bench card", self.scale.bench)
            self.state["bench"] = measured(self.path.with_name("bench_card.json"))
            self.state["speed"] = self.state["bench"]["speed"]
            self._save()
        if not _file(choices).exists():
            precision = native_precision(resolve_device(self.options.training.device))
            tried = card_plan.choices(self.scale, precision, self.state["minutes"], self._speed())
            self._declare(choices, "Which ways of making the images harder pay in a short run?", tried)
        if not self._run([choices], len(self.scale.recipes)):
            return False
        label, record = card_plan.winner([choices], self.options.store)
        if not _file(members).exists():
            tried = card_plan.members(self.scale, label, record.config)
            self._declare(members, "Do ASAM or other networks pay, for as many operations?", tried)
        if not self._run([members], 1 + len(self.scale.members)):
            return False
        label, record = card_plan.winner([choices, members], self.options.store)
        run = card_plan.best(self.scale, record.config, self.left_of_all, self._speed())
        split = {label: replace(run, data=record.config.data)}
        self._declare(self._name("best_split"), "What does it reach on images that it was not fitted on?", split)
        question = f"What does the best choice on validation images ({label}) reach in the minutes that were left?"
        self._declare(self._name("best"), question, {label: run}, self.scale.seeds, final=True)
        return True

    def _speed(self) -> float:
        """FLOP/s of the card: of the parts that were run here so far, else as it was measured at first."""
        done = [part for part in self.state["parts"] if part["finished"] and part["runs"]]
        flops = sum(part["flops"] for part in done)
        return flops / (60 * sum(part["minutes"] for part in done)) if done else float(self.state["speed"])

    def _declare(
        self, name: str, question: str, runs: Mapping[str, RunConfig], seeds: Sequence[int] = (0,), final: bool = False
    ) -> None:
        minutes = card_plan.predicted_minutes(list(runs.values()) * len(seeds), self._speed())
        self.state["experiments"][name] = card_plan.declaration(question, runs, minutes, seeds, final)
        self.state["declared_from"] = commit()
        write_whole(_file(name), self.state["experiments"][name])
        self._save()

    def _run(self, names: Sequence[str], workers: int, queued: bool = False) -> bool:
        """Run what waits of some experiments, so many side by side on a card; whether nothing waits any more but runs
        that could not be finished, which are named.

        Runs that are `queued` start only if they end within the plan's minutes, unless they were begun. Those of a
        declaration that is not committed yet wait for that; the others come first."""
        experiments, store = [load_experiment(name) for name in names], self.options.store
        waiting = sorted(pending(experiments, store), key=lambda job: job[0].final)
        if not waiting or self.left <= 0:
            return not waiting
        device = resolve_device(self.options.training.device)
        configs = [run.config.with_precision(native_precision(device)) for _, run in waiting]
        minutes = card_plan.predicted_minutes(configs[:workers], self._speed())
        begun = any(store.checkpoint(config.id).is_file() for config in configs)
        if queued and minutes > self.left_of_all and not begun:
            return False
        jobs = [(replace(experiment, minutes=minutes), run) for experiment, run in waiting]
        workers = workers if captured_step.can_capture(device) else 1
        with self._timed(card_plan.part_of(names[0], configs, self._speed())) as part:
            try:
                run_all(jobs, replace(self.options, workers=workers, minutes=self.left, ready=self._is_ready))
            finally:
                part["finished"] = not pending(experiments, store)
        return self._is_over(part)

    def _bench(self, name: str, row: Row) -> bool:
        """Measure what `tpsnet bench` measures, if its result is not there and its minutes are left, in a process whose
        memory and whose errors on a card are its own; whether it waits no more."""
        file = self.path.with_name(f"{name.replace(' ', '_')}.json")
        if file.is_file() or row["minutes"] > self.left:
            return file.is_file()
        call = [sys.executable, "-m", "tpsnet_lib", *name.split(), *row.get("options", "").split(), "--json"]
        call += ["--device", resolve_device(self.options.training.device).type]
        call += ["--data", str(self.options.root)] if self.options.root else []
        with self._timed(card_plan.bench_part(name, row)) as part:
            try:
                done = subprocess.run(call, stdout=subprocess.PIPE, timeout=60 * self.left, check=True)
            except subprocess.SubprocessError as error:
                raise Unfinished(f"{name}: {error}") from error
            part["result"] = json.loads(done.stdout)
            part["finished"] = True
            write_json(file, part["result"])
        return self._is_over(part)

    def _is_over(self, part: Part) -> bool:
        """Whether nothing waits any more of a part that was begun; what has come of it is committed where that can be.

        Of a store that lies elsewhere nothing belongs to this project's history."""
        if _has_git() and self.path.resolve().is_relative_to(project_root().resolve()):
            keep_results(self.options.store, self.state)
        return bool(part["finished"]) or ("lost" in part and self.left > 0)

    @contextlib.contextmanager
    def _timed(self, part: Part) -> Iterator[Part]:
        """A part, in the state, whose minutes grow by those of the block; those of a process that was killed in it
        count until now, as nothing says how long it ran. What of it could not be finished is named and noted."""
        parts, began = self.state["parts"], time.time()
        if (known := next((each for each in parts if each["name"] == part["name"]), None)) is None:
            parts.append(known := part | {"minutes": 0.0, "finished": False})
        known["minutes"] += (began - known.pop("since", began)) / 60
        known["since"] = began
        known.pop("lost", None)
        self._save()
        try:
            yield known
        except Unfinished as error:
            known["lost"] = str(error)
            print(f"tpsnet: {error}; the plan goes on without", file=sys.stderr)
        finally:
            known["minutes"] += (time.time() - known.pop("since")) / 60
            self._save()

    def _save(self) -> None:
        write_json(self.path, self.state)

    def restore_experiments(self) -> None:
        """Write the plan's declarations where they are missing, as in a tree that was brought anew."""
        for name, text in self.state["experiments"].items():
            if not _file(name).exists():
                write_whole(_file(name), text)

    def _is_declared(self) -> bool:
        """Whether the declarations are committed; where no git is, a file says in which commit."""
        if _has_git() or "declared_from" not in self.state:
            return True
        if (file := self.path.with_name("declared")).is_file():
            os.environ["TPSNET_COMMIT"] = file.read_text("utf-8").strip()
        return bool(commit() != self.state["declared_from"])

    def _is_ready(self, job: Job) -> bool:
        """Whether a run may be trained: a final one once its declaration is committed."""
        if job[0].final and not self._is_declared():
            return False
        self.restore_experiments()
        return True


def measured(path: Path) -> dict[str, Any]:
    """What `tpsnet bench card` wrote to a file. Where that is nothing that can be planned with, the share of the peak
    that is assumed, with a line that says so."""
    try:
        bench = read_json(path)
        if 0 < float(bench["speed"]) < math.inf:
            return dict(bench)
        reason = f"its speed is {bench['speed']}"
    except (TpsnetError, LookupError, TypeError, ValueError) as error:
        reason = str(error)
    print(f"tpsnet: the card is not measured ({reason}), so a usual speed is planned with", file=sys.stderr)
    return {"speed": card_plan.PEAK * card_plan.SHARE}


def bring_home(state_file: Path, store: Store) -> str:
    """Commit what a plan has come to on a machine without git, whose records are in the store by now: declarations,
    and what was measured. Returns the commit that the card is to be told.

    Raises `TpsnetError` where tracked files differ from the commit."""
    _require_clean_tree()
    state = read_json(state_file)
    for name, text in state["experiments"].items():
        write_whole(_file(name), text)
    if state["experiments"]:
        _commit([_file(name) for name in state["experiments"]], f"Declare what {state['minutes']:g} minutes buy")
    keep_results(store, state)
    return commit()


def keep_results(store: Store, state: Mapping[str, Any]) -> None:
    """Commit what a plan has come to so far: its state, the records of its final runs with their weights, and those of
    its other experiments as the rows of a file each."""
    target = committed_folder()
    files = [target / "card.json"]
    write_json(files[0], dict(state))
    for name in dict.fromkeys([*state["experiments"], *(part["name"] for part in state["parts"] if part["runs"])]):
        experiment = load_experiment(name)
        records = [record for _, record in collect(experiment, store) if record is not None]
        if experiment.final:
            files += [publish.publish_record(each, target, weights=True) for each in records if each.has_weights]
        elif records:
            files.append(target / f"{name}.trials.jsonl")
            publish.write_trials(files[-1], records)
    _commit(files, f"What {state['minutes']:g} minutes of a card have come to")


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
