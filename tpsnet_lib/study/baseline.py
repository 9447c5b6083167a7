"""The original's way of training, kept as a yardstick of speed: a transform an image, a DataLoader, an eager loop.

It is what TPSNet's train.py did, and what most CIFAR-10 scripts do: torchvision transforms of one PIL image after
another, in worker processes that persist; plain SGD on a network in torch's default memory format; `loss.item()` after
every step. `bench` gives it the same network, batch size and threads as our loop, and its best precision and workers.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from tpsnet_lib.config import RunConfig
from tpsnet_lib.data import MEAN, STD, ImageSet
from tpsnet_lib.layers import Convolution
from tpsnet_lib.model import build

ENDLESS = 2**40  # images asked of the sampler: one epoch without end, so that no epoch's start is timed


def transform(rotation: float = 5.0) -> transforms.Compose:
    """The original's augmentation of one PIL image; a rotation of 0 leaves that step out."""
    turn = [transforms.RandomRotation(rotation)] if rotation else []
    steps = [transforms.RandomCrop(32, padding=4), *turn, transforms.RandomHorizontalFlip()]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


class Pictures(Dataset[tuple[Tensor, int]]):
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
    pictures = Pictures(images)
    batches = DataLoader(
        pictures,
        batch_size=recipe.batch_size,
        sampler=RandomSampler(pictures, num_samples=ENDLESS),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    torch.manual_seed(config.seed)
    model = model or build(config.model).to(device)
    for module in model.modules():
        if isinstance(module, Convolution):
            module.packs = False
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    model.train()
    for inputs, labels in batches:
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        yield loss.item()
