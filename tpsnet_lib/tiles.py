"""A convolution's weight gradient on the processor's tiles of bf16 matrices (Intel AMX), compiled by numba.

oneDNN's takes two to four times as long as its other two passes, though it multiplies as many numbers. Here the pixels
of some lines at a time become one long row, with zeros between lines and images; then the gradient of each of the
kernel's taps is one product of matrices: the channels of the output's gradient by those of the maps, so many pixels
further on. Sums are in fp32, one for each thread's part of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from tpsnet_lib.kernels import LINE, call, jit, soon

SIDE = 16  # lines of a tile, and fp32 numbers or pairs of bf16 in each
WIDE = 32  # channels of a product, two tiles' worth, and pixels that one step of it sums over
STEPS = 8  # of a row, at most: so much stays near the processor
SETTING = np.zeros(LINE, np.uint8)  # eight tiles, all in full
SETTING[0], SETTING[16:32:2], SETTING[48:56] = 1, LINE, SIDE
torch.cpu._init_amx()  # Linux lets a process use tiles only once it has asked

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_HALVES, _WORDS = ir.VectorType(_I16, SIDE), ir.VectorType(_I32, SIDE)
_SUMS = ((0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1))  # the tiles that add up: number, which of two down and across


# What no library has: single instructions of the processor, and vectors ----------------------------------------------


def _code(count: int, write: Callable[..., None]) -> Any:
    """A function of so many 64-bit integers, by what writes its instructions."""

    def code(context: Any, builder: Any, _: Any, args: Any) -> Any:
        write(builder, *args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * count), code


def _emit(builder: Any, name: str, *args: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    builder.call(builder.module.declare_intrinsic(f"llvm.x86.{name}", (), kind), args)


def _at(builder: Any, address: Any, kind: Any = _I8) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _vector(values: Iterable[int]) -> Any:
    return ir.Constant(_WORDS, [_I32(value) for value in values])


@intrinsic
def begin(_: Any, setting: Any) -> Any:
    """Set this thread's tiles up."""
    return _code(1, lambda builder, there: _emit(builder, "ldtilecfg", _at(builder, there)))


@intrinsic
def end(_: Any) -> Any:
    """Leave the tiles to others."""
    return _code(0, lambda builder: _emit(builder, "tilerelease"))


@intrinsic
def clear(_: Any) -> Any:
    """Set the sums to zero."""

    def write(builder: Any) -> None:
        for tile, _, _ in _SUMS:
            _emit(builder, "tilezero", _I8(tile))

    return _code(0, write)


def _each_sum(name: str) -> Any:
    def write(builder: Any, address: Any, pitch: Any) -> None:
        for tile, down, across in _SUMS:
            place = builder.add(builder.mul(pitch, _I64(SIDE * down)), _I64(LINE * across))
            _emit(builder, name, _I8(tile), _at(builder, builder.add(address, place)), pitch)

    return _code(2, write)


@intrinsic
def fetch(_: Any, address: Any, pitch: Any) -> Any:
    """Read the sums, 32 lines of 32 fp32 numbers, `pitch` bytes from line to line."""
    return _each_sum("tileloadd64")


@intrinsic
def keep(_: Any, address: Any, pitch: Any) -> Any:
    """Write the sums."""
    return _each_sum("tilestored64")


@intrinsic
def multiply(_: Any, left: Any, right: Any, beside: Any) -> Any:
    """Add to the sums the products of two tiles at `left`, and two at `right` that are `beside` bytes apart."""

    def write(builder: Any, left: Any, right: Any, beside: Any) -> None:
        def load(tile: int, address: Any) -> None:
            _emit(builder, "tileloadd64", _I8(tile), _at(builder, address), _I64(LINE))

        load(6, right)
        load(4, left)
        _emit(builder, "tdpbf16ps", _I8(0), _I8(4), _I8(6))
        load(7, builder.add(right, beside))
        _emit(builder, "tdpbf16ps", _I8(1), _I8(4), _I8(7))
        load(5, builder.add(left, _I64(SIDE * LINE)))
        _emit(builder, "tdpbf16ps", _I8(2), _I8(5), _I8(6))
        _emit(builder, "tdpbf16ps", _I8(3), _I8(5), _I8(7))

    return _code(3, write)


def _words(builder: Any, address: Any, count: Any) -> Any:
    """Up to 16 bf16 numbers in the lower halves of 32-bit words; zeros from `count` on."""
    one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), builder.trunc(count, _I32), _I32(0))
    mask = builder.icmp_signed("<", _vector(range(SIDE)), builder.shuffle_vector(one, one, _vector([0] * SIDE)))
    kind = ir.FunctionType(_HALVES, [_HALVES.as_pointer(), _I32, mask.type, _HALVES])
    load = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16i16.p0")
    zeros = ir.Constant(_HALVES, [_I16(0)] * SIDE)
    return builder.zext(builder.call(load, [_at(builder, address, _HALVES), _I32(2), mask, zeros]), _WORDS)


def _paired(builder: Any, first: Any, second: Any) -> Any:
    return builder.or_(first, builder.shl(second, _vector([16] * SIDE)))


def _put(builder: Any, words: Any, address: Any) -> None:
    builder.store(words, _at(builder, address, _WORDS)).align = LINE


@intrinsic
def pair(_: Any, first: Any, second: Any, third: Any, count: Any, even: Any, odd: Any) -> Any:
    """Three pixels' channels at their addresses, up to 16 of `count`, become a line of two tiles: each channel's first
    and second number at `even`, its second and third at `odd`."""

    def write(builder: Any, first: Any, second: Any, third: Any, count: Any, even: Any, odd: Any) -> None:
        one, two, three = (_words(builder, address, count) for address in (first, second, third))
        _put(builder, _paired(builder, one, two), even)
        _put(builder, _paired(builder, two, three), odd)

    return _code(6, write)


@intrinsic
def turn(_: Any, addresses: Any, offset: Any, count: Any, tile: Any) -> Any:
    """The channels from `offset` bytes on, up to 16 of `count`, of 32 pixels become a tile: a line for each channel."""

    def write(builder: Any, addresses: Any, offset: Any, count: Any, tile: Any) -> None:
        def pixel(number: int) -> Any:
            address = builder.load(_at(builder, builder.add(addresses, _I64(8 * number)), _I64))
            return _words(builder, builder.add(address, offset), count)

        lines = [_paired(builder, pixel(2 * line), pixel(2 * line + 1)) for line in range(SIDE)]
        for step in (8, 4, 2, 1):  # swap quarters: of the whole, of each quarter, of each of theirs, ...
            ahead = _vector(at if not at & step else SIDE + at - step for at in range(SIDE))
            behind = _vector(at + step if not at & step else SIDE + at for at in range(SIDE))
            for line in (line for line in range(SIDE) if not line & step):
                two = lines[line], lines[line + step]
                lines[line] = builder.shuffle_vector(*two, ahead)
                lines[line + step] = builder.shuffle_vector(*two, behind)
        for number, line in enumerate(lines):
            _put(builder, line, builder.add(tile, _I64(LINE * number)))

    return _code(4, write)


# The gradient --------------------------------------------------------------------------------------------------------


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
