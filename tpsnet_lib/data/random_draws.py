"""The random numbers of images: a hash of (seed, epoch, image, which number), so neither batch nor device matters."""

from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor


class Draw(IntEnum):
    """Which of an image's random numbers each operation takes. A new one takes a new number, so old runs stay."""

    CROP_Y = 0
    CROP_X = 1
    ROTATION = 2
    FLIP = 3
    CUTOUT_Y = 4
    CUTOUT_X = 5
    TRIVIAL_OP = 6
    TRIVIAL_LEVEL = 7
    TRIVIAL_SIGN = 8
    MIX_KIND = 9
    MIX_RADIUS = 10
    MIX_ANGLE = 11
    MIX_Y = 12
    MIX_X = 13
    ORDER = 14
    ERASE_CHOSEN = 15
    ERASE_AREA = 16
    ERASE_RATIO = 17
    ERASE_Y = 18
    ERASE_X = 19
    MIX_CHOSEN = 20


def uniform(seed: int, epoch: int | Tensor, indices: Tensor, draw: int) -> Tensor:
    """One random number for each image, float32 [B] in [0, 1), of 24 bits. `indices` of the images is int64 [B]."""
    return uniforms(seed, epoch, indices, draw)[0]


def uniforms(seed: int, epoch: int | Tensor, indices: Tensor, *draws: int) -> Tensor:
    """Several random numbers for each image, float32 [draws, B]."""
    bits = (_hash(seed, epoch, indices, draws) >> 40) & ((1 << 24) - 1)
    return bits.to(torch.float32) * 2.0**-24


def permutation(seed: int, epoch: int | Tensor, n: int, device: torch.device | str = "cpu") -> Tensor:
    """The order of an epoch: positions 0 to n - 1 sorted by their hash, int64 [n]."""
    positions = torch.arange(n, device=device)
    return _hash(seed, epoch, positions, (Draw.ORDER,))[0].argsort(stable=True)


def _hash(seed: int, epoch: int | Tensor, indices: Tensor, draws: tuple[int, ...]) -> Tensor:
    """64 random bits an index and draw, as int64 [draws, B]: splitmix64, begun at a key of the epoch and draw."""
    if isinstance(epoch, int):
        keys = _keys_of_epoch(seed, epoch, draws, indices.device)
    else:  # a tensor is filled anew where a step is replayed, so what was made of it is not kept
        keys = _keys(seed, epoch, draws, indices.device)
    return _splitmix64(keys + indices * _signed(_GOLDEN))


def _keys(seed: int, epoch: int | Tensor, draws: tuple[int, ...], device: torch.device) -> Tensor:
    first, steps = _constants(seed, draws, device)
    return _splitmix64(_splitmix64(first + epoch) + steps)


_keys_of_epoch = lru_cache(maxsize=16)(_keys)  # the same for every batch of an epoch


@lru_cache(maxsize=16)  # kept: making a tensor from Python numbers makes a GPU wait
def _constants(seed: int, draws: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """What a seed begins with, int64 [], and the step of each draw, int64 [draws, 1]."""
    key = _splitmix64(torch.tensor(_signed((seed + _GOLDEN) & _WORD)))
    steps = torch.tensor([_signed(draw * _GOLDEN & _WORD) for draw in draws]).unsqueeze(1)
    return key.to(device), steps.to(device)


_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # splitmix64's constants
_WORD = (1 << 64) - 1


def _signed(word: int) -> int:
    """A 64-bit word as the int64 with the same bits."""
    return word - (1 << 64) if word >> 63 else word


def _splitmix64(words: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele et al. 2014) on int64: products wrap, right shifts need a mask."""
    words = (words ^ ((words >> 30) & ((1 << 34) - 1))) * _signed(_FIRST)
    words = (words ^ ((words >> 27) & ((1 << 37) - 1))) * _signed(_SECOND)
    return words ^ ((words >> 31) & ((1 << 33) - 1))
