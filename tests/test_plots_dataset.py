"""Every figure of notebook 01, drawn once: its axes say what they show, and it carries a caption and alt text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from tpsnet_lib.data.datasets import ImageSet, load_train
from tpsnet_lib.plots import dataset as plots
from tpsnet_lib.plots import style

NAMES = tuple("abcdefghij")
DRAWN = load_train("shapes10").subset(torch.arange(40))


def widths() -> pd.DataFrame:
    rows = [(n, f"accuracy {p}%", 100 / n**0.5) for n in (200, 2000, 20_000) for p in (85, 90, 95)]
    return pd.DataFrame(rows, columns=["images", "accuracy", "half-width"])


def choices() -> pd.DataFrame:
    rows = [(k, kind, 0.94 + 0.001 * k) for k in (1, 10) for kind in ("these", "those") for _ in range(3)]
    return pd.DataFrame(rows, columns=["models", "scored on", "accuracy"])


def pairs(source: ImageSet) -> Figure:
    likeness = torch.linspace(1, 0, 40)
    return plots.near_duplicates(source, source, torch.arange(40), likeness, NAMES)


Drawing = Callable[[], Figure]
FIGURES: dict[str, tuple[Drawing, list[str], list[str]]] = {  # with labels of axes that are not empty, and titles
    "gallery": (lambda: plots.gallery(DRAWN, torch.arange(20).view(10, 2), NAMES), [], list(NAMES)),
    "channels": (
        lambda: plots.channel_histograms(torch.ones(3, 256, dtype=torch.int64), "x"),
        ["red, pixel value", "pixels (%)", "green, pixel value", "blue, pixel value"],
        ["mean 0.5000 (0.4914)\ndeviation 0.2898 (0.2023)", "mean 0.5000 (0.4822)\ndeviation 0.2898 (0.1994)"],
    ),
    "means": (
        lambda: plots.means_and_components(torch.rand(10, 3, 32, 32), np.eye(2, 192), [0.4, 0.2], NAMES, "x"),
        ["means", "components"],
        [*NAMES, "40%", "20%"],
    ),
    "pairs": (lambda: pairs(DRAWN), [], [f"{NAMES[label]}, 1.000" for label in DRAWN.labels[:1].tolist()]),
    "augmented": (
        lambda: plots.augmented({"random crop": DRAWN.images[:3], "cutout": DRAWN.images[:3]}, DRAWN.images[0], "x"),
        [],
        ["original", "epoch 0", "epoch 2"],
    ),
    "mixes": (
        lambda: plots.mixes({"mixup": (DRAWN.images[:2] / 255, torch.eye(10)[:2])}, NAMES, "x"),
        [],
        ["1.00 a", "1.00 b"],
    ),
    "widths": (
        lambda: plots.interval_width(widths(), {"validation": 5000}),
        ["images the accuracy is measured on", "half-width (points)"],
        [],
    ),
    "choices": (
        lambda: plots.best_of_k(choices(), 0.94),
        ["models among which the best was chosen", "accuracy of the chosen (%)"],
        [],
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_labelled_and_described(name: str) -> None:
    draw, labels, titles = FIGURES[name]
    fig = draw()
    assert set(labels) <= {text for ax in fig.axes for text in (ax.get_xlabel(), ax.get_ylabel())}
    assert set(titles) <= {ax.get_title(loc) for ax in fig.axes for loc in ("left", "center")}
    assert all(ax.get_xlabel() or ax.get_ylabel() or not ax.axison for ax in fig.axes)
    assert all(ax.has_data() for ax in fig.axes if ax.axison)
    assert any(ax.has_data() for ax in fig.axes)
    about = style.description(fig)
    assert about.caption.endswith(".")
    assert about.alt.endswith(".")
    assert about.provenance.endswith(".")
    assert "inexact" not in about.caption + about.provenance
    style.svg(fig)


def test_all_augmentations_are_seen_below_their_sliders_and_none_is_squeezed_on_a_phone() -> None:
    six = dict.fromkeys("abcdef", DRAWN.images[:3])
    drawn = plots.augmented(six, DRAWN.images[0], "x")
    assert drawn.get_figheight() < 4.5  # 430 pixels: a screen with the bars of JupyterLab and three sliders leaves 600
    assert sum(len(ax.images) for ax in drawn.axes) == 1 + 6 * 3
    phone = style.description(drawn).phone
    assert callable(phone)
    assert [text.get_text() for ax in phone().axes[:: 1 + 3] for text in ax.texts] == [*six], "one a row"


def test_a_histogram_says_whether_the_constants_fit() -> None:
    counts = torch.zeros(3, 256, dtype=torch.int64)
    counts[:, 10] = 1024
    assert "are not the constants" in style.description(plots.channel_histograms(counts, "x")).caption


def test_pairs_below_the_threshold_are_not_called_one_photograph() -> None:
    likeness = torch.linspace(0.5, 0, 40)
    figure = plots.near_duplicates(DRAWN, DRAWN, torch.arange(40), likeness, NAMES)
    assert style.description(figure).caption.startswith("No pair")


def test_the_curves_are_the_numbers() -> None:
    (ax,) = plots.best_of_k(choices(), 0.94).axes
    curve = ax.lines[0]
    assert list(curve.get_xdata()) == [1, 10]
    assert curve.get_ydata() == pytest.approx([94.1, 95.0])
    (ax,) = plots.interval_width(widths(), {"validation": 5000}).axes
    assert list(ax.lines[0].get_xdata()) == [200, 2000, 20_000]


def test_a_phone_has_a_long_legend_in_lines() -> None:
    drawn = plots.best_of_k(choices(), 0.94)
    drawn_narrow = style.phone_svg(drawn)
    (legend,) = drawn.legends
    assert "true accuracy of every model" in drawn_narrow
    assert legend.get_window_extent().width < drawn.bbox.width


def test_a_phone_has_the_images_of_five_classes_above_those_of_the_others() -> None:
    drawn = plots.gallery(DRAWN, torch.arange(20).view(10, 2), NAMES)
    assert style.phone_svg(drawn)
    places = {axes.get_title(): axes.get_subplotspec() for axes in drawn.axes}
    assert [(places[name].rowspan.start, places[name].colspan.start) for name in "aefj"] == [
        (0, 0),
        (0, 4),
        (2, 0),
        (2, 4),
    ]
    second = drawn.axes[10 + 7].get_subplotspec()  # the other image of class h
    assert (second.rowspan.start, second.colspan.start) == (3, 2)


def test_a_phone_names_each_row_of_means_and_components() -> None:
    drawn = plots.means_and_components(torch.rand(10, 3, 32, 32), np.eye(10, 192), [0.1] * 10, NAMES, "x")
    narrow = style.phone_svg(drawn)
    assert (narrow.count(">means<"), narrow.count(">components<")) == (2, 2)


def test_the_gap_of_a_pair_is_transparent() -> None:
    opacity = pairs(DRAWN).axes[0].images[0].get_array()[..., 3]
    assert (opacity[:, 32:34] == 0).all()
    assert (np.delete(opacity, [32, 33], axis=1) == 255).all()


def test_a_target_names_both_classes_the_larger_first() -> None:
    target = torch.tensor([0.25, 0.75, 0, 0, 0, 0, 0, 0, 0, 0])
    assert plots.target_words(target, NAMES) == "0.75 b\n+ 0.25 a"
