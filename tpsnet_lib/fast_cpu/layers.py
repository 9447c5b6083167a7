"""The pieces that a network is built of beyond torch's own, and torch's where its CPU backend is slow or faulty."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}
POOLS: dict[str, Callable[[Tensor, int], Tensor]] = {"avg": F.avg_pool2d, "max": F.max_pool2d}


class Dropout(nn.Dropout):
    """Dropout; on a CPU, where torch draws a number an element, four elements share one: a third of the time.

    There the rate is rounded to a 65,536th, and what is kept is scaled by the rate so rounded: its mean stays."""

    def forward(self, maps: Tensor) -> Tensor:
        """`maps` of any shape; in training each element is 0 with the rate's probability, else scaled up."""
        if not self.training or self.p == 0 or maps.device.type != "cpu":
            return super().forward(maps)
        maps = maps.contiguous(memory_format=torch.channels_last if maps.ndim == 4 else torch.contiguous_format)
        dropped, count = round(self.p * 65536), maps.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[:count] >= dropped - 32768
        return maps * kept.to(maps.dtype).mul_(65536 / (65536 - dropped)).as_strided(maps.shape, maps.stride())


class DropPath(nn.Module):
    """Stochastic depth: in training a whole branch is 0 for an image with the rate's probability, else scaled up
    (Huang et al. 2016, arXiv 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """`branch` [B, C, H, W], what a block adds to its input."""
        if not self.training or self.rate == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= self.rate
        return branch * (kept.to(branch.dtype) / (1 - self.rate))


class SqueezeExcite(nn.Module):
    """Each channel scaled by a number from 0 to 1 that two linear layers make of all channels' means
    (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """`maps` [B, C, H, W]."""
        scale: Tensor = self.expand(self.reduce(maps.mean((2, 3))).relu()).sigmoid()
        return maps * scale[:, :, None, None]


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the side of a map, but for its stride."""
    kind = Convolution if stride == 1 and kernel > 1 else nn.Conv2d
    return kind(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Convolution(nn.Conv2d):
    """A convolution that keeps the side of a map. Its weight gradient is `tiles`' where the processor has such.

    There the maps, and the weight for the passes over them, are bf16 as elsewhere; the gradient stays fp32."""

    tiles = True  # False leaves all to torch, as a yardstick does

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, C, H, W]."""
        out: Tensor = _Convolved.apply(x, self.weight) if self._on_tiles(x) else super().forward(x)
        return out

    def _on_tiles(self, x: Tensor) -> bool:
        if not (self.tiles and torch.is_grad_enabled() and self.weight.requires_grad and x.device.type == "cpu"):
            return False
        if torch.compiler.is_compiling() or not torch.is_autocast_enabled("cpu"):
            return False
        native = torch.get_autocast_dtype("cpu") == torch.bfloat16 and has_amx() and _kernels() is not None
        return native and self.kernel_size[0] % 2 == 1 and min(self.weight.shape[:2]) >= 24  # few do not fill a tile


class _Convolved(torch.autograd.Function):
    """A convolution in bf16 whose weight gradient is that of `tiles`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        maps = x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        kernel = weight.to(torch.bfloat16)
        ctx.save_for_backward(maps, kernel)
        ctx.dtype = x.dtype
        return F.conv2d(maps, kernel, padding=kernel.shape[-1] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        from tpsnet_lib.fast_cpu import amx

        maps, kernel = ctx.saved_tensors
        grad, side = grad.contiguous(memory_format=torch.channels_last), kernel.shape[-1]
        to_maps = None
        if ctx.needs_input_grad[0]:
            there = [1, 1], [side // 2, side // 2], [1, 1], False, [0, 0], 1, [True, False, False]
            to_maps = torch.ops.aten.convolution_backward(grad, maps, kernel, None, *there)[0].to(ctx.dtype)
        return to_maps, amx.weight_gradient(maps, grad, side)


@functools.cache
def has_amx() -> bool:
    """Whether the processor multiplies tiles of bf16 matrices."""
    return bool(torch.cpu._is_amx_tile_supported())


class Chain(nn.Sequential):
    """Modules one after another; a batch norm and the activation that follows it as `normed` has them."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, C, H, W]."""
        parts = list(self)
        while parts:
            part = parts.pop(0)
            if isinstance(part, nn.BatchNorm2d):
                follows = bool(parts) and isinstance(parts[0], tuple(ACTIVATIONS.values()))
                x = normed(x, part, parts.pop(0) if follows else None)
            else:
                x = part(x)
        return x


def normed(
    maps: Tensor, norm: nn.BatchNorm2d, activation: nn.Module | None = None, skip: Tensor | None = None
) -> Tensor:
    """The maps [B, C, H, W] after a batch norm, with a skip of their shape added, and an activation of `ACTIVATIONS`.

    In training on a CPU, where maps are bf16 and channels last, all is one operation, of which the same is true as of
    the three: its sums are in fp32, and what comes out is rounded once."""
    if _as_one(maps, norm, skip):
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        name = "" if activation is None else _name(activation)
        out: Tensor
        out, out.twin = _Normed.apply(maps, skip, norm.weight, norm.bias, norm, name)  # type: ignore[attr-defined]
        return out
    out = norm(maps)
    out = out if skip is None else out + skip
    return out if activation is None else activation(out)


def twin(maps: Tensor) -> Tensor:
    """The same maps, for the second thing that is done with them: what comes out of `normed` as one operation takes two
    gradients and adds them as it reads them, where autograd would first write their sum."""
    found: Tensor = maps if torch.compiler.is_compiling() else getattr(maps, "twin", maps)
    return found


def _name(activation: nn.Module) -> str:
    return next(name for name, kind in ACTIVATIONS.items() if isinstance(activation, kind))


def _as_one(maps: Tensor, norm: nn.BatchNorm2d, skip: Tensor | None) -> bool:
    if not norm.training or not _for_kernels(maps) or maps.numel() == maps.shape[1]:
        return False
    return skip is None or (skip.dtype, skip.shape) == (maps.dtype, maps.shape)


def _for_kernels(maps: Tensor) -> bool:
    if torch.compiler.is_compiling() or maps.device.type != "cpu" or maps.dtype != torch.bfloat16:
        return False
    return maps.is_contiguous(memory_format=torch.channels_last) and _kernels() is not None


@functools.cache
def _kernels() -> Any:
    """The module of that name, or None where numba is not installed."""
    try:
        from tpsnet_lib.fast_cpu import kernels
    except ImportError:
        return None
    return kernels


class _Normed(torch.autograd.Function):
    """`normed` as one operation, by `kernels`."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor, norm: Any, name: str
    ) -> tuple[Tensor, Tensor]:
        skip = None if skip is None else skip.contiguous(memory_format=torch.channels_last)
        out, saved = torch.empty_like(maps), torch.empty(2, len(weight))
        running = norm.running_mean, norm.running_var
        _kernels().forward(name, maps, skip, out, weight, bias, *running, saved, norm.momentum, norm.eps)
        ctx.save_for_backward(maps, skip, weight, bias, saved)
        ctx.name = name
        ctx.set_materialize_grads(False)
        again = torch.empty(0, dtype=out.dtype)
        return out, again.set_(out.untyped_storage(), 0, out.shape, out.stride())  # no view: it would keep `out` alive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [grad.contiguous(memory_format=torch.channels_last) for grad in grads if grad is not None]
        grad, other = there if len(there) == 2 else (there[0], None)
        maps, skip, weight, bias, saved = ctx.saved_tensors
        to_maps, to_skip = torch.empty_like(maps), None if skip is None else torch.empty_like(maps)
        to_weight, to_bias = torch.empty_like(weight), torch.empty_like(bias)
        _kernels().backward(
            ctx.name, grad, other, maps, skip, to_maps, to_skip, weight, bias, saved, to_weight, to_bias
        )
        return to_maps, to_skip, to_weight, to_bias, None, None


class MaxPool(nn.MaxPool2d):
    """The largest of each 2x2 pixels; on a CPU, for maps in bf16 and channels last, a tenth of the time of torch's."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, maps: Tensor) -> Tensor:
        """`maps` [B, C, H, W] to [B, C, H // 2, W // 2]."""
        out: Tensor = (
            _MaxPooled.apply(maps) if _for_kernels(maps) and min(maps.shape[2:]) > 1 else super().forward(maps)
        )
        return out


class _MaxPooled(torch.autograd.Function):
    """`MaxPool` by `kernels`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        batch, channels, high, wide = maps.shape
        shape = batch, channels, high // 2, wide // 2
        out = torch.empty(shape, dtype=maps.dtype, memory_format=torch.channels_last)
        which = torch.empty_like(out, dtype=torch.uint8)
        _kernels().max_pool(maps, out, which)
        ctx.save_for_backward(which)
        ctx.shape = maps.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (which,) = ctx.saved_tensors
        to_maps = torch.empty(ctx.shape, dtype=grad.dtype, memory_format=torch.channels_last)
        _kernels().max_pool_backward(grad.contiguous(memory_format=torch.channels_last), which, to_maps)
        return to_maps


class Pointwise(nn.Conv2d):
    """A 1x1 convolution with a stride, as the stride of its input: the same sums.

    oneDNN's own backward pass of a strided 1x1 convolution corrupts memory at some small widths (torch 2.15, CPU)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)
        self.step = stride

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, C, H, W]."""
        out: Tensor = self._conv_forward(_Strided.apply(x, self.step), self.weight, None)
        return out


class _Strided(torch.autograd.Function):
    """Every so many rows and columns of a map. Its gradient has the map's memory format, which that of a slice has not:
    to add gradients of two formats takes several times as long, and so does all that their sum goes through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: int) -> Tensor:
        last = x.is_contiguous(memory_format=torch.channels_last)
        ctx.format = torch.channels_last if last else torch.contiguous_format
        ctx.shape, ctx.step = x.shape, step
        return x[:, :, ::step, ::step].contiguous(memory_format=ctx.format)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        whole = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=ctx.format).zero_()
        whole[:, :, :: ctx.step, :: ctx.step] = grad
        return whole, None


class Whitening(nn.Conv2d):
    """A 2x2 convolution whose kernel `model.whiten` sets and nothing trains; its bias is trained until it is frozen.

    A trained bias is added apart: a backward pass for the bias alone is the one that oneDNN has no fast way for."""

    def __init__(self, outputs: int) -> None:
        super().__init__(3, outputs, 2)
        self.weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised `images` [B, 3, 32, 32]."""
        assert self.bias is not None
        if self.training and not self.bias.requires_grad:
            frozen: Tensor = self._conv_forward(images, self.weight, self.bias)
            return frozen
        out: Tensor = self._conv_forward(images, self.weight, None)
        return out + self.bias.to(out.dtype)[:, None, None]
