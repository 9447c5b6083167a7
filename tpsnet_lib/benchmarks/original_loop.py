"""The original's way of training, kept as a yardstick of speed: a transform an image, a DataLoader, an eager loop.

It is what TPSNet's train.py did, and what most CIFAR-10 scripts do: torchvision transforms of one PIL image after
another, in worker processes that persist; plain SGD on a network in torch's default memory format; `loss.item()` after
every step. `bench` gives it the same network, batch size and threads as our loop, and its best precision and workers,
in a process of its own, as a script has.
"""

import multiprocessing
import time
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import MEAN, STD, ImageSet
from tpsnet_lib.errors import TrainingError
from tpsnet_lib.model import build

QUEUED_STEPS = 50  # that the processor may be ahead of a GPU while it is measured
SAMPLED_IMAGES = 2**40  # images asked of the sampler: one epoch without end, so that no epoch's start is timed


def transform(rotation: float = 5.0) -> transforms.Compose:
    """The original's augmentation of one PIL image; a rotation of 0 leaves that step out."""
    turn = [transforms.RandomRotation(rotation)] if rotation else []
    steps = [transforms.RandomCrop(32, padding=4), *turn, transforms.RandomHorizontalFlip()]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


class PilDataset(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's CIFAR10 keeps and gives them: one at a time, through PIL and the transform."""

    def __init__(self, images: ImageSet) -> None:
        self.pixels = images.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self.labels: list[int] = images.labels.tolist()
        self.transform = transform()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def train(
    config: RunConfig,
    images: ImageSet,
    device: torch.device,
    precision: str = "fp32",
    workers: int = 0,
    model: nn.Module | None = None,
) -> Generator[float]:
    """Train without end; each `next` takes one step and gives its loss.

    Of the recipe it takes the batch size and SGD's three numbers. `precision` is `fp32` or `bf16` (autocast). `model`:
    on the device, to be trained in place of a fresh one of the config."""
    recipe = config.train
    pictures = PilDataset(images)
    batches = DataLoader(
        pictures,
        batch_size=recipe.batch_size,
        sampler=RandomSampler(pictures, num_samples=SAMPLED_IMAGES),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    torch.manual_seed(config.seed)
    model = model or build(config.model).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    model.train()
    for batch in batches:
        inputs, labels = (tensor.to(device) for tensor in batch)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        yield loss.item()


class BaselineProcess:
    """The original's way of training in a process of its own, which waits while our loop has its turn. The memory
    settings of our loop do not apply to that process. `close` ends it."""

    def __init__(self, config: RunConfig, images: ImageSet, device: torch.device) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        arguments = other, config, images.to("cpu"), device, torch.get_num_threads()
        self.process = context.Process(target=_serve, args=arguments)
        self.process.start()
        other.close()

    def images_per_second(self, precision: str, workers: int, seconds: float, skip: int, least: int) -> float:
        """One turn: see `steps_per_second`. The first of a precision and number of workers starts training anew.
        Raises `TrainingError` if the process has ended."""
        try:
            self.pipe.send((precision, workers, seconds, skip, least))
            return float(self.pipe.recv())
        except (EOFError, OSError) as error:
            raise TrainingError("the baseline's process ended: its own lines on standard error say why") from error

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join()


def _serve(pipe: Connection, config: RunConfig, images: ImageSet, device: torch.device, threads: int) -> None:
    torch.set_num_threads(threads)
    images, steps, variant = images.to(device), None, None
    while True:
        try:
            precision, workers, seconds, skip, least = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            break
        if variant != (precision, workers) or steps is None:
            if steps is not None:
                steps.close()
            steps, variant = train(config, images, device, precision, workers), (precision, workers)
        pipe.send(config.train.batch_size * steps_per_second(steps.__next__, seconds, skip, device, least))
    if steps is not None:
        steps.close()


def steps_per_second(
    step: Callable[[], object], seconds: float, skip: int, device: torch.device, least: int = 1
) -> float:
    """Steps a second over `seconds`, or as long as the `least` steps take, after `skip` steps that do not count."""
    for _ in range(skip):
        step()
    synchronise(device)
    began, steps = time.perf_counter(), 0
    while steps < least or time.perf_counter() - began < seconds:
        step()
        steps += 1
        if steps % QUEUED_STEPS == 0:
            synchronise(device)
    synchronise(device)
    return steps / (time.perf_counter() - began)


def synchronise(device: torch.device) -> None:
    """Let the device finish what it was given, as the clock is the processor's."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
