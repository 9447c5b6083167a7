"""One training loop: from a run config and two sets of images to a trained network, resumable at any step."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tpsnet_lib import metrics, optim
from tpsnet_lib.compile_step import Lesson, resolve_execution
from tpsnet_lib.config import CLASSES, RunConfig
from tpsnet_lib.data.augment import augment, mix, permutation, shrink
from tpsnet_lib.data.datasets import ImageSet, normalise
from tpsnet_lib.device import prepare_device, resolve_device
from tpsnet_lib.files import Interrupted, RecordError, TrainingError, write_whole
from tpsnet_lib.model import ResidualNetwork, build, whiten
from tpsnet_lib.progress import Progress

CHECKPOINT_SECONDS = 60.0  # between checkpoints that are written at the end of an epoch
AT_ONCE = 8192  # images that a GPU augments together
_MAGIC = b"tpsnet-checkpoint-1\n"


@dataclass
class Fitted:
    """What training gives: the network, a row of figures an epoch, and what it took."""

    model: ResidualNetwork
    history: list[dict[str, float]]
    seconds: float
    images_per_second: float
    execution: str = "eager"  # of its last step, as in `compiled.EXECUTIONS`
    temperature: float = 1.0  # that suits it best on the validation images (Guo et al. 2017)


def fit(
    config: RunConfig,
    fit_set: ImageSet,
    validation: ImageSet,
    *,
    device: torch.device | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: str = "auto",
    deadline: float | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    execution: str = "auto",
) -> Fitted:
    """Train the network of `config` on `fit_set`, scoring it on `validation` after every epoch.

    All images live on the device; a batch is augmented there. Every random draw is keyed by (seed, epoch, image) or
    (seed, step), so a run resumed from `checkpoint` ends in the weights of the uninterrupted one, bit for bit on the
    CPU. An epoch leaves out the images that do not fill its last batch; the next epoch's order is another.
    `on_epoch` is called with each row of the history, first with those of the checkpoint; its time is not counted.
    `execution`: `auto`, or how a step is executed (`compiled.EXECUTIONS`); a checkpoint goes on under any.

    Raises `Interrupted` after Ctrl-C, SIGTERM or the `deadline` (of `time.monotonic`), with the checkpoint written;
    `TrainingError` when the loss is no longer a number (the last good checkpoint stays); `RecordError` for a
    checkpoint that is torn or of another run."""
    device = device or resolve_device()
    run = TrainingRun(config, fit_set.to(device), validation.to(device), device, execution)
    if resume and checkpoint is not None and checkpoint.exists():
        run.restore(read_checkpoint(checkpoint, config))
        run.tell(on_epoch, run.history)
    saved_at = time.monotonic()
    with _stop_requests() as stop, Progress(run.steps, "training", start=run.step, mode=progress) as bar:
        while run.step < run.steps:
            run.take_step()
            bar.advance()
            if run.epoch_ended:
                bar.stage(run.end_epoch())
                run.tell(on_epoch, run.history[-1:])
            ended = run.step == run.steps
            if deadline is not None and time.monotonic() > deadline:
                stop.set()
            due = run.epoch_ended and time.monotonic() - saved_at > CHECKPOINT_SECONDS and not ended
            if checkpoint is not None and (due or (stop.is_set() and not ended)):
                run.require_finite()
                write_checkpoint(checkpoint, run.state())
                saved_at = time.monotonic()
            if stop.is_set() and not ended:
                kept = f"; {checkpoint} holds it, --resume goes on" if checkpoint else ""
                raise Interrupted(f"stopped at step {run.step} of {run.steps}{kept}")
    return run.finish()


class TrainingRun:
    """The state of one training run and what changes it; everything in it goes into a checkpoint."""

    def __init__(
        self,
        config: RunConfig,
        fit_set: ImageSet,
        validation: ImageSet,
        device: torch.device,
        execution: str = "eager",
    ) -> None:
        self.config, self.recipe, self.device = config, config.train, device
        self.images, self.validation = fit_set, validation
        prepare_device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = build(config.model)
        whiten(self.model, normalise(fit_set.images[:5000].cpu()))
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optim.optimizer(self.model, self.recipe)
        self.ema = optim.Ema(self.model, self.recipe.ema_decay) if self.recipe.ema_decay else None
        self.batch = min(self.recipe.batch_size, len(fit_set))
        self.epoch_steps = len(fit_set) // self.batch
        self.steps = max(1, round(self.recipe.epochs * self.epoch_steps))
        self.rate = optim.schedule(self.recipe, self.epoch_steps, self.steps)
        self.mix_until = self.steps - self.recipe.mix_off_epochs * self.epoch_steps
        self.small_until = self.recipe.small_epochs * self.epoch_steps
        self.stem_until = self.recipe.stem_epochs * self.epoch_steps or math.inf
        execution = resolve_execution(execution, device, self.steps)
        self.lesson = Lesson(self.model, self.recipe.label_smoothing, self.recipe.precision == "bf16", execution)
        self.step, self.seconds, self.began = 0, 0.0, time.monotonic()
        self.history: list[dict[str, float]] = []
        self.one_hot = torch.eye(CLASSES, device=device)
        self.temperature = 1.0
        self.loss_sum = torch.zeros((), device=device)
        self.correct = torch.zeros((), device=device)
        self.first_bad = torch.full((), self.steps + 1, device=device)  # a step's number, or past the end
        self.order, self.order_epoch = torch.empty(0), -1
        self.ahead, self.shown = device.type != "cpu", torch.empty(0)

    def _open_epoch(self, epoch: int) -> None:
        """Draw an epoch's order. On a GPU augment all of its images too, as no draw depends on the batch: some of that
        waits for the device, and nothing in the epoch does then."""
        self.order, self.order_epoch = permutation(self.config.seed, epoch, len(self.images), self.device), epoch
        if self.ahead:
            parts = torch.split(self.order[: self.epoch_steps * self.batch], AT_ONCE)
            self.shown = torch.cat([self._augmented(part, epoch) for part in parts])

    def _augmented(self, positions: Tensor, epoch: int) -> Tensor:
        batch, indices = self.images.images.index_select(0, positions), self.images.indices[positions]
        return augment(batch, indices, self.recipe, self.config.seed, epoch)

    def take_step(self) -> None:
        """One batch: draw, augment, forward, backward, update. Nothing in it waits for the device."""
        epoch, k = divmod(self.step, self.epoch_steps)
        if self.order_epoch != epoch:
            self._open_epoch(epoch)
        part = slice(k * self.batch, (k + 1) * self.batch)
        positions = self.order[part]
        indices, labels = self.images.indices[positions], self.images.labels[positions]
        images = self.shown[part] if self.ahead else self._augmented(positions, epoch)
        inputs, targets = normalise(images), self.one_hot.index_select(0, labels)
        if self.step < self.mix_until:
            inputs, targets = mix(inputs, targets, indices, self.recipe, self.config.seed, epoch)
        if self.step < self.small_until:
            inputs = shrink(inputs, self.recipe.small_size)
        if self.step >= self.stem_until:
            self.model.stem.requires_grad_(False)
        optim.set_rate(self.optimizer, self.recipe.lr * self.rate(self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss, logits = self.lesson(inputs, targets, self.config.seed * 1_000_003 + self.step)  # the same after a resume
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model)
        self._count(loss, logits, labels)
        if self.device.type == "cpu":
            self.require_finite()

    def _count(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.step += 1
        self.loss_sum += loss
        self.correct += (logits.argmax(1) == labels).sum()
        here = torch.full_like(self.first_bad, self.step)
        self.first_bad = torch.where(torch.isfinite(loss), self.first_bad, torch.minimum(self.first_bad, here))

    def require_finite(self) -> None:
        """Raise `TrainingError` if any loss so far was not a number."""
        bad = int(self.first_bad)
        if bad <= self.steps:
            raise TrainingError(
                f"the loss is not a number at step {bad} of {self.steps} (epoch {(bad - 1) // self.epoch_steps + 1}):"
                f" lower train.lr (now {self.recipe.lr:g}) or set train.clip_norm"
            )

    @property
    def epoch_ended(self) -> bool:
        """Whether the step just taken was the last of its epoch or of the run."""
        return self.step % self.epoch_steps == 0 or self.step == self.steps

    def end_epoch(self) -> str:
        """Score the network on validation and add the epoch's row; returns it in a few words."""
        self.require_finite()
        seen = (self.step - 1) % self.epoch_steps + 1
        with self._averaged():
            logits = metrics.predict(self.model, self.validation.images, precision=self.recipe.precision)
        labels = self.validation.labels.cpu()
        if self.step == self.steps:
            self.temperature = metrics.temperature(logits, labels)
        self._clock()
        row = {
            "epoch": self.step / self.epoch_steps,
            "steps": float(self.step),
            "lr": self.recipe.lr * self.rate(self.step - 1),
            "train_loss": float(self.loss_sum) / seen,
            "train_accuracy": float(self.correct) / (seen * self.batch),
            "validation_loss": float(F.cross_entropy(logits, labels)),
            "validation_accuracy": metrics.accuracy(logits, labels),
            "seconds": self.seconds,
        }
        self.history.append(row)
        self.loss_sum.zero_()
        self.correct.zero_()
        total = self.steps / self.epoch_steps
        scored = "validation" if self.config.data.fit_on == "split" else "images fitted too"
        return (
            f"epoch {row['epoch']:.4g}/{total:.4g}, loss {row['train_loss']:.3f},"
            f" {scored} {100 * row['validation_accuracy']:.2f}%"
        )

    def tell(self, on_epoch: Callable[[dict[str, float]], None] | None, rows: list[dict[str, float]]) -> None:
        """Hand out rows of the history, right after the clock was read; the time that this takes is not the run's."""
        if on_epoch is not None:
            for row in rows:
                on_epoch(row)
            self.began = time.monotonic()

    def _clock(self) -> None:
        now = time.monotonic()
        self.seconds, self.began = self.seconds + now - self.began, now

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in place of the trained ones, for as long as the block lasts."""
        if self.ema is None:
            yield
            return
        trained = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema.average)
        try:
            yield
        finally:
            self.model.load_state_dict(trained)

    def finish(self) -> Fitted:
        """The trained network in evaluation mode, with the averaged weights if there are any."""
        if self.ema is not None:
            self.model.load_state_dict(self.ema.average)
        self.model.eval()
        rate = self.steps * self.batch / max(self.seconds, 1e-9)
        return Fitted(self.model, self.history, self.seconds, rate, self.lesson.execution, self.temperature)

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on from here."""
        self._clock()
        return {
            "config": self.config.to_dict(),
            "id": self.config.id,
            "images": len(self.images),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "sums": [self.loss_sum, self.correct],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state() if self.ema is not None else {},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state, which `read_checkpoint` has found to be of this run."""
        if state["images"] != len(self.images):
            raise RecordError(f"the checkpoint was fitted on {state['images']} images, this run has {len(self.images)}")
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self.loss_sum.copy_(state["sums"][0])
        self.correct.copy_(state["sums"][1])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.restore(state["ema"])
        self.began = time.monotonic()


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state whole or not at all, under the digest of its bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_whole(path, _MAGIC + hashlib.sha256(payload).digest() + payload)


def read_checkpoint(path: Path, config: RunConfig) -> dict[str, Any]:
    """The state in a checkpoint of this very run; a torn file, or one of another run, is a `RecordError`."""
    content = path.read_bytes()
    digest, payload = content[len(_MAGIC) : len(_MAGIC) + 32], content[len(_MAGIC) + 32 :]
    if not content.startswith(_MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise RecordError(f"{path} is torn or not a checkpoint: delete it to train from the start")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    if state["id"] != config.id:
        raise RecordError(f"{path} belongs to run {state['id']}, not to {config.id}: its config or network is another")
    return state


@contextlib.contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set while the block lasts, so that a step is never cut in two."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: event.set())
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
