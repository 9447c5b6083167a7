"""The family is what the design says it is: exact counts, the skips where they belong, the budget kept."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from tpsnet_lib.config import MEMBERS, ModelConfig
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.model import Block, DropPath, PreactBlock, SqueezeExcite, build
from tpsnet_lib.model_cost import count_macs, count_parameters, layer_costs
from tpsnet_lib.pointwise import Pointwise, exchange_pointwise
from tpsnet_lib.whitening import whiten

EXACT = {"tpsnet": 4_959_770, "model1": 4_865_580, "model2": 4_971_680, "deep17": 4_987_384, "deep23": 4_976_470}
WHITENED: dict[str, Any] = {"blocks": (1,), "channels": (8,), "stem": 24, "stem_kind": "whiten"}
SMALL: dict[str, Any] = {"blocks": (1, 2), "channels": (6, 8), "stem": 4}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@st.composite
def members(draw: st.DrawFn) -> ModelConfig:
    """Any member of the family, kept narrow so that it is quick to build."""
    layers = draw(st.integers(1, 4))
    each = {"min_size": layers, "max_size": layers}
    kernels = st.lists(st.sampled_from([1, 3, 5]), **each) | st.lists(
        st.sampled_from([1, 3, 7]), min_size=1, max_size=1
    )
    stem_kind = draw(st.sampled_from(["conv", "whiten"]))
    fields: dict[str, Any] = {
        "blocks": draw(st.lists(st.integers(1, 3), **each)),
        "channels": draw(st.lists(st.integers(1, 10), **each)),
        "kernels": draw(kernels),
        "skip_kernels": draw(kernels),
        "stem_kind": stem_kind,
        "stem": 24 if stem_kind == "whiten" else draw(st.integers(1, 10)),
        "block": draw(st.sampled_from(["basic", "preact"])),
        "residual": (residual := draw(st.booleans())),
        "drop_path": draw(st.sampled_from([0.0, 0.2])) if residual else 0.0,
        "squeeze": draw(st.sampled_from([0, 2, 16])),
        "dropout": draw(st.sampled_from([0.0, 0.3])),
        "block_dropout": draw(st.sampled_from([0.0, 0.3])),
        "downsample": draw(st.sampled_from(["stride", "pool"])),
        "activation": draw(st.sampled_from(["relu", "gelu"])),
        "head_pool": draw(st.sampled_from(["avg", "max"])),
        "init": draw(st.sampled_from(["kaiming", "dirac"])),
        "logit_scale": draw(st.sampled_from([1.0, 0.125])),
    }
    side = ModelConfig(**fields, pool=1).last_side
    return ModelConfig(**fields, pool=draw(st.integers(1, side)))


def measured_macs(network: nn.Module, images: Tensor) -> int:
    """MACs of one image, from the sizes that each convolution and linear layer really puts out."""
    counts: list[int] = []

    def hook(module: nn.Module, _: Any, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            counts.append(module.weight[0].numel() * output[0].numel())
        elif isinstance(module, nn.Linear):
            counts.append(module.in_features * output[0].numel())

    for module in network.modules():
        module.register_forward_hook(hook)
    with torch.no_grad():
        network(images)
    return sum(counts)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(members())
def test_the_closed_form_is_what_is_built(config: ModelConfig) -> None:
    network = build(config).eval()
    rows = layer_costs(config)
    assert count_parameters(config) == sum(parameter.numel() for parameter in network.parameters())
    assert count_macs(config) == measured_macs(network, torch.zeros(1, 3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    out = network.stem(images)
    for row, layer in zip(rows, [nn.Identity(), *network.layers, network.head], strict=True):
        out = layer(out) if row.name != "head" else network(images)[..., None, None]
        assert out.shape == (2, *row.shape), row
    assert rows[-2].shape[1] == config.last_side


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(members())
def test_every_member_predicts_and_learns(config: ModelConfig) -> None:
    network = build(config)
    logits = network(torch.randn(3, 3, 32, 32))
    assert logits.shape == (3, 10)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    F.cross_entropy(logits, torch.tensor([0, 4, 9])).backward()
    frozen = {"stem.0.weight"} if config.stem_kind == "whiten" else set()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (name in frozen), name
        assert name in frozen or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("name", EXACT)
def test_the_five_architectures_have_their_exact_counts(name: str) -> None:
    assert count_parameters(MEMBERS[name]) == EXACT[name]
    assert sum(parameter.numel() for parameter in build(MEMBERS[name]).parameters()) == EXACT[name]


def test_the_rows_of_a_description_add_up_and_can_be_read() -> None:
    rows = layer_costs(MEMBERS["tpsnet"])
    assert [row.name for row in rows] == ["stem", "layer 1", "layer 2", "layer 3", "head"]
    assert [row.shape for row in rows] == [(16, 32, 32), (32, 32, 32), (64, 16, 16), (128, 8, 8), (10, 1, 1)]
    assert rows[0].parameters == 27 * 16 + 2 * 16
    assert rows[-1].kind == "avg-pool 8, linear"
    assert rows[-1].parameters == 128 * 10 + 10
    assert rows[1].kind == "13 basic blocks 3x3"


def test_an_architecture_over_the_budget_is_refused_with_its_count() -> None:
    config = ModelConfig(blocks=(16, 13, 13))  # 3 more blocks of 2 x (9 x 32 x 32 + 2 x 32)
    with pytest.raises(ConfigError) as caught:
        build(config)
    assert str(caught.value) == (
        "this network has 5,015,450 parameters, 15,450 over the budget of 5,000,000:"
        " take fewer blocks or channels, or smaller kernels"
    )
    with pytest.raises(ConfigError, match="78,042 parameters, 42 over the budget of 78,000"):
        build(MEMBERS["classroom"], budget=78_000)
    assert build(MEMBERS["classroom"], budget=78_042)
    assert sum(parameter.numel() for parameter in build(config, budget=None).parameters()) == 5_015_450


def test_the_budget_is_checked_before_memory_is_taken() -> None:
    with pytest.raises(ConfigError, match="over the budget"):
        build(ModelConfig(blocks=(128, 128, 128), channels=(4096, 4096, 4096), kernels=(9,)))  # some 4 TB


@pytest.mark.parametrize(("inputs", "stride"), [(8, 1), (4, 1), (8, 2)])
def test_a_block_computes_what_torchvisions_does(inputs: int, stride: int) -> None:
    block = Block(ModelConfig(channels=(8, 8, 8)), 0, inputs, stride).eval()
    projection = nn.Sequential(nn.Conv2d(inputs, 8, 1, stride, bias=False), nn.BatchNorm2d(8))
    theirs = BasicBlock(inputs, 8, stride, downsample=projection if block.projects else None).eval()
    names = {"bn": "norm", "downsample": "projection"}
    state = {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in theirs.state_dict().items()
    }
    theirs.load_state_dict(state)
    for old, new in names.items():
        state = {name.replace(old, new): value for name, value in state.items()}
    block.load_state_dict(state)
    images = torch.randn(2, inputs, 9, 9)
    torch.testing.assert_close(block(images), theirs(images))


def test_a_skip_is_a_projection_only_where_the_shape_changes() -> None:
    def projections(**fields: Any) -> list[str]:
        network = build(ModelConfig(blocks=(2, 2, 2), **fields))
        return [name for name, module in network.layers.named_modules() if getattr(module, "projects", False)]

    assert projections(channels=(4, 4, 8), stem=4) == ["1.0", "2.0"]  # by stride alone, by both
    assert projections(channels=(4, 8, 8), stem=3) == ["0.0", "1.0", "2.0"]
    assert projections(channels=(4, 8, 8), stem=3, downsample="pool", pool=4) == []
    assert projections(channels=(4, 8, 8), stem=3, residual=False) == []


def test_a_residual_block_is_the_identity_where_its_branch_is_zero_and_a_plain_one_is_not() -> None:
    images = torch.randn(2, 8, 5, 5)
    for kind, expected in ((Block, images.relu()), (PreactBlock, images)):
        for residual in (True, False):
            block = kind(ModelConfig(channels=(8, 8, 8), residual=residual), 0, 8).eval()
            nn.init.zeros_(block.conv2.weight)
            assert torch.equal(block(images), expected if residual else torch.zeros_like(images))


def test_a_preactivated_block_projects_its_activated_input() -> None:
    block = PreactBlock(ModelConfig(channels=(8, 8, 8)), 0, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    images = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(images), block.projection(block.norm1(images).relu()))


def test_kernels_of_layers_and_skips_are_where_they_were_asked_for() -> None:
    network = build(ModelConfig(**SMALL, kernels=(3, 5), skip_kernels=(1, 3)))
    assert [layer[0].conv1.kernel_size for layer in network.layers] == [(3, 3), (5, 5)]
    assert [layer[0].projection[0].kernel_size for layer in network.layers] == [(1, 1), (3, 3)]
    assert all(module.bias is None for module in network.modules() if isinstance(module, nn.Conv2d))
    assert network.head.bias is not None


@pytest.mark.parametrize("field", ["dropout", "block_dropout"])
def test_dropout_acts_in_training_only(field: str) -> None:
    images = torch.randn(4, 3, 32, 32)
    for rate, differ in ((0.0, False), (0.5, True)):
        network = build(ModelConfig(**SMALL, **{field: rate})).train()
        assert torch.equal(network(images), network(images)) != differ
        network.eval()
        assert torch.equal(network(images), network(images))


def test_drop_path_drops_whole_branches_more_often_towards_the_end_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    out = DropPath(0.25)(torch.ones(4000, 2, 3, 3))
    assert all(image.unique().numel() == 1 for image in out)
    assert (out[:, 0, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert out.mean().item() == pytest.approx(1, abs=0.04)
    network = build(ModelConfig(blocks=(1, 3), channels=(6, 8), stem=4, pool=8, drop_path=0.4))
    rates = [module.rate for module in network.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_squeeze_and_excitation_is_torchvisions() -> None:
    from torchvision.ops import SqueezeExcitation

    ours, theirs = SqueezeExcite(8, 2), SqueezeExcitation(8, 2)
    for mine, other in ((ours.reduce, theirs.fc1), (ours.expand, theirs.fc2)):  # which are 1x1 convolutions there
        other.weight.data, other.bias.data = mine.weight.data[:, :, None, None], mine.bias.data
    maps = torch.randn(3, 8, 5, 5)
    assert torch.allclose(ours(maps), theirs(maps), atol=1e-6)


@pytest.mark.parametrize(("head_pool", "pool"), [("avg", 16), ("avg", 4), ("max", 8), ("max", 5)])
def test_features_are_the_pooled_maps_and_logits_their_scaled_linear_map(head_pool: str, pool: int) -> None:
    network = build(ModelConfig(**SMALL, head_pool=head_pool, pool=pool, logit_scale=0.5)).eval()
    images = torch.randn(2, 3, 32, 32)
    maps, features = network.feature_maps(images), network.features(images)
    assert maps.shape == (2, 8, 16, 16)
    tiles = maps.unfold(2, pool, pool).unfold(3, pool, pool)
    pooled = tiles.mean((4, 5)) if head_pool == "avg" else tiles.amax((4, 5))
    torch.testing.assert_close(features, pooled.mean((2, 3)))
    torch.testing.assert_close(network(images), (features @ network.head.weight.T + network.head.bias) * 0.5)


def test_a_whitened_stem_puts_out_uncorrelated_patches_of_unit_variance() -> None:
    images = torch.randn(300, 3, 32, 32)
    images = (images + images.roll(1, 3) + images[:, [1, 1, 2]]) / 2
    network = build(ModelConfig(**WHITENED))
    whiten(network, images)
    kernel = network.stem[0].weight
    out = F.conv2d(images, kernel[:12]).transpose(0, 1).reshape(12, -1)
    assert (out @ out.T / out.shape[1] - torch.eye(12)).abs().max() < 0.03
    assert torch.equal(kernel[12:], -kernel[:12])
    assert not kernel.requires_grad
    assert network.stem[0].bias.requires_grad
    assert "stem.0.weight" in network.state_dict()


def test_whitening_leaves_a_plain_stem_as_it_is() -> None:
    network = build(ModelConfig(**SMALL))
    before = network.stem[0].weight.clone()
    whiten(network, torch.randn(10, 3, 32, 32))
    assert torch.equal(network.stem[0].weight, before)


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 8), (8, 8), (8, 6)])
def test_a_dirac_start_passes_the_first_channels_on(inputs: int, outputs: int) -> None:
    config = ModelConfig(blocks=(1,), channels=(outputs,), stem=inputs, downsample="pool", init="dirac")
    images, shared = torch.randn(1, inputs, 7, 7), min(inputs, outputs)
    out = build(config).layers[0][0](images)
    torch.testing.assert_close(out[:, :shared], images[:, :shared])


def test_a_kaiming_start_keeps_the_variance_of_gradients() -> None:
    convolution = build(ModelConfig()).layers[2][0].conv1  # 64 inputs, 128 outputs, 3 x 3
    assert convolution.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.01)


def test_one_seed_gives_one_network() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build(MEMBERS["classroom"]).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("name", ["classroom", "sprint"])
def test_channels_last_and_bf16_autocast_agree_with_fp32(name: str) -> None:
    network = build(MEMBERS[name]).eval()
    images = torch.randn(4, 3, 32, 32)
    expected = network(images)
    network = network.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("stride", [2, 3, (1, 2)])
@pytest.mark.parametrize("more", [{}, {"groups": 2}, {"padding": (1, 0)}, {"padding": "valid"}], ids=str)
def test_a_strided_pointwise_convolution_is_torchs(stride: int | tuple[int, int], more: dict[str, Any]) -> None:
    """On a CPU it is computed in another way, as oneDNN's own backward pass is at fault; here widths are sound."""
    network = nn.Sequential(nn.Conv2d(6, 4, 1, stride, **more))
    layer, x, results = network[0], torch.randn(3, 6, 9, 9, requires_grad=True), []
    for kind in (nn.Conv2d, Pointwise):
        assert type(layer) is kind
        out = layer(x)
        pull = torch.linspace(-1, 1, out.numel()).view(out.shape)
        results.append((out, *torch.autograd.grad(out, (x, layer.weight, layer.bias), pull)))
        exchange_pointwise(network)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_only_strided_pointwise_convolutions_are_exchanged() -> None:
    class Own(nn.Conv2d):
        pass

    convolutions = [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, 2),
        nn.Conv2d(4, 4, 1, 2, 1, padding_mode="reflect"),
        Own(4, 4, 1, 2),
    ]
    network = nn.Sequential(*convolutions, build(ModelConfig(**SMALL)))
    exchange_pointwise(network)
    assert not any(isinstance(convolution, Pointwise) for convolution in convolutions)
    assert isinstance(network[-1].layers[1][0].projection[0], Pointwise)


def test_the_model_knows_nothing_of_how_it_is_made_fast() -> None:
    for name in ("model", "model_cost", "whitening"):
        tree = ast.parse((Path(__file__).parent.parent / "tpsnet_lib" / f"{name}.py").read_text("utf-8"))
        imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        imported += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [module for module in imported if "fast_cpu" in module or "numba" in module]


def test_the_cost_of_what_is_no_config_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"Linear.* is no config of a network: give one, such as MEMBERS"):
        count_macs(nn.Linear(1, 1))  # type: ignore[arg-type]
