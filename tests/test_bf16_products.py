"""Products of bf16 tensors on a CPU without instructions for them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tpsnet_lib import bf16_products
from tpsnet_lib.bf16_products import ProductsInFp32
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.train import TrainOptions, fit

CPU = torch.device("cpu")
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "conv2d": lambda x, w: F.conv2d(x, w, padding=1),
    "same padding": lambda x, w: F.conv2d(x, w, padding="same"),
    "strided": lambda x, w: F.conv2d(x, w, stride=2),
    "linear": lambda x, w: F.linear(x.flatten(1), x.flatten(1)),
    "matmul": lambda x, w: x.flatten(1) @ x.flatten(1).T,
    "bmm": lambda x, w: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)),
}


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).bfloat16()


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("inference", [False, True])
def test_a_product_is_the_fp32_product_of_the_same_factors_rounded_once(name: str, inference: bool) -> None:
    x, w = _random(4, 9, 8, 8), _random(6, 9, 3, 3)
    with torch.inference_mode(inference), ProductsInFp32():
        product = PRODUCTS[name](x, w)
    assert product.dtype == torch.bfloat16
    assert torch.equal(product, PRODUCTS[name](x.float(), w.float()).bfloat16())


def test_gradients_are_those_of_fp32_rounded_once() -> None:
    x, w = _random(4, 9, 8, 8).requires_grad_(), _random(6, 9, 3, 3).requires_grad_()
    wide = [t.detach().float().requires_grad_() for t in (x, w)]
    with ProductsInFp32():
        F.conv2d(x, w).sum().backward()
    F.conv2d(*wide).sum().backward()
    for narrow, exact in zip((x, w), wide, strict=True):
        assert narrow.grad is not None
        assert exact.grad is not None
        assert narrow.grad.dtype == torch.bfloat16
        assert torch.equal(narrow.grad, exact.grad.bfloat16())


def test_fp32_is_left_alone() -> None:
    x = _random(4, 9).float()
    with ProductsInFp32():
        assert torch.equal(x @ x.T, x.matmul(x.T))
        assert (x @ x.T).dtype == torch.float32


@pytest.mark.parametrize(("native", "precision", "entered"), [
    ("bf16", "bf16", False), ("fp32", "bf16", True), ("fp32", "fp32", False),
])  # fmt: skip
def test_it_is_entered_where_bf16_is_asked_for_and_not_native(
    native: str, precision: str, entered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bf16_products, "native_precision", lambda _: native)
    assert isinstance(bf16_products.bf16_products(CPU, precision), ProductsInFp32) == entered


class Seen(TorchDispatchMode):
    """Entered outside of another mode, it sees the operations that are left to torch."""

    def __init__(self) -> None:
        super().__init__()
        self.products: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in bf16_products.PRODUCTS:
            self.products |= {value.dtype for value in args if isinstance(value, Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("native", ["fp32", "bf16"])
def test_a_run_and_its_scores_leave_torch_no_product_in_bf16_there(
    native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bf16_products, "native_precision", lambda _: native)
    config = tiny(train__precision="bf16", train__epochs=1, train__optimizer="muon")
    with Seen() as seen:
        fit(config, *fit_and_validation(config.data), TrainOptions(device=CPU, progress="none", execution="plain"))
    assert (torch.bfloat16 in seen.products) == (native == "bf16")
