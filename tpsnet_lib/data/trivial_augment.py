"""TrivialAugment (Mueller & Hutter 2021, arXiv 2103.10158), its wide space as torchvision's TrivialAugmentWide."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tpsnet_lib.data.warp import rotate, warp


def trivial(images: Tensor, op: Tensor, level: Tensor, negative: Tensor, space: str = "wide") -> Tensor:
    """One op of a space of `SPACES` an image, at one of its 31 strengths.

    `images` is uint8 [B,3,H,W]; `op` (0 to 13) and `level` (0 to 30) int64 [B]; `negative` bool [B] turns the strength
    of ops that have a direction round."""
    strengths = _strengths(space, images.device)[op, level]  # [B]
    strengths = torch.where(negative & _signed_ops(images.device)[op], -strengths, strengths)
    return (_sorted if images.device.type == "cpu" else _masked)(images, op, strengths)


def _sorted(images: Tensor, op: Tensor, strengths: Tensor) -> Tensor:
    """Each op on its images, which are brought together; how many they are, a GPU would have to be asked."""
    parts = torch.split(op.argsort(stable=True), torch.bincount(op, minlength=len(OPS)).tolist())
    result = torch.empty_like(images)
    for (*_, apply), chosen in zip(OPS.values(), parts, strict=True):
        if len(chosen):
            result.index_copy_(0, chosen, apply(images.index_select(0, chosen), strengths[chosen]))
    return result


def _masked(images: Tensor, op: Tensor, strengths: Tensor) -> Tensor:
    """Each op on all images, of whose results its own are kept: more work, and nothing waits for a GPU."""
    result = images
    for number, (*_, apply) in enumerate(OPS.values()):
        result = torch.where((op == number).view(-1, 1, 1, 1), apply(images, strengths), result)
    return result


@lru_cache
def _strengths(space: str, device: torch.device) -> Tensor:
    """Each op's strengths in a space, float [ops, levels]; made once for a device."""
    ends = [(first, last) for first, last, *_ in SPACES[space].values()]
    return torch.stack([torch.linspace(first, last, LEVELS, device=device) for first, last in ends])


@lru_cache
def _signed_ops(device: torch.device) -> Tensor:
    """Whether each op has a direction, bool [ops]; made once for a device."""
    return torch.tensor([signed for _, _, signed, _ in OPS.values()], device=device)


def _blend(other: Tensor, images: Tensor, strength: Tensor) -> Tensor:
    """Away from `other` (strength above 0) or towards it (down to -1), within 0 to 255."""
    return (images + (images - other) * strength.view(-1, 1, 1, 1)).clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.float().unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor_().unsqueeze(1)


def _smooth(images: Tensor) -> Tensor:
    """The mean of each pixel's neighbourhood, the pixel itself counting five times; the edge stays."""
    kernel = torch.full((3, 1, 3, 3), 1 / 13, device=images.device)
    kernel[:, :, 1, 1] = 5 / 13
    smooth = images.float()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(smooth, kernel, groups=3).round_()
    return smooth


def _posterize(images: Tensor, dropped: Tensor) -> Tensor:
    lowest = 1 << dropped.round().to(torch.int64)
    return images & (256 - lowest).to(torch.uint8).view(-1, 1, 1, 1)


def _torchvision(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A torchvision function that has no strength and so takes a batch as it is (imported at need: it is slow to)."""

    def apply(images: Tensor, _: Tensor) -> Tensor:
        from torchvision.transforms.v2 import functional

        result: Tensor = getattr(functional, name)(images)
        return result

    return apply


LEVELS = 31
# op: (weakest, strongest, whether it has a direction, (uint8 [k,3,H,W], strength float [k]) -> uint8 [k,3,H,W]).
# Shears are about the top left corner, half an image from the centre.
OPS: dict[str, tuple[float, float, bool, Callable[[Tensor, Tensor], Tensor]]] = {
    "Identity": (0.0, 0.0, False, lambda images, _: images),
    "ShearX": (0.0, 0.99, True, lambda images, s: warp(images, xy=s, x0=s * (images.shape[2] / 2))),
    "ShearY": (0.0, 0.99, True, lambda images, s: warp(images, yx=s, y0=s * (images.shape[3] / 2))),
    "TranslateX": (0.0, 32.0, True, lambda images, s: warp(images, x0=-s.trunc())),
    "TranslateY": (0.0, 32.0, True, lambda images, s: warp(images, y0=-s.trunc())),
    "Rotate": (0.0, 135.0, True, rotate),
    "Brightness": (0.0, 0.99, True, lambda images, s: _blend(torch.zeros_like(s).view(-1, 1, 1, 1), images, s)),
    "Color": (0.0, 0.99, True, lambda images, s: _blend(_grey(images), images, s)),
    "Contrast": (0.0, 0.99, True, lambda images, s: _blend(_grey(images).mean((1, 2, 3), keepdim=True), images, s)),
    "Sharpness": (0.0, 0.99, True, lambda images, s: _blend(_smooth(images), images, s)),
    "Posterize": (0.0, 6.0, False, _posterize),
    "Solarize": (1.0, 0.0, False, lambda images, s: torch.where(images >= 255 * s.view(-1, 1, 1, 1), ~images, images)),
    "AutoContrast": (0.0, 0.0, False, _torchvision("autocontrast")),
    "Equalize": (0.0, 0.0, False, _torchvision("equalize")),
}
# The strongest of each op in the authors' standard space for CIFAR (automl/trivialaugment, aug_lib.py).
_STANDARD = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": 10.0, "TranslateY": 10.0, "Rotate": 30.0, "Posterize": 4.0}
_STANDARD |= dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.9)
SPACES = {
    "wide": OPS,
    "standard": {
        name: (first, _STANDARD.get(name, last), signed, apply) for name, (first, last, signed, apply) in OPS.items()
    },
}
