"""Weights & Biases, optional: runs mirrored from training and from records. The records stay the truth."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tpsnet_lib.config import RunConfig
from tpsnet_lib.files import project_root, write_whole
from tpsnet_lib.runs.experiments import Experiment, Run, collect
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.search_space import drawn_values

_NEXT = {"online": "offline", "offline": "off"}  # what is left after an error
_SETTINGS = {  # nothing printed, nothing about the machine, and never a long wait for the server (in seconds)
    "silent": True, "console": "off", "disable_git": True, "disable_code": True, "disable_job_creation": True,
    "x_disable_stats": True, "x_disable_meta": True, "x_save_requirements": False,
    "init_timeout": 10.0, "finish_timeout": 30.0, "finish_timeout_raises": True,
}  # fmt: skip


class Mirror:
    """Sends runs to W&B, or keeps them in `report/local/wandb` for `wandb sync`; a run's id is its record's.

    Use it as a context manager. Nothing here raises, asks for a login or holds up training for long: what goes wrong
    is one line on standard error, after which `online` goes on as `offline`, and `offline` as `off`."""

    def __init__(self, mode: str = "off", folder: Path | None = None) -> None:
        """Mirror in a mode (`off`, `offline` or `online`) under `folder / "wandb"`, by default `report/local/wandb`."""
        self.mode = mode
        self._wandb: Any = None
        self._run: Any = None
        self._rows: dict[str, list[dict[str, float]]] = {}  # by id, of what is not finished
        self._sent = 0
        if mode != "off":
            self._folder = folder or project_root() / "report" / "local"
            self._attempt(self._load)

    def epoch(self, config: RunConfig, group: str, label: str, row: Mapping[str, float]) -> None:
        """Add an epoch's row to a run in training; the first row opens the run."""
        if self.mode != "off":
            self._rows.setdefault(config.id, []).append(dict(row))
            self._attempt(lambda: self._send(config, group, label))

    def record(self, record: Record, group: str, label: str) -> None:
        """Mirror a finished run (the end of it, if its epochs came before), once: a run sent before is left out."""
        if self.mode == "off" or any(self._mark(mode, record.id).exists() for mode in {self.mode, "online"}):
            return
        self._rows[record.id] = record.history()
        self._attempt(lambda: self._finish(record, group, label))
        del self._rows[record.id]

    def follow(self, experiments: Sequence[Experiment], store: Store) -> Callable[[Run, Record], None]:
        """Mirror the records that experiments have; returns what mirrors each that is still to come (`on_record`)."""
        groups = {run.config: experiment.name for experiment in experiments for run in experiment.runs}

        def on_record(run: Run, record: Record) -> None:
            self.record(record, groups.get(run.config, "run"), run.label)

        for run, record in (pair for e in experiments if self.mode != "off" for pair in collect(e, store)):
            if record is not None:
                on_record(run, record)
        return on_record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close a run whose training was cut short, and W&B's own process."""
        if self._wandb is not None:
            self._attempt(lambda: self._close(failed=True))
            self._attempt(lambda: self._wandb.teardown(exit_code=0))

    def _attempt(self, action: Callable[[], None]) -> None:
        while self.mode != "off":
            try:
                return action()
            except ImportError:
                self._say("the package wandb is not installed (`pip install wandb`): going on without it")
                self.mode = "off"
            except Exception as error:  # whatever it is, training goes on
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                what = f"runs are kept in {self._folder / 'wandb'}" if self.mode == "online" else "going on without it"
                self._say(f"{reason}: {what}")
                self.mode, self._run, self._sent = _NEXT[self.mode], None, 0
                with contextlib.suppress(Exception):
                    self._wandb.teardown(exit_code=1)  # it lets go of the run's id

    def _say(self, text: str) -> None:
        print(f"tpsnet: --wandb {self.mode}: {text}", file=sys.stderr)

    def _load(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in ("CACHE", "DATA"):  # W&B's logs too stay in the folder
            os.environ.setdefault(f"WANDB_{name}_DIR", str(self._folder / "wandb" / name.lower()))
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb = wandb
        wandb.setup(wandb.Settings(silent=True, mode="online" if self.mode == "online" else "offline"))
        if self.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no key found (`wandb login` or WANDB_API_KEY)")

    def _send(self, config: RunConfig, group: str, label: str) -> None:
        if self._run is not None and self._run.id != config.id:
            self._close(failed=True)
        if self._run is None:
            self._run = self._open(config, group, label)
        for row in self._rows[config.id][self._sent :]:
            self._run.log(row)
            self._sent += 1

    def _open(self, config: RunConfig, group: str, label: str) -> Any:
        sections = {name: asdict(getattr(config, name)) for name in ("model", "train", "data")}
        fields = {f"{section}.{name}": value for section, of in sections.items() for name, value in of.items()}
        run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tpsnet"),
            dir=str(self._folder),
            id=config.id,
            name=label,
            group=group,
            mode=self.mode,
            config={"group_id": config.group_id, "seed": config.seed, **fields, **drawn_values(config)},
            settings=self._wandb.Settings(**_SETTINGS),
        )
        run.define_metric("*", step_metric="epoch")
        return run

    def _finish(self, record: Record, group: str, label: str) -> None:
        self._send(record.config, group, label)
        self._run.config.update({"stamp": record.stamp, "hardware": record.hardware})
        self._run.summary.update(record.metrics)
        self._close(failed=bool(record.failed))
        write_whole(self._mark(self.mode, record.id), "")

    def _close(self, failed: bool) -> None:
        run, self._run, self._sent = self._run, None, 0
        if run is not None:
            run.finish(exit_code=int(failed))

    def _mark(self, mode: str, run_id: str) -> Path:
        return self._folder / "wandb" / "mirrored" / mode / run_id
