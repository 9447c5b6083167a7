"""Kernels for the layers between convolutions: a batch norm with a skip and an activation as one operation, and a
max-pool.

A small network spends as long there as in its convolutions: torch's batch norm, addition and activation each read and
write all maps, from beyond the caches, forward and backward. Here maps are read twice forward (statistics; result) and
twice backward. Maps are in bf16 and channels last; `optimize` calls nothing here for others. Results do not depend on
the number of threads: sums are taken over parts that are always the same."""

import functools
from typing import Any

import numba
import numpy as np
import torch
from numba import carray, prange
from torch import Tensor

from tpsnet_lib.fast_cpu.compiler import Kernel
from tpsnet_lib.fast_cpu.instructions import LINE, bf16_at, bytes_at, fp32_at, narrow, power_of_two, prefetch, widen

PARTS = 16  # of the maps, each summed up by one thread
ROW_LENGTH = 1024  # numbers in a row of the loops, at most: the channels of some pixels
ROWS_AHEAD = 4  # distance of prefetching
RELU, GELU = 1, 2
ACTIVATIONS = {"": 0, "relu": RELU, "gelu": GELU}
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
LOG2_E, LN_2, ROOT_HALF = np.float32(np.log2(np.e)), np.float32(np.log(2)), np.float32(np.sqrt(0.5))
LOWEST = np.float32(-121)  # exponent of a power of two that float32 still holds
DENSITY = np.float32(1 / np.sqrt(2 * np.pi))
TAYLOR = tuple(np.float32(1 / divisor) for divisor in (720, 120, 24, 6, 2, 1, 1))  # of exp, the highest power first
ERF_P = np.float32(0.3275911)  # Abramowitz and Stegun 1964, 7.1.26: erf to 1.5e-7
ERF = tuple(np.float32(value) for value in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))


@numba.njit
def prefetch_row(address: int, row: int, length: int) -> None:
    """Prefetch the row of bf16 numbers that is `ROWS_AHEAD` rows after this one."""
    start = address + 2 * length * (row + ROWS_AHEAD)
    for byte in range(0, 2 * length, LINE):
        prefetch(start + byte)


@numba.njit(fastmath={"contract"})
def gaussian(value: Any) -> Any:
    """exp(-value^2 / 2), to a relative 2e-7; 0 where that is below 3e-37."""
    power = max(-HALF * value * value * LOG2_E, LOWEST)
    whole = np.int32(power - HALF)
    fraction = (power - np.float32(whole)) * LN_2
    polynomial = TAYLOR[0]
    for factor in TAYLOR[1:]:
        polynomial = polynomial * fraction + factor
    return polynomial * power_of_two(whole) if power > LOWEST else ZERO


@numba.njit(fastmath={"contract"})
def normal_cdf(value: Any, exponential: Any) -> Any:
    """The standard normal distribution function, to 1e-7; `exponential` is `gaussian(value)`."""
    inverse = ONE / (ONE + ERF_P * abs(value) * ROOT_HALF)
    polynomial = ERF[0]
    for factor in ERF[1:]:
        polynomial = polynomial * inverse + factor
    tail = HALF * polynomial * inverse * exponential
    return tail if value < ZERO else ONE - tail


@numba.njit(fastmath={"contract"})
def activate(value: Any, activation: int) -> Any:
    """An activation's value."""
    if activation == RELU:
        return ZERO if value < ZERO else value  # NaN stays NaN
    if activation == GELU:
        return value * normal_cdf(value, gaussian(value))
    return value


@numba.njit(fastmath={"contract"})
def derivative(value: Any, activation: int) -> Any:
    """An activation's derivative."""
    if activation == RELU:
        return ONE if value > ZERO else ZERO
    if activation == GELU:
        exponential = gaussian(value)
        return normal_cdf(value, exponential) + value * exponential * DENSITY
    return ONE


@functools.cache
def norm_kernels(name: str, skips: bool, two_gradients: bool = False) -> tuple[Kernel, Kernel]:
    """The passes forward and backward for the activation of a name, with or without a skip. The gradient of the result
    comes as one tensor or as two summands.

    Forward fills the result and `saved` [2, C] (mean, 1 / standard deviation), and moves the running statistics;
    backward fills the gradients of the maps, the skip, the weight and the bias."""
    activation = ACTIVATIONS[name]

    @Kernel
    def forward_pass(
        x_: int, skip_: int, out_: int, weight_: int, bias_: int, running_mean_: int, running_var_: int, saved_: int,
        rows: int, length: int, channels: int, momentum: float, eps: float,
    ) -> None:  # fmt: skip
        shape = (rows, length)
        x, skip, out = carray(bf16_at(x_), shape), carray(bf16_at(skip_), shape), carray(bf16_at(out_), shape)
        weight, bias = carray(fp32_at(weight_), channels), carray(fp32_at(bias_), channels)
        mean, var = carray(fp32_at(running_mean_), channels), carray(fp32_at(running_var_), channels)
        saved = carray(fp32_at(saved_), (2, channels))
        # Sums of the maps and of their squares.
        sums = np.zeros((PARTS, 2, length), np.float32)
        for part in prange(PARTS):
            values, squares = sums[part, 0], sums[part, 1]
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
                prefetch_row(x_, row, length)
                for j in range(length):
                    value = widen(x[row, j])
                    values[j] += value
                    squares[j] += value * value
        # Each channel's mean and deviation; the running statistics move towards them.
        scale, shift = np.empty(length, np.float32), np.empty(length, np.float32)
        count = rows * (length // channels)
        for channel in range(channels):
            centre = channel_sum(sums, 0, channel, channels) / count
            second = channel_sum(sums, 1, channel, channels) / count
            variance = max(second - centre * centre, 0.0)
            saved[0, channel], saved[1, channel] = centre, 1 / np.sqrt(variance + eps)
            mean[channel] += momentum * (centre - mean[channel])
            var[channel] += momentum * (variance * count / (count - 1) - var[channel])
        # The result: the maps normalised, with the skip, activated.
        fill_scale_and_shift(weight, bias, saved, scale, shift)
        for part in prange(PARTS):
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
                prefetch_row(x_, row, length)
                if skips:
                    prefetch_row(skip_, row, length)
                for j in range(length):
                    value = scale[j] * widen(x[row, j]) + shift[j]
                    if skips:
                        value += widen(skip[row, j])
                    out[row, j] = narrow(activate(value, activation))

    @Kernel
    def backward_pass(
        grad_: int, other_: int, x_: int, skip_: int, to_x_: int, to_skip_: int, weight_: int, bias_: int, saved_: int,
        to_weight_: int, to_bias_: int, rows: int, length: int, channels: int,
    ) -> None:  # fmt: skip
        shape = (rows, length)
        grad, other = carray(bf16_at(grad_), shape), carray(bf16_at(other_), shape)
        x, skip = carray(bf16_at(x_), shape), carray(bf16_at(skip_), shape)
        to_x, to_skip = carray(bf16_at(to_x_), shape), carray(bf16_at(to_skip_), shape)
        weight, bias = carray(fp32_at(weight_), channels), carray(fp32_at(bias_), channels)
        saved = carray(fp32_at(saved_), (2, channels))
        to_weight, to_bias = carray(fp32_at(to_weight_), channels), carray(fp32_at(to_bias_), channels)
        scale, shift = np.empty(length, np.float32), np.empty(length, np.float32)
        fill_scale_and_shift(weight, bias, saved, scale, shift)
        # Sums of the gradient before the activation, and of its products with the maps.
        sums = np.zeros((PARTS, 2, length), np.float32)
        for part in prange(PARTS):
            gradients, products = sums[part, 0], sums[part, 1]
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
                prefetch_row(x_, row, length)
                prefetch_row(grad_, row, length)
                if two_gradients:
                    prefetch_row(other_, row, length)
                if skips:
                    prefetch_row(skip_, row, length)
                for j in range(length):
                    x_value = widen(x[row, j])
                    value = scale[j] * x_value + shift[j]
                    if skips:
                        value += widen(skip[row, j])
                    of_result = widen(grad[row, j]) + (widen(other[row, j]) if two_gradients else ZERO)
                    gradient = of_result * derivative(value, activation)  # of what the activation is given
                    gradients[j] += gradient
                    products[j] += gradient * x_value
                    if skips:
                        to_skip[row, j] = narrow(gradient)
                    elif activation == GELU:  # the second pass reads it in less time than it would repeat it
                        to_x[row, j] = narrow(gradient)
        # Gradients of weight and bias; the gradient of the maps is linear in the maps, with these coefficients.
        x_factor, constant = np.empty(length, np.float32), np.empty(length, np.float32)
        count = rows * (length // channels)
        for channel in range(channels):
            centre, inverse = saved[0, channel], saved[1, channel]
            gradient_sum = channel_sum(sums, 0, channel, channels)
            product_sum = (channel_sum(sums, 1, channel, channels) - centre * gradient_sum) * inverse
            to_bias[channel], to_weight[channel] = gradient_sum, product_sum
            factor = -weight[channel] * inverse * inverse * product_sum / count
            for j in range(channel, length, channels):
                x_factor[j], constant[j] = factor, -weight[channel] * inverse * gradient_sum / count - factor * centre
        # The gradient of the maps.
        for part in prange(PARTS):
            for row in range(part * rows // PARTS, (part + 1) * rows // PARTS):
                prefetch_row(x_, row, length)
                prefetch_row(to_skip_ if skips else to_x_ if activation == GELU else grad_, row, length)
                if two_gradients and not skips and activation != GELU:
                    prefetch_row(other_, row, length)
                for j in range(length):
                    x_value = widen(x[row, j])
                    if skips:
                        gradient = widen(to_skip[row, j])
                    elif activation == GELU:
                        gradient = widen(to_x[row, j])
                    else:
                        of_result = widen(grad[row, j]) + (widen(other[row, j]) if two_gradients else ZERO)
                        gradient = of_result * derivative(scale[j] * x_value + shift[j], activation)
                    to_x[row, j] = narrow(scale[j] * gradient + x_factor[j] * x_value + constant[j])

    return forward_pass, backward_pass


@numba.njit
def channel_sum(sums: Any, which: int, channel: int, channels: int) -> float:
    """One channel's sum over all parts, in fp64."""
    result = 0.0
    for part in range(sums.shape[0]):
        for j in range(channel, sums.shape[2], channels):
            result += sums[part, which, j]
    return result


@numba.njit
def fill_scale_and_shift(weight: Any, bias: Any, saved: Any, scale: Any, shift: Any) -> None:
    """Write each channel's scale and shift, repeated over the length of a row."""
    for j in range(len(scale)):
        channel = j % len(weight)
        scale[j] = weight[channel] * saved[1, channel]
        shift[j] = bias[channel] - saved[0, channel] * scale[j]


@Kernel
def max_pool_pass(x_: int, out_: int, which_: int, batch: int, height: int, width: int, channels: int) -> None:
    """Of each 2x2 pixels the largest value, and in `which` its place (0 to 3, row by row; of equal ones the first)."""
    x = carray(bf16_at(x_), (batch, height, width, channels))
    out = carray(bf16_at(out_), (batch, height // 2, width // 2, channels))
    which = carray(bytes_at(which_), (batch, height // 2, width // 2, channels))
    for image in prange(batch):
        for i in range(height // 2):
            for j in range(width // 2):
                for channel in range(channels):
                    best, value, place = x[image, 2 * i, 2 * j, channel], ZERO, np.uint8(0)
                    for corner in range(1, 4):
                        bits = x[image, 2 * i + corner // 2, 2 * j + corner % 2, channel]
                        value = widen(bits)
                        if value > widen(best) or value != value:  # NaN is passed on
                            best, place = bits, np.uint8(corner)
                    out[image, i, j, channel] = best
                    which[image, i, j, channel] = place


@Kernel
def max_pool_backward_pass(
    grad_: int, which_: int, to_x_: int, batch: int, height: int, width: int, channels: int
) -> None:
    """The gradient goes to the place of the largest value, 0 to the others."""
    grad = carray(bf16_at(grad_), (batch, height // 2, width // 2, channels))
    which = carray(bytes_at(which_), (batch, height // 2, width // 2, channels))
    to_x = carray(bf16_at(to_x_), (batch, height, width, channels))
    for image in prange(batch):
        for i in range(height // 2):
            for j in range(width // 2):
                for corner in range(4):
                    for channel in range(channels):
                        chosen = which[image, i, j, channel] == corner
                        value = grad[image, i, j, channel] if chosen else np.uint16(0)
                        to_x[image, 2 * i + corner // 2, 2 * j + corner % 2, channel] = value
        to_x[image, 2 * (height // 2) :] = 0
        to_x[image, :, 2 * (width // 2) :] = 0


def rows(maps: Tensor) -> tuple[int, int, int]:
    """Rows of the loops over maps [B, C, H, W], numbers in a row, and channels: the sizes that `norm_kernels` take."""
    channels = maps.shape[1]
    length = _row_length(maps.numel() // channels, channels)
    return maps.numel() // length, length, channels


@functools.cache
def _row_length(pixels: int, channels: int) -> int:
    """The length of rows that hold whole pixels and leave none over: at most `ROW_LENGTH`, if a pixel is not longer."""
    return channels * next(count for count in range(max(1, ROW_LENGTH // channels), 0, -1) if pixels % count == 0)


def self_test() -> None:
    """Compile and run one kernel; raises whatever fails in numba, or `ArithmeticError` for a wrong result."""
    maps = torch.arange(32.0).reshape(2, 1, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    out = torch.empty(2, 1, 2, 2, dtype=torch.bfloat16)
    max_pool_pass((maps, out, torch.empty(2, 1, 2, 2, dtype=torch.uint8)), (2, 4, 4, 1))
    if out.flatten().tolist() != [5, 7, 13, 15, 21, 23, 29, 31]:
        raise ArithmeticError("a compiled max-pool gives a wrong result")
