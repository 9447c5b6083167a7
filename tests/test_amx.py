"""A convolution's weight gradient on tiles: the definition's, whatever the shapes and the number of threads."""

from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tpsnet_lib.fast_cpu.available import has_amx

if not has_amx():
    pytest.skip("the processor has no tiles of bf16 matrices", allow_module_level=True)

from tpsnet_lib.fast_cpu import amx


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def drawn(seed: int, *shape: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.bfloat16().contiguous(memory_format=torch.channels_last)


def defined(maps: Tensor, grad: Tensor, kernel: int) -> Tensor:
    """In fp64, by autograd."""
    weight = torch.zeros(grad.shape[1], maps.shape[1], kernel, kernel, dtype=torch.float64, requires_grad=True)
    out = torch.nn.functional.conv2d(maps.double(), weight, padding=kernel // 2)
    return torch.autograd.grad(out, weight, grad.double())[0]


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 9),
    inputs=st.sampled_from([1, 16, 24, 33, 64]),
    outputs=st.sampled_from([1, 16, 31, 48, 70]),
    high=st.integers(1, 33),
    wide=st.integers(1, 33),
    kernel=st.sampled_from([1, 3, 5]),
    threads=st.sampled_from([1, 2]),
)
def test_it_is_the_definitions(
    batch: int, inputs: int, outputs: int, high: int, wide: int, kernel: int, threads: int
) -> None:
    torch.set_num_threads(threads)
    maps, grad = drawn(1, batch, inputs, high, wide), drawn(2, batch, outputs, high, wide)
    found = amx.weight_gradient(maps, grad, kernel)
    assert torch.get_num_threads() == threads
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = defined(maps, grad, kernel)
    assert (found - expected).norm() <= 1e-6 * max(expected.norm(), 1.0)


def test_lines_longer_than_a_row_are_taken_one_by_one() -> None:
    maps, grad = drawn(1, 2, 20, 3, 500), drawn(2, 2, 20, 3, 500)
    torch.testing.assert_close(amx.weight_gradient(maps, grad, 3).double(), defined(maps, grad, 3), atol=1e-4, rtol=0)


def test_the_same_call_gives_the_same_bits() -> None:
    maps, grad = drawn(1, 8, 40, 9, 9), drawn(2, 8, 64, 9, 9)
    first = amx.weight_gradient(maps, grad, 3)
    assert all(torch.equal(first, amx.weight_gradient(maps, grad, 3)) for _ in range(5))
