"""The layers beyond torch's own give torch's results."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tpsnet_lib.fast_cpu import layers


def gradients(layer: nn.Conv2d, x: torch.Tensor) -> list[torch.Tensor]:
    """A layer's output in bf16, and the gradients of a sum over it with respect to input and kernel."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    pull = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    return [each.detach() for each in (out, *torch.autograd.grad(out, (x, layer.weight), pull))]


needs_tiles = pytest.mark.skipif(not layers.has_amx(), reason="the processor has no tiles of bf16 matrices")


@needs_tiles
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("first", [False, True])  # whether its input is fp32, and channels first
def test_a_convolution_on_tiles_is_torchs(kernel: int, first: bool) -> None:
    layer = layers.convolution(40, 24, kernel)
    assert isinstance(layer, layers.Convolution)
    plain = nn.Conv2d(40, 24, kernel, padding=kernel // 2, bias=False)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(6, 40, 7, 9, generator=torch.Generator().manual_seed(1))
    x = x if first else x.bfloat16().contiguous(memory_format=torch.channels_last)
    found, expected = gradients(layer, x), gradients(plain, x)
    assert [each.dtype for each in found] == [each.dtype for each in expected]
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=0.01, atol=0.01 * float(expected[2].abs().max()))


@pytest.mark.parametrize("case", ["fp32", "few channels", "a yardstick", "no gradient", "no tiles", "no numba"])
def test_everywhere_else_a_convolution_is_torchs_own(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "has_amx", lambda: case != "no tiles")
    layer = layers.Convolution(40, 16 if case == "few channels" else 24, 3, padding=1, bias=False)
    x = torch.zeros(2, 40, 5, 5)
    layer.tiles = case != "a yardstick"
    layer.weight.requires_grad_(case != "no gradient")
    if case == "no numba":
        monkeypatch.setattr(layers, "_kernels", lambda: None)
    with torch.autocast("cpu", torch.bfloat16, enabled=case != "fp32"):
        assert not layer._on_tiles(x)
        monkeypatch.undo()
        whole = layers.Convolution(40, 24, 3, padding=1, bias=False)
        assert whole._on_tiles(x) == (layers.has_amx() and case != "fp32")
