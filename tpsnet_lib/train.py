"""Training: one loop, read from top to bottom, from a run config and two sets of images to a trained network."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpsnet_lib import metrics, optim
from tpsnet_lib.asam import Asam
from tpsnet_lib.bf16_products import bf16_products
from tpsnet_lib.captured_step import CapturedStep, executed
from tpsnet_lib.checkpoint import Checkpoints, read_checkpoint
from tpsnet_lib.compile_step import ForwardLoss, resolve_execution
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.augment import mix, shrink
from tpsnet_lib.data.batches import Batch, Phase, batches, run_steps
from tpsnet_lib.data.datasets import ImageSet, normalise
from tpsnet_lib.device import prepare_device, resolve_device
from tpsnet_lib.distillation import Teacher
from tpsnet_lib.fast_cpu.optimize import optimize
from tpsnet_lib.progress import Progress
from tpsnet_lib.train_state import TrainState, initial_model


@dataclass(frozen=True)
class TrainOptions:
    """How a run is carried out, from the command line to `fit`. None of this belongs to the run's id."""

    device: str | torch.device = "auto"  # auto: the best one of this machine
    execution: str = "auto"  # or one of `compile_step.EXECUTIONS`; a checkpoint is continued under any
    checkpoint: Path | None = None  # the file that keeps an interrupted run; a store has its own
    resume: bool = True  # continue from the checkpoint if it exists
    deadline: float | None = None  # of `time.monotonic`: end the run after it as Ctrl-C does
    progress: str = "auto"  # a mode of `Progress`
    teachers: Sequence[nn.Module] = ()  # the networks of the records that the recipe names
    on_epoch: Callable[[dict[str, float]], None] | None = None  # gets each row of the history, first the restored ones


def fit(
    config: RunConfig, fit_set: ImageSet, validation: ImageSet, options: TrainOptions = TrainOptions()
) -> TrainState:
    """Train to the end: the state after the last step of `training_steps`, which says what is raised.

    The network is in evaluation mode, with the averaged weights if the recipe averages them."""
    *_, state = training_steps(config, fit_set, validation, options)  # the last of them
    return state


def training_steps(
    config: RunConfig, fit_set: ImageSet, validation: ImageSet | None, options: TrainOptions
) -> Generator[TrainState]:
    """Train the network of `config` on `fit_set`; yields the state of the run, one object, after every step.

    After each epoch `validation` is scored and the history grows by a row; None leaves both out. All images lie on the
    device. Every random draw is keyed by (seed, epoch, image) or (seed, step), so a resumed run ends in the weights of
    an uninterrupted one, bit for bit on the CPU. Time that the caller takes between steps is not counted, unless the
    device does the steps meanwhile.

    Raises `Interrupted` after Ctrl-C, SIGTERM or the deadline, with the checkpoint written; `TrainingError` for a loss
    that is not a number and for missing teachers; `RecordError` for a checkpoint that is torn or of another run."""
    recipe, seed = config.train, config.seed
    device = prepare_device(resolve_device(options.device))
    fit_set, validation = fit_set.to(device), None if validation is None else validation.to(device)
    model = initial_model(config, fit_set, device)
    if device.type == "cpu" and options.execution != "plain":
        optimize(model, recipe.precision)  # swaps layers for faster ones of the same weights
    execution = resolve_execution(options.execution, device, run_steps(recipe, len(fit_set)))
    captured = execution in ("captured", "captured-compiled")
    optimizer = optim.optimizer(model, recipe, captured)
    ema = optim.Ema(model, recipe.ema_decay, captured) if recipe.ema_decay else None
    asam = Asam(model, recipe.asam) if recipe.asam else None
    teacher = Teacher(recipe, options.teachers, device) if recipe.teacher else None
    state = TrainState(config, len(fit_set), model, optimizer, ema)
    if options.resume and options.checkpoint is not None and options.checkpoint.exists():
        state.restore(read_checkpoint(options.checkpoint, config), options.checkpoint)
    on_epoch = options.on_epoch or (lambda row: None)
    for row in state.history:
        on_epoch(row)
    lr_factor = optim.schedule(recipe, state.epoch_steps, state.steps)
    one_hot = torch.eye(model.head.out_features, device=device)

    def loss_and_logits(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits = model(inputs).float()
        return F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing), logits.detach()

    forward_loss = ForwardLoss(loss_and_logits, model, compiles=execution in ("compiled", "captured-compiled"))

    def step(batch: Batch, phase: Phase) -> None:
        # The batch: augmented images become inputs [B, 3, H, W], labels become targets [B, classes].
        inputs, targets = normalise(batch.images), one_hot.index_select(0, batch.labels)
        if phase.may_mix:
            inputs, targets = mix(inputs, targets, batch.indices, recipe, seed, batch.epoch)
        if teacher is not None:
            targets = teacher.targets(inputs, targets)
        if phase.small:
            inputs = shrink(inputs, recipe.small_size)

        # Forward, loss, backward, update. Nothing here waits for the device; numbers that change are tensors.
        optimizer.zero_grad(set_to_none=True)
        loss, logits = forward_loss(inputs, targets)
        loss.backward()
        if asam is not None:
            asam.perturb()
            forward_loss(inputs, targets)[0].backward()
            asam.restore()
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        if ema is not None:
            ema.update()
        state.add_figures(loss.detach(), logits, batch.labels)

    take_step = CapturedStep(step, device) if captured else step
    emulation = bf16_products(device, recipe.precision)  # of bf16, on a CPU without instructions for it
    training_batches = batches(
        fit_set, recipe, seed, state.step, state.steps, epoch_ahead=device.type != "cpu" or captured
    )
    with (
        Checkpoints(options.checkpoint, options.deadline) as checkpoints,
        Progress(state.steps, "training", start=state.step, mode=options.progress) as bar,
    ):
        state.start_clock()
        for batch in training_batches:
            # A step, after what changes from one to the next: phase, learning rate, the average's weight, draws.
            phase = Phase.at(batch.step, recipe, state.epoch_steps, state.steps)
            model.train()
            if phase.stem_frozen:
                model.stem.requires_grad_(False)
            lr = recipe.lr * lr_factor(batch.step)
            optim.set_rate_and_share(optimizer, ema, lr)
            torch.manual_seed(seed * 1_000_003 + batch.step)  # dropout draws the same numbers after a resume
            with emulation:
                take_step(batch, phase)

            # Bookkeeping: figures of the epoch, validation at its end, a checkpoint where one is due.
            state.count()
            state.execution = executed(execution, take_step, forward_loss)
            bar.advance()
            if device.type == "cpu":  # a GPU would wait for this at every step, so there it waits for the epoch's end
                state.require_finite()
            if state.epoch_ended and validation is not None:
                with optim.averaged(model, ema):
                    logits = metrics.predict(model, validation.images, precision=recipe.precision)
                row = state.end_epoch(logits, validation.labels.cpu(), lr)
                bar.stage(state.in_words(row))
                on_epoch(row)
                state.start_clock()
            # A device that replays steps does them while others are sent, so the clock of such a run goes on.
            replays = state.execution in ("captured", "captured-compiled")
            pause = contextlib.nullcontext() if replays else state.clock_stopped()
            with pause:
                yield state
            checkpoints.save_or_stop(state)
    if ema is not None:
        model.load_state_dict(ema.average)
    model.eval()
