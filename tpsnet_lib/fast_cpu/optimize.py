"""`optimize(model)`: the layers of a network become faster ones for training on a CPU, mostly in bf16.

Only classes change: parameters, buffers, names and hooks stay, and with them checkpoints. In evaluation, in another
precision, on another device and under torch.compile each class does what the plain one does that it stands for."""

import copy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tpsnet_lib.fast_cpu.available import do_without_kernels, has_amx, kernels
from tpsnet_lib.model import ACTIVATIONS, Block, PreactBlock
from tpsnet_lib.pointwise import Pointwise
from tpsnet_lib.whitening import Whitening

Network = TypeVar("Network", bound=nn.Module)


def optimize(model: Network, precision: str = "") -> Network:
    """Exchange the classes of a network's modules for faster ones, in place; returns the network.

    One that will train in `bf16` is tried out, so that kernels which numba cannot compile are done without."""
    for module in model.modules():
        module.__class__ = FASTER.get(type(module), type(module))
    if precision == "bf16" and kernels() is not None:
        _try_out(copy.deepcopy(model).train())
    return model


def _try_out(model: nn.Module) -> None:
    """Take a network forward and backward, which compiles its kernels; numbers drawn later stay what they were."""
    images = torch.ones(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    try:
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", torch.bfloat16):
            model(images).float().sum().backward()
    except Exception as error:  # a compiler may fail in any way; what else is wrong, the first step raises again
        do_without_kernels(error)


def trains_on_cpu(module: nn.Module, x: Tensor) -> bool:
    """Whether a module is in training, on a CPU, and not being compiled by torch."""
    return module.training and x.device.type == "cpu" and not torch.compiler.is_compiling()


def fuses(module: nn.Module, x: Tensor) -> bool:
    """Whether a module is in training on a CPU in bf16, where `kernels` can be had."""
    if not (trains_on_cpu(module, x) and torch.is_autocast_enabled("cpu")):
        return False
    return torch.get_autocast_dtype("cpu") == torch.bfloat16 and kernels() is not None


class FusedBlock(Block):
    """`Block`, whose batch norms are one operation with the activation and the skip."""

    def forward(self, x: Tensor) -> Tensor:
        if not fuses(self, x):
            return super().forward(x)
        out = fused_norm(self.conv1(x), self.norm1, self.activation)
        out = self.conv2(self.dropout(out))
        skip = self.projection(second_use(x)) if self.residual else None
        if len(self.branch) == 0:
            return fused_norm(out, self.norm2, self.activation, skip)
        out = self.branch(fused_norm(out, self.norm2))
        return self.activation(out if skip is None else out + skip)


class FusedPreactBlock(PreactBlock):
    """`PreactBlock`, whose batch norms are one operation with the activation."""

    def forward(self, x: Tensor) -> Tensor:
        if not fuses(self, x):
            return super().forward(x)
        active = fused_norm(x, self.norm1, self.activation)
        out = fused_norm(self.conv1(active), self.norm2, self.activation)
        out = self.branch(self.conv2(self.dropout(out)))
        return out + self.projection(second_use(active) if self.projects else x) if self.residual else out


class FusedSequential(nn.Sequential):
    """`nn.Sequential`, whose batch norms are one operation with the activation that follows."""

    def forward(self, x: Tensor) -> Tensor:
        if not fuses(self, x):
            return super().forward(x)  # type: ignore[no-untyped-call]
        modules = list(self)
        while modules:
            module = modules.pop(0)
            if isinstance(module, nn.BatchNorm2d):
                followed = bool(modules) and isinstance(modules[0], tuple(ACTIVATIONS.values()))
                x = fused_norm(x, module, modules.pop(0) if followed else None)
            else:
                x = module(x)
        return x


def fused_norm(
    maps: Tensor, norm: nn.BatchNorm2d, activation: nn.Module | None = None, skip: Tensor | None = None
) -> Tensor:
    """Maps [B, C, H, W] after a batch norm, the addition of a skip of their shape, and an activation of `ACTIVATIONS`.

    For maps in bf16 and channels last this is one operation, whose sums are in fp32 and whose result is rounded once.
    For others it is torch's three."""
    skip_matches = skip is None or (skip.dtype, skip.shape) == (maps.dtype, maps.shape)
    if not (norm.training and _suits_kernels(maps) and skip_matches) or maps.numel() == maps.shape[1]:
        out = norm(maps)
        out = out if skip is None else out + skip
        return out if activation is None else activation(out)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    name = next((name for name, kind in ACTIVATIONS.items() if isinstance(activation, kind)), "")
    out, out.second = _FusedNorm.apply(maps, skip, norm.weight, norm.bias, norm, name)
    return out


def second_use(maps: Tensor) -> Tensor:
    """The same maps [B, C, H, W] for their second use. The result of `fused_norm` takes the gradients of its two uses
    apart and adds them as it reads them; autograd would first write their sum."""
    return getattr(maps, "second", maps)


def _suits_kernels(maps: Tensor) -> bool:
    return maps.dtype == torch.bfloat16 and maps.is_contiguous(memory_format=torch.channels_last)


class _FusedNorm(torch.autograd.Function):
    """`fused_norm` by `kernels`; its two results share their memory."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor, norm: Any, name: str
    ) -> tuple[Tensor, Tensor]:
        skip = None if skip is None else skip.contiguous(memory_format=torch.channels_last)
        out, saved = torch.empty_like(maps), torch.empty(2, len(weight))
        compiled: Any = kernels()
        forward_pass, _ = compiled.norm_kernels(name, skip is not None)
        tensors = maps, skip, out, weight, bias, norm.running_mean, norm.running_var, saved
        forward_pass(tensors, (*compiled.rows(maps), norm.momentum, norm.eps))
        ctx.save_for_backward(maps, skip, weight, bias, saved)
        ctx.name = name
        ctx.set_materialize_grads(False)
        second = torch.empty(0, dtype=out.dtype)
        return out, second.set_(out.untyped_storage(), 0, out.shape, out.stride())  # a view would keep `out` alive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        parts = [grad.contiguous(memory_format=torch.channels_last) for grad in grads if grad is not None]
        grad, other = parts if len(parts) == 2 else (parts[0], None)
        maps, skip, weight, bias, saved = ctx.saved_tensors
        to_maps, to_skip = torch.empty_like(maps), None if skip is None else torch.empty_like(maps)
        to_weight, to_bias = torch.empty_like(weight), torch.empty_like(bias)
        compiled: Any = kernels()
        _, backward_pass = compiled.norm_kernels(ctx.name, skip is not None, other is not None)
        tensors = grad, other, maps, skip, to_maps, to_skip, weight, bias, saved, to_weight, to_bias
        backward_pass(tensors, compiled.rows(maps))
        return to_maps, to_skip, to_weight, to_bias, None, None


class FastMaxPool(nn.MaxPool2d):
    """`nn.MaxPool2d(2)` by `kernels`, in a tenth of the time."""

    def forward(self, maps: Tensor) -> Tensor:
        halves = self.kernel_size == self.stride == 2 and self.padding == 0 and min(maps.shape[2:]) > 1
        if not (halves and fuses(self, maps) and _suits_kernels(maps)):
            return super().forward(maps)
        return _MaxPool.apply(maps)


class _MaxPool(torch.autograd.Function):
    """The largest of each 2x2 pixels, by `kernels`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        batch, channels, height, width = maps.shape
        shape = batch, channels, height // 2, width // 2
        out = torch.empty(shape, dtype=maps.dtype, memory_format=torch.channels_last)
        which = torch.empty_like(out, dtype=torch.uint8)
        compiled: Any = kernels()
        compiled.max_pool_pass((maps, out, which), (batch, height, width, channels))
        ctx.save_for_backward(which)
        ctx.shape = maps.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (which,) = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_maps = torch.empty(ctx.shape, dtype=grad.dtype, memory_format=torch.channels_last)
        compiled: Any = kernels()
        compiled.max_pool_backward_pass((grad, which, to_maps), (batch, height, width, channels))
        return to_maps


class AmxConv(nn.Conv2d):
    """`nn.Conv2d`, whose weight gradient is computed by `amx` where the processor has tiles and they are filled.

    Maps, and the weight for the passes over them, are bf16 as elsewhere; the weight gradient stays fp32."""

    def forward(self, x: Tensor) -> Tensor:
        return _AmxConv.apply(x, self.weight) if self.uses_tiles(x) else super().forward(x)

    def uses_tiles(self, x: Tensor) -> bool:
        """Whether `amx` computes the weight gradient for an input."""
        side = self.kernel_size[0]
        keeps_size = self.stride == (1, 1) and side % 2 == 1 and self.padding == (side // 2, side // 2)
        fills_tiles = side > 1 and min(self.weight.shape[:2]) >= 24 and self.bias is None
        trains = torch.is_grad_enabled() and self.weight.requires_grad and fuses(self, x)
        return keeps_size and fills_tiles and trains and has_amx()


class _AmxConv(torch.autograd.Function):
    """A convolution in bf16 whose weight gradient is that of `amx`."""

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
            settings = [1, 1], [side // 2, side // 2], [1, 1], False, [0, 0], 1, [True, False, False]
            to_maps = torch.ops.aten.convolution_backward(grad, maps, kernel, None, *settings)[0].to(ctx.dtype)
        return to_maps, amx.weight_gradient(maps, grad, side)


class FastPointwise(Pointwise):
    """`Pointwise`, whose input's gradient has the input's memory format.

    That of a slice has not, and to add gradients of two formats takes several times as long, and so does all that
    their sum goes through."""

    def subsampled(self, x: Tensor) -> Tensor:
        if not trains_on_cpu(self, x):
            return super().subsampled(x)
        maps: Tensor = _Subsampled.apply(x, self.stride)
        return maps


class _Subsampled(torch.autograd.Function):
    """The rows and columns of maps on which a stride lands; the gradient of the others is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: tuple[int, int]) -> Tensor:
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        ctx.format = torch.channels_last if channels_last else torch.contiguous_format
        ctx.shape, (ctx.down, ctx.right) = x.shape, stride
        return x[:, :, :: ctx.down, :: ctx.right].contiguous(memory_format=ctx.format)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        whole = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=ctx.format).zero_()
        whole[:, :, :: ctx.down, :: ctx.right] = grad
        return whole, None


class FastDropout(nn.Dropout):
    """`nn.Dropout` in a third of the time, in any precision: torch draws a number an element, here four share one.

    The rate is rounded to a 65,536th, and what is kept is scaled by the rate so rounded: its mean stays."""

    def forward(self, maps: Tensor) -> Tensor:
        if self.p == 0 or not trains_on_cpu(self, maps):
            return super().forward(maps)
        maps = maps.contiguous(memory_format=torch.channels_last if maps.ndim == 4 else torch.contiguous_format)
        dropped, count = round(self.p * 65536), maps.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[:count] >= dropped - 32768
        return maps * kept.to(maps.dtype).mul_(65536 / (65536 - dropped)).as_strided(maps.shape, maps.stride())


class FastWhitening(Whitening):
    """`Whitening`, whose bias belongs to the convolution once it is frozen.

    While it is trained it does not: oneDNN has no fast backward pass for a bias alone."""

    def forward(self, images: Tensor) -> Tensor:
        assert self.bias is not None
        if self.bias.requires_grad or not trains_on_cpu(self, images):
            return super().forward(images)
        return F.conv2d(images, self.weight, self.bias)


FASTER: dict[type[nn.Module], type[nn.Module]] = {
    Block: FusedBlock,
    PreactBlock: FusedPreactBlock,
    Pointwise: FastPointwise,
    Whitening: FastWhitening,
    nn.Sequential: FusedSequential,
    nn.Conv2d: AmxConv,
    nn.MaxPool2d: FastMaxPool,
    nn.Dropout: FastDropout,
}
