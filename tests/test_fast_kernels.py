"""Batch norm, skip and activation as one operation: the same as torch's three, at the precision of bf16."""

import weakref
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor, nn

from tpsnet_lib.fast_cpu import kernels
from tpsnet_lib.fast_cpu.optimize import FastMaxPool, FusedSequential, fused_norm, second_use
from tpsnet_lib.model import ACTIVATIONS

ULP = 2.0**-8  # the distance of bf16 numbers near 1


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def maps_of(shape: tuple[int, int, int, int], seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    drawn = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift
    return drawn.bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()


def norm_of(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        norm.weight.copy_(0.5 + torch.rand(channels, generator=generator))
        norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm


def activation_of(name: str) -> nn.Module | None:
    return ACTIVATIONS[name]() if name else None


def as_defined(maps: Tensor, norm: nn.BatchNorm2d, name: str, skip: Tensor | None) -> Tensor:
    """The definition, in fp64."""
    weight, bias = norm.weight.double(), norm.bias.double()
    out = F.batch_norm(maps.double(), norm.running_mean.double(), norm.running_var.double(), weight, bias, True)  # type: ignore[union-attr]
    out = out if skip is None else out + skip.double()
    return {"": lambda x: x, "relu": F.relu, "gelu": F.gelu}[name](out)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(2, 7),
    channels=st.sampled_from([1, 3, 16, 24, 130, 1500]),
    high=st.integers(2, 5),
    wide=st.integers(2, 9),
    name=st.sampled_from(["", "relu", "gelu"]),
    skips=st.booleans(),
    shift=st.sampled_from([0.0, 3.0]),
)
def test_it_is_what_its_parts_are(
    batch: int, channels: int, high: int, wide: int, name: str, skips: bool, shift: float
) -> None:
    shape = batch, channels, high, wide
    maps, norm = maps_of(shape, 1, 2.0, shift), norm_of(channels)
    skip = maps_of(shape, 2) if skips else None
    grad = maps_of(shape, 3).detach()
    inputs = [tensor for tensor in (maps, skip, norm.weight, norm.bias) if tensor is not None]
    exact = as_defined(maps, norm, name, skip)
    wanted = torch.autograd.grad(exact, inputs, grad.double())
    out = fused_norm(maps, norm, activation_of(name), skip)
    assert type(out.grad_fn).__name__ == "_FusedNormBackward"
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), exact, rtol=ULP, atol=1e-5)
    for got, there in zip(torch.autograd.grad(out, inputs, grad), wanted, strict=True):
        off = (got.double() - there).norm() / max(there.norm(), grad.norm())
        assert off < 3 * ULP
    values = maps.detach().double().transpose(0, 1).reshape(channels, -1)
    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean, (0.1 * values.mean(1)).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, (0.9 + 0.1 * values.var(1)).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["", "relu", "gelu"])
@pytest.mark.parametrize("skips", [False, True])
def test_what_is_used_twice_takes_the_sum_of_both_gradients(name: str, skips: bool) -> None:
    shape = 5, 40, 6, 7
    maps, norm, skip = maps_of(shape, 1, 2.0), norm_of(40), maps_of(shape, 2) if skips else None
    one, two = maps_of(shape, 3).detach(), maps_of(shape, 4, 0.5).detach()
    inputs = [tensor for tensor in (maps, skip, norm.weight, norm.bias) if tensor is not None]
    wanted = torch.autograd.grad(as_defined(maps, norm, name, skip), inputs, one.double() + two.double())
    out = fused_norm(maps, norm, activation_of(name), skip)
    again = second_use(out)
    assert again is not out
    assert torch.equal(again, out)
    for got, there in zip(torch.autograd.grad([out, again], inputs, [one, two]), wanted, strict=True):
        assert (got.double() - there).norm() < 3 * ULP * max(there.norm(), (one + two).norm())
    out = fused_norm(maps, norm, activation_of(name), skip)  # and if only the second is used
    for got, there in zip(torch.autograd.grad(second_use(out), inputs, one + two), wanted, strict=True):
        assert (got.double() - there).norm() < 4 * ULP * max(there.norm(), (one + two).norm())
    assert second_use(maps) is maps


def test_what_came_out_is_let_go_of() -> None:
    out = fused_norm(maps_of((2, 3, 4, 4)), norm_of(3), nn.ReLU())
    seen = weakref.ref(out), weakref.ref(second_use(out))
    del out
    assert [reference() for reference in seen] == [None, None]


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        maps, skip, norm = maps_of((6, 24, 9, 9)), maps_of((6, 24, 9, 9), 1), norm_of(24)
        out = fused_norm(maps, norm, activation_of(name), skip)
        assert torch.get_num_threads() == threads
        results.append([out, *torch.autograd.grad(out.float().square().sum(), [maps, skip, norm.weight, norm.bias])])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["", "relu", "gelu"])
def test_what_is_not_a_number_stays_that(name: str) -> None:
    maps = maps_of((2, 3, 4, 4)).detach()
    maps[0, 1, 0, 0] = torch.nan
    out = fused_norm(maps, norm_of(3), activation_of(name))
    assert out[:, 1].isnan().all()
    assert out[:, [0, 2]].isfinite().all()


def test_far_values_of_gelu_are_themselves_or_nothing() -> None:
    norm = norm_of(1)
    with torch.no_grad():
        norm.weight.fill_(60.0)
        norm.bias.zero_()
    maps = torch.tensor([-1.0, 1.0]).bfloat16().reshape(2, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()
    out = fused_norm(maps, norm, nn.GELU())
    out.sum().backward()
    assert out.flatten().tolist() == [0.0, 60.0]  # -0 too
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("case", ["evaluation", "fp32", "planes first", "another skip"])
def test_everywhere_else_the_three_are_torchs_own(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, norm, skip = maps_of((4, 3, 5, 5)).detach(), norm_of(3), maps_of((4, 3, 5, 5), 1).detach()
    monkeypatch.setattr(kernels, "norm_kernels", None)
    if case == "evaluation":
        norm.eval()
    if case == "fp32":
        maps, skip = maps.float(), skip.float()
    if case == "planes first":
        maps = maps.contiguous()
    if case == "another skip":
        skip = skip.float()
    out = fused_norm(maps, norm, nn.ReLU(), skip)
    norm.reset_running_stats()
    assert torch.equal(out, F.relu(norm(maps) + skip))


def test_one_value_a_channel_is_refused_as_torch_refuses_it() -> None:
    with pytest.raises(ValueError, match="more than 1 value"):
        fused_norm(maps_of((1, 3, 1, 1)), norm_of(3), nn.ReLU())


def pooled(maps: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        out: Tensor = FastMaxPool(2)(maps)
    return out


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 5), channels=st.sampled_from([1, 3, 16, 70]), high=st.integers(2, 9), wide=st.integers(2, 9)
)
def test_max_pool_is_torchs_bit_for_bit(batch: int, channels: int, high: int, wide: int) -> None:
    maps = (4 * maps_of((batch, channels, high, wide)).detach()).round() / 4  # many are equal: the first counts
    maps.requires_grad_()
    wanted, out = F.max_pool2d(maps, 2), pooled(maps)
    assert type(out.grad_fn).__name__ == "_MaxPoolBackward"
    assert torch.equal(out, wanted)
    grad = maps_of(tuple(out.shape), 1).detach()
    assert torch.equal(*(torch.autograd.grad(pooled, maps, grad)[0] for pooled in (wanted, out)))


def test_max_pool_passes_on_what_is_not_a_number_and_refuses_small_maps() -> None:
    maps = maps_of((2, 3, 4, 4)).detach()
    maps[:, 1, 1, 2] = torch.nan
    assert torch.equal(pooled(maps).isnan(), F.max_pool2d(maps, 2).isnan())
    with pytest.raises(RuntimeError, match="too small"):
        pooled(maps_of((2, 3, 1, 4)))


def test_a_sequence_joins_a_norm_and_the_activation_behind_it() -> None:
    chain = FusedSequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GELU(), nn.BatchNorm2d(4), nn.MaxPool2d(2))
    images = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = chain(images)
        apart = images
        for module in chain:
            apart = module(apart)
    torch.testing.assert_close(out, apart, rtol=4 * ULP, atol=4 * ULP)
