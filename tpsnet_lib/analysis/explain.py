"""Looking inside one network: where it looks, what its skips carry, how it lays images out, what it saw in training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpsnet_lib import metrics
from tpsnet_lib.data.datasets import normalise
from tpsnet_lib.files import ConfigError
from tpsnet_lib.model import Block, PreactBlock, ResidualNetwork

BATCH = 250


def grad_cam(model: ResidualNetwork, images: Tensor, classes: Tensor | None = None, layer: str | None = None) -> Tensor:
    """Which places of the images speak for a class: float32 [N, H, W] in 0 to 1, at the images' size, on the CPU.

    Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): a layer's channels, weighed by the mean gradient of the class's
    logit, summed, what speaks against cut off. `images` uint8 [N, 3, H, W]; `classes` int64 [N], the predicted ones
    if not given; `layer` a module that gives feature maps (`layers.1.0`), the last feature map if not given. An image
    in which nothing speaks for the class is all 0. Raises `ConfigError` for a layer that is not there
    or gives no maps."""
    module = model.layers if layer is None else _submodule(model, layer)
    if layer is None and len(model.final):
        module = model.final
    device = next(model.parameters()).device
    heat = [torch.zeros(0, *images.shape[-2:])]
    with _evaluation(model), torch.enable_grad():
        for start in range(0, len(images), BATCH):
            inputs = normalise(images[start : start + BATCH].to(device))
            with _outputs({"here": module}) as found:
                logits = model(inputs)
            maps = found.get("here")
            if maps is None or maps.ndim != 4:
                raise ConfigError(f"layer {layer} gives no feature maps: choose one such as layers.0 or layers.1.0")
            wanted = logits.argmax(1) if classes is None else classes[start : start + BATCH].to(device)
            (gradient,) = torch.autograd.grad(logits.gather(1, wanted[:, None]).sum(), maps)
            weighed = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
            heat.append(F.interpolate(weighed, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0].cpu())
    maps = torch.cat(heat)
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        known = [known for known, module in model.named_modules() if isinstance(module, Block)]
        raise ConfigError(f"layer {name} is not in this network: blocks are {', '.join(known)}") from error


@torch.inference_mode()
def features(model: ResidualNetwork, images: Tensor, precision: str = "fp32") -> Tensor:
    """What the classifier sees of images (uint8 [N, 3, 32, 32]): float32 [N, C_N], on the CPU."""
    device = next(model.parameters()).device
    parts = [torch.zeros(0, model.head.in_features)]
    with _evaluation(model), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(images), BATCH):
            parts.append(model.features(normalise(images[start : start + BATCH].to(device))).float().cpu())
    return torch.cat(parts)


def pca(points: Tensor, dimensions: int = 2) -> tuple[Tensor, Tensor]:
    """Points [N, C] along the directions in which they vary most: (float32 [N, dimensions], the share of the variance
    along each, [dimensions]). The sign of a direction is that of its largest component, so that it does not flip."""
    centred = points.double() - points.double().mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    kept = directions[:dimensions]
    signs = kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
    return (centred @ (kept * signs).T).float(), (values[:dimensions] ** 2 / (values**2).sum()).float()


def tsne(points: Tensor, seed: int = 0) -> Tensor:
    """Points [N, C] laid out in a plane so that neighbours stay neighbours (van der Maaten & Hinton 2008): float32
    [N, 2]. Distances between far groups mean nothing. The 50 main directions are taken first."""
    from sklearn.manifold import TSNE

    flat, _ = pca(points, min(50, *points.shape))
    perplexity = min(30.0, (len(points) - 1) / 3)
    placed = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, max_iter=500).fit_transform(flat.numpy())
    return torch.from_numpy(np.asarray(placed, dtype=np.float32))


def neighbour_agreement(points: Tensor, labels: Tensor, k: int = 10) -> float:
    """How often an image's k nearest others, by the cosine of their points [N, C], have its label: 0.1 is chance."""
    unit = F.normalize(points.float(), dim=1)
    alike = unit @ unit.T
    alike.fill_diagonal_(-2)
    return (labels[alike.topk(k).indices] == labels[:, None]).double().mean().item()


def nearest(queries: Tensor, bank: Tensor, k: int = 4) -> tuple[Tensor, Tensor]:
    """The k rows of `bank` [N, C] nearest to each of `queries` [M, C] by the cosine: (cosine float32, position int64),
    both [M, k], the nearest first."""
    found = (F.normalize(queries.float(), dim=1) @ F.normalize(bank.float(), dim=1).T).topk(min(k, len(bank)))
    return found.values, found.indices


@dataclass(frozen=True)
class BlockNorms:
    """What comes into the sum of one block, as the root mean square over a feature map, a number an image: along the
    skip (nan in a plain network) and out of the branch."""

    name: str  # of the module, as `grad_cam` takes it
    layer: int  # counted from 1
    position: int  # in its layer, counted from 1
    projects: bool
    skip: Tensor  # float32 [N]
    branch: Tensor  # float32 [N]

    @property
    def share(self) -> Tensor:
        """The branch's part of the two, 0 to 1: float32 [N]."""
        return self.branch / (self.branch + self.skip)


@torch.inference_mode()
def block_norms(model: ResidualNetwork, images: Tensor) -> list[BlockNorms]:
    """What the skips carry and what the branches add, block by block, for images uint8 [N, 3, 32, 32]."""
    blocks = {name: module for name, module in model.named_modules() if isinstance(module, Block)}
    watched: dict[str, nn.Module] = {}
    for name, block in blocks.items():
        watched[f"{name} skip"] = block.projection
        watched[f"{name} branch"] = block.conv2 if isinstance(block, PreactBlock) else block.norm2
    device = next(model.parameters()).device
    sizes: dict[str, list[Tensor]] = {name: [] for name in watched}
    with _evaluation(model):
        for start in range(0, len(images), BATCH):
            with _outputs(watched, _root_mean_square) as found:
                model(normalise(images[start : start + BATCH].to(device)))
            for name, values in sizes.items():
                values.append(found.get(name, torch.full((len(images[start : start + BATCH]),), torch.nan)).cpu())
    norms: list[BlockNorms] = []
    for name, block in blocks.items():
        layer = int(name.split(".")[1]) + 1
        position = 1 + sum(norm.layer == layer for norm in norms)
        skip, branch = (torch.cat(sizes[f"{name} {kind}"]) for kind in ("skip", "branch"))
        norms.append(BlockNorms(name, layer, position, block.projects, skip, branch))
    return norms


def _root_mean_square(maps: Tensor) -> Tensor:
    return maps.float().square().mean((1, 2, 3)).sqrt()


def first_filters(model: ResidualNetwork) -> Tensor:
    """The kernels of the first convolution as pictures: float32 [C, 3, k, k] in 0 to 1, grey for a weight of 0, each
    scaled by its own largest weight."""
    first = next(module for module in model.stem.modules() if isinstance(module, nn.Conv2d))
    kernels = first.weight.detach().float().cpu()
    return 0.5 + 0.5 * kernels / kernels.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)


def affordable(model: ResidualNetwork, images: Tensor, wanted: int, passes: int, seconds: float, precision: str) -> int:
    """How many images (at most `wanted`, at least 100) can go through the model so many times within seconds here.

    A few images are timed, so that an analysis of many passes ends in time on any network and machine; who shows its
    result also shows the n. `seconds` of 0 puts no limit."""
    if not seconds:
        return min(wanted, len(images))
    sample = images[:100]
    metrics.predict(model, sample, precision=precision)  # the first call prepares kernels
    began = time.perf_counter()
    metrics.predict(model, sample, precision=precision)
    rate = len(sample) / max(time.perf_counter() - began, 1e-6)
    return min(wanted, len(images), max(100, int(rate * seconds / passes) // 50 * 50))


@contextlib.contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextlib.contextmanager
def _outputs(
    modules: dict[str, nn.Module], keep: Callable[[Tensor], Tensor] | None = None
) -> Iterator[dict[str, Tensor]]:
    """The outputs of modules, by name, of a forward pass made while the block lasts."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def store(module: nn.Module, inputs: Any, output: Tensor) -> None:
            found[name] = output if keep is None else keep(output)

        return store

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
