"""The figures of the final training, each drawn once: the labels, points and colours that a reader relies on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.colors as colors
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tpsnet_lib.analysis import training
from tpsnet_lib.config import DataConfig, RunConfig, TrainConfig
from tpsnet_lib.plots import style
from tpsnet_lib.plots import training as plots
from tpsnet_lib.runs.experiments import Run
from tpsnet_lib.runs.records import Record

CONFIG = RunConfig().with_precision("fp32")


def record(config: RunConfig = CONFIG, accuracy: float = 0.9, epochs: int = 3) -> Record:
    curve = tuple(
        {"epoch": float(at), "train_accuracy": 0.2 * at, "train_loss": 2 - 0.5 * at}
        | {"validation_accuracy": accuracy - 0.1 * (epochs - at), "validation_loss": 1 / at}
        for at in range(1, epochs + 1)
    )
    measured = {"validation_accuracy": accuracy, "seconds": 60.0, "parameters": 1_000_000, "macs": 5e7, "epochs": 3.0}
    made = {"fingerprint": {"stamp": "CIFAR-10 (98 inexact images)"}, "hardware": "a machine"}
    return Record(Path("nowhere"), config, measured, made, curve)


def labels(figure: Figure) -> list[tuple[str, str]]:
    return [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


def test_schedules_are_drawn_over_the_share_of_a_run_and_over_epochs() -> None:
    figure = plots.learning_rate({"cosine": [1.0, 0.5, 0.0]}, {"cut": [1.0, 0.9], "own": [1.0, 0.0]}, 30)
    assert labels(figure) == [("share of the run (%)", "learning rate / its peak"), ("epoch", "")]
    assert [legend(axes) for axes in figure.axes] == [["cosine"], ["cut", "own"]]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [1.0, 0.5, 0.0]
    assert figure.axes[1].lines[0].get_xdata().tolist() == [0, 30]
    assert "30 epochs" in style.description(figure).caption


def test_learning_curves_show_validation_only_where_it_was_held_out() -> None:
    figure = plots.learning_curves(record(), 5000)
    assert labels(figure) == [("epoch", "accuracy (%)"), ("epoch", "cross-entropy (nats)")]
    assert legend(figure.axes[0]) == ["validation", "training"]
    validation = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert validation.get_ydata() == pytest.approx([70, 80, 90])
    assert [text.get_text() for text in figure.axes[0].texts] == ["90.0%"]
    about = style.description(figure)
    assert (about.caption.startswith("Validation ends at 90.0%"), len(about.records)) == (True, 1)
    fitted = plots.learning_curves(record(replace(CONFIG, data=DataConfig(fit_on="all"))), 5000)
    assert legend(fitted.axes[0]) == ["training"]
    assert "All images were fitted" in style.description(fitted).caption


def ablation_rows() -> list[training.AblationRow]:
    scores = {"whole": 0.80, "no Muon": 0.70, "no warm-up": 0.799, "no cutout": 0.85}
    pairs = [
        (Run(label, CONFIG.with_seed(seed), {}), record(CONFIG.with_seed(seed), score + 0.001 * (seed - 1)))
        for label, score in scores.items()
        for seed in range(3)
    ]
    return training.ablation(pairs)


def test_what_helps_is_green_and_what_harms_is_red() -> None:
    figure = plots.ablation(ablation_rows(), "two_cores")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "points of accuracy that it brings"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["no Muon", "no warm-up", "no cutout"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["the ingredient helps", "not settled, or too small to matter", "the ingredient harms"]
    bars = {round(float(np.mean(line.get_xdata())), 3): line for line in axes.lines if len(set(line.get_ydata())) == 1}
    drawn = {middle: colors.to_hex(line.get_color()) for middle, line in bars.items()}
    assert drawn == {10.0: style.GREEN.lower(), 0.1: style.GREY.lower(), -5.0: style.VERMILION.lower()}
    assert "the ingredient helps: 1" in style.description(figure).alt
    assert [row.label for row in ablation_rows() if row.harms] == ["no cutout"]


def test_the_ablation_says_where_another_optimizer_is_best_at_the_largest_rate_that_was_tried() -> None:
    def caption(sgd: dict[float, float]) -> str:
        scores = {RunConfig(train=TrainConfig(optimizer="muon", precision="fp32")): 0.8}
        scores |= {RunConfig(train=TrainConfig(lr=rate, precision="fp32")): score for rate, score in sgd.items()}
        runs = [(config.with_seed(seed), score + 0.001 * seed) for config, score in scores.items() for seed in range(3)]
        pairs = [(Run(f"{c.train.optimizer} {c.train.lr}", c, {}), record(c, score)) for c, score in runs]
        return style.description(plots.ablation(training.ablation(pairs), "two_cores")).caption

    assert caption({0.2: 0.5, 0.4: 0.6}).count("SGD is better at 0.4, the largest.") == 1
    assert "the largest of" not in caption({0.2: 0.6, 0.4: 0.5})
    assert "the largest of" not in caption({0.2: 0.6})


def test_the_chosen_epoch_is_counted_from_one_and_both_halves_are_named() -> None:
    losses = torch.tensor([[2.0], [1.5], [1.6]])
    figure = plots.chosen_epoch(losses, [1, 1, 2, 1], [1.4, 1.5, 1.4, 1.5], [1.6, 1.7, 1.6, 1.7])
    left, right, shares = figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("epoch", "line: loss of all images (nats)")
    assert (right.get_xlabel(), right.get_ylabel()) == ("loss of the chosen epoch (nats)", "divisions")
    assert (shares.get_ylabel(), shares.get_ylim()) == ("bars: chosen in (% of divisions)", (0, 100))
    height = left.get_window_extent().height
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_window_extent().height / height for bar in left.patches}
    assert bars == {2: pytest.approx(0.75), 3: pytest.approx(0.25)}
    assert legend(right) == ["on the half that chose it", "on the other half"]


def test_each_way_of_scoring_has_a_bar_a_depth() -> None:
    hits = {b: {"evaluation mode": [1] * 8 + [0] * 2, "dropout on": [1] * b + [0] * (10 - b)} for b in (1, 3)}
    figure = plots.dropout_while_scoring(hits)
    (axes,) = figure.axes
    assert labels(figure) == [("blocks a layer", "validation accuracy (%)")]
    assert legend(axes) == ["evaluation mode", "dropout on"]
    heights = [[round(float(bar.get_height()), 1) for bar in bars] for bars in axes.containers]
    assert heights == [[80, 80], [10, 30]]
    assert "scored in 2 ways. Lines are 95% intervals of 10 images" in style.description(figure).caption
    assert len(axes.lines) == 4, "an interval each"


def test_pairs_of_seeds_are_drawn_by_how_far_they_lie_apart() -> None:
    figure = plots.seeds({"two_cores": [0.94, 0.95, 0.96], "best": [0.95, 0.952]}, 0.0022, {"best": [record()]})
    (axes,) = figure.axes
    assert axes.get_xlabel() == "points between two runs of a recipe with other seeds"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["two_cores", "best"]
    points = sorted(float(x) for dots in axes.collections for x, _ in dots.get_offsets())
    assert points == pytest.approx([0.2, 1, 1, 2])
    assert "0.22 points" in style.description(figure).caption
