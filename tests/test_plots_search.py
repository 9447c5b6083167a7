"""Every figure of the search is drawn once: its axes are labelled, its marks are those of its numbers, and its caption
begins with what to see."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from test_search_analysis import trials

from tpsnet_lib.analysis.importance import NOISE, Importance
from tpsnet_lib.analysis.search import Trial
from tpsnet_lib.config import TrainConfig
from tpsnet_lib.plots import parallel_coordinates
from tpsnet_lib.plots import search as plots
from tpsnet_lib.plots.style import description, phone_svg, svg
from tpsnet_lib.stats import Estimate

RNG = np.random.default_rng(0)
N = 40
RATES = (10 ** RNG.uniform(-3, -1, N)).tolist()
SCORES = [0.6 - 0.1 * abs(np.log10(rate) + 2) for rate in RATES]
WIDTHS = RNG.integers(4, 17, N).tolist()


@pytest.fixture(scope="module")
def crowd() -> list[Trial]:
    """Forty trials with two optimizers, any rates and widths."""
    optimizers = [("sgd", "adamax")[index % 2] for index in range(N)]
    return trials(SCORES, train__lr=RATES, model__stem=WIDTHS, train__optimizer=optimizers)


def labels(figure: Figure) -> list[tuple[str, str]]:
    """The labels of the axes that are shown."""
    return [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes if ax.axison]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def lines_of(patch: Any) -> Any:
    """The heights of the lines that are drawn as one path: [lines, points]."""
    path = patch.get_path()
    return np.array(np.split(path.vertices[:, 1], np.flatnonzero(path.codes == path.MOVETO)[1:]))


def check(figure: Figure, caption: str) -> None:
    """The caption holds a part; the figure has an alternative text, a provenance of its own, and draws."""
    about = description(figure)
    assert caption in about.caption
    assert len(about.alt) > 40
    assert svg(figure).startswith("<svg")
    assert all(axes.has_data() for axes in figure.axes if axes.axison)


def test_the_budget_is_a_map_and_two_histograms_with_the_members_on_it() -> None:
    fits = pd.DataFrame([[True, True], [True, False]], index=[1, 2], columns=[8, 9])
    drawn = pd.DataFrame(
        {"blocks": [1, 2, 1, 1], "width": [8, 9, 8, 8], "draws": ["before", "before", "after", "after"]}
    )
    figure = plots.budget(fits, drawn, {"a member": (2, 8)})
    width, blocks = "base width w, channels", "blocks a layer B"
    share = "share of draws (%)"
    assert labels(figure) == [(width, blocks), (blocks, share), (width, share)]
    assert "a member" in texts(figure)
    bars = [patch.get_width() for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert bars == [2, 1]  # of the widths 8 and 9, how many fit with one block and with two
    check(figure, "the mean width falls from 8.5 to 8.0 channels, the mean depth from 1.5 to 1.0")


def test_parallel_views_have_round_ticks_colour_the_best_fifth_and_spread_choices(crowd: list[Trial]) -> None:
    figure = parallel_coordinates.parallel(crowd, {"first": ["width"], "second": ["lr", "optimizer"]})
    assert "optimizer" in phone_svg(figure)
    first, second = figure.axes
    assert [tick.get_text() for tick in second.get_xticklabels()] == ["learning rate", "optimizer", "accuracy (%)"]
    assert {"0.01", "0.03", "sgd", "adamax"} <= {text.get_text() for text in second.texts}
    assert {"4", "8", "12"} <= {text.get_text() for text in first.texts}
    paths = {to_hex(path.get_edgecolor()): lines_of(path) for path in second.patches if len(lines_of(path)[0]) == 3}
    lines = np.concatenate(list(paths.values()))
    assert len(lines) == N
    grey = paths.pop("#a3aab3")
    coloured = np.concatenate(list(paths.values()))
    assert len(coloured) == N // 5
    assert coloured[:, -1].min() > grey[:, -1].max()
    assert len(set(lines[:, 1])) == N, "the lines of one choice do not lie on each other"
    check(figure, f"The best fifth of {N} trials")


def test_few_trials_cross_whole_ticks_where_their_values_lie() -> None:
    few = trials([0.4, 0.3, 0.2, 0.1], model__stem=[4, 5, 6, 8])
    figure = parallel_coordinates.parallel(few, {"one": ["width"]})
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts][:5] == ["4", "5", "6", "7", "8"]
    (best,) = [lines_of(path)[0] for path in ax.patches if to_hex(path.get_edgecolor()) != "#a3aab3"][:1]
    assert abs(best[0]) <= 0.02, "the line of the width 4"
    check(figure, "The best of 4 trials (in colour) reaches 40.0%, with a learning rate of 0.05.")


def test_a_failed_trial_is_dashed(crowd: list[Trial]) -> None:
    from test_search_analysis import record

    failed = Trial("failed", crowd[0].values, 0.1, record(crowd[0].record.config, failed="not a number"))
    (ax,) = parallel_coordinates.parallel([*crowd, failed], {"": ["lr"]}).axes
    (dashed,) = [path for path in ax.patches if path.get_linestyle() == "--"]
    assert len(lines_of(dashed)) == 1


def test_the_best_of_n_rises_to_the_best_trial(crowd: list[Trial]) -> None:
    searches = np.maximum.accumulate(RNG.permuted(np.tile(SCORES, (50, 1)), axis=1), axis=1)
    figure = plots.best_of_n(crowd, searches)
    assert labels(figure) == [("draws n", "best validation accuracy (%)")]
    mean = np.ravel(figure.axes[0].lines[0].get_ydata())
    assert mean[-1] == pytest.approx(100 * max(SCORES))
    assert mean[0] == pytest.approx(100 * np.mean(SCORES)), "over all orders, as the caption says, not over these few"
    assert (np.diff(mean) >= 0).all()
    check(figure, f"the best of {N} at {100 * max(SCORES):.1f}%")
    assert texts(plots.best_of_n(crowd, searches, draws=5)) == ["5 draws"]
    check(plots.best_of_n(crowd, searches, draws=2), "Draw 2 adds ")


def test_error_distributions_have_a_curve_a_group_and_name_their_sizes(crowd: list[Trial]) -> None:
    groups = {"optimizer": ["a"] * 10 + ["b"] * 30, "layers": ["c"] * N}
    figure = plots.error_distributions(crowd, groups)
    assert [x for x, _ in labels(figure)] == ["validation error by optimizer (%)"], "a single group compares nothing"
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    errors = 100 * (1 - np.array([trial.accuracy for trial in crowd]))
    medians = {"a (n = 10)": np.median(errors[:10]), "b (n = 30)": np.median(errors[10:])}
    assert legend == sorted(medians, key=medians.__getitem__), "the better one comes first, and has its colour"
    check(figure, "Further left is better, on average over the other variables")
    one_curve = plots.error_distributions(crowd, {"layers": ["c"] * N})
    assert description(one_curve).caption.endswith("%)."), "one curve crosses none"


def test_good_values_have_a_panel_a_variable_and_shade_the_winners_range(crowd: list[Trial]) -> None:
    figure = plots.good_values(crowd, ["optimizer", "lr", "width"], {"lr": Estimate(0.01, 0.005, 0.02, N, "trials")})
    assert [x for x, _ in labels(figure)] == ["optimizer", "learning rate", "base width w, channels"]
    strip, rate, _ = figure.axes
    assert [tick.get_text() for tick in strip.get_xticklabels()] == ["sgd", "adamax"]
    points = [next(patch for patch in ax.patches if patch.get_capstyle() == "round") for ax in figure.axes]
    assert [lines_of(patch)[:, 0] / 100 for patch in points] == [pytest.approx(SCORES)] * 3
    assert len(re.findall(r"M (\S+ \S+) \nL \1 ", svg(figure))) >= 3 * N, "each point is a line without length"
    (span,) = [patch for patch in rate.patches if isinstance(patch, Rectangle)]
    shaded = span.get_extents().transformed(rate.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx(np.log10([0.005, 0.02]))
    assert [tick.get_text() for tick in rate.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    check(figure, "learning rate 0.005 to 0.02")


def test_rates_of_sgd_have_a_panel_of_their_own_unless_all_trials_are_of_sgd(crowd: list[Trial]) -> None:
    of_sgd = [trial for trial in crowd if trial.values["optimizer"] == "sgd"]
    assert [x for x, _ in labels(plots.good_values(crowd, ["lr"], {}, of_sgd))][1:] == ["learning rate, SGD alone"]
    assert len(labels(plots.good_values(of_sgd, ["lr"], {}, of_sgd))) == 1
    assert len(labels(plots.good_values(crowd, ["lr"], {}, of_sgd[:1]))) == 1, "one trial has no range of rates"


def test_every_optimizer_that_can_be_drawn_is_drawn() -> None:
    optimizers = ["muon", "adam", "sgd", "adamw", "adamax", "sgd"]
    spec = next(spec for spec in fields(TrainConfig) if spec.name == "optimizer")
    assert {*optimizers} == {*spec.metadata["choices"]}
    any_of_them = trials([0.3, 0.4, 0.5, 0.2, 0.3, 0.3], train__optimizer=optimizers)
    (strip,) = (ax for ax in plots.good_values(any_of_them, ["optimizer"], {}).axes if ax.axison)
    assert [tick.get_text() for tick in strip.get_xticklabels()] == ["sgd", "adam", "adamw", "adamax", "muon"]


def test_the_winners_range_of_a_few_numbers_is_shaded_too() -> None:
    few = trials([0.3, 0.4, 0.5, 0.2, 0.3, 0.3], model__stem=[4, 6, 8, 8, 4, 6])
    figure = plots.good_values(few, ["width"], {"width": Estimate(6, 5.5, 8, 6, "trials")})
    ax = figure.axes[0]
    (span,) = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    shaded = span.get_extents().transformed(ax.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((0.5, 2.5)), "6 and 8, which stand at 1 and 2"


def importances(low: float) -> list[Importance]:
    def share(value: float, low: float, high: float) -> Estimate:
        return Estimate(value, low, high, N, "trials", "percentile bootstrap")

    return [Importance("lr", share(0.4, low, 0.5)), Importance(NOISE, share(0.05, 0.02, 0.1))]


@pytest.mark.parametrize(
    ("low", "explained", "caption"),
    [(0.3, 0.4, "the learning rate matters most"), (0.08, 0.4, "No variable"), (0.3, -0.1, "No variable")],
)
def test_importance_is_a_bar_a_variable_and_its_caption_asks_the_noise(
    crowd: list[Trial], low: float, explained: float, caption: str
) -> None:
    figure = plots.importance_bars(crowd, importances(low), explained)
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["learning rate", "random numbers"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([40, 5])
    assert labels(figure) == [("variance of the accuracy explained by the variable alone (%)", "")]
    check(figure, caption)


def test_two_budgets_mark_the_draw_that_short_trials_choose(crowd: list[Trial]) -> None:
    table = pd.DataFrame(
        {"schedule matched": [0.1, 0.3, 0.2], "schedule cut": [0.3, 0.1, 0.2], "long": [0.5, 0.6, 0.7]}
    )
    correlations = {
        "schedule matched": Estimate(0.5, 0.1, 0.8, 3, "draws"),
        "schedule cut": Estimate(-0.5, -0.8, -0.1, 3, "draws"),
    }
    figure = plots.two_budgets(crowd[:3], table, correlations)
    assert labels(figure)[0] == ("accuracy of the short trial (%)", "accuracy of the long trial (%)")
    chosen = [ax.lines[-1].get_xydata().ravel().tolist() for ax in figure.axes]  # type: ignore[union-attr]
    assert chosen == [pytest.approx([30, 60]), pytest.approx([30, 50])]
    assert "rank correlation 0.50 (0.10 to 0.80)" in figure.axes[0].get_title(loc="left")
    check(figure, "schedule matched 0.50, schedule cut −0.50")


def test_the_curse_shows_what_is_simulated_and_what_is_measured(crowd: list[Trial]) -> None:
    simulated = pd.DataFrame({500: [0.0, 0.02], 5000: [0.0, 0.005]}, index=[1, 10])
    figure = plots.winners_curse(crowd, simulated, {10: Estimate(0.015, 0.005, 0.025, 40, "draws")})
    assert labels(figure) == [("trials k that the winner is chosen from", "looks too good by, points")]
    (ax,) = figure.axes
    legend: Any = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "simulated, 500 images",
        "simulated, 5,000 images",
        "trained again, fresh seed (95%)",
    ]
    check(figure, "the best of 10 looks 2.0 points too good on 500 images, 0.5 on 5,000")
    assert plots.winners_curse(crowd, simulated, {}).axes, "no draw was trained twice"
