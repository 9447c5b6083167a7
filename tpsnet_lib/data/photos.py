"""A photograph of one's own as a network of this project takes images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional

from tpsnet_lib.config import IMAGE_SIZE
from tpsnet_lib.files import DataError


def load_photo(path: str | Path) -> Tensor:
    """The middle square of a photograph, scaled down to uint8 [3, 32, 32]; the camera's orientation is applied.

    Reads JPEG, PNG, GIF (the first frame) and WebP. Raises `DataError` for a file that is missing or no such image."""
    if not Path(path).is_file():
        raise DataError(f"{path} is not a file: give the path of a photograph")
    try:
        pixels = decode_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError as error:
        raise DataError(f"{path} is not an image that can be read: give a JPEG, PNG, GIF or WebP file") from error
    pixels = pixels[0] if pixels.ndim == 4 else pixels
    square = functional.center_crop(pixels, [min(pixels.shape[-2:])] * 2)
    small: Tensor = functional.resize(square, [IMAGE_SIZE, IMAGE_SIZE], antialias=True)
    return small.to(torch.uint8)
