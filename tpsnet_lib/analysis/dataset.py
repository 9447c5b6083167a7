"""The augmentations that notebook 01 shows, one step at a time, at the strengths that the recipes use."""

from dataclasses import replace

from tpsnet_lib.config import TrainConfig

_NONE = TrainConfig(crop=0, flip="none", rotation=0.0)  # a recipe without augmentation


def single_augmentations(crop: int = 4, rotation: float = 5.0, cutout: int = 12) -> dict[str, TrainConfig]:
    """Recipes of one augmentation each, by name: `crop` in pixels of padding, `rotation` in degrees, `cutout` in pixels
    of the square's side."""
    return {
        "random crop": replace(_NONE, crop=crop),
        "random flip": replace(_NONE, flip="random"),
        "alternating flip": replace(_NONE, flip="alternate"),
        "rotation": replace(_NONE, rotation=rotation),
        "cutout": replace(_NONE, cutout=cutout),
        "TrivialAugment": replace(_NONE, trivial=True),
    }


def single_mixes(mixup: float = 1.0, cutmix: float = 1.0) -> dict[str, TrainConfig]:
    """Recipes that mix two images in one way each, by name, with the alpha of each; 0 mixes nothing."""
    return {"mixup": replace(_NONE, mixup=mixup), "CutMix": replace(_NONE, cutmix=cutmix)}


AUGMENTATIONS = single_augmentations()
