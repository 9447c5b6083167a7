"""An optimised network is the plain one, faster: the same names, weights and results, wherever it is used."""

import copy
import os
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny
from forks import run
from torch import Tensor, nn

from tpsnet_lib import train
from tpsnet_lib.config import MEMBERS, ModelConfig
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.fast_cpu import available
from tpsnet_lib.fast_cpu import optimize as fast
from tpsnet_lib.fast_cpu.available import has_amx
from tpsnet_lib.fast_cpu.optimize import optimize
from tpsnet_lib.model import ResNet, build
from tpsnet_lib.pointwise import Pointwise

SMALL: dict[str, Any] = {"blocks": (1, 2), "channels": (8, 16), "stem": 8}
CASES = {
    "basic": ModelConfig(**SMALL),
    "preact": ModelConfig(**SMALL, block="preact"),
    "squeeze": ModelConfig(**SMALL, squeeze=4),
    "no skips": ModelConfig(**SMALL, residual=False),
    "pool, gelu": ModelConfig(**SMALL, downsample="pool", activation="gelu"),
    "whiten": ModelConfig(blocks=(1,), channels=(8,), stem=24, stem_kind="whiten", drop_path=0.2),
    "sprint": MEMBERS["sprint"],
}


def both(config: ModelConfig) -> tuple[ResNet, ResNet]:
    """A plain network and an optimised one of the same weights."""
    torch.manual_seed(0)
    plain = build(config)
    with torch.no_grad():
        for value in plain.state_dict().values():
            if value.is_floating_point():
                value.add_(0.05 * torch.rand_like(value))
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return plain, optimize(copy.deepcopy(plain))


def images(count: int = 16) -> Tensor:
    drawn = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return drawn.contiguous(memory_format=torch.channels_last)


def learnt(model: ResNet, bf16: bool) -> tuple[float, Tensor]:
    """The loss of a batch, and all gradients."""
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = F.cross_entropy(model.train()(images()), torch.arange(16) % 10)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(("execution", "faster"), [("auto", True), ("eager", True), ("plain", False)])
def test_training_on_a_cpu_is_optimised_unless_it_is_to_be_plain(execution: str, faster: bool) -> None:
    config = tiny()
    options = train.TrainOptions(torch.device("cpu"), execution, progress="none")
    with closing(train.training_steps(config, fit_and_validation(config.data)[0], None, options)) as run:
        model = next(run).model
    kinds = {type(module) for module in model.modules()}
    assert bool(kinds & set(fast.FASTER.values())) is faster
    assert bool(kinds & set(fast.FASTER)) is not faster


@pytest.mark.parametrize("name", ["basic", "whiten"])
def test_torch_compile_sees_the_operations_of_the_plain_network(name: str) -> None:
    plain, faster = (operations_compiled(model) for model in both(CASES[name]))
    assert len(plain) > 10
    assert faster == plain


def operations_compiled(model: ResNet) -> list[str]:
    """The operations of a forward pass in training and bf16 that torch.compile hands to its compiler."""
    seen: list[str] = []

    def note(graph: Any, _: object) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op.startswith("call"))
        return graph.forward

    torch.compiler.reset()
    with torch.autocast("cpu", torch.bfloat16):
        torch.compile(model.train(), backend=note, fullgraph=True)(images(2))
    return seen


@pytest.mark.parametrize("name", CASES)
def test_names_weights_and_evaluation_are_those_of_the_plain_network(name: str) -> None:
    plain, faster = both(CASES[name])
    assert type(faster) is ResNet
    assert [type(module) for module in faster.modules()] != [type(module) for module in plain.modules()]
    assert list(faster.state_dict()) == list(plain.state_dict())
    assert [key for key, _ in faster.named_modules()] == [key for key, _ in plain.named_modules()]
    for bf16 in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            assert torch.equal(faster.eval()(images(4)), plain.eval()(images(4)))


@pytest.mark.parametrize("name", CASES)
def test_training_in_fp32_is_the_same_and_in_bf16_close(name: str) -> None:
    plain, faster = both(CASES[name])
    (loss, gradient), (other, fast_gradient) = learnt(plain, False), learnt(faster, False)
    assert loss == other
    torch.testing.assert_close(fast_gradient, gradient, rtol=1e-4, atol=1e-5)
    plain, faster = both(CASES[name])
    (loss, gradient), (other, fast_gradient) = learnt(plain, True), learnt(faster, True)
    assert loss == pytest.approx(other, rel=0.02)
    assert torch.cosine_similarity(gradient, fast_gradient, dim=0) > 0.99


def test_without_kernels_training_in_bf16_is_that_of_the_plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "kernels", lambda: None)
    (loss, gradient), (other, fast_gradient) = (learnt(model, True) for model in both(CASES["pool, gelu"]))
    assert loss == other
    assert torch.equal(gradient, fast_gradient)


def test_a_strided_pointwise_convolution_stays_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, faster = both(CASES["basic"])
    layers = [model.layers[1][0].projection[0] for model in (plain, faster)]  # type: ignore[index, union-attr]
    assert [type(layer) for layer in layers] == [Pointwise, fast.FastPointwise]
    x = torch.randn(3, 8, 9, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    (one, plain_grad), (two, fast_grad) = ((out := layer(x), torch.autograd.grad(out.sum(), x)[0]) for layer in layers)
    assert torch.equal(one, two)
    assert torch.equal(plain_grad, fast_grad)
    assert fast_grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(64, 25, 9, 9), (500, 333)])
def test_dropout_drops_at_its_rate_each_element_alone_and_keeps_the_mean(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    out = fast.FastDropout(0.3)(torch.ones(shape, requires_grad=True))
    dropped = (out == 0).float()
    assert dropped.mean().item() == pytest.approx(0.3, abs=0.01)
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7], abs=1e-3)
    flat = dropped.permute(0, 2, 3, 1).flatten() if len(shape) == 4 else dropped.flatten()  # as they lie in memory
    for apart in (1, 2, 3, 4):
        together = (flat[apart:] * flat[:-apart]).mean().item()
        assert together == pytest.approx(0.09, abs=0.01)


def gradients(layer: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """A layer's output in bf16, and the gradients of a sum over it with respect to input and kernel."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    pull = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    return [each.detach() for each in (out, *torch.autograd.grad(out, (x, layer.weight), pull))]


@pytest.mark.skipif(not has_amx(), reason="the processor has no tiles of bf16 matrices")
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("first", [False, True])  # whether its input is fp32, and channels first
def test_a_convolution_on_tiles_is_torchs(kernel: int, first: bool) -> None:
    plain = nn.Conv2d(40, 24, kernel, padding=kernel // 2, bias=False)
    layer = optimize(copy.deepcopy(plain))
    x = torch.randn(6, 40, 7, 9, generator=torch.Generator().manual_seed(1))
    x = x if first else x.bfloat16().contiguous(memory_format=torch.channels_last)
    found, expected = gradients(layer, x), gradients(plain, x)
    assert [each.dtype for each in found] == [each.dtype for each in expected]
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=0.01, atol=0.01 * float(expected[2].abs().max()))


NO_TILES = ["fp32", "evaluation", "few channels", "stride", "bias", "1x1", "no gradient", "no AMX", "no numba"]


@pytest.mark.parametrize("case", ["", *NO_TILES])
def test_everywhere_else_a_convolution_is_torchs_own(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "has_amx", lambda: case != "no AMX")
    monkeypatch.setattr(fast, "kernels", lambda: None if case == "no numba" else object())
    outputs, side = 16 if case == "few channels" else 24, 1 if case == "1x1" else 3
    options: dict[str, Any] = {"stride": 2 if case == "stride" else 1, "padding": side // 2, "bias": case == "bias"}
    layer = fast.AmxConv(40, outputs, side, **options).train(case != "evaluation")
    layer.weight.requires_grad_(case != "no gradient")
    with torch.autocast("cpu", torch.bfloat16, enabled=case != "fp32"):
        assert layer.uses_tiles(torch.zeros(2, 40, 5, 5)) == (case == "")


POOL_TWICE = """
import torch
from tpsnet_lib.fast_cpu.available import kernels
from tpsnet_lib.fast_cpu.optimize import FastMaxPool
for _ in range(2):
    with torch.autocast("cpu", torch.bfloat16):
        FastMaxPool(2)(torch.zeros(1, 4, 4, 4).bfloat16().to(memory_format=torch.channels_last))
print(kernels() is not None)
"""


def pooled_twice(cache: Path, before: str = "", **variables: str) -> tuple[str, list[str]]:
    """What a new process writes that pools in training: whether it has kernels; its lines on standard error."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **variables}
    done = run(before + POOL_TWICE, environment=environment)
    return done.stdout.strip(), done.stderr.splitlines()


@pytest.mark.parametrize(
    ("before", "variables", "words"),
    [
        ("import sys; sys.modules['numba'] = None", {}, "numba is not installed"),
        ("import sys, types; sys.modules['numba'] = types.ModuleType('numba')", {}, "numba does not work here"),
        ("", {"NUMBA_DISABLE_JIT": "1"}, "numba does not work here"),
        ("", {"NUMBA_THREADING_LAYER": "nonsense"}, "numba does not work here"),
    ],
)
@pytest.mark.slow
def test_where_numba_is_missing_or_fails_torch_trains_and_one_line_says_so(
    before: str, variables: dict[str, str], words: str, tmp_path: Path
) -> None:
    has_kernels, lines = pooled_twice(tmp_path, before, **variables)
    assert has_kernels == "False"
    assert len(lines) == 1
    assert words in lines[0]


@pytest.mark.slow
def test_a_cache_that_is_torn_or_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    assert pooled_twice(tmp_path) == ("True", [])
    kept = list(tmp_path.rglob("*.nbi"))
    assert kept
    for index in kept:
        index.write_bytes(b"")
    has_kernels, lines = pooled_twice(tmp_path)
    assert (has_kernels, len(lines)) == ("True", 1)
    assert "was deleted (EOFError" in lines[0]
    assert pooled_twice(tmp_path) == ("True", [])
    (tmp_path / "file").touch()
    has_kernels, lines = pooled_twice(tmp_path / "file")
    assert (has_kernels, len(lines)) == ("True", 1)
    assert "cannot be kept" in lines[0]


def test_a_kernel_that_cannot_be_compiled_is_done_without_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if (kernels := available.kernels()) is None:
        pytest.skip("no numba")

    def broken(*_: object) -> None:
        raise RuntimeError("LLVM ERROR: out of registers")

    monkeypatch.setattr(available, "_failed", [])
    monkeypatch.setattr(kernels, "norm_kernels", broken)
    config = tiny(train__precision="bf16", train__epochs=1)
    model = build(config.model)
    before = torch.random.get_rng_state()
    fast.optimize(model, "bf16")
    assert available.kernels() is None
    monkeypatch.setattr(available, "_failed", [])
    assert torch.equal(torch.random.get_rng_state(), before)
    fitted = train.fit(
        config, *fit_and_validation(config.data), train.TrainOptions(torch.device("cpu"), progress="none")
    )
    assert fitted.history[-1]["epoch"] == 1
    assert [line.split(" (")[0] for line in capsys.readouterr().err.splitlines()] == [
        "tpsnet: numba does not work here, so that training on this CPU is slower"
    ] * 2


def test_another_source_is_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = pytest.importorskip("tpsnet_lib.fast_cpu.compiler")
    before = compiler._digest()
    folder = shutil.copytree(Path(compiler.__file__).parent, tmp_path / "fast_cpu")
    monkeypatch.setattr(compiler, "__file__", str(folder / "compiler.py"))
    assert compiler._digest() == before
    with (folder / "instructions.py").open("a") as file:
        file.write("# changed\n")
    assert compiler._digest() != before


AMX_REFUSED = """
import ctypes, errno, struct, torch
REQUEST_TILES, ARCH_PRCTL = 0x1023, 158  # Linux on x86-64
rules = [(0x20, 0, 0, 0), (0x15, 0, 3, ARCH_PRCTL), (0x20, 0, 0, 16), (0x15, 0, 1, REQUEST_TILES),
         (0x06, 0, 0, 0x50000 | errno.EINVAL), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
filters = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(program)))
system = ctypes.CDLL(None, use_errno=True)
filtered = system.prctl(38, 1, 0, 0, 0) == 0 and system.prctl(22, 2, ctypes.byref(filters), 0, 0) == 0
assert filtered and system.syscall(ARCH_PRCTL, REQUEST_TILES, 18) == -1 and ctypes.get_errno() == errno.EINVAL
torch.cpu._is_amx_tile_supported = lambda: True  # as the processor's flags have it
from tpsnet_lib.fast_cpu.available import has_amx
from tpsnet_lib.fast_cpu.optimize import optimize
layer = optimize(torch.nn.Conv2d(32, 32, 3, padding=1, bias=False))
with torch.autocast("cpu", torch.bfloat16):
    layer(torch.ones(2, 32, 8, 8)).sum().backward()
print(has_amx(), layer.weight.grad is not None)
"""


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="a filter of Linux's on x86-64")
def test_tiles_that_the_system_refuses_are_not_used(tmp_path: Path) -> None:
    done = run(AMX_REFUSED)
    assert (done.returncode, done.stdout) == (0, "False True\n"), done.stderr
