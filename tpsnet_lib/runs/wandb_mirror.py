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

    Nothing here raises or asks for a login: what goes wrong is one line on standard error, after which `online` goes on
    as `offline`, and `offline` as `off`. A run's id is its record's."""

    def __init__(self, mode: str = "off") -> None:
        self.mode, self.folder = mode, project_root() / "report" / "local" / "wandb"
        self.run: Any = None  # of W&B, while it is open; its `step` counts the rows that were sent
        self.rows: list[dict[str, float]] = []  # of that run

    def epoch(self, config: RunConfig, group: str, label: str, row: dict[str, float]) -> None:
        """Add an epoch's row to the run in training; the first row opens the run."""
        self.rows.append(row)
        self._attempt(lambda: self._send(config, group, label))

    def record(self, record: Record, group: str, label: str) -> None:
        """Mirror a finished run (the end of it, if its epochs came before), once: a run sent before is left out."""
        if not any((self.folder / "mirrored" / mode / record.id).exists() for mode in (self.mode, "online")):
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
        self._attempt(_end)

    def _attempt(self, action: Callable[[], object]) -> None:
        while self.mode != "off":
            try:
                action()
                return
            except Exception as error:  # whatever it is, training goes on
                missing, failed = isinstance(error, ImportError), self.mode
                reason = "the package wandb is not installed (`pip install wandb`)" if missing else str(error).strip()
                self.mode = "offline" if failed == "online" and not missing else "off"
                way_out = f"runs are kept in {self.folder}" if self.mode == "offline" else "going on without it"
                warn(f"--wandb {failed}: {(reason or type(error).__name__).splitlines()[0]}: {way_out}")
                self.run = None
                with contextlib.suppress(Exception):
                    _end()  # W&B lets go of the run's id

    def _send(self, config: RunConfig, group: str, label: str, record: Record | None = None) -> None:
        """Send the rows of a run that were not sent; with its record also its metrics, and end it."""
        self.run = self.run or self._open({"id": config.id, "group": group, "name": label}, config)
        for row in self.rows[self.run.step :]:
            self.run.log(row)
        if record is not None:
            self.run.config.update({"stamp": record.stamp, "hardware": record.hardware})
            self.run.summary.update(record.metrics)
            self.run.finish(exit_code=int(bool(record.failed)))
            self.run, self.rows = None, []
            write_whole(self.folder / "mirrored" / self.mode / record.id, "")

    def _open(self, names: dict[str, Any], config: RunConfig) -> Any:
        for name in ("CACHE", "DATA"):  # W&B's logs too stay in the folder
            os.environ.setdefault(f"WANDB_{name}_DIR", str(self.folder / name.lower()))
        self.folder.mkdir(parents=True, exist_ok=True)
        import wandb

        settings = QUIET | (SERVER if self.mode == "online" else {})
        wandb.setup(wandb.Settings(mode=self.mode, x_service_wait=300.0, **settings))  # type: ignore[arg-type]
        if self.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no key found (`wandb login` or WANDB_API_KEY)")
        project, fields = os.environ.get("WANDB_PROJECT", "tpsnet"), {**flat_fields(config), **drawn_values(config)}
        run = wandb.init(**names, project=project, dir=self.folder.parent, config=fields)
        run.define_metric("*", step_metric="epoch")
        return run


def _end() -> None:
    """End a run whose training was cut short, and wait until W&B's own process has written everything."""
    if wandb := sys.modules.get("wandb"):
        wandb.teardown(exit_code=1)
