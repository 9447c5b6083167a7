"""A convolution's weight gradient on the processor's tiles of bf16 matrices (Intel AMX), compiled by numba.

oneDNN's takes two to four times as long as its other two passes, though it multiplies as many numbers. Here the pixels
of some lines at a time become one long row, with zeros between lines and images; then the gradient of each of the
kernel's taps is one product of matrices: the channels of the output's gradient by those of the maps, so many pixels
further on. Sums are in fp32, one for each thread's part of the batch."""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from tpsnet_lib.fast_cpu.instructions import LINE, SIDE, begin, clear, end, fetch, keep, multiply, pair, soon, turn
from tpsnet_lib.fast_cpu.kernels import call, jit

WIDE = 32  # channels of a product, two tiles' worth, and pixels that one step of it sums over
STEPS = 8  # of a row, at most: so much stays near the processor
SETTING = np.zeros(LINE, np.uint8)  # eight tiles, all in full
SETTING[0], SETTING[16:32:2], SETTING[48:56] = 1, LINE, SIDE
torch.cpu._init_amx()  # Linux lets a process use tiles only once it has asked


@jit
def gradient(
    x_: int, grad_: int, out_: int, setting_: int, batch: int, high: int, wide: int, inputs: int, outputs: int,
    kernel: int, parts: int, down: int, across: int, at_once: int,
) -> None:  # fmt: skip
    half = kernel // 2
    pitch, tall, taps = wide + half, high + half, kernel * kernel  # of an image with its zeros, in pixels and lines
    ahead = half * pitch + half
    ahead += ahead % 2  # pixels before the row, where taps up and to the left come to
    steps = -(-at_once * pitch // WIDE)
    room = steps * WIDE + 2 * ahead + 2
    pairs = room // 2 - 1
    beside = pairs * LINE  # bytes of one block of 16 channels of the maps
    for part in prange(parts):
        begin(setting_)
        first, last = part * batch // parts, (part + 1) * batch // parts
        total = (last - first) * tall
        zeros = np.zeros(max(inputs, outputs) + SIDE, np.uint16)
        xs, grads = np.empty(room, np.int64), np.empty(room, np.int64)  # the addresses of each pixel's channels
        space_left = np.empty((steps * down + 1) * SIDE, np.uint32)
        space_right = np.empty((2 * across * pairs // SIDE + 1) * SIDE, np.uint32)
        left = (space_left.ctypes.data + LINE - 1) // LINE * LINE
        right = (space_right.ctypes.data + LINE - 1) // LINE * LINE
        to_part = out_ + 4 * part * down * taps * across
        for start in range(0, total, at_once):
            lines = min(at_once, total - start)
            xs[:] = zeros.ctypes.data
            grads[:] = zeros.ctypes.data
            for line in range(max(0, start - half), min(total, start + lines + half)):
                image, row = line // tall, line % tall
                if row < high:
                    place = ahead + (line - start) * pitch
                    pixel = ((first + image) * high + row) * wide
                    for column in range(wide):
                        xs[place + column] = x_ + 2 * inputs * (pixel + column)
                    if start <= line < start + lines:
                        for column in range(wide):
                            grads[place + column] = grad_ + 2 * outputs * (pixel + column)
            here = -(-lines * pitch // WIDE)
            for step in range(here):
                pixels = grads.ctypes.data + 8 * (ahead + WIDE * step)
                for channel in range(0, down, SIDE):
                    turn(pixels, 2 * channel, outputs - channel, left + LINE * (step * down + channel))
            for channel in range(0, across, SIDE):
                even = right + beside * (channel // SIDE)
                odd = even + beside * (across // SIDE)
                for at in range(pairs):
                    one, two, three = xs[2 * at], xs[2 * at + 1], xs[2 * at + 2]
                    skip = 2 * channel
                    pair(one + skip, two + skip, three + skip, inputs - channel, even + LINE * at, odd + LINE * at)
            after = start + lines + half  # the lines that are next, brought near while tiles are multiplied
            pixel = ((first + after // tall) * high + min(after % tall, high)) * wide
            next_x, next_grad = x_ + 2 * inputs * pixel, grad_ + 2 * outputs * (pixel - half * wide)
            last_x, last_grad = (next_x + 2 * inputs * wide * at_once, next_grad + 2 * outputs * wide * at_once)
            products = here * taps * (down // WIDE) * (across // WIDE)
            few = -(-2 * max(inputs, outputs) * wide * at_once // (LINE * products))
            for output in range(0, down, WIDE):
                for channel in range(0, across, WIDE):
                    for tap in range(taps):
                        shift = ahead + (tap // kernel - half) * pitch + tap % kernel - half
                        block = (shift % 2) * (across // SIDE) + channel // SIDE
                        begins = right + beside * block + LINE * (shift // 2)
                        place = to_part + 4 * ((output * taps + tap) * across + channel)
                        if start == 0:
                            clear()
                        else:
                            fetch(place, 4 * taps * across)
                        for step in range(here):
                            multiply(left + LINE * (step * down + output), begins + SIDE * LINE * step, beside)
                            for _ in range(few):
                                if next_x < last_x:
                                    soon(next_x)
                                if next_grad < last_grad:
                                    soon(next_grad)
                                next_x, next_grad = next_x + LINE, next_grad + LINE
                        keep(place, 4 * taps * across)
        end()


def weight_gradient(maps: Tensor, grad: Tensor, kernel: int) -> Tensor:
    """The gradient of a convolution's weight [K, C, kernel, kernel], in fp32, channels last; the kernel's side is odd,
    its stride 1, and maps keep their size.

    `maps` [B, C, H, W], what went in, and `grad` [B, K, H, W], what came back, are bf16 and channels last."""
    batch, inputs, high, wide = maps.shape
    outputs = grad.shape[1]
    down, across = (-(-count // WIDE) * WIDE for count in (outputs, inputs))
    parts = min(batch, torch.get_num_threads())
    sums = torch.empty(parts, down, kernel, kernel, across)
    at_once = max(1, WIDE * STEPS // (wide + kernel // 2))
    sizes = batch, high, wide, inputs, outputs, kernel, parts, down, across, at_once
    call(gradient, (maps, grad, sums), (SETTING.ctypes.data, *sizes))
    found = sums.sum(0)[:outputs, :, :, :inputs].permute(0, 3, 1, 2)
    return found.contiguous(memory_format=torch.channels_last)
