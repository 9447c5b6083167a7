"""What stands between convolutions, compiled for this processor by numba: a batch norm with a skip and an activation
as one operation, and a max-pool.

A small network spends as long there as in its convolutions: torch's batch norm, addition and activation each read and
write all maps, from beyond the caches, forward and backward. Here maps are read twice forward (statistics; result) and
twice backward. Only maps in bf16, channels last; `layers` decides. Results do not depend on the number of threads: sums
are taken over parts that are always the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import carray, prange
from torch import Tensor

from tpsnet_lib.fast_cpu.instructions import LINE, bf16_at, bytes_at, fp32_at, narrow, power_of_two, soon, widen

# First GNU's OpenMP: it is torch's own pool of threads (on Linux), and a second one would wait for the same cores.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

PARTS = 16  # of the maps, each summed up by one thread
ACROSS = 1024  # numbers in a row of the loops: the channels of so many pixels
AHEAD = 4  # rows
RELU, GELU = 1, 2
ACTIVATIONS = {"": 0, "relu": RELU, "gelu": GELU}  # the names in `layers`, and none
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
LOG2_E, LN_2, ROOT_HALF = np.float32(np.log2(np.e)), np.float32(np.log(2)), np.float32(np.sqrt(0.5))
LOWEST = np.float32(-121)  # a power of two that float32 has to spare
DENSITY = np.float32(1 / np.sqrt(2 * np.pi))
TAYLOR = tuple(np.float32(1 / divisor) for divisor in (720, 120, 24, 6, 2, 1, 1))  # of exp, the highest power first
ERF_P = np.float32(0.3275911)  # Abramowitz and Stegun 1964, 7.1.26: erf to 1.5e-7
ERF = tuple(np.float32(value) for value in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))


def jit(function: Callable[..., Any]) -> Any:
    """A function of addresses and sizes with loops in parallel, compiled when it is first called; what comes out is
    kept beside this file, or else where numba keeps such things."""
    options = {"parallel": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither can be written
        return numba.njit(**options)(function)


@numba.njit
def row_soon(address: int, row: int, across: int) -> None:
    """The same for a row of bf16 numbers that is a few rows further on than this one."""
    there = address + 2 * across * (row + AHEAD)
    for byte in range(0, 2 * across, LINE):
        soon(there + byte)


@numba.njit(fastmath={"contract"})
def bell(value: Any) -> Any:
    """exp(-value^2 / 2), to 2e-7 of itself; 0 where that is below 3e-37."""
    power = max(-HALF * value * value * LOG2_E, LOWEST)
    whole = np.int32(power - HALF)
    rest = (power - np.float32(whole)) * LN_2
    total = TAYLOR[0]
    for factor in TAYLOR[1:]:
        total = total * rest + factor
    return total * power_of_two(whole) if power > LOWEST else ZERO


@numba.njit(fastmath={"contract"})
def below(value: Any, bell_there: Any) -> Any:
    """The standard normal distribution's mass below a value, to 1e-7."""
    inverse = ONE / (ONE + ERF_P * abs(value) * ROOT_HALF)
    total = ERF[0]
    for factor in ERF[1:]:
        total = total * inverse + factor
    beyond = HALF * total * inverse * bell_there
    return beyond if value < ZERO else ONE - beyond


@numba.njit(fastmath={"contract"})
def active(value: Any, activation: int) -> Any:
    """A value after an activation."""
    if activation == RELU:
        return ZERO if value < ZERO else value  # what is not a number stays that
    if activation == GELU:
        return value * below(value, bell(value))
    return value


@numba.njit(fastmath={"contract"})
def slope(value: Any, activation: int) -> Any:
    """An activation's derivative at a value."""
    if activation == RELU:
        return ONE if value > ZERO else ZERO
    if activation == GELU:
        there = bell(value)
        return below(value, there) + value * there * DENSITY
    return ONE


@functools.cache
def compiled(activation: int, skips: bool, twice: bool) -> tuple[Any, Any]:
    """The passes forward and backward with an activation of `ACTIVATIONS`, with a skip or without; and with the
    gradient the sum of two, or one."""

    @jit
    def there(
        x_: int, skip_: int, out_: int, weight_: int, bias_: int, running_mean_: int, running_var_: int, saved_: int,
        rows: int, across: int, channels: int, momentum: float, eps: float,
    ) -> None:  # fmt: skip
        shape = (rows, across)
        x, skip, out = carray(bf16_at(x_), shape), carray(bf16_at(skip_), shape), carray(bf16_at(out_), shape)
        weight, bias = carray(fp32_at(weight_), channels), carray(fp32_at(bias_), channels)
        mean, var = carray(fp32_at(running_mean_), channels), carray(fp32_at(running_var_), channels)
        saved = carray(fp32_at(saved_), (2, channels))
        sums = np.zeros((PARTS, 2, across), np.float32)
        for part in prange(PARTS):
            plain, squares = sums[part, 0], sums[part, 1]
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
                row_soon(x_, row, across)
                for j in range(across):
                    value = widen(x[row, j])
                    plain[j] += value
                    squares[j] += value * value
        scale, shift = np.empty(across, np.float32), np.empty(across, np.float32)
        count = rows * (across // channels)
        for channel in range(channels):
            centre, second = total(sums, 0, channel, channels) / count, total(sums, 1, channel, channels) / count
            spread = max(second - centre * centre, 0.0)
            saved[0, channel], saved[1, channel] = centre, 1 / np.sqrt(spread + eps)
            mean[channel] += momentum * (centre - mean[channel])
            var[channel] += momentum * (spread * count / (count - 1) - var[channel])
        lay_out(weight, bias, saved, scale, shift)
        for part in prange(PARTS):
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
                row_soon(x_, row, across)
                if skips:
                    row_soon(skip_, row, across)
                for j in range(across):
                    value = scale[j] * widen(x[row, j]) + shift[j]
                    if skips:
                        value += widen(skip[row, j])
                    out[row, j] = narrow(active(value, activation))

    @jit
    def back(
        grad_: int, other_: int, x_: int, skip_: int, to_x_: int, to_skip_: int, weight_: int, bias_: int, saved_: int,
        to_weight_: int, to_bias_: int, rows: int, across: int, channels: int,
    ) -> None:  # fmt: skip
        shape = (rows, across)
        grad, other = carray(bf16_at(grad_), shape), carray(bf16_at(other_), shape)
        x, skip = carray(bf16_at(x_), shape), carray(bf16_at(skip_), shape)
        to_x, to_skip = carray(bf16_at(to_x_), shape), carray(bf16_at(to_skip_), shape)
        weight, bias = carray(fp32_at(weight_), channels), carray(fp32_at(bias_), channels)
        saved = carray(fp32_at(saved_), (2, channels))
        to_weight, to_bias = carray(fp32_at(to_weight_), channels), carray(fp32_at(to_bias_), channels)
        scale, shift = np.empty(across, np.float32), np.empty(across, np.float32)
        lay_out(weight, bias, saved, scale, shift)
        sums = np.zeros((PARTS, 2, across), np.float32)
        for part in prange(PARTS):
            plain, products = sums[part, 0], sums[part, 1]
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
                row_soon(x_, row, across)
                row_soon(grad_, row, across)
                if twice:
                    row_soon(other_, row, across)
                if skips:
                    row_soon(skip_, row, across)
                for j in range(across):
                    there = widen(x[row, j])
                    value = scale[j] * there + shift[j]
                    if skips:
                        value += widen(skip[row, j])
                    come = widen(grad[row, j]) + (widen(other[row, j]) if twice else ZERO)
                    inner = come * slope(value, activation)
                    plain[j] += inner
                    products[j] += inner * there
                    if skips:
                        to_skip[row, j] = narrow(inner)
                    elif activation == GELU:  # for the second pass, which takes less time to read it than to repeat it
                        to_x[row, j] = narrow(inner)
        of_grad, of_x, rest = scale, np.empty(across, np.float32), np.empty(across, np.float32)
        count = rows * (across // channels)
        for channel in range(channels):
            centre, inverse = saved[0, channel], saved[1, channel]
            plain_sum = total(sums, 0, channel, channels)
            product = (total(sums, 1, channel, channels) - centre * plain_sum) * inverse
            to_bias[channel], to_weight[channel] = plain_sum, product
            back = -weight[channel] * inverse * inverse * product / count
            for j in range(channel, across, channels):
                of_x[j], rest[j] = back, -weight[channel] * inverse * plain_sum / count - back * centre
        for part in prange(PARTS):
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
                row_soon(x_, row, across)
                row_soon(to_skip_ if skips else to_x_ if activation == GELU else grad_, row, across)
                if twice and not skips and activation != GELU:
                    row_soon(other_, row, across)
                for j in range(across):
                    there = widen(x[row, j])
                    if skips:
                        inner = widen(to_skip[row, j])
                    elif activation == GELU:
                        inner = widen(to_x[row, j])
                    else:
                        come = widen(grad[row, j]) + (widen(other[row, j]) if twice else ZERO)
                        inner = come * slope(scale[j] * there + shift[j], activation)
                    to_x[row, j] = narrow(of_grad[j] * inner + of_x[j] * there + rest[j])

    return there, back


@numba.njit
def total(sums: Any, which: int, channel: int, channels: int) -> float:
    """One channel's sum over all parts, in fp64."""
    found = 0.0
    for part in range(sums.shape[0]):
        for j in range(channel, sums.shape[2], channels):
            found += sums[part, which, j]
    return found


@numba.njit
def lay_out(weight: Any, bias: Any, saved: Any, scale: Any, shift: Any) -> None:
    """Each channel's scale and shift, again and again across a row."""
    for j in range(len(scale)):
        channel = j % len(weight)
        scale[j] = weight[channel] * saved[1, channel]
        shift[j] = bias[channel] - saved[0, channel] * scale[j]


@jit
def pool(x_: int, out_: int, which_: int, batch: int, high: int, wide: int, channels: int) -> None:
    """Of each 2x2 pixels the largest value, and in `which` its place (0 to 3, row by row; of equal ones the first)."""
    x = carray(bf16_at(x_), (batch, high, wide, channels))
    out = carray(bf16_at(out_), (batch, high // 2, wide // 2, channels))
    which = carray(bytes_at(which_), (batch, high // 2, wide // 2, channels))
    for image in prange(batch):
        for i in range(high // 2):
            for j in range(wide // 2):
                for channel in range(channels):
                    best, value, place = x[image, 2 * i, 2 * j, channel], ZERO, np.uint8(0)
                    for corner in range(1, 4):
                        bits = x[image, 2 * i + corner // 2, 2 * j + corner % 2, channel]
                        value = widen(bits)
                        if value > widen(best) or value != value:  # what is not a number is passed on
                            best, place = bits, np.uint8(corner)
                    out[image, i, j, channel] = best
                    which[image, i, j, channel] = place


@jit
def pool_back(grad_: int, which_: int, to_x_: int, batch: int, high: int, wide: int, channels: int) -> None:
    """The gradient of what was the largest goes to its place, 0 to all others."""
    grad = carray(bf16_at(grad_), (batch, high // 2, wide // 2, channels))
    which = carray(bytes_at(which_), (batch, high // 2, wide // 2, channels))
    to_x = carray(bf16_at(to_x_), (batch, high, wide, channels))
    for image in prange(batch):
        for i in range(high // 2):
            for j in range(wide // 2):
                for corner in range(4):
                    for channel in range(channels):
                        here = which[image, i, j, channel] == corner
                        value = grad[image, i, j, channel] if here else np.uint16(0)
                        to_x[image, 2 * i + corner // 2, 2 * j + corner % 2, channel] = value
        to_x[image, 2 * (high // 2) :] = 0
        to_x[image, :, 2 * (wide // 2) :] = 0


def max_pool(maps: Tensor, out: Tensor, which: Tensor) -> None:
    """Fill `out` [B, C, h, w] and `which` (uint8, of its shape) from `maps` [B, C, H, W]."""
    call(pool, (maps, out, which), _last(maps))


def max_pool_backward(grad: Tensor, which: Tensor, to_maps: Tensor) -> None:
    """Fill the gradient that goes to the maps [B, C, H, W], from that of what came out."""
    call(pool_back, (grad, which, to_maps), _last(to_maps))


def _last(maps: Tensor) -> tuple[int, int, int, int]:
    batch, channels, high, wide = maps.shape
    return batch, high, wide, channels


def forward(
    activation: str, maps: Tensor, skip: Tensor | None, out: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor,
    running_var: Tensor, saved: Tensor, momentum: float, eps: float,
) -> None:  # fmt: skip
    """Fill `out` [B, C, H, W] and `saved` [2, C] (mean, 1 / standard deviation), and move the running statistics."""
    tensors = maps, skip, out, weight, bias, running_mean, running_var, saved
    call(compiled(ACTIVATIONS[activation], skip is not None, False)[0], tensors, (*_cut(maps), momentum, eps))


def backward(
    activation: str, grad: Tensor, other: Tensor | None, maps: Tensor, skip: Tensor | None, to_maps: Tensor,
    to_skip: Tensor | None, weight: Tensor, bias: Tensor, saved: Tensor, to_weight: Tensor, to_bias: Tensor,
) -> None:  # fmt: skip
    """Fill the gradients that go to the maps, the skip, the weight and the bias, from that of what came out, or from
    two that add up to it."""
    tensors = grad, other, maps, skip, to_maps, to_skip, weight, bias, saved, to_weight, to_bias
    call(compiled(ACTIVATIONS[activation], skip is not None, other is not None)[1], tensors, _cut(maps))


def _cut(maps: Tensor) -> tuple[int, int, int]:
    """Rows, numbers in a row, and channels."""
    channels = maps.shape[1]
    across = _across(maps.numel() // channels, channels)
    return maps.numel() // across, across, channels


@functools.cache
def _across(pixels: int, channels: int) -> int:
    """How long the rows are into which the maps are cut: at most `ACROSS` if a pixel is, and none is left over."""
    return channels * next(count for count in range(max(1, ACROSS // channels), 0, -1) if pixels % count == 0)


def call(kernel: Any, tensors: tuple[Tensor | None, ...], numbers: tuple[float, ...]) -> None:
    """Call a kernel with as many threads as torch has."""
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    if torch.get_num_threads() != threads:  # numba's first call sets the number of the pool that they share
        torch.set_num_threads(threads)
    kernel(*(0 if tensor is None else tensor.data_ptr() for tensor in tensors), *numbers)
