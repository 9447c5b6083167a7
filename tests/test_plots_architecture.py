"""Every figure of notebook 02 is drawn once, with its axes named and its caption and alternative text in place."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tpsnet_lib.analysis.architecture import DESIGN_VARIABLES, Group
from tpsnet_lib.cli.main import main
from tpsnet_lib.config import MEMBERS, ModelConfig, RunConfig
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.plots import architecture as plots
from tpsnet_lib.plots import network_drawing, style
from tpsnet_lib.runs.records import Record

PROVENANCE = {"fingerprint": {"stamp": "shapes10"}, "hardware": "a machine"}


def group(label: str, *values: float, model: ModelConfig = MEMBERS["classroom"]) -> Group:
    """A group whose runs reached the given accuracies."""
    config = RunConfig(model).with_precision("fp32")
    records = [
        Record(Path("nowhere"), config.with_seed(seed), {"validation_accuracy": value}, PROVENANCE, ())
        for seed, value in enumerate(values)
    ]
    return Group(label, tuple(record.config for record in records), tuple(records))


def labels(figure: Figure) -> list[tuple[str, str]]:
    return [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes]


def texts(figure: Figure) -> list[str]:
    """What stands on the axes of a drawing."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_gradient_norms_are_on_a_logarithmic_axis_with_a_line_a_kind() -> None:
    drawn = plots.gradient_norms({"residual": [1.0, 2.0, 3.0], "plain": [100.0, 10.0, 1.0]})
    assert labels(drawn) == [("block, counted from the image", "norm of the gradient")]
    (ax,) = drawn.axes
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["residual", "plain"]
    assert list(ax.lines[1].get_ydata()) == [100.0, 10.0, 1.0]
    assert (
        "shrinks by a factor of 3 in the residual network (42% a block) and grows by a factor of 100 in the plain"
        in style.description(drawn).caption
    )
    drawn = plots.gradient_norms({"residual": [1.0, 2.0, 3.0], "plain": [1e5, 10.0, 1.0]})
    with warnings.catch_warnings(action="error"):  # drawn for a phone, its powers are not taken for names of rows
        assert style.phone_svg(drawn)


def test_batch_norm_shows_a_channel_and_the_spread_over_blocks() -> None:
    values = torch.linspace(-1, 5, 50)
    drawn = plots.batch_norm(values, (values - 2) / 3, {"with batch norm": [1.0, 1.1], "without": [1.0, 9.0]})
    assert labels(drawn)[0] == ("value in one channel", "density")
    assert labels(drawn)[1] == ("block, counted from the image", "standard deviation")
    assert "without 1 to 9" in style.description(drawn).alt


def test_feature_maps_have_a_row_a_layer_and_the_strongest_channels_first() -> None:
    maps = {"layer 1": torch.rand(12, 8, 8), "layer 2": torch.rand(4, 4, 4)}
    maps["layer 2"][3] += 5
    drawn = plots.feature_maps(torch.rand(3, 8, 8), maps, columns=4)
    titles = [ax.get_title("left") for ax in drawn.axes if ax.get_title("left")]
    assert titles == ["image", "layer 1: 12 × 8 × 8", "layer 2: 4 × 4 × 4"]
    assert [len(ax.images) for ax in drawn.axes] == [1] * 5 + [0] + [1] * 4, "the image is shown once"
    strongest = drawn.axes[6].images[0].get_array()
    assert np.allclose(strongest, maps["layer 2"][3])


def test_a_phone_has_the_feature_maps_in_two_lines_at_their_full_size() -> None:
    drawn = plots.feature_maps(torch.rand(3, 8, 8), {"layer 1": torch.rand(8, 8, 8), "layer 2": torch.rand(8, 4, 4)})
    phone = style.description(drawn).phone
    assert callable(phone)
    narrow = phone()
    narrow.canvas.draw()
    assert sum(len(ax.images) for ax in narrow.axes) == 1 + 2 * 8
    maps = [ax.get_window_extent().width for ax in narrow.axes if ax.images]
    assert min(maps) > 0.15 * narrow.bbox.width, "no title takes the room of the maps"


def test_residual_against_plain_has_a_ring_a_run_and_a_point_a_mean() -> None:
    losses = {(1, "residual"): [1.0, 1.2], (1, "plain"): [1.1, 1.3], (4, "residual"): [0.8], (4, "plain"): [1.9]}
    deep = ModelConfig(blocks=(3, 3, 3), channels=(16, 32, 64), residual=False)
    drawn = plots.residual_against_plain(losses, [group("B=1", 0.5, 0.52), group("B=3, plain", 0.3, 0.4, model=deep)])
    x = "blocks in each of 3 layers, B"
    assert labels(drawn) == [(x, "training loss (nats), trained here"), (x, "validation accuracy (%), recorded")]
    rings = sum(len(each.get_offsets()) for each in drawn.axes[0].collections)
    assert rings == 6
    assert [text.get_text() for text in drawn.axes[0].get_legend().get_texts()] == ["residual", "plain"]
    assert len(style.description(drawn).records) == 4
    assert "B = 4, plain: 1.90" in style.description(drawn).alt
    low = np.ravel(drawn.axes[0].lines[0].get_ydata())[0]  # the mean of the first group
    assert [ax.get_yscale() for ax in drawn.axes] == ["linear"] * 2, "the caption tells differences in nats"
    assert low == pytest.approx(1.1)
    assert [[tick.get_text() for tick in ax.get_xticklabels()] for ax in drawn.axes] == [["1", "4"], ["1", "3"]]
    assert [len(line.get_xdata()) for line in drawn.axes[0].lines[:2]] == [2, 2]


def test_the_design_variables_are_six_panels_with_their_levels() -> None:
    variables = {
        symbol: (variable, [group(level, 0.5, 0.52, 0.51) for level in variable.labels])
        for symbol, variable in DESIGN_VARIABLES.items()
        if len(symbol) == 1
    }
    drawn = plots.design_variables(variables)
    assert [ax.get_title(loc="left").split(",")[0] for ax in drawn.axes] == ["N", "B", "w", "F", "K", "P"]
    assert [tick.get_text() for tick in drawn.axes[0].get_xticklabels()] == ["2", "3", "4"]
    assert drawn.axes[0].get_ylabel() == "validation accuracy (%)"
    words = [text for text in texts(drawn) if text.startswith("axis: ")]
    spans = [np.diff(ax.get_ylim()).item() for ax in drawn.axes]
    assert words == [f"axis: {span:.2g} points" for span in spans]
    assert all(2 < span < 6 for span in spans), "each panel has a scale of its own, of about twice its values"
    assert min(len(ax.get_yticks()) for ax in drawn.axes) >= 3
    assert "F=5: 51.0%" in style.description(drawn).alt
    assert "Of the levels tried, those of the residual layers lie furthest apart: 0.0 points" in (
        style.description(drawn).caption
    )


def test_costs_have_three_panels_and_a_point_a_network() -> None:
    models = [MEMBERS["classroom"], ModelConfig((1, 1), (16, 32)), ModelConfig((2, 2), (16, 32), residual=False)]
    groups = [group(str(at), 0.4 + 0.1 * at, model=model) for at, model in enumerate(models)]
    drawn = plots.costs(groups, [1.0, 2.0, 3.0])
    named = ["parameters (thousands)", "MACs of one image (millions)", "latency of one image (ms)"]
    assert [label for label, _ in labels(drawn)] == named
    assert style.phone_svg(drawn).count(">validation accuracy (%)<") == 3  # each panel of a column names its axis
    assert labels(drawn)[0][1] == "validation accuracy (%)"
    assert np.allclose(drawn.axes[2].collections[0].get_offsets(), [[1, 40], [2, 50], [3, 60]])


# Drawings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEMBERS)
def test_a_network_is_drawn_with_each_layers_blocks_channels_and_size(name: str) -> None:
    config = MEMBERS[name]
    drawn = network_drawing.draw_network(config)
    shown = texts(drawn)
    for layer, (blocks, channels) in enumerate(zip(config.blocks, config.channels, strict=True), 1):
        assert f"layer {layer}" in shown
        assert f"{channels} channels" in shown
        assert any(f"{blocks} block" in text for text in shown)
    assert "linear" in shown
    assert "layer 1" in style.description(drawn).alt


def test_a_drawing_says_what_its_blocks_have_and_which_parameters_are_the_norms() -> None:
    drawn = network_drawing.draw_network(MEMBERS["wide"])
    shown = texts(drawn)
    assert shown.count("preact, SE") == len(MEMBERS["wide"].blocks)
    assert "stochastic depth up to 0.1" in shown[-2]
    assert "after norm" in shown
    assert {"512 par.", "2.57 k par."} <= set(shown), "the last norm's, then the linear map's 256 × 10 + 10"
    assert "basic, SE" in texts(network_drawing.draw_network(replace(MEMBERS["classroom"], squeeze=4)))
    plain = " ".join(texts(network_drawing.draw_network(MEMBERS["broad"])))
    assert not [word for word in ("basic", "SE", "stochastic", "norm") if word in plain]


@pytest.mark.parametrize(("residual", "skips"), [(True, 9), (False, 0)])
def test_a_drawing_has_a_bar_a_block_and_a_skip_a_block(residual: bool, skips: int) -> None:
    drawn = network_drawing.draw_network(ModelConfig(blocks=(2, 3, 4), residual=residual))
    kinds = [type(patch).__name__ for patch in drawn.axes[0].patches]
    assert kinds.count("FancyArrowPatch") == skips
    assert kinds.count("Rectangle") == 9 + 4  # the image, the stem, the pool and the classifier


def test_the_texts_of_five_layers_do_not_touch() -> None:
    drawn = network_drawing.draw_network(ModelConfig((1, 2, 3, 2, 1), (16, 32, 64, 128, 256), pool=2))
    drawn.canvas.draw()
    renderer = drawn.canvas.get_renderer()  # type: ignore[attr-defined]
    assert style.phone_svg(drawn).count(">layer ") == 5
    boxes = [text.get_window_extent(renderer) for text in drawn.axes[0].texts if text.get_text()]
    assert not [1 for at, box in enumerate(boxes) for other in boxes[at + 1 :] if box.shrunk(0.96, 0.8).overlaps(other)]


@pytest.mark.parametrize("more", [{}, {"block": "preact", "squeeze": 4, "drop_path": 0.1}])
def test_the_texts_of_layers_that_pool_do_not_touch_on_a_phone(more: dict[str, Any]) -> None:
    config = ModelConfig((1, 1, 1), downsample="pool", pool=4, **more)
    phone = style.description(network_drawing.draw_network(config)).phone
    assert callable(phone)
    narrow = phone()
    narrow.canvas.draw()
    boxes = [text.get_window_extent() for ax in narrow.axes for text in ax.texts if text.get_text()]
    assert not any(one.shrunk(1, 0.8).overlaps(other) for one, other in combinations(boxes, 2))
    assert all(box.y0 > 0 for box in boxes)


def test_a_block_is_drawn_with_its_projection_where_the_shape_changes() -> None:
    texts(network_drawing.draw_block(ModelConfig(blocks=(2,), channels=(8,))))  # the second layer is the first
    shown = texts(network_drawing.draw_block(MEMBERS["classroom"]))
    assert "first block: 16 to 32 channels, stride 2" in shown
    assert "projection 1 × 1, /2, then norm" in shown
    assert "x itself" in shown
    plain = texts(network_drawing.draw_block(ModelConfig(residual=False)))
    assert not [text for text in plain if "projection" in text or text == "x itself"]


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_a_drawing_is_saved_as_its_ending_says(ending: str, tmp_path: Path) -> None:
    path = network_drawing.save_drawing(MEMBERS["classroom"], tmp_path / "new" / f"network{ending}")
    assert path.read_bytes()[:4] in (b"<svg", b"\x89PNG")
    with pytest.raises(ConfigError, match=r"give a file that ends in .svg or .png"):
        network_drawing.save_drawing(MEMBERS["classroom"], tmp_path / "network.gif")


def test_the_command_line_draws_any_member(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.svg"
    assert main(["describe", "--blocks", "2", "2", "--channels", "16", "32", "--draw", str(path)]) == 0
    assert "layer 2" in path.read_text("utf-8")
    assert "layer 2" in capsys.readouterr().out
    assert main(["describe", "tpsnet", "--draw", str(tmp_path / "tpsnet.jpg")]) == 1
    assert "give a file that ends in .svg or .png" in capsys.readouterr().err
