"""shapes10: a built-in data set of ten drawn classes in the form of CIFAR-10, for tests and for machines without it.

Each image shows one light shape of random place, size, rotation, proportions and colour on a darker, cloudy ground,
among a bar and specks that belong to no class, under noise. Contrast and noise are drawn for each image, so some are
plain and a few can hardly be seen: after five epochs a network of 36,000 parameters reads about 95% of the test
images, a linear classifier on the pixels about 29% (chance: 10%).

The bytes are the same on every machine and are pinned by a test. For that, random numbers are the raw output of a
counter-based generator (Philox, Salmon et al. 2011), whose stream numpy guarantees, and the drawing uses only
operations that IEEE 754 rounds exactly: + - * /, square roots and comparisons, no sines, and sums of integers alone.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

Floats = Any  # float32 arrays; numpy's own types take them for float64 wherever a plain number joins in

SIZES = {"train": 10_000, "test": 2_000}
FIT_SIZE = 9_000  # of the training images; the others validate
_CHUNK = 250  # images drawn together: an image depends on its chunk's number and on nothing that was asked for before
_STREAMS = {"train": 1, "test": 2}  # keys of the generator
_SIDE = 32
_KNOTS = 5  # of the clouds, along a side
_COLUMNS = 41  # uniform numbers drawn for an image, besides clouds and noise


def _radius(p: Floats, q: Floats) -> Floats:
    return np.sqrt(p * p + q * q)


def _reach(p: Floats, q: Floats) -> Floats:
    return np.maximum(abs(p), abs(q))


def _band(distance: Floats, end: float, half: Floats) -> Floats:
    """The outline of a band `2 half` wide whose outer edge is `end` away."""
    return half - abs(distance - (end - half))


def _wave(x: Floats, frequency: Floats) -> Floats:
    """The distance to the nearest edge of stripes across x, positive on them."""
    phase = x * frequency
    return (0.25 - abs(phase - np.floor(phase) - 0.5)) / frequency


def _cross(p: Floats, q: Floats, w: Floats) -> Floats:
    return np.minimum(1.05 - _reach(p, q), 0.24 + 0.12 * w - np.minimum(abs(p), abs(q)))


def _star(p: Floats, q: Floats, w: Floats) -> Floats:
    # a pentagram is where at least four of five half-planes hold: the second smallest of their distances
    normals = ((0.0, 1.0), (0.951, 0.309), (-0.951, 0.309), (0.588, -0.809), (-0.588, -0.809))
    sides = np.stack([0.37 - a * p - b * q for a, b in normals])
    return np.sort(sides, axis=0)[1]


def _checks(p: Floats, q: Floats, w: Floats) -> Floats:
    frequency = np.where(w < 0.4, np.float32(0.75), np.float32(1.25))  # 3 or 5 fields along a side
    a, b = _wave(p, frequency), _wave(q, frequency)
    inside = np.minimum(abs(a), abs(b)) * np.sign(a) * np.sign(b)
    return np.minimum(1 - _reach(p, q), inside)


# signed distance to the outline, positive inside, over the shape's own axes (p, q) in units of its radius; w in [0, 1)
_SHAPES: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "disc": lambda p, q, w: 1 - _radius(p, q),
    "ring": lambda p, q, w: _band(_radius(p, q), 1, 0.16 + 0.08 * w),
    "square": lambda p, q, w: 0.88 - _reach(p, q),
    "frame": lambda p, q, w: _band(_reach(p, q), 0.92, 0.15 + 0.08 * w),
    "triangle": lambda p, q, w: 0.58 - np.maximum(q, 0.866 * abs(p) - 0.5 * q),
    "cross": _cross,
    "star": _star,
    "stripes": lambda p, q, w: np.minimum(1 - _reach(p, q), _wave(p, 1.4 + 0.5 * w)),
    "checks": _checks,
    "crescent": lambda p, q, w: np.minimum(1.05 - _radius(p, q), _radius(p - (0.45 + 0.15 * w), q) - 0.8),
}
CLASSES = tuple(_SHAPES)


def draw(part: str, positions: Any) -> tuple[Any, Any]:
    """The images and labels at some positions of `train` (10,000) or `test` (2,000).

    Images uint8 [N, 3, 32, 32], labels int64 [N]. Every ten images from a multiple of ten hold each class once."""
    images = np.empty((len(positions), 3, _SIDE, _SIDE), np.uint8)
    labels = np.empty(len(positions), np.int64)
    chunks, places = np.divmod(np.asarray(positions), _CHUNK)
    for number in np.unique(chunks):
        in_chunk = chunks == number
        chunk_images, chunk_labels = _chunk(part, int(number))
        images[in_chunk], labels[in_chunk] = chunk_images[places[in_chunk]], chunk_labels[places[in_chunk]]
    return images, labels


@cache  # 37 MB once everything has been drawn
def _chunk(part: str, number: int) -> tuple[Any, Any]:
    source = np.random.Philox(key=[_STREAMS[part], number])
    uniform = _uniform(source, _CHUNK, _COLUMNS)
    tens = np.argsort(uniform[:, 0].reshape(-1, len(CLASSES)), axis=1, kind="stable")
    labels = tens.reshape(-1).astype(np.int64)
    column = iter(uniform[:, 1:].T[:, :, None, None])  # each [N, 1, 1]

    def colours() -> Floats:
        return np.stack([next(column) for _ in range(3)], axis=1)  # [N, 3, 1, 1]

    ground = 0.6 * colours()
    contrast = 0.15 + 0.8 * next(column)[:, None]
    light = ground + contrast * (0.4 + 0.6 * colours())
    clouds = _clouds(source, _CHUNK)
    image = ground + 0.45 * next(column)[:, None] * clouds
    image = _over(image, colours(), _bar(*(next(column) for _ in range(3))))
    for _ in range(2):
        image = _over(image, colours(), _speck(*(next(column) for _ in range(3))))
    shade = light + 0.25 * next(column)[:, None] * clouds[:, :, ::-1, ::-1]
    image = _over(image, shade, _mask(labels, [next(column) for _ in range(6)]))
    image = _over(image, colours(), _speck(*(next(column) for _ in range(3))))
    noise = _noise(source, image.size).reshape(image.shape)
    image = image + 0.4 * next(column)[:, None] * noise
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), labels


def _uniform(source: Any, *shape: int) -> Floats:
    """Numbers in [0, 1), multiples of 2^-24."""
    raw = source.random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(40)).astype(np.float32) * 2**-24).reshape(shape)


def _noise(source: Any, count: int) -> Floats:
    """Triangular noise in (-1, 1) with a deviation of 0.41."""
    raw = source.random_raw(count // 4).astype("<u8").view(np.uint8).reshape(2, count).astype(np.float32)
    return (raw[0] - raw[1]) / 256


def _clouds(source: Any, count: int) -> Floats:
    """Smooth random fields in (-0.5, 0.5), [N, 3, 32, 32]: knots on a grid, bilinear between them."""
    knots = np.floor(_uniform(source, count, 3, _KNOTS, _KNOTS) * 256)
    spacing = _SIDE // (_KNOTS - 1)
    pixel, knot = np.arange(_SIDE)[:, None], np.arange(_KNOTS)[None] * spacing
    weights = np.maximum(0, spacing - abs(pixel - knot)).astype(np.float32)
    field = weights @ knots @ weights.T  # integers below 2^24 throughout, so exact in any order
    return field / (256 * spacing * spacing) - 0.5


def _grid(across: Floats, down: Floats) -> tuple[Floats, Floats]:
    """Coordinates of the pixels' centres from a point, in pixels: x and y, each [N, 32, 32]."""
    line = np.arange(_SIDE, dtype=np.float32) + 0.5
    shape = (len(across), _SIDE, _SIDE)
    return np.broadcast_to(line - across, shape), np.broadcast_to(line[:, None] - down, shape)


def _turned(x: Floats, y: Floats, turn: Floats) -> tuple[Floats, Floats]:
    """Coordinates along axes turned by any angle, made from `turn` in [0, 1) without a sine."""
    half = 4 * turn - 1  # tangent of half the angle up to 90 degrees either way; the rest is the opposite direction
    half = np.where(turn < 0.5, half, half - 2)
    sign = np.where(turn < 0.5, np.float32(1), np.float32(-1))
    cosine, sine = sign * (1 - half * half) / (1 + half * half), sign * 2 * half / (1 + half * half)
    return x * cosine + y * sine, y * cosine - x * sine


def _mask(labels: Any, draws: list[Floats]) -> Floats:
    """How much of each pixel the shape covers, [N, 32, 32]."""
    across, down, size, turn, flat, width = draws
    radius = 7 + 5 * size
    p, q = _turned(*_grid(13 + 6 * across, 13 + 6 * down), turn)
    p, q = p / radius, q / (radius * (0.8 + 0.2 * flat))
    distance = np.empty_like(p)
    for label, name in enumerate(CLASSES):
        of_class = labels == label
        distance[of_class] = _SHAPES[name](p[of_class], q[of_class], width[of_class])
    return np.clip(distance * radius + 0.5, 0, 1)


def _speck(across: Floats, down: Floats, size: Floats) -> Floats:
    x, y = _grid(_SIDE * across, _SIDE * down)
    return np.clip(1.5 + 1.5 * size - _radius(x, y), 0, 1)


def _bar(across: Floats, turn: Floats, size: Floats) -> Floats:
    x, _ = _turned(*_grid(_SIDE * across, _SIDE * (1 - across)), turn)
    return np.clip(1 + size - abs(x), 0, 1)


def _over(image: Floats, colour: Floats, mask: Floats) -> Floats:
    return image + (colour - image) * mask[:, None]
