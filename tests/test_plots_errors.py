"""Every figure of the error analysis, drawn once: its labels, what is marked in it, and the caption that it carries."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot

from tpsnet_lib import stats
from tpsnet_lib.plots import errors as plots
from tpsnet_lib.plots import network_drawing, style

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (8, 3, 32, 32), generator=GENERATOR, dtype=torch.uint8)
NAMES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def words(ax):
    return [text.get_text() for text in ax.texts]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def carried(fig, record):
    """The caption of a figure that can be shown, with its record."""
    about = style.description(fig)
    assert about.records == (record.id,)
    assert about.alt
    fig.canvas.draw()
    return about.caption


def share(hits, n=100):
    return stats.proportion(hits, n)


def test_the_confusion_matrix_names_classes_recall_and_every_count(tiny_record):
    counts = torch.diag(torch.full((10,), 90))
    counts[3, 5], counts[5, 3] = 10, 7
    counts[9] = 0
    fig = plots.confusion_matrix(counts, NAMES, tiny_record)
    (ax,) = fig.axes
    assert ticks(ax.xaxis) == list(NAMES)
    assert ticks(ax.yaxis)[3:6] == ["cat, 90%", "deer, 100%", "dog, 93%"]
    assert ticks(ax.yaxis)[9] == "truck, 0%"
    assert sorted(filter(None, words(ax))) == sorted(["10", "7", *["90"] * 9])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "label, recall")
    assert "827 test images" in carried(fig, tiny_record)
    narrow = style.description(fig).phone()
    narrow.canvas.draw()
    (ax,) = narrow.axes
    assert ticks(ax.yaxis)[3] == "cat\n90%"
    cell = ax.get_window_extent().width / 10
    assert all(text.get_window_extent().width < cell for text in ax.texts if text.get_text())


def test_the_worst_errors_stand_over_their_lines(tiny_record):
    fig = plots.worst_errors(IMAGES, [f"cat → dog\n{i}" for i in range(8)], tiny_record)
    assert [text for ax in fig.axes for text in words(ax)] == [f"cat → dog\n{i}" for i in range(8)]
    assert len(fig.axes) == 10
    assert sum(len(ax.images) for ax in fig.axes) == 8
    assert "8 errors" in carried(fig, tiny_record)


def test_no_error_at_all_is_an_empty_figure(tiny_record):
    assert len(plots.worst_errors(IMAGES[:0], [], tiny_record).axes[0].images) == 0


def test_reliability_shows_each_bin_with_its_interval_beside_its_confidence(tiny_record):
    one = pd.DataFrame({"confidence": [0.5, 0.9], "accuracy": [share(60), share(95)]})
    two = pd.DataFrame({"confidence": [0.6, 0.95], "accuracy": [share(60), share(95)]})
    fig = plots.reliability({"as trained": one, "with T = 0.80": two}, {0.5: 0.01, 1.0: 0.05}, tiny_record)
    left, right, last = fig.axes
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["as trained", "with T = 0.80", "the surest alone"]
    np.testing.assert_allclose(last.lines[0].get_xydata(), [[50, 1], [100, 5]])
    assert (last.get_xlabel(), last.get_ylabel()) == ("images answered (%)", "error on them (%)")
    assert (left.get_xlabel(), left.get_ylabel()) == ("bin, the surest last", "% of a bin's images")
    np.testing.assert_allclose(right.containers[0].lines[0].get_xydata(), [[1, 60], [2, 95]])
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[1, 60], [2, 95]])  # the confidence
    segments = left.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(segments[0][:, 1], [100 * share(60).low, 100 * share(60).high])
    assert left.get_ylim()[0] < 100 * min(0.5, share(60).low)
    assert "200 test images in 2 bins of about 100 each" in carried(fig, tiny_record)


def test_published_models_are_sorted_and_coloured_by_verdict(tiny_record):
    rows = [
        (plots.OURS, share(90), plots.OURS),
        ("poor", share(50), stats.HOLDS),
        ("good", share(98), stats.DOES_NOT_HOLD),
    ]
    fig = plots.published_models(pd.DataFrame(rows, columns=["name", "accuracy", "verdict"]), tiny_record)
    (ax,) = fig.axes
    assert ticks(ax.yaxis) == ["good", plots.OURS, "poor"]
    assert legend(ax) == [stats.HOLDS, stats.DOES_NOT_HOLD]
    assert ax.get_legend().get_title().get_text() == "this network is better:"
    points = [container.lines[0].get_xydata()[0].tolist() for container in ax.containers]
    assert points == [[pytest.approx(50), 2], [pytest.approx(2), 0], [pytest.approx(10), 1]]
    assert ax.get_xscale() == "log"
    assert "better than 1 of 2 models published by 2018" in carried(fig, tiny_record)


def test_people_and_network_stand_side_by_side_with_their_counts(tiny_record):
    mean = stats.mean([0.1, 0.3, 0.2], of="images")
    certain = stats.mean([0.0, 0.0, 0.0], of="images")
    rows = [
        {"agreement": "all", "error": share(3, 300), "network": mean, "people": certain},
        {"agreement": "fewer", "error": share(10), "network": mean, "people": mean},
    ]
    fig = plots.people(pd.DataFrame(rows), tiny_record)
    left, right = fig.axes
    assert ticks(left.xaxis) == ["all\nn = 300", "fewer\nn = 100"]
    assert (left.get_ylabel(), right.get_ylabel()) == ("network's error (%)", "mean entropy (nats)")
    assert legend(right) == ["network", "people"]
    np.testing.assert_allclose(right.containers[1].lines[0].get_ydata(), [0, 0.2])
    assert "400 test images" in carried(fig, tiny_record)


def test_heat_maps_lie_over_their_images(tiny_record):
    heat = torch.rand(3, 32, 32, generator=GENERATOR)
    fig = plots.heat_maps(IMAGES[:3], heat, ["cat →\ndog", "dog →\ncat", "ship →\nship"], tiny_record)
    assert [ax.get_title() for ax in fig.axes[:3]] == ["cat →\ndog", "dog →\ncat", "ship →\nship"]
    assert [len(ax.images) for ax in fig.axes] == [1] * 6
    lit, grey = fig.axes[4].images[0].get_array().astype(float), IMAGES[1].float().mean(0).numpy()
    assert lit.shape == (96, 96, 3)
    heat_alone = (lit[1::3, 1::3].mean(2) - 0.45 * grey).ravel()
    assert np.corrcoef(heat_alone, heat[1].ravel())[0, 1] > 0.9
    assert "label → prediction" in carried(fig, tiny_record)


@pytest.mark.parametrize("plain", [False, True])
def test_block_sizes_name_the_blocks_and_part_the_layers(plain, tiny_record):
    blocks = np.repeat(["1.1", "1.2", "2.1"], 20)
    skip = np.full(60, np.nan) if plain else np.repeat([1.0, 2.0, 3.0], 20)
    fig = plots.block_sizes(pd.DataFrame({"block": blocks, "skip": skip, "branch": 1.0}), tiny_record)
    (ax,) = fig.axes
    assert ticks(ax.xaxis) == ["1.1", "1.2", "2.1"]
    assert legend(ax) == (["branch"] if plain else ["skip", "branch"])
    if not plain:
        assert ax.get_legend().legend_handles[0].get_color() == network_drawing.SKIP
    assert ax.get_ylabel() == "root mean square of the maps"
    dotted = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert dotted == [1.5]
    assert "20 test images" in carried(fig, tiny_record)


def test_corruptions_have_a_panel_each_that_begins_with_the_undamaged_images(tiny_record):
    rows = [("ours", "none", 0, share(95)), ("small", "none", 0, share(80))]
    for who in ("ours", "small"):
        rows += [(who, name, level, share(90 - 10 * level)) for name in ("fog", "blur") for level in (1, 3, 5)]
    table = pd.DataFrame(rows, columns=["network", "corruption", "severity", "accuracy"])
    fig = plots.corruptions(table, {"fog": IMAGES[0], "blur": IMAGES[1]}, [tiny_record])
    assert [ax.get_title() for ax in fig.axes[:2]] == ["fog", "blur"]
    below = fig.axes[2]
    np.testing.assert_allclose(
        below.containers[0].lines[0].get_xydata(), [[0, 95], [1, 80], [3, 60], [5, 40]], atol=0.1
    )
    assert ticks(below.xaxis) == ["0", "1", "3", "5"]
    assert (below.get_xlabel(), below.get_ylabel()) == ("severity", "accuracy (%)")
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["ours", "small"]
    assert "100 test images" in carried(fig, tiny_record)


def test_a_phone_has_the_legend_of_an_odd_number_of_corruptions_in_the_free_place(tiny_record):
    rows = [("ours", "none", 0, share(95))]
    rows += [("ours", name, level, share(90 - 10 * level)) for name in ("fog", "blur", "noise") for level in (1, 3, 5)]
    table = pd.DataFrame(rows, columns=["network", "corruption", "severity", "accuracy"])
    fig = plots.corruptions(table, dict(zip(("fog", "blur", "noise"), IMAGES, strict=False)), [tiny_record])
    assert style.phone_svg(fig).count(">accuracy (%)<") == 2  # each row names its axis
    box = fig.legends[0].get_window_extent()
    assert box.x0 > fig.bbox.width / 2
    assert not any(ax.get_window_extent().overlaps(box) for ax in fig.axes)
