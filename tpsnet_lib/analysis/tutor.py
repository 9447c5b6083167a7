"""Help with the tasks that are code, of notebooks 02 and 04: hints, and likely mistakes.

A mistake is code too: `*_MISTAKES` and `FORWARD` hold a sentence -> what computes the same wrong result, so that an
answer with just this mistake gets just this sentence. `*_FAULTS` know one by a part of what is wrong."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpsnet_lib import optim
from tpsnet_lib.analysis.training import start
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.augment import augment
from tpsnet_lib.data.datasets import ImageSet, normalise
from tpsnet_lib.data.random_draws import permutation

BLOCK = {  # a hint -> a part of what is wrong that it helps with
    "Begin with `out = F.relu(self.norm1(self.conv1(x)))`; `x` is for the sum.": "Given",
    "Let `F.relu` come last, after the sum: values below 0 become 0.": "run from -",
    "If `self.skip`, add `self.projection(x)`; only then the ReLU.": "skip=True|must match",
}
LAYER = {
    "Of a list `parts` of blocks, `nn.Sequential(*parts)` makes the layer.": "no nn.Module|not a Module",
    "The third argument of a block is its stride: write `skip=skip`.": "0.projection|skip=False",
    "Only the first has the stride; others are of outputs, outputs.": "`1.|`2.|parts|returns the shape",
}
NETWORK = {
    "The first layer has stride 1 (the map keeps its side), each other one stride 2.": (
        "layers.0.0.projection|32), 1)`: The shape is right"
    ),
    "Append a layer for each number of `channels`, in a loop: there may be two or three.": "IndexError",
    "Hand skip and blocks on: `make_layer(inputs, outputs, blocks, stride, skip)`.": (
        "skip=False|32), 1)`: It has|It has no `layers.0.1|It has no `layers.0.2"
    ),
    "`self.layers.append(make_layer(inputs, outputs, blocks, stride, skip))`; the first inputs are `stem`.": (
        "layers.|cannot assign"
    ),
    "The mean over the map is `.mean((2, 3))`; the head comes after.": (
        "mean()|must match|be multiplied|shape [2|to linear"
    ),
    "`forward` begins with `self.stem(x)`, which makes the first channels of the 3 colours.": "but got 3",
}


def _block(
    block: Any,
    x: Tensor,
    first: Callable[[Any, Tensor], Tensor] = lambda block, y: F.relu(block.norm1(y)),
    second: Callable[[Any, Tensor], Tensor] = lambda block, y: block.norm2(y),
    end: Callable[[Any, Tensor, Tensor], Tensor] = lambda _, out, skip: F.relu(out + skip),
) -> Tensor:
    """A residual block, a part of which may be a mistaken one; it has the layers of `model.Block`."""
    skip = block.projection(x) if block.residual else torch.zeros(())
    return end(block, second(block, block.conv2(first(block, block.conv1(x)))), skip)


BLOCK_MISTAKES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "The batch norms are left out: `self.norm1` follows `self.conv1`, and `self.norm2` follows `self.conv2`.": (
        lambda block, x: _block(block, x, lambda _, y: F.relu(y), lambda _, y: y)
    ),
    "`self.norm1` is left out: it follows `self.conv1`.": lambda block, x: _block(block, x, lambda _, y: F.relu(y)),
    "`self.norm2` is left out: it follows `self.conv2`.": lambda block, x: _block(block, x, second=lambda _, y: y),
    "`self.norm1` is used twice: the second convolution has `self.norm2`.": (
        lambda block, x: _block(block, x, second=lambda block, y: block.norm1(y))
    ),
    "`self.norm1` and `self.norm2` are exchanged: each follows the convolution of its number.": (
        lambda block, x: _block(block, x, lambda b, y: F.relu(b.norm2(y)), lambda b, y: b.norm1(y))
    ),
    "`self.norm2` comes after the sum: it is of `self.conv2` alone, before anything is added.": (
        lambda block, x: _block(block, x, second=lambda _, y: y, end=lambda b, out, skip: F.relu(b.norm2(out + skip)))
    ),
    "Nothing is added: the sum with `self.projection(x)` is left out.": (
        lambda block, x: _block(block, x, end=lambda _, out, skip: F.relu(out))
    ),
    "In the first half the norm and the ReLU are exchanged: the norm comes first, of the convolution.": (
        lambda block, x: _block(block, x, lambda block, y: block.norm1(F.relu(y)))
    ),
    "In the second half stands a ReLU before the norm: its norm is of the convolution.": (
        lambda block, x: _block(block, x, second=lambda block, y: block.norm2(F.relu(y)))
    ),
    "In both halves a ReLU stands before the norm: a norm is of the convolution.": (
        lambda block, x: _block(block, x, lambda b, y: b.norm1(F.relu(y)), lambda b, y: b.norm2(F.relu(y)))
    ),
    "The ReLU of the first half is left out: it follows `self.norm1`.": (
        lambda block, x: _block(block, x, lambda block, y: block.norm1(y))
    ),
    "The last ReLU is left out: it comes last, with a skip (after the sum) and without.": (
        lambda block, x: _block(block, x, end=lambda _, out, skip: out + skip)
    ),
    "The last ReLU comes too early: first the sum, then the ReLU of it.": (
        lambda block, x: _block(block, x, end=lambda _, out, skip: F.relu(out) + skip)
    ),
    "There is one ReLU too many: none between `self.norm2` and the sum.": (
        lambda block, x: _block(block, x, end=lambda _, out, skip: F.relu(F.relu(out) + skip))
    ),
}
_AFTER_THE_HEAD: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(1),
    "log-softmax": lambda logits: logits.log_softmax(1),
    "ReLU": F.relu,
    "sigmoid": torch.sigmoid,
}


def _then(function: Callable[[Tensor], Tensor], network: nn.Module, images: Tensor) -> Tensor:
    return function(network(images))


def _in_whole_maps(network: Any, images: Tensor) -> Tensor:
    """The logits of a network whose layers keep the side of the map."""
    network = copy.deepcopy(network)
    for part in network.layers.modules():
        if getattr(part, "stride", None) == (2, 2):
            part.stride = (1, 1)
    return cast(Tensor, network(images))


FORWARD: dict[str, Callable[[Any, Tensor], Tensor]] = {
    f"Nothing comes after the head: hand out what it gives as it is, without a {name}.": partial(_then, function)
    for name, function in _AFTER_THE_HEAD.items()
} | {
    "Each layer after the first has stride 2, so that its map has half the side; yours have stride 1.": _in_whole_maps,
    "The head takes the mean over the map, `.mean((2, 3))`, not the largest value.": (
        lambda network, images: network.head(network.feature_maps(images).amax((2, 3)))
    ),
}
STEP_FAULTS = {  # a likely fault -> the error, or which loss differs, of three training steps on one batch
    "F.cross_entropy takes the logits first, then the labels.": "'Long'",
    "F.cross_entropy takes the logits as they are, not the classes that are largest in them.": "got Long",
    "Keep the loss a tensor until `loss.backward()`: `.item()` comes last, in the `return`.": "'float' object has no",
    "The forward pass must be recorded for the gradient: leave out torch.no_grad() and .detach().": "not require grad",
    "It returns no number: end with return loss.item().": "-1 instead",
    "The first loss is wrong: it is the mean cross-entropy of the logits, without a softmax before it, taken in"
    " training mode and before the update.": "Value 1",
    "The second loss is wrong: the weights were not moved as the first gradients say. Are the three called once each,"
    " in this order: clear, backward, step, of the optimizer that is given?": "Value 2",
    "The third loss is wrong: was the optimizer or its rate replaced, or the loss rounded?": "Value 3",
}
_STILL, _NOT_CLEARED, _TWICE, _EVAL_BEFORE, _EVAL_AFTER, _SOFTMAX = (
    "The weights do not move: `optimizer.step()` comes after `loss.backward()`, and nothing is cleared between them."
    " Have the calls their brackets, and does `return` come last?",
    "The gradients add up from step to step: clear them by `optimizer.zero_grad()`, with its brackets, before"
    " `loss.backward()`.",
    "The weights move twice: call `optimizer.step()` once.",
    "The network is in evaluation mode: it trains in training mode, as it is given.",
    "The network is left in evaluation mode, so that the next step does not train as the first: leave out the call.",
    "A softmax comes before the loss: F.cross_entropy takes the logits as they are.",
)


def _step(mistake: str = "") -> Callable[..., float]:
    """The training step of notebook 04, as it is or with one mistake in it."""

    def train_step(network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> float:
        network.train(mistake != _EVAL_BEFORE and (network.training or mistake != _EVAL_AFTER))
        logits = network(inputs)
        loss = F.cross_entropy(logits.softmax(1) if mistake == _SOFTMAX else logits, labels)
        if mistake != _NOT_CLEARED:
            optimizer.zero_grad()
        loss.backward()
        for _ in range({_STILL: 0, _TWICE: 2}.get(mistake, 1)):
            optimizer.step()
        network.train(mistake != _EVAL_AFTER)
        return loss.item()

    return train_step


STEP_MISTAKES: Mapping[str, Callable[..., Any]] = {
    mistake: _step(mistake) for mistake in (_STILL, _NOT_CLEARED, _TWICE, _EVAL_BEFORE, _EVAL_AFTER, _SOFTMAX)
}
STEP_HINTS = (
    "The four parts in their order: forward, loss, backward (clear, then compute), update.",
    "The calls: network(inputs), F.cross_entropy, optimizer.zero_grad(), loss.backward(), optimizer.step().",
)
LOOP_FAULTS = {  # as `STEP_FAULTS`, of a training loop: the first of three epochs' mean losses that differs
    "It must go over the epochs of the run, `range(int(recipe.epochs))`: no fewer and no more.": "shape [2]|shape [4]",
    "It must `yield network, losses` once an epoch, below the loop over the batches.": (
        "the shape|is no pair|'NoneType' object is not iterable"
    ),
    "It yields the other way round: first the network, then the losses.": "for /: 'ResNet'",
    "A batch is the places of several images: `for k, batch in enumerate(order.split(size)[:steps]):`.": "unpack",
    "The network takes numbers, not bytes: hand the result of `normalise` to `step`.": "Byte",
    "`augment` takes the images, their indices, the recipe, the seed and the epoch.": "augment()",
    "`step` takes the network, the optimizer, the inputs and the labels.": "train_step()",
    "`losses` holds nothing when it is handed out: append what `step` returns, and `yield` below the loop over the"
    " batches.": "nan instead",
    "`losses` takes numbers: append what `step` returns, which also moves the weights.": "call numpy()",
    "`append` changes the list and returns None: write `losses.append(...)`, without `losses =` before it.": (
        "'NoneType' object has no attribute"
    ),
    "`losses` is a list: write `losses.append(...)`.": "'float' object is not iterable",
    "The rate of a group is `group['lr']`, an entry of a dict.": "'dict' object has no attribute",
    "The groups of an optimizer are `optimizer.param_groups`.": "SGD' object is not",
    "Inputs and labels are not of the same images: `images.images[batch]`, `images.indices[batch]` and"
    " `images.labels[batch]` are.": "to match target batch_size",
    "The mean loss of the first epoch is wrong: is each whole batch, in the new order, augmented, normalised, taken"
    " once with its own labels, and its loss kept? Is a step's rate `recipe.lr * rate(number)`, from 0 on?": "Value 1",
    "The mean loss of a later epoch is wrong: has each step the rate of its number, in every group of the"
    " optimizer?": "Value 2|Value 3",
}
LOOP_HINTS = (
    "`for k, batch in enumerate(order.split(size)[:steps]):` gives the places of the images.",
    "`augment(images.images[batch], images.indices[batch], recipe, config.seed, epoch)`, then `normalise`.",
    "Before a step: `group['lr'] = recipe.lr * rate(epoch * steps + k)`.",
)
_NO_STEP, _EVALUATION, _ORDER, _LABELS, _LAST, _REST, _SIZE = (
    "The network does not learn: call `step`, which moves the weights and returns the loss.",
    "The network is in evaluation mode: it trains in training mode, as `training.start` gives it.",
    "The batches are not in the new order: take the places of the images from `order`.",
    "The labels are of other images than the inputs: `images.labels[batch]`.",
    "`losses` holds the last step's alone: begin an empty list once an epoch, and append.",
    "The last batch is not whole: go over `order.split(size)[:steps]`.",
    "A batch has `size` images, and an epoch `steps` batches: `order.split(size)[:steps]`.",
)
_RAW, _NORMALISED, _EPOCH, _SEED, _PLACES = (
    "The images are not augmented: `augment` comes before `normalise`.",
    "`augment` comes first, `normalise` takes what it returns.",
    "Each epoch has the augmentation of the first: hand `epoch` to `augment`.",
    "The augmentation is that of another seed: hand `config.seed` to `augment`.",
    "`augment` takes the images' indices, `images.indices[batch]`: `batch` is their places in `images`.",
)
_RATE, _PEAK, _NUMBER, _BY_EPOCH, _NEXT, _LATE, _TIMES = (
    "The rate stays the same: set `group['lr']` before each step.",
    "The schedule gives a part of the peak: a step's rate is `recipe.lr * rate(number)`.",
    "The rate is counted from 0 anew in each epoch: the number of a step is `epoch * steps + k`.",
    "The rate changes once an epoch: it goes by the number of the step, `epoch * steps + k`.",
    "The steps are counted from 1: the number of a step is `epoch * steps + k`, from 0 on.",
    "The rate is set after the step, and so comes a step late: set it before.",
    "The rate of each step multiplies that of the step before: write `=`, not `*=`.",
)


@dataclass(frozen=True)
class Trial:
    """What a training step or loop of a student is tried on: a run each, and images."""

    step_run: RunConfig
    loop_run: RunConfig
    images: ImageSet

    def three_losses(self, step: Callable[..., Any]) -> list[float]:
        """The losses of three steps, all on the images, from the run's first weights on; -1 for what is no number."""
        given = *start(self.step_run), normalise(self.images.images), self.images.labels
        losses = [step(*given) for _ in range(3)]
        return [loss if isinstance(loss, float | int) else -1 for loss in losses]

    def mean_losses(self, loop: Callable[..., Any]) -> list[float]:
        """The mean loss of each epoch of a loop, which yields the network and the losses of the epoch's steps."""
        means = []
        for given in loop(self.loop_run, self.images):
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise TypeError("what it yields is no pair")
            means.append(float(np.mean(np.asarray(given[1]))))
        return means

    def right_losses(self) -> list[float]:
        """`three_losses` of the right step."""
        return self.three_losses(_step())

    def right_means(self) -> list[float]:
        """`mean_losses` of the right loop."""
        return self.mean_losses(_loop())


def _loop(mistake: str = "") -> Callable[[RunConfig, ImageSet], Iterator[tuple[nn.Module, list[float]]]]:
    """The training loop of notebook 04, as it is or with one mistake in it."""

    def epochs_of(config: RunConfig, images: ImageSet) -> Iterator[tuple[nn.Module, list[float]]]:
        recipe, size = config.train, config.train.batch_size
        steps, (network, optimizer) = len(images) // size, start(config)
        rate = optim.schedule(recipe, steps, round(recipe.epochs * steps))
        network.train(mistake != _EVALUATION)
        for epoch in range(int(recipe.epochs)):
            losses: list[float] = []
            order = permutation(config.seed, epoch, len(images))
            order = torch.arange(len(images)) if mistake == _ORDER else order
            parts = order.split(steps if mistake == _SIZE else size)
            for k, batch in enumerate(parts[: None if mistake == _REST else steps]):
                inputs = _inputs(mistake, config, images, batch, epoch)
                number = {_NUMBER: k, _BY_EPOCH: epoch, _NEXT: epoch * steps + k + 1}.get(mistake, epoch * steps + k)
                factor = rate(number) * (1.0 if mistake == _PEAK else recipe.lr)
                if mistake not in (_RATE, _LATE):
                    _set_rate(optimizer, factor, multiply=mistake == _TIMES)
                labels = images.labels[: len(batch)] if mistake == _LABELS else images.labels[batch]
                loss = F.cross_entropy(network(inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                if mistake != _NO_STEP:
                    optimizer.step()
                if mistake == _LATE:
                    _set_rate(optimizer, factor)
                losses = [*losses, loss.item()] if mistake != _LAST else [loss.item()]
            yield network, losses

    return epochs_of


def _inputs(mistake: str, config: RunConfig, images: ImageSet, batch: Tensor, epoch: int) -> Tensor:
    """A batch, augmented and normalised, perhaps with a mistake in it."""
    shown, where = images.images[batch], batch if mistake == _PLACES else images.indices[batch]
    seed, epoch = 0 if mistake == _SEED else config.seed, 0 if mistake == _EPOCH else epoch
    if mistake == _NORMALISED:
        return augment(normalise(shown), where, config.train, seed, epoch)
    return normalise(shown if mistake == _RAW else augment(shown, where, config.train, seed, epoch))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float, multiply: bool = False) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr"] if multiply else rate


_OF_BATCHES = (_NO_STEP, _EVALUATION, _ORDER, _LABELS, _LAST, _REST, _SIZE, _RAW, _NORMALISED, _EPOCH, _SEED, _PLACES)
_OF_RATES = (_RATE, _PEAK, _NUMBER, _BY_EPOCH, _NEXT, _LATE, _TIMES)
LOOP_MISTAKES: Mapping[str, Callable[..., Any]] = {mistake: _loop(mistake) for mistake in (*_OF_BATCHES, *_OF_RATES)}
