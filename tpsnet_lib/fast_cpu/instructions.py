"""Instructions of the processor that Python cannot express, for functions that numba compiles.

Addresses, sizes and counts are 64-bit integers; a line is 64 bytes, a tile 16 lines (Intel AMX)."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 64  # bytes of a cache line, and of a tile's line
SIDE = 16  # lines of a tile, and fp32 numbers or pairs of bf16 in each

_F32 = ir.FloatType()
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_HALVES, _WORDS = ir.VectorType(_I16, SIDE), ir.VectorType(_I32, SIDE)
_SUMS = ((0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1))  # the tiles that add up: number, which of two down and across


def _instruction(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """A function for compiled code, of the one that writes its instructions, given a builder and the arguments."""

    def decorate(write: Callable[..., Any]) -> Any:
        def code(context: Any, builder: Any, _: Any, values: Any) -> Any:
            written = write(builder, *values)
            return context.get_dummy_value() if result is types.void else written

        return intrinsic(functools.wraps(write)(lambda _, *__: (result(*arguments), code)))

    return decorate


def _call_intrinsic(builder: Any, name: str, *args: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    builder.call(builder.module.declare_intrinsic(f"llvm.x86.{name}", (), kind), args)


def _pointer_to(builder: Any, address: Any, kind: Any = _I8) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _vector(values: Iterable[int]) -> Any:
    return ir.Constant(_WORDS, [_I32(value) for value in values])


@_instruction(types.float32, types.uint16)
def widen(builder: Any, bits: Any) -> Any:
    """A bf16, given as its 16 bits, in fp32."""
    return builder.bitcast(builder.shl(builder.zext(bits, _I32), _I32(16)), _F32)


@_instruction(types.uint16, types.float32)
def narrow(builder: Any, value: Any) -> Any:
    """The 16 bits of the nearest bf16, of two the even one."""
    bits = builder.bitcast(value, _I32)
    odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
    return builder.trunc(builder.lshr(builder.add(builder.add(bits, odd), _I32(0x7FFF)), _I32(16)), _I16)


@_instruction(types.float32, types.int32)
def power_of_two(builder: Any, exponent: Any) -> Any:
    """2 to an integer from -126 to 127."""
    return builder.bitcast(builder.shl(builder.add(exponent, _I32(127)), _I32(23)), _F32)


def _pointer(kind: Any, stored: Any) -> Any:
    def at(builder: Any, address: Any) -> Any:
        return builder.inttoptr(address, stored.as_pointer())

    return _instruction(types.CPointer(kind), types.int64)(at)


bf16_at, fp32_at, bytes_at = (  # pointers to an address; bf16 numbers are given as their bits
    _pointer(types.uint16, _I16), _pointer(types.float32, _F32), _pointer(types.uint8, ir.IntType(8)),
)  # fmt: skip


@_instruction(types.void, types.int64)
def prefetch(builder: Any, address: Any) -> None:
    """Bring the line at an address into the caches without waiting; any address will do."""
    kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [_pointer_to(builder, address), _I32(0), _I32(2), _I32(1)])


@_instruction(types.void, types.int64)
def configure_tiles(builder: Any, setting: Any) -> None:
    """Configure this thread's tiles."""
    _call_intrinsic(builder, "ldtilecfg", _pointer_to(builder, setting))


@_instruction(types.void)
def release_tiles(builder: Any) -> None:
    """Release this thread's tiles."""
    _call_intrinsic(builder, "tilerelease")


@_instruction(types.void)
def zero_sums(builder: Any) -> None:
    """Set the sums to zero."""
    for tile, _, _ in _SUMS:
        _call_intrinsic(builder, "tilezero", _I8(tile))


def _each_sum_tile(name: str, builder: Any, address: Any, pitch: Any) -> None:
    for tile, down, across in _SUMS:
        place = builder.add(builder.mul(pitch, _I64(SIDE * down)), _I64(LINE * across))
        _call_intrinsic(builder, name, _I8(tile), _pointer_to(builder, builder.add(address, place)), pitch)


@_instruction(types.void, types.int64, types.int64)
def load_sums(builder: Any, address: Any, pitch: Any) -> None:
    """Read the sums, 32 lines of 32 fp32 numbers, `pitch` bytes from line to line."""
    _each_sum_tile("tileloadd64", builder, address, pitch)


@_instruction(types.void, types.int64, types.int64)
def store_sums(builder: Any, address: Any, pitch: Any) -> None:
    """Write the sums."""
    _each_sum_tile("tilestored64", builder, address, pitch)


@_instruction(types.void, *[types.int64] * 3)
def multiply_tiles(builder: Any, left: Any, right: Any, apart: Any) -> None:
    """Add to the sums the products of two tiles at `left`, and two at `right` that are `apart` bytes apart."""

    def load(tile: int, address: Any) -> None:
        _call_intrinsic(builder, "tileloadd64", _I8(tile), _pointer_to(builder, address), _I64(LINE))

    load(6, right)
    load(4, left)
    _call_intrinsic(builder, "tdpbf16ps", _I8(0), _I8(4), _I8(6))
    load(7, builder.add(right, apart))
    _call_intrinsic(builder, "tdpbf16ps", _I8(1), _I8(4), _I8(7))
    load(5, builder.add(left, _I64(SIDE * LINE)))
    _call_intrinsic(builder, "tdpbf16ps", _I8(2), _I8(5), _I8(6))
    _call_intrinsic(builder, "tdpbf16ps", _I8(3), _I8(5), _I8(7))


def _load_words(builder: Any, address: Any, count: Any) -> Any:
    """Up to 16 bf16 numbers in the lower halves of 32-bit words; zeros from `count` on."""
    one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), builder.trunc(count, _I32), _I32(0))
    mask = builder.icmp_signed("<", _vector(range(SIDE)), builder.shuffle_vector(one, one, _vector([0] * SIDE)))
    kind = ir.FunctionType(_HALVES, [_HALVES.as_pointer(), _I32, mask.type, _HALVES])
    load = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16i16.p0")
    zeros = ir.Constant(_HALVES, [_I16(0)] * SIDE)
    return builder.zext(builder.call(load, [_pointer_to(builder, address, _HALVES), _I32(2), mask, zeros]), _WORDS)


def _pack_pairs(builder: Any, first: Any, second: Any) -> Any:
    return builder.or_(first, builder.shl(second, _vector([16] * SIDE)))


def _store(builder: Any, words: Any, address: Any) -> None:
    builder.store(words, _pointer_to(builder, address, _WORDS)).align = LINE


@_instruction(types.void, *[types.int64] * 6)
def interleave_pixels(builder: Any, first: Any, second: Any, third: Any, count: Any, even: Any, odd: Any) -> None:
    """Three pixels' channels at their addresses, up to 16 of `count`, become a line of two tiles: each channel's first
    and second number at `even`, its second and third at `odd`."""
    one, two, three = (_load_words(builder, address, count) for address in (first, second, third))
    _store(builder, _pack_pairs(builder, one, two), even)
    _store(builder, _pack_pairs(builder, two, three), odd)


@_instruction(types.void, *[types.int64] * 4)
def transpose_pixels(builder: Any, addresses: Any, offset: Any, count: Any, tile: Any) -> None:
    """The channels from `offset` bytes on, up to 16 of `count`, of 32 pixels become a tile: a line for each channel."""

    def pixel(number: int) -> Any:
        address = builder.load(_pointer_to(builder, builder.add(addresses, _I64(8 * number)), _I64))
        return _load_words(builder, builder.add(address, offset), count)

    lines = [_pack_pairs(builder, pixel(2 * line), pixel(2 * line + 1)) for line in range(SIDE)]
    for step in (8, 4, 2, 1):  # swap quarters: of the whole, of each quarter, of each of theirs, ...
        upper = _vector(at if not at & step else SIDE + at - step for at in range(SIDE))
        lower = _vector(at + step if not at & step else SIDE + at for at in range(SIDE))
        for line in (line for line in range(SIDE) if not line & step):
            two = lines[line], lines[line + step]
            lines[line] = builder.shuffle_vector(*two, upper)
            lines[line + step] = builder.shuffle_vector(*two, lower)
    for number, line in enumerate(lines):
        _store(builder, line, builder.add(tile, _I64(LINE * number)))
