"""Weights & Biases, optional: runs mirrored from training and from records. The records stay the truth."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tpsnet_lib.config import RunConfig
from tpsnet_lib.files import project_root, write_whole
from tpsnet_lib.runs.experiments import Experiment, Run, collect
from tpsnet_lib.runs.records import Record, Store, flat_fields
from tpsnet_lib.runs.search_space import drawn_values

SETTINGS: dict[str, Any] = {  # nothing printed, nothing about the machine, no long wait for the server (seconds)
    "silent": True,
    "console": "off",
    "disable_git": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "init_timeout": 10.0,
    "finish_timeout": 30.0,
    "finish_timeout_raises": True,
}


class Mirror(contextlib.AbstractContextManager["Mirror"]):
    """Sends runs to W&B (`online`), or keeps them in `report/local/wandb` for `wandb sync` (`offline`); or `off`.

    Use it as a context manager. Nothing here raises or asks for a login: what goes wrong is one line on standard error,
    after which `online` goes on as `offline`, and `offline` as `off`. A run's id is its record's."""

    def __init__(self, mode: str = "off") -> None:
        self.mode, self._sent = mode, 0
        self._run: Any = None
        self._rows: dict[str, list[dict[str, float]]] = {}  # by id, of runs that are not finished
        if mode != "off":
            self._folder = project_root() / "report" / "local" / "wandb"
            self._attempt(self._load)

    def epoch(self, config: RunConfig, group: str, label: str, row: Mapping[str, float]) -> None:
        """Add an epoch's row to a run in training; the first row opens the run."""
        self._rows.setdefault(config.id, []).append(dict(row))
        self._attempt(lambda: self._log(config, group, label))

    def record(self, record: Record, group: str, label: str) -> None:
        """Mirror a finished run (the end of it, if its epochs came before), once: a run sent before is left out."""
        if self.mode != "off" and not any(self._mark(mode, record.id).exists() for mode in {self.mode, "online"}):
            self._rows[record.id] = record.history()
            self._attempt(lambda: self._finish(record, group, label))

    def follow(self, experiments: Sequence[Experiment], store: Store) -> Callable[[Run, Record], None]:
        """Mirror the records that experiments have; returns what mirrors each that is still to come (`on_record`)."""
        groups = {run.config: experiment.name for experiment in experiments for run in experiment.runs}
        for run, record in (pair for e in experiments if self.mode != "off" for pair in collect(e, store)):
            if record is not None:
                self.record(record, groups[run.config], run.label)
        return lambda run, record: self.record(record, groups.get(run.config, "run"), run.label)

    def __exit__(self, *_: object) -> None:
        self._attempt(lambda: self._close(failed=True))  # a run whose training was cut short

    def _attempt(self, action: Callable[[], None]) -> None:
        while self.mode != "off":
            try:
                return action()
            except Exception as error:  # whatever it is, training goes on
                no_package = isinstance(error, ImportError)
                keeps = self.mode == "online" and not no_package
                way_out = f"runs are kept in {self._folder}" if keeps else "going on without it"
                missing = "the package wandb is not installed (`pip install wandb`)"
                text = missing if no_package else str(error).strip() or type(error).__name__
                print(f"tpsnet: --wandb {self.mode}: {text.splitlines()[0]}: {way_out}", file=sys.stderr)
                self.mode, self._run, self._sent = ("offline" if keeps else "off"), None, 0
                with contextlib.suppress(Exception):
                    sys.modules["wandb"].teardown(exit_code=1)  # it lets go of the run's id

    def _load(self) -> None:
        for name in ("CACHE", "DATA"):  # its logs too stay in the folder
            os.environ.setdefault(f"WANDB_{name}_DIR", str(self._folder / name.lower()))
        self._folder.mkdir(parents=True, exist_ok=True)
        import wandb

        wandb.setup(wandb.Settings(silent=True, mode="online" if self.mode == "online" else "offline"))
        if self.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no key found (`wandb login` or WANDB_API_KEY)")

    def _log(self, config: RunConfig, group: str, label: str) -> None:
        import wandb

        if self._run is not None and self._run.id != config.id:
            self._close(failed=True)
        if self._run is None:
            project, folder = os.environ.get("WANDB_PROJECT", "tpsnet"), str(self._folder.parent)
            names: dict[str, Any] = {"project": project, "dir": folder, "id": config.id, "name": label, "group": group}
            settings, fields = wandb.Settings(**SETTINGS), {**flat_fields(config), **drawn_values(config)}
            self._run = wandb.init(**names, mode=self.mode, settings=settings, config=fields)  # type: ignore[arg-type]
            self._run.define_metric("*", step_metric="epoch")
        for row in self._rows[config.id][self._sent :]:
            self._run.log(row)
            self._sent += 1

    def _finish(self, record: Record, group: str, label: str) -> None:
        self._log(record.config, group, label)
        self._run.config.update({"stamp": record.stamp, "hardware": record.hardware})
        self._run.summary.update(record.metrics)
        self._close(failed=bool(record.failed))
        write_whole(self._mark(self.mode, record.id), "")

    def _close(self, failed: bool) -> None:
        run, self._run, self._sent = self._run, None, 0
        if run is not None:
            run.finish(exit_code=int(failed))

    def _mark(self, mode: str, run_id: str) -> Any:
        return self._folder / "mirrored" / mode / run_id
