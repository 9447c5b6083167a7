"""A block of one's own: counted as it is, trained as the family's are, and never taken for one of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import QUIET, tiny
from torch import Tensor, nn

from tpsnet_lib import own_blocks
from tpsnet_lib.cli.main import main
from tpsnet_lib.config import MEMBERS, ModelConfig
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.model import build
from tpsnet_lib.model_cost import count_macs, count_parameters, layer_costs
from tpsnet_lib.own_blocks import register_block
from tpsnet_lib.plots import network_drawing
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.records import Store


class Copy(nn.Module):
    """The family's basic block, written anew."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.projection: nn.Module = nn.Identity()
        if inputs != outputs or stride > 1:
            skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.projection = nn.Sequential(skip, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(out)) + self.projection(x))


class Depthwise(nn.Module):
    """A depthwise and a pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(inputs, inputs, 5, stride, 2, groups=inputs, bias=False)
        self.point = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.point(self.depth(x).relu())
        return out


@pytest.mark.parametrize("downsample", ["stride", "pool"])
def test_a_copy_of_the_familys_block_costs_what_it_costs(downsample: str) -> None:
    fields: dict[str, Any] = {
        "blocks": (1, 2, 1),
        "channels": (8, 16, 16),
        "stem": 8,
        "downsample": downsample,
        "pool": 4,
    }
    ours, own = ModelConfig(**fields), ModelConfig(**fields, block=register_block(Copy))
    assert [(row.parameters, row.macs) for row in layer_costs(own)] == [
        (row.parameters, row.macs) for row in layer_costs(ours)
    ]
    assert "own:Copy" in layer_costs(own)[1].kind


def test_a_block_of_ones_own_is_drawn_as_what_is_known_of_it() -> None:
    config = ModelConfig(blocks=(2, 2), channels=(8, 16), stem=4, block=register_block(Depthwise))
    drawn = network_drawing.draw_network(config)
    words = " ".join(text.get_text() for axes in drawn.axes for text in axes.texts)
    assert "one's own" in words
    assert "kernel" not in words
    assert "residual" not in words
    with pytest.raises(ConfigError, match="not drawn"):
        network_drawing.draw_block(config)


def test_the_cost_of_any_block_is_counted_on_it() -> None:
    config = ModelConfig((1, 2), (8, 16), stem=4, block=register_block(Depthwise))
    assert count_parameters(config) == sum(parameter.numel() for parameter in build(config).parameters())
    by_hand = 25 * 4 + 4 * 8, 25 * 8 + 8 * 16, 25 * 16 + 16 * 16  # of a pixel of each block's output
    assert count_macs(config) == 27 * 4 * 32**2 + by_hand[0] * 32**2 + sum(by_hand[1:]) * 16**2 + 16 * 10


def test_a_copy_trains_to_the_accuracy_of_the_family_and_has_a_record_of_its_own(store: Store) -> None:
    name = register_block(Copy)
    ours, own = (
        load_or_run(tiny(model__block_dropout=0.0, model__block=block), QUIET, store=store) for block in ("basic", name)
    )
    assert own.config.model.block == name
    assert own.group_id != ours.group_id
    for key in ("train_loss", "validation_accuracy"):
        assert own.metrics[key] == pytest.approx(ours.metrics[key], abs=0.02)


class Quiet(Copy):
    """A block that begins as the identity."""

    def initialise(self) -> None:
        nn.init.zeros_(self.norm2.weight)
        nn.init.zeros_(self.conv2.weight)


def test_a_block_begins_as_the_familys_do_or_as_it_says_itself() -> None:
    for block, begins in ((Copy, False), (Quiet, True)):
        torch.manual_seed(0)
        config = replace(MEMBERS["classroom"], block=register_block(block))
        network = build(config)
        assert any(part.conv2.weight.any() for layer in network.layers for part in layer) != begins
        torch.manual_seed(0)
        family = build(MEMBERS["classroom"])
        assert torch.equal(network.layers[0][0].conv1.weight, family.layers[0][0].conv1.weight)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An empty store."""
    return Store(tmp_path_factory.mktemp("own"))


def test_a_changed_class_is_another_block_and_its_record_is_read_without_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = register_block(Depthwise)
    record = load_or_run(tiny(model__block_dropout=0.0, model__block=name), QUIET, store=store, keep_weights=True)
    own_blocks._blocks.clear()
    assert Store(store.writable).load(record.id).metrics["parameters"] == record.metrics["parameters"]
    monkeypatch.setattr("tpsnet_lib.runs.records.default_store", lambda *given: store)
    assert main(["records"]) == 0
    assert f"{record.metrics['parameters']:,}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="run the code that registers it"):
        record.load_model()

    class Depthwise2(Depthwise):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1.0

    Depthwise2.__name__ = "Depthwise"
    changed = register_block(Depthwise2)
    assert changed.split(":")[:2] == name.split(":")[:2]
    assert changed != name
    assert register_block(Depthwise) == name


class Silent(Copy):
    """It forgets its return."""

    def forward(self, x: Tensor) -> None:
        super().forward(x)


class Two(Copy):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


class Narrow(Depthwise):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :3]


class Raising(Depthwise):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("I do not know")


class Listing(Copy):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.more = [nn.Conv2d(outputs, outputs, 1)]


class Misspelt(Copy):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.nrom1(self.conv1(x)))


class Unborn(nn.Module):
    """It forgets to make a module of itself."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)


class Bare(nn.Module):
    pass


class Needy(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Listing, "self.more is a plain list, whose layers are not trained: write nn.ModuleList"),
        (Narrow, r"expected is \[1, 8, 4, 4\]"),
        (Silent, "Silent is no block: its forward returns None"),
        (Two, "Two is no block: its forward returns a tuple, expected is one tensor"),
        (Raising, r"Raising\(4, 8, 2\) for maps of \[1, 4, 8, 8\] it raises ValueError: I do not know"),
        (Needy, r"Needy is no block: it is built as Needy\(inputs, outputs, stride\), and its __init__ has other"),
        (Misspelt, r"no attribute 'nrom1' .* did you mean norm1\?"),
        (Unborn, r"begin `__init__` with `super\(\).__init__\(\)`"),
        (len, r"^len is no block"),
        (Bare, r"Bare is no block: give it __init__\(self, inputs, outputs, stride\) and forward"),
        (nn.Conv2d, "no block"),
        (Copy(4, 4, 1), "without brackets"),
        (None, "no block"),
        ("Copy", "no block"),
    ],
)
def test_what_is_no_block_is_one_line(block: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        register_block(block)
    assert "\n" not in str(caught.value)


class Fixed(Depthwise):
    """It fits maps of 8 pixels a side and no others."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.norm = nn.LayerNorm([inputs, 8, 8])

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


def test_a_block_that_does_not_fit_its_network_is_one_line() -> None:
    config = ModelConfig((1, 1, 1), (8, 8, 8), stem=8, block=register_block(Fixed))
    with pytest.raises(
        ConfigError, match=r"as Fixed\(8, 8, 1\) for maps of \[1, 8, 32, 32\] it raises RuntimeError"
    ) as caught:
        build(config)
    assert "\n" not in str(caught.value)


def test_a_fault_in_the_first_weights_of_a_block_is_one_line() -> None:
    class Begins(Copy):
        def initialise(self) -> None:
            self.norm3.weight.zero_()

    config = ModelConfig((1, 1, 1), (8, 8, 8), stem=8, block=register_block(Begins))
    with pytest.raises(ConfigError, match=r"Begins\.initialise raises AttributeError: .*norm3"):
        build(config)


def test_a_network_of_own_blocks_over_the_budget_is_told_what_would_be_smaller() -> None:
    with pytest.raises(ConfigError, match=r"take fewer blocks or channels, or a block with fewer parameters$"):
        build(ModelConfig((1, 1, 1), (8, 8, 8), stem=8, block=register_block(Depthwise)), budget=10)


def test_what_a_block_decides_itself_cannot_be_set_beside_it() -> None:
    with pytest.raises(ConfigError, match=r"model\.kernels is set"):
        ModelConfig((1,), (4,), kernels=(5,), pool=1, block=register_block(Copy))
    with pytest.raises(ConfigError, match="choose one of basic, preact"):
        ModelConfig((1,), (4,), pool=1, block="own:Copy")
    assert not any(member.own_block for member in MEMBERS.values())


def test_a_class_of_a_notebooks_cell_has_a_source() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.run_cell("from torch import nn")
    cell = (
        "class Cell(nn.Module):\n"
        "    def __init__(self, inputs, outputs, stride):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x)\n"
        "from tpsnet_lib.own_blocks import register_block\n"
        "name = register_block(Cell)\n"
    )
    shell.run_cell(cell).raise_error()
    first = shell.user_ns["name"]
    shell.run_cell(cell.replace("self.conv(x)", "self.conv(x).relu()")).raise_error()
    assert first.startswith("own:Cell:")
    assert shell.user_ns["name"] != first
