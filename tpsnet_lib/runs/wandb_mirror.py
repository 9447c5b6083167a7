"""Weights & Biases, optional: runs mirrored from training and from records. The records stay the truth."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tpsnet_lib.config import RunConfig
from tpsnet_lib.files import project_root, warn, write_whole
from tpsnet_lib.runs.experiments import Experiment, Run, collect
from tpsnet_lib.runs.records import Record, Store, flat_fields
from tpsnet_lib.runs.search_space import drawn_values

QUIET = {"silent": True, "console": "off", "disable_git": True, "x_disable_stats": True, "x_disable_meta": True}
SERVER = {"init_timeout": 10.0, "finish_timeout": 30.0, "finish_timeout_raises": True}  # seconds; only for `online`


class Mirror(contextlib.AbstractContextManager["Mirror"]):
    """Sends runs to W&B (`online`), or keeps them in `report/local/wandb` for `wandb sync` (`offline`); or `off`.

    Use it as a context manager. Nothing here raises or asks for a login: what goes wrong is one line on standard error,
    after which `online` goes on as `offline`, and `offline` as `off`. A run's id is its record's."""

    def __init__(self, mode: str = "off") -> None:
        self.mode, self.folder = mode, project_root() / "report" / "local" / "wandb"
        self.run: Any = None  # of W&B, while it is open
        self.rows: list[dict[str, float]] = []  # of that run, of which the first are `sent`
        self.sent = 0

    def epoch(self, config: RunConfig, group: str, label: str, row: dict[str, float]) -> None:
        """Add an epoch's row to the run in training; the first row opens the run."""
        self.rows.append(row)
        self._attempt(lambda: self._send(config, group, label))

    def record(self, record: Record, group: str, label: str) -> None:
        """Mirror a finished run (the end of it, if its epochs came before), once: a run sent before is left out."""
        marks = [self.folder / "mirrored" / mode / record.id for mode in (self.mode, "online")]
        if not any(mark.exists() for mark in marks):
            self.rows = record.history()
            self._attempt(lambda: self._send(record.config, group, label, record))

    def follow(self, experiments: Sequence[Experiment], store: Store) -> Callable[[Run, Record], None]:
        """Mirror the records that experiments have; returns what mirrors each that is still to come (`on_record`)."""
        groups = {run.config: experiment.name for experiment in experiments for run in experiment.runs}
        for run, record in (pair for e in experiments if self.mode != "off" for pair in collect(e, store)):
            if record is not None:
                self.record(record, groups[run.config], run.label)
        return lambda run, record: self.record(record, groups[run.config], run.label)

    def __exit__(self, *_: object) -> None:
        self._attempt(self._end)

    def _end(self) -> None:
        """End a run whose training was cut short, and wait until W&B's own process has written everything."""
        if self.run is not None:
            self.run.finish(exit_code=1)
        if (wandb := sys.modules.get("wandb")) is not None:
            wandb.teardown()

    def _attempt(self, action: Callable[[], object]) -> None:
        while self.mode != "off":
            try:
                action()
                return
            except Exception as error:  # whatever it is, training goes on
                missing = isinstance(error, ImportError)
                reason = "the package wandb is not installed (`pip install wandb`)" if missing else str(error).strip()
                next_mode = "offline" if self.mode == "online" and not missing else "off"
                way_out = f"runs are kept in {self.folder}" if next_mode == "offline" else "going on without it"
                line = (reason or type(error).__name__).splitlines()[0]
                warn(f"--wandb {self.mode}: {line}: {way_out}")
                self.mode, self.run, self.sent = next_mode, None, 0
                with contextlib.suppress(Exception):
                    sys.modules["wandb"].teardown(exit_code=1)  # it lets go of the run's id

    def _send(self, config: RunConfig, group: str, label: str, record: Record | None = None) -> None:
        """Send the rows of a run that are not sent; with its record also its metrics, and end it."""
        self.run = self.run or self._open({"id": config.id, "group": group, "name": label}, config)
        for row in self.rows[self.sent :]:
            self.run.log(row)
            self.sent += 1
        if record is not None:
            self.run.config.update({"stamp": record.stamp, "hardware": record.hardware})
            self.run.summary.update(record.metrics)
            self.run.finish(exit_code=int(bool(record.failed)))
            self.run, self.rows, self.sent = None, [], 0
            write_whole(self.folder / "mirrored" / self.mode / record.id, "")

    def _open(self, names: dict[str, Any], config: RunConfig) -> Any:
        for name in ("CACHE", "DATA"):  # W&B's logs too stay in the folder
            os.environ.setdefault(f"WANDB_{name}_DIR", str(self.folder / name.lower()))
        self.folder.mkdir(parents=True, exist_ok=True)
        import wandb

        wandb.setup(wandb.Settings(silent=True, mode=self.mode, x_service_wait=300.0))  # type: ignore[arg-type]
        if self.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no key found (`wandb login` or WANDB_API_KEY)")
        names |= {"project": os.environ.get("WANDB_PROJECT", "tpsnet"), "dir": str(self.folder.parent)}
        settings = wandb.Settings(**QUIET, **(SERVER if self.mode == "online" else {}))  # type: ignore[arg-type]
        fields = {**flat_fields(config), **drawn_values(config)}
        run = wandb.init(**names, mode=self.mode, settings=settings, config=fields)  # type: ignore[arg-type]
        run.define_metric("*", step_metric="epoch")
        return run
