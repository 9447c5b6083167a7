"""A convolution's weight gradient on the processor's tiles of bf16 matrices (Intel AMX), compiled by numba.

oneDNN's takes two to four times as long as its other two passes, for the same number of multiplications. Here the
pixels of some lines of the maps become one long row, with zeros between lines and images. The gradient of each tap of
the kernel is then one matrix product: the channels of the output's gradient by those of the maps, shifted along the row
by the tap's offset. Sums are in fp32, one for each thread's part of the batch."""

import numpy as np
import torch
from numba import prange
from torch import Tensor

from tpsnet_lib.fast_cpu.compiler import Kernel
from tpsnet_lib.fast_cpu.instructions import (
    LINE,
    SIDE,
    configure_tiles,
    interleave_pixels,
    load_sums,
    multiply_tiles,
    prefetch,
    release_tiles,
    store_sums,
    transpose_pixels,
    zero_sums,
)

STEP = 32  # channels of a product (two tiles), and pixels that one step of it sums over
STEPS_TOGETHER = 8  # of a row, at most: their data stays in the caches
TILE_SETTINGS = np.zeros(LINE, np.uint8)  # eight full tiles
TILE_SETTINGS[0], TILE_SETTINGS[16:32:2], TILE_SETTINGS[48:56] = 1, LINE, SIDE


@Kernel
def weight_gradient_pass(
    x_: int, grad_: int, out_: int, settings_: int, batch: int, height: int, width: int, inputs: int, outputs: int,
    kernel: int, parts: int, padded_outputs: int, padded_inputs: int, lines_together: int,
) -> None:  # fmt: skip
    half = kernel // 2
    padded_width, padded_height = width + half, height + half  # of an image with its zeros
    taps = kernel * kernel
    margin = half * padded_width + half
    margin += margin % 2  # pixels before the row, which taps to the top left reach
    steps = -(-lines_together * padded_width // STEP)
    pixels_together = steps * STEP + 2 * margin + 2
    pairs = pixels_together // 2 - 1
    block_bytes = pairs * LINE  # bytes of one block of 16 channels of the maps
    for part in prange(parts):
        configure_tiles(settings_)
        first, last = part * batch // parts, (part + 1) * batch // parts
        line_count = (last - first) * padded_height
        zeros = np.zeros(max(inputs, outputs) + SIDE, np.uint16)
        xs = np.empty(pixels_together, np.int64)  # the address of each pixel's channels
        grads = np.empty(pixels_together, np.int64)
        left_memory = np.empty((steps * padded_outputs + 1) * SIDE, np.uint32)
        right_memory = np.empty((2 * padded_inputs * pairs // SIDE + 1) * SIDE, np.uint32)
        left = (left_memory.ctypes.data + LINE - 1) // LINE * LINE
        right = (right_memory.ctypes.data + LINE - 1) // LINE * LINE
        to_part = out_ + 4 * part * padded_outputs * taps * padded_inputs
        for start in range(0, line_count, lines_together):
            lines = min(lines_together, line_count - start)
            # Where each pixel of these lines has its channels; zeros stand between lines and images.
            xs[:] = zeros.ctypes.data
            grads[:] = zeros.ctypes.data
            for line in range(max(0, start - half), min(line_count, start + lines + half)):
                image, row = line // padded_height, line % padded_height
                if row < height:
                    position = margin + (line - start) * padded_width
                    pixel = ((first + image) * height + row) * width
                    for column in range(width):
                        xs[position + column] = x_ + 2 * inputs * (pixel + column)
                    if start <= line < start + lines:
                        for column in range(width):
                            grads[position + column] = grad_ + 2 * outputs * (pixel + column)
            # Tiles of the gradient, and of the maps from each even and each odd pixel on, as taps shift by one.
            step_count = -(-lines * padded_width // STEP)
            for step in range(step_count):
                pixels = grads.ctypes.data + 8 * (margin + STEP * step)
                for channel in range(0, padded_outputs, SIDE):
                    tile = left + LINE * (step * padded_outputs + channel)
                    transpose_pixels(pixels, 2 * channel, outputs - channel, tile)
            for channel in range(0, padded_inputs, SIDE):
                even = right + block_bytes * (channel // SIDE)
                odd = even + block_bytes * (padded_inputs // SIDE)
                for pair in range(pairs):
                    one, two, three = xs[2 * pair], xs[2 * pair + 1], xs[2 * pair + 2]
                    skip = 2 * channel
                    to_even, to_odd = even + LINE * pair, odd + LINE * pair
                    interleave_pixels(one + skip, two + skip, three + skip, inputs - channel, to_even, to_odd)
            # The next lines are prefetched while tiles are multiplied, a share at each product.
            next_line = start + lines + half
            pixel = ((first + next_line // padded_height) * height + min(next_line % padded_height, height)) * width
            next_x, next_grad = x_ + 2 * inputs * pixel, grad_ + 2 * outputs * (pixel - half * width)
            last_x = next_x + 2 * inputs * width * lines_together
            last_grad = next_grad + 2 * outputs * width * lines_together
            products = step_count * taps * (padded_outputs // STEP) * (padded_inputs // STEP)
            prefetches = -(-2 * max(inputs, outputs) * width * lines_together // (LINE * products))
            # The products: for 32 channels of either side and a tap, the sum over these lines.
            for output in range(0, padded_outputs, STEP):
                for channel in range(0, padded_inputs, STEP):
                    for tap in range(taps):
                        shift = margin + (tap // kernel - half) * padded_width + tap % kernel - half
                        block = (shift % 2) * (padded_inputs // SIDE) + channel // SIDE
                        tiles = right + block_bytes * block + LINE * (shift // 2)
                        position = to_part + 4 * ((output * taps + tap) * padded_inputs + channel)
                        if start == 0:
                            zero_sums()
                        else:
                            load_sums(position, 4 * taps * padded_inputs)
                        for step in range(step_count):
                            left_tile = left + LINE * (step * padded_outputs + output)
                            multiply_tiles(left_tile, tiles + SIDE * LINE * step, block_bytes)
                            for _ in range(prefetches):
                                if next_x < last_x:
                                    prefetch(next_x)
                                if next_grad < last_grad:
                                    prefetch(next_grad)
                                next_x, next_grad = next_x + LINE, next_grad + LINE
                        store_sums(position, 4 * taps * padded_inputs)
        release_tiles()


def weight_gradient(maps: Tensor, grad: Tensor, kernel: int) -> Tensor:
    """The gradient of a convolution's weight [K, C, kernel, kernel], in fp32, channels last; the kernel's side is odd,
    its stride 1, and maps keep their size.

    The input `maps` [B, C, H, W] and the gradient `grad` [B, K, H, W] of the output are bf16 and channels last."""
    batch, inputs, height, width = maps.shape
    outputs = grad.shape[1]
    padded_outputs, padded_inputs = (-(-count // STEP) * STEP for count in (outputs, inputs))
    parts = min(batch, torch.get_num_threads())
    sums = torch.empty(parts, padded_outputs, kernel, kernel, padded_inputs)
    lines_together = max(1, STEP * STEPS_TOGETHER // (width + kernel // 2))
    sizes = batch, height, width, inputs, outputs, kernel, parts, padded_outputs, padded_inputs, lines_together
    weight_gradient_pass((maps, grad, sums), (TILE_SETTINGS.ctypes.data, *sizes))
    result = sums.sum(0)[:outputs, :, :, :inputs].permute(0, 3, 1, 2)
    return result.contiguous(memory_format=torch.channels_last)
