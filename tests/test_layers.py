"""The layers beyond torch's own give torch's results."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tpsnet_lib import layers


def gradients(layer: nn.Conv2d, x: torch.Tensor) -> list[torch.Tensor]:
    """A layer's output in bf16, and the gradients of a sum over it with respect to input and kernel."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    pull = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    return [each.detach() for each in (out, *torch.autograd.grad(out, (x, layer.weight), pull))]


@pytest.mark.parametrize(("batch", "side", "kernel", "together"), [(40, 3, 3, 20), (12, 7, 3, 4), (12, 8, 5, 3)])
def test_small_maps_side_by_side_give_the_same_convolution(
    batch: int, side: int, kernel: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "has_amx", lambda: True)
    layer = layers.convolution(6, 10, kernel)
    assert isinstance(layer, layers.Convolution)
    plain = nn.Conv2d(6, 10, kernel, padding=kernel // 2, bias=False)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(batch, 6, side, side).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.maps_together(x) == together
    for found, expected in zip(gradients(layer, x), gradients(plain, x), strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


def test_maps_are_laid_side_by_side_only_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layers.Convolution(3, 4, 3, padding=1, bias=False)
    small, large, prime = torch.zeros(40, 3, 3, 3), torch.zeros(40, 3, 16, 16), torch.zeros(23, 3, 3, 3)
    monkeypatch.setattr(layers, "has_amx", lambda: True)
    assert layer.maps_together(small) == 1  # fp32
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.maps_together(small) == 20
        assert layer.maps_together(large) == layer.maps_together(prime) == 1
        monkeypatch.setattr(layers, "has_amx", lambda: False)
        assert layer.maps_together(small) == 1
