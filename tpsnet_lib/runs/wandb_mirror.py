"""Weights & Biases, optional: runs mirrored from training and from records. The records stay the truth."""

import contextlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

from tpsnet_lib.config import RunConfig
from tpsnet_lib.errors import brief, warn
from tpsnet_lib.files import project_root
from tpsnet_lib.runs.records import Record, flat_fields
from tpsnet_lib.runs.search_space import drawn_values
from tpsnet_lib.whole_files import write_whole

QUIET = {"silent": True, "console": "off", "disable_git": True, "x_disable_stats": True, "x_disable_meta": True}
SERVER = {"init_timeout": 10.0, "finish_timeout": 30.0, "finish_timeout_raises": True}  # seconds; only for `online`


class Mirror(contextlib.AbstractContextManager["Mirror"]):
    """Sends runs to W&B (`online`), or keeps them in `report/local/wandb` for `wandb sync` (`offline`); or `off`.

    Nothing raises or asks for a login: a failing `online` is told in a line and goes on as `offline`, then `off`."""

    def __init__(self, mode: str = "off") -> None:
        self.mode, self.folder = mode, project_root() / "report" / "local" / "wandb"
        self.run: Any = None  # of W&B, while it is open; its `step` counts the rows that were sent
        self.rows: list[dict[str, float]] = []  # of that run
        if mode != "off" and importlib.util.find_spec("wandb") is None:
            warn(f"--wandb {mode}: the package wandb is not installed (`pip install wandb`): going on without it")
            self.mode = "off"

    def epoch(self, config: RunConfig, group: str, label: str, row: dict[str, float]) -> None:
        """Add an epoch's row to the run in training; the first row opens the run."""
        self.rows.append(row)
        self._attempt(lambda: self._send(config, group, label))

    def record(self, record: Record, group: str, label: str) -> None:
        """Mirror a finished run (the end of it, if its epochs came before), once: a run sent before is left out."""
        if not any((self.folder / "mirrored" / mode / record.id).exists() for mode in (self.mode, "online")):
            self.rows = record.history()
            self._attempt(lambda: self._send(record.config, group, label, record))

    def __exit__(self, *_: object) -> None:
        """End a run whose training was cut short, and wait until W&B's own process has written everything."""
        self._attempt(lambda: self.wandb.teardown(exit_code=1))

    def _attempt(self, action: Callable[[], None]) -> None:
        while self.mode != "off":
            try:
                self.wandb: Any = importlib.import_module("wandb")  # here, as the import takes a second
                return action()
            except Exception as error:  # whatever it is, training goes on
                failed, self.mode, self.run = self.mode, "offline" if self.mode == "online" else "off", None
                warn(f"--wandb {failed}: {brief(error)}: going on as {self.mode}; runs and logs are in {self.folder}")
            with contextlib.suppress(Exception):
                self.wandb.teardown(exit_code=1)  # W&B lets go of the run's id

    def _send(self, config: RunConfig, group: str, label: str, record: Record | None = None) -> None:
        """Send the rows of a run that were not sent; with its record also its metrics, and end it."""
        self.run = self.run or self._open(config, group, label)
        for row in self.rows[self.run.step :]:
            self.run.log(row)
        if record is not None:
            self.run.config.update({"stamp": record.stamp, "hardware": record.hardware})
            self.run.summary.update(record.metrics)
            self.run.finish(exit_code=int(bool(record.failed)))
            self.run, self.rows = None, []
            write_whole(self.folder / "mirrored" / self.mode / record.id, "")

    def _open(self, config: RunConfig, group: str, label: str) -> Any:
        os.environ.setdefault("WANDB_CACHE_DIR", str(self.folder / "cache"))  # W&B's logs too stay in the folder
        settings = QUIET | SERVER if self.mode == "online" else QUIET
        self.wandb.setup(self.wandb.Settings(mode=self.mode, x_service_wait=300.0, **settings))
        if self.mode == "online" and not self.wandb.login(prompt=False, verify=False):
            raise RuntimeError("no key found (`wandb login` or WANDB_API_KEY)")
        names = {"id": config.id, "group": group, "name": label, "project": os.environ.get("WANDB_PROJECT", "tpsnet")}
        run = self.wandb.init(**names, dir=self.folder.parent, config={**flat_fields(config), **drawn_values(config)})
        run.define_metric("*", step_metric="epoch")
        return run
