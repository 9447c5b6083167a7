"""A photograph of one's own as a network of this project takes images."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tpsnet_lib.config import IMAGE_SIZE
from tpsnet_lib.files import DataError

LARGEST = 10**8  # pixels


def load_photo(path: str | Path) -> Tensor:
    """The middle square of a photograph, scaled down to uint8 [3, 32, 32]; the camera's orientation is applied.

    Reads JPEG, PNG, GIF (the first frame) and WebP. Raises `DataError` for a file that is missing or no such image."""
    if not Path(path).is_file():
        raise DataError(f"{path} is not a file: give the path of a photograph")
    try:  # Pillow, because torchvision's decoder ends the process at a damaged PNG
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=("JPEG", "PNG", "GIF", "WEBP")) as image,
        ):
            if image.width * image.height > LARGEST:
                raise DataError(f"{path} has {image.width} x {image.height} pixels: scale it down first")
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an image that can be read: give a JPEG, PNG, GIF or WebP file") from error
    from torchvision.transforms.v2 import functional  # at need: its import takes longer than that of torch

    pixels = torch.from_numpy(np.array(upright)).permute(2, 0, 1)
    square = functional.center_crop(pixels, [min(pixels.shape[-2:])] * 2)
    small: Tensor = functional.resize(square, [IMAGE_SIZE, IMAGE_SIZE], antialias=True)
    return small.to(torch.uint8)
