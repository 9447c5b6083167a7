"""The state of a training run: what changes from step to step, and the figures of its epochs."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tpsnet_lib import metrics, optim
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.batches import batch_size, run_steps
from tpsnet_lib.data.datasets import ImageSet, normalise
from tpsnet_lib.errors import RecordError, TrainingError, brief, warn
from tpsnet_lib.model import ResNet, build
from tpsnet_lib.whitening import whiten

ROW = ("epoch", "steps", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds")


@dataclass
class TrainState:
    """A run after some number of steps: the network, what trains it, and its figures so far.

    `images` is the number of images that are fitted, `step` the number of steps taken, `seconds` the time that they
    took, `history` a row of figures for each epoch that has ended."""

    config: RunConfig
    images: int
    model: ResNet
    optimizer: torch.optim.Optimizer
    ema: optim.Ema | None
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    validation_logits: Tensor | None = None  # float [N, classes], on the CPU, of the last epoch that was scored
    temperature: float = 1.0  # the best one on the validation images after the last step (Guo et al. 2017)
    execution: str = "eager"  # of the last step, one of `compile_step.EXECUTIONS`

    def __post_init__(self) -> None:
        size = batch_size(self.config.train, self.images)
        self.shown = size * self.config.train.copies  # images that the network sees in a step, copies included
        self.epoch_steps = self.images // size  # of an epoch; images that do not fill its last batch are left out
        self.steps = run_steps(self.config.train, self.images)  # of the run
        self.threads = [[self.step, torch.get_num_threads()]]  # from which step on a CPU had how many
        device = self.model.head.weight.device
        self.loss_sum = torch.zeros((), device=device)  # over the steps of this epoch
        self.correct = torch.zeros((), device=device)  # images shown in this epoch and classified correctly
        self.finite = torch.ones((), device=device)  # 1 until a loss is not a number
        self.finite_steps = torch.zeros((), device=device)  # of this process, before that
        self.first_step = 0  # of this process
        self.clock = time.monotonic()

    @property
    def epoch_ended(self) -> bool:
        """Whether the last step was the last one of its epoch or of the run."""
        return self.step % self.epoch_steps == 0 or self.step == self.steps

    @property
    def images_per_second(self) -> float:
        """Images trained on in each second so far, copies included."""
        return self.step * self.shown / max(self.seconds, 1e-9)

    def add_figures(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a step, of logits [B, classes] and labels [B], to its epoch's figures, without waiting for the device.

        A GPU may replay it, which runs none of its Python: so all of it is in tensors, and steps are counted apart."""
        self.loss_sum += loss
        self.correct += (logits.argmax(1) == labels).sum()
        self.finite *= torch.isfinite(loss)
        self.finite_steps += self.finite

    def count(self) -> None:
        """Count a step that was taken."""
        self.step += 1

    def require_finite(self) -> None:
        """Raise `TrainingError` if any loss so far was not a number. This waits for the device."""
        bad = self.first_step + int(self.finite_steps) + 1
        if bad <= self.step:
            raise TrainingError(
                f"the loss is not a number at step {bad} of {self.steps} (epoch {(bad - 1) // self.epoch_steps + 1}):"
                f" lower train.lr (now {self.config.train.lr:g}) or set train.clip_norm"
                f"{', or look into your block' if self.config.model.own_block else ''}"
            )

    def end_epoch(self, logits: Tensor, labels: Tensor, lr: float) -> dict[str, float]:
        """Add the epoch's row to the history, and return it.

        `logits` float [N, classes] and `labels` int64 [N], on the CPU, are those of the validation images, `lr` is the
        learning rate of the last step. Raises `TrainingError` as `require_finite` does."""
        self.require_finite()
        self.validation_logits = logits
        if self.step == self.steps:
            self.temperature = metrics.temperature(logits, labels)
        steps = (self.step - 1) % self.epoch_steps + 1  # of this epoch
        self.stop_clock()
        row = {
            "epoch": self.step / self.epoch_steps,
            "steps": float(self.step),
            "lr": lr,
            "train_loss": float(self.loss_sum) / steps,
            "train_accuracy": float(self.correct) / (steps * self.shown),
            "validation_loss": float(F.cross_entropy(logits, labels)),
            "validation_accuracy": metrics.accuracy(logits, labels),
            "seconds": self.seconds,
        }
        self.history.append(row)
        self.loss_sum.zero_()
        self.correct.zero_()
        return row

    def in_words(self, row: dict[str, float]) -> str:
        """A row of the history, for a line of progress."""
        scored = "validation" if self.config.data.fit_on == "split" else "images fitted too"
        return (
            f"epoch {row['epoch']:.4g}/{self.steps / self.epoch_steps:.4g} done, loss {row['train_loss']:.3f},"
            f" {scored} {100 * row['validation_accuracy']:.2f}%"
        )

    def stop_clock(self) -> None:
        """Add the time since the clock was started to `seconds`."""
        now = time.monotonic()
        self.seconds, self.clock = self.seconds + now - self.clock, now

    def start_clock(self) -> None:
        """Count time from now on."""
        self.clock = time.monotonic()

    @contextlib.contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Leave the time that a block takes out of `seconds`."""
        self.stop_clock()
        yield
        self.start_clock()

    def to_dict(self) -> dict[str, Any]:
        """All that a later process needs to continue from here."""
        return {
            "config": self.config.to_dict(),
            "id": self.config.id,
            "images": self.images,
            "step": self.step,
            "seconds": self.seconds,
            "threads": self.threads,
            "history": self.history,
            "sums": [self.loss_sum, self.correct],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state() if self.ema is not None else {},
        }

    def restore(self, saved: dict[str, Any], path: Path | str = "the checkpoint") -> None:
        """Continue from a checkpoint of this run, as `read_checkpoint` returns it.

        Raises `RecordError` that names its `path` if it was fitted on another number of images, or does not fit."""
        if (images := saved.get("images")) != self.images:
            raise RecordError(f"{path} was fitted on {brief(images)} images, this run has {self.images}")
        try:
            self._take(saved)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise RecordError(f"{path} does not fit this run ({brief(error)}): delete it to start anew") from error
        self.start_clock()

    def _take(self, saved: dict[str, Any]) -> None:
        self.step, self.seconds, self.history = saved["step"], saved["seconds"], saved["history"]
        if type(self.step) is not int or not 0 <= self.step <= self.steps or not 0 <= self.seconds < 1e12:
            raise ValueError(f"step {brief(self.step)} after {brief(self.seconds)} s")
        if any(row.keys() != set(ROW) or not all(isinstance(row[name], float) for name in ROW) for row in self.history):
            raise ValueError("its history has other figures")
        self.first_step = self.step
        self._take_threads(saved.get("threads", [[0, 0]]))  # 0: a checkpoint that does not say it
        self.loss_sum.copy_(saved["sums"][0])
        self.correct.copy_(saved["sums"][1])
        self.model.load_state_dict(saved["model"])
        before = _kinds(self.optimizer)
        optim.load_state(self.optimizer, saved["optimizer"])
        if before != _kinds(self.optimizer) or not _is_whole(self.optimizer):
            raise ValueError("its optimizer is another")
        if self.ema is not None:
            self.ema.restore(saved["ema"])

    def _take_threads(self, known: list[list[int]]) -> None:
        """Take the steps from which on there were how many threads; another number from now on is added, and said."""
        if not known or any(len(pair) != 2 or set(map(type, pair)) != {int} for pair in known):
            raise ValueError("its counts of threads are none")
        before, now = known[-1][1], torch.get_num_threads()
        self.threads = known if now == before else [*known, [self.step, now]]
        if now != before and self.loss_sum.device.type == "cpu":
            began = f" and was trained with {before}" if before else ""
            warn(f"this run goes on with {now} thread(s){began}: its weights depend on it, and its record says so")


def _kinds(optimizer: torch.optim.Optimizer) -> list[dict[str, type]]:
    """The types of an optimizer's settings, a mapping a group."""
    return [{name: type(value) for name, value in group.items()} for group in optimizer.param_groups]


def _is_whole(optimizer: torch.optim.Optimizer) -> bool:
    """Whether what an optimizer keeps of any parameter (a momentum, a count of steps), it keeps of each that is
    trained: a count from 0 on, or a tensor of the parameter's shape."""
    params = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    names = {name for state in optimizer.state.values() for name, value in state.items() if value is not None}

    def fits(p: Tensor, name: str) -> bool:
        value = optimizer.state.get(p, {}).get(name)
        if name == "step":
            value = torch.as_tensor(value)
            return value.shape == () and bool(0 <= value < 1e12)
        return isinstance(value, Tensor) and value.shape == p.shape

    return all(fits(p, name) for p in params for name in names)


def initial_model(config: RunConfig, fit_set: ImageSet, device: torch.device) -> ResNet:
    """The network of a config with the first weights of its seed, on a device; a whitened stem is fitted to images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build(config.model)
    whiten(model, normalise(fit_set.images[:5000].cpu()))
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
