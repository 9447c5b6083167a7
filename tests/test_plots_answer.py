"""The first figure of all: its labels can be read, its line joins the best of all, and no name lies on another."""

from __future__ import annotations

from itertools import combinations, pairwise

import matplotlib as mpl
import pytest

mpl.use("Agg")
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from tpsnet_lib import stats
from tpsnet_lib.analysis import peers
from tpsnet_lib.plots import answer, phone, style
from tpsnet_lib.stats import Estimate

OURS = [
    {"model": "best", "parameters": 4_733_610, "accuracy": 0.9532, "estimate": stats.mean([0.951, 0.953, 0.955])},
    {"model": "two_cores", "parameters": 3_363_778, "accuracy": 0.9487, "estimate": stats.mean([0.948, 0.949, 0.949])},
]


@pytest.fixture(params=[7.2, 5.9, 3.5], ids=["in a chapter", "beside the sentences", "on a phone"])
def drawn(request: pytest.FixtureRequest) -> Figure:
    return answer.accuracy_against_parameters([*OURS, *peers.published()], request.param)


def test_ours_have_an_interval_and_one_that_was_not_opened_is_left_out(drawn: Figure) -> None:
    shut = {**OURS[0], "model": "shut", "accuracy": None}
    axes = answer.accuracy_against_parameters([*OURS, shut, *peers.published()]).axes[0]
    assert axes.get_xlabel() == "parameters (millions)"
    assert axes.get_ylabel() == "test accuracy (%, log of the error)"
    named = {text.get_text() for text in axes.texts}
    assert {"best", "two_cores", "TPSNet"} < named
    assert "shut" not in named
    assert {"best", "two_cores", "TPSNet"} <= {text.get_text() for text in drawn.axes[0].texts}
    (bars,) = axes.containers[0][2]
    ends = [sorted(y for _, y in segment) for segment in bars.get_segments()]
    assert ends == [pytest.approx([100 * row["estimate"].low, 100 * row["estimate"].high]) for row in OURS]


def test_the_caption_counts_the_networks_above_ours(drawn: Figure) -> None:
    assert style.description(drawn).caption.startswith(
        "16 of 20 published networks besides TPSNet report more than any of ours"
    )
    best = [{**OURS[0], "accuracy": 0.99, "estimate": stats.mean([0.989, 0.99, 0.991])}]
    caption = style.description(answer.accuracy_against_parameters([*best, *peers.published()])).caption
    assert caption.startswith("0 of 20 published networks besides")
    assert "ours" not in style.description(answer.accuracy_against_parameters(peers.published())).caption


def test_all_labels_have_8_points_and_more_and_no_two_overlap(drawn: Figure) -> None:
    drawn.canvas.draw()
    axes = drawn.axes[0]
    texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), *axes.get_legend().get_texts()]
    assert all(text.get_fontsize() >= 8 for text in texts if text.get_text())
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    whole = drawn.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 for box in boxes)


def test_the_line_joins_the_best_of_all_networks_ours_among_them(drawn: Figure) -> None:
    line = next(each for each in drawn.axes[0].lines if each.get_label() == "best for its size")
    edge = peers.frontier([*OURS, *peers.published()], "parameters")
    assert list(line.get_ydata()) == pytest.approx([100 * row["accuracy"] for row in edge])
    estimate = stats.mean([0.984, 0.985, 0.986])
    better = [OURS[0] | {"accuracy": 0.985, "estimate": estimate}, OURS[1]]
    changed = answer.accuracy_against_parameters([*better, *peers.published()])
    line = next(each for each in changed.axes[0].lines if each.get_label() == "best for its size")
    assert list(line.get_ydata())[-1] == pytest.approx(98.5)
    assert "best 98.50%" in style.description(changed).alt


def test_each_of_five_recipes_has_its_name_on_a_phone_and_none_on_an_axis() -> None:
    more = {"two_cores_narrow": (2_860_000, 0.9487), "sprint10": (2_490_000, 0.9235), "classroom": (80_000, 0.8269)}
    spreads = {name: stats.mean([a - 0.001, a, a + 0.001]) for name, (_, a) in more.items()}
    mine = [{"model": m, "parameters": n, "accuracy": a, "estimate": spreads[m]} for m, (n, a) in more.items()]
    rows = [*OURS, *mine]
    figure = answer.accuracy_against_parameters([*rows, *peers.published()], 3.6)
    (axes,) = figure.axes
    names = {text.get_text().replace("\n", "") for text in axes.texts}
    assert {row["model"] for row in rows} <= names
    figure.canvas.draw()
    assert all(text.get_window_extent().y0 > axes.get_window_extent().y0 for text in axes.texts)


def test_no_name_touches_the_line() -> None:
    small = {"model": "classroom", "parameters": 80_000, "accuracy": 0.8269, "estimate": stats.mean([0.826, 0.828])}
    rows = [*OURS, small, *peers.published()]
    figure = answer.accuracy_against_parameters(rows)
    (axes,) = figure.axes
    (name,) = [text for text in axes.texts if text.get_text() == "classroom"]
    edge = peers.frontier(rows, "parameters")
    figure.canvas.draw()
    corners = axes.transData.transform([(row["parameters"] / 1e6, 100 * row["accuracy"]) for row in edge])
    box = name.get_window_extent()
    for (x, y), (beyond, above) in pairwise(corners):
        assert not box.padded(2).overlaps(Bbox.from_extents(x, y, beyond, y))
        assert not box.padded(4).overlaps(Bbox.from_extents(beyond, y, beyond, above))


def test_nothing_is_drawn_outside_the_axes(drawn: Figure) -> None:
    drawn.canvas.draw()
    axes = drawn.axes[0]
    inside = axes.get_window_extent().padded(2)
    for line in axes.lines:
        points = axes.transData.transform(list(zip(line.get_xdata(), line.get_ydata(), strict=True)))
        assert all(inside.contains(*point) for point in points)


def test_a_claim_has_the_colour_of_its_verdict() -> None:
    tests = [
        ("Wide beats deep", stats.HOLDS, Estimate(0.07, 0.05, 0.09, 8, "seeds", "t")),
        ("Dropout helps", stats.DOES_NOT_HOLD, Estimate(-0.04, -0.05, -0.03, 8, "seeds", "t")),
    ]
    figure = answer.claims(tests, "In small, short runs")
    assert figure.axes[0].get_legend_handles_labels()[1] == [stats.HOLDS, stats.DOES_NOT_HOLD]
    assert "holds: 1, does not hold: 1" in style.description(figure).alt
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [sentence for sentence, _, _ in tests]


def test_a_long_claim_is_set_in_lines_on_a_phone_and_is_not_cut() -> None:
    sentence = "A longer run brings the deep, narrow network more than the shallow, wide one, in points of accuracy"
    figure = answer.claims([(sentence, stats.HOLDS, Estimate(0.07, 0.05, 0.09, 8, "seeds", "t"))], "In short runs")
    assert style.phone_svg(figure)
    (name,) = [text for text in figure.axes[0].texts if text.get_text().replace("\n", " ") == sentence]
    figure.canvas.draw()
    assert name.get_window_extent().x1 < figure.bbox.x1
    bar = figure.axes[0].transData.transform((7, 0))[1]
    assert 0 < name.get_window_extent().y0 - bar < 0.1 * figure.dpi, "the name is near its own bar"
    assert name.get_bbox_patch().get_facecolor() == figure.axes[0].get_facecolor(), "no line of the panel crosses it"
    assert phone.in_lines("one two three four", 14) == "one two\nthree four"
