"""Products of bf16 tensors on a CPU without instructions for them: convolutions and matrix products, computed in fp32.

oneDNN takes more than ten times as long for them there. The result is what such instructions give: the factors are
bf16, their products are summed in fp32, and the sum is rounded to bf16 once."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tpsnet_lib.device import native_precision

_aten = torch.ops.aten
PRODUCTS = {
    *(_aten.conv2d.default, _aten.conv2d.padding, _aten.convolution.default, _aten.convolution_backward.default),
    *(_aten.linear.default, _aten.matmul.default, _aten.mm.default, _aten.addmm.default, _aten.bmm.default),
}


class ProductsInFp32(TorchDispatchMode):
    """While it is entered, every product of bf16 tensors, forward and backward, is computed in fp32 and rounded."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func not in PRODUCTS or not any(_is_bf16(value) for value in (*args, *given.values())):
            return func(*args, **given)
        results = func(*map(_widened, args), **{name: _widened(value) for name, value in given.items()})
        return tuple(map(_rounded, results)) if isinstance(results, tuple) else _rounded(results)


def bf16_products(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """What to enter for computing in a precision on a device: `ProductsInFp32` for `bf16` where it is not native."""
    emulated = device.type == "cpu" and precision == "bf16" and native_precision(device) != "bf16"
    return ProductsInFp32() if emulated else contextlib.nullcontext()  # type: ignore[no-untyped-call]


def _is_bf16(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16


def _widened(value: Any) -> Any:
    return value.float() if _is_bf16(value) else value


def _rounded(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) else value
