"""The augmentations that notebook 01 shows, one step at a time, at the strengths that the recipes use."""

from __future__ import annotations

from tpsnet_lib.config import TrainConfig


def single_augmentations(crop: int = 4, rotation: float = 5.0, cutout: int = 12) -> dict[str, TrainConfig]:
    """Recipes of one augmentation each, by name: `crop` in pixels of padding, `rotation` in degrees, `cutout` in pixels
    of the square's side."""
    return {
        "random crop": _only(crop=crop),
        "random flip": _only(flip="random"),
        "alternating flip": _only(flip="alternate"),
        "rotation": _only(rotation=rotation),
        "cutout": _only(cutout=cutout),
        "TrivialAugment": _only(trivial=True),
    }


def _only(
    crop: int = 0,
    flip: str = "none",
    rotation: float = 0.0,
    cutout: int = 0,
    trivial: bool = False,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> TrainConfig:
    """A recipe whose only augmentations are those that are named."""
    return TrainConfig(
        crop=crop, flip=flip, rotation=rotation, cutout=cutout, trivial=trivial, mixup=mixup, cutmix=cutmix
    )


AUGMENTATIONS = single_augmentations()
MIXES = {"mixup": _only(mixup=1.0), "CutMix": _only(cutmix=1.0)}
