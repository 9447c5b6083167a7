"""What a reader of notebook 01 can rely on: copies are found, statistics are exact, sentences follow their numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tpsnet_lib import metrics
from tpsnet_lib.analysis import dataset as study
from tpsnet_lib.analysis import dataset_findings as findings
from tpsnet_lib.config import TrainConfig
from tpsnet_lib.data.datasets import MEAN, STD, Fingerprint, load_train, split
from tpsnet_lib.plots import dataset as plots

NAMES = tuple("abcdefghij")
NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "01_explore_data.ipynb"


@pytest.fixture(scope="module")
def drawn():
    train = load_train("shapes10")
    return train.subset(split("shapes10")[0][:500])


def with_copies(images):
    """The images with three copies at the end: of image 3 byte for byte, of 5 brighter, of 7 with noise."""
    noise = torch.randint(-6, 7, images[7].shape, generator=torch.Generator().manual_seed(0))
    brighter, noisy = images[5] * 0.8 + 40, images[7] + noise
    return torch.cat([images, torch.stack([images[3], brighter.clamp(0, 255).byte(), noisy.clamp(0, 255).byte()])])


# Counts and statistics


def test_counts_and_examples_are_by_class_in_the_official_order():
    labels = torch.arange(10).repeat(3)
    assert study.class_counts(labels).tolist() == [3] * 10
    assert study.examples(labels, 2)[4].tolist() == [4, 14]


def test_channel_statistics_are_those_of_the_pixels(drawn):
    found, pixels = study.channel_statistics(drawn.images), drawn.images.double() / 255
    assert found.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-9)
    assert found.pixel_std == pytest.approx(
        pixels.permute(1, 0, 2, 3).flatten(1).std(1, correction=0).tolist(), abs=1e-9
    )
    assert found.image_std == pytest.approx(pixels.std((2, 3), correction=0).mean(0).tolist(), abs=1e-6)
    assert found.counts.sum(1).tolist() == [500 * 1024] * 3


def test_the_nearest_mean_finds_the_class_of_plain_colours():
    images = (torch.arange(10) * 25).view(10, 1, 1, 1).expand(10, 3, 32, 32).byte()
    means = study.class_means(images, torch.arange(10))
    assert study.nearest_mean(images + 5, means).tolist() == list(range(10))


# Near-duplicates


def test_the_nearest_neighbour_is_the_same_as_by_comparing_all_with_all(drawn, monkeypatch):
    monkeypatch.setattr(study, "_BLOCK", 64)
    vectors = study.thumbnails(drawn.images[:300])
    similarity, other = study.nearest(vectors)
    table = torch.corrcoef(vectors).fill_diagonal_(-2)
    assert torch.equal(other, table.argmax(1))
    assert similarity == pytest.approx(table.max(1).values, abs=1e-5)


def test_copies_are_found_also_where_they_are_brighter_or_noisy_and_nothing_else_is(drawn):
    images = with_copies(drawn.images)
    assert study.exact_duplicates(images) == 1
    pairs = study.closest_pairs(images, *study.nearest(study.thumbnails(images))).above()
    assert {tuple(pair) for pair in torch.stack([pairs.first, pairs.second], 1).tolist()} == {
        (3, 500),
        (5, 501),
        (7, 502),
    }
    assert pairs.detail.tolist() == sorted(pairs.detail.tolist(), reverse=True)
    assert pairs.detail[0] == pytest.approx(1, abs=1e-5)


def test_two_skies_with_different_clouds_are_not_one_photograph():
    draw = torch.Generator().manual_seed(1)
    sky = torch.linspace(200, 100, 32).view(1, 1, 32, 1).expand(2, 3, 32, 32)
    images = (sky + torch.randint(-9, 10, (2, 3, 32, 32), generator=draw)).byte()
    similarity, other = study.nearest(study.thumbnails(images))
    assert similarity.min() > 0.9
    assert len(study.closest_pairs(images, similarity, other).above()) == 0


def test_only_pairs_across_the_split_count_as_leaks():
    pairs = study.Pairs(torch.tensor([0, 2, 5]), torch.tensor([1, 8, 9]), torch.ones(3))
    assert study.across(pairs, torch.tensor([1, 8, 9, 5])).tolist() == [1, 8]


# A map


def test_components_are_ordered_and_explain_everything_together(drawn):
    vectors = study.thumbnails(drawn.images)
    found = study.principal_components(vectors, 192)
    assert found.explained.sum() == pytest.approx(1)
    assert (found.explained.diff() <= 1e-12).all()
    assert found.coordinates.var(0, correction=0)[0] / vectors.var(0, correction=0).sum() == pytest.approx(
        float(found.explained[0]), rel=1e-3
    )
    assert found.directions.shape == (192, 3, 8, 8)


def test_neighbours_agree_where_classes_are_apart_and_a_map_can_be_two_components():
    labels = torch.arange(10).repeat_interleave(5)
    points = labels[:, None] * 100.0 + torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    assert study.neighbour_agreement(points, labels) == 1
    assert study.neighbour_agreement(points, torch.arange(50)) == 0
    assert [each.shape for each in study.maps(points, "pca").values()] == [(50, 2), (50, 2)]


# Augmentation


def test_every_augmentation_shown_does_one_thing_and_none_does_nothing(drawn):
    for recipe in study.AUGMENTATIONS.values():
        share, change = study.pixel_change(drawn.images[:100], recipe)
        assert 0 < share <= 1
        assert change > 0
    plain = TrainConfig(crop=0, flip="none", rotation=0.0)
    assert study.pixel_change(drawn.images[:10], plain) == (0, 0)


def test_the_alternating_flip_shows_every_image_both_ways_and_chance_does_not():
    assert study.both_ways(study.AUGMENTATIONS["alternating flip"], 2) == 1
    assert study.both_ways(study.AUGMENTATIONS["random flip"], 2) == pytest.approx(0.5, abs=0.05)
    assert study.both_ways(TrainConfig(crop=0, flip="none", rotation=0.0), 2) == 0


def test_mixed_targets_sum_to_one_and_name_both_classes(drawn):
    for recipe in study.MIXES.values():
        _, targets = study.mixed(drawn.images[:4], torch.tensor([0, 1, 2, 3]), recipe)
        assert targets.sum(1) == pytest.approx(torch.ones(4))
    assert plots.target_words(torch.tensor([0.25, 0.75, 0, 0, 0, 0, 0, 0, 0, 0]), NAMES) == "0.75 b\n+ 0.25 a"


# The split and the choice


def test_random_splits_vary_as_the_hypergeometric_distribution_says():
    counts = study.random_split_counts(torch.full((10,), 5000), 5000, 3000)
    assert (counts.sum(1) == 5000).all()
    assert counts.std() == pytest.approx(study.hypergeometric_deviation(5000, 50_000, 5000), rel=0.03)


def test_a_stratified_set_is_quieter_where_classes_differ_and_not_where_they_do_not():
    labels = torch.arange(10).repeat(1000)
    easy, alike = labels < 5, torch.arange(10_000) % 20 < 10
    assert study.score_deviation(easy, labels, 1000, stratified=True) == 0
    assert study.score_deviation(easy, labels, 1000, stratified=False) == pytest.approx(0.015, rel=0.02)
    random, tight = (study.score_deviation(alike, labels, 1000, stratified) for stratified in (False, True))
    assert tight == pytest.approx(random, rel=0.01)


def test_what_two_classifiers_share_cancels_on_the_same_images():
    draw = torch.Generator().manual_seed(0)
    first = torch.rand(20_000, generator=draw) < 0.8
    second = first ^ (torch.rand(20_000, generator=draw) < 0.02)
    shared, own = study.difference_scores(first, second, 2000, 1000)
    expected = float(first.double().mean() - second.double().mean())
    assert shared.mean() == pytest.approx(expected, abs=0.002)
    assert own.mean() == pytest.approx(expected, abs=0.002)
    assert own.std() > 3 * shared.std()


def test_choosing_inflates_the_score_and_fresh_images_do_not():
    one, hundred = study.choose_among([1, 100], 0.9, 1000, repeats=500)
    (_, alike) = study.choose_among([1, 100], 0.9, 1000, agree=0.9, repeats=500)
    deviation = math.sqrt(0.9 * 0.1 / 1000)
    assert one.chosen == pytest.approx(0.9, abs=0.002)
    assert hundred.chosen == pytest.approx(0.9 + 2.51 * deviation, abs=0.002)  # 2.51: expected maximum of 100 normals
    assert 0.9 < alike.chosen < hundred.chosen
    assert hundred.fresh == pytest.approx(0.9, abs=0.002)


# Sentences and hints


def statistics(mean, pixel_std, image_std):
    return study.ChannelStatistics(mean, pixel_std, image_std, torch.zeros(3, 256))


def test_the_sentence_on_the_constants_says_which_deviation_fits():
    pixels = tuple(value + 0.05 for value in STD)
    assert "*own* deviations" in findings.say_statistics(statistics(MEAN, pixels, STD), "x")
    assert "STD is the deviation of all pixels" in findings.say_statistics(statistics(MEAN, STD, pixels), "x")
    text = findings.say_statistics(statistics((0.5, 0.5, 0.5), pixels, pixels), "x")
    assert "neither" in text
    assert "at most 0.0535" in text


def test_the_sentence_on_copies_follows_its_numbers():
    labels = torch.tensor([0, 1, 2, 2])
    pairs = study.Pairs(torch.tensor([0, 2]), torch.tensor([1, 3]), torch.tensor([0.95, 0.9]))
    text = findings.say_duplicates(4, pairs, labels, 10, 1000, "CIFAR-10")
    for part in ("**4** exact", "**2** pairs", "(1 of them", "**10** of the 1,000", "1.0 points"):
        assert part in text
    assert "closest pair reaches 0.50" in findings.say_duplicates(
        0, study.Pairs(pairs.first, pairs.second, torch.tensor([0.5, 0.4])), labels, 0, 1000, "x"
    )


def test_the_sentence_on_the_copy_names_what_is_inexact_or_that_it_is_not_cifar():
    labels = torch.tensor([0, 1, 1, 2])
    text = findings.say_copy(Fingerprint("CIFAR-10 (x)", "0", True), [1, 2, 3], NAMES, labels)
    assert "3 (75.00%)" in text
    assert "2 of b and 1 of c" in text
    assert "nobody has verified" in findings.say_copy(
        Fingerprint("CIFAR-10 (unverified)", "0", False), [], NAMES, labels
    )
    assert "nothing below is a statement about CIFAR-10" in findings.say_copy(
        Fingerprint("shapes10", "0", True), [], NAMES, labels
    )


def test_other_findings_follow_their_numbers():
    assert "not settled against" in findings.say_means(101, 1000)
    assert "**30.0%**" in findings.say_means(300, 1000)
    assert "94.36 to 95.57%" in findings.say_interval(0.95, 5000)
    assert "**b** changes most" in findings.say_changes({"a": (0.1, 3.0), "b": (0.5, 9.0)})
    chosen = [study.Choice(10, 0.95, 0.94, 0.96, 0.94)]
    assert "best of 10 scores **+1.00 points**" in findings.say_choice(chosen, chosen, 0.94)


def test_exercises_say_not_yet_without_an_answer_hint_at_a_wrong_one_and_know_the_right_one():
    found = statistics(MEAN, (0.247, 0.2435, 0.2616), STD)
    assert findings.check_deviation(None, found) == findings.check_digits(None) == findings.NOT_YET
    assert findings.check_size(None, 0.95, 0.002) == findings.NOT_YET
    assert findings.check_deviation(1.0, found).startswith("Not yet")
    assert findings.check_deviation(1.221, found).startswith("**Right**")
    assert "1 more would hurt" in findings.check_digits(["random flip", "alternating flip"])
    assert "cutout leaves" in findings.check_digits([*findings.BREAKS_DIGITS, "cutout"])
    assert findings.check_digits(sorted(findings.BREAKS_DIGITS)).startswith("**Right**")
    assert "too few" in findings.check_size(5000, 0.95, 0.002)
    assert "too many" in findings.check_size(10**6, 0.95, 0.002)
    low, high = metrics.wilson(43_320, 45_600)
    assert (high - low) / 2 == pytest.approx(0.002, rel=0.01)
    assert findings.check_size(45_600, 0.95, 0.002).startswith("**Right**")


# The notebook


def test_the_notebook_leaves_the_test_set_shut_and_keeps_its_form():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    assert not any(word in source for source in sources for word in ("load_test", "test_fingerprint"))
    assert 30 <= len(cells) <= 60
    assert max(len(cell["source"]) for cell in cells if cell["cell_type"] == "code") <= 15
    checked = [cell for cell in cells if "nbval-check-output" in cell["metadata"].get("tags", [])]
    assert len(checked) >= 3
    assert all(cell["outputs"] for cell in checked)
