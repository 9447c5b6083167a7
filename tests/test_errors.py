"""What predictions come to: scores that agree with scikit-learn's, and findings that turn with their numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from tpsnet_lib import metrics
from tpsnet_lib.analysis import errors
from tpsnet_lib.analysis import errors_findings as say
from tpsnet_lib.analysis.explain import BlockNorms
from tpsnet_lib.config import DataConfig, RunConfig, TrainConfig
from tpsnet_lib.data.datasets import ImageSet
from tpsnet_lib.data.reference_labels import Published
from tpsnet_lib.files import RecordError
from tpsnet_lib.plots import errors as plots
from tpsnet_lib.plots import style
from tpsnet_lib.runs.records import Record

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.randint(0, 10, (600,), generator=GENERATOR)
LOGITS = 2 * torch.randn(600, 10, generator=GENERATOR) + 4 * torch.nn.functional.one_hot(LABELS, 10)
PROBABILITIES = LOGITS.softmax(1)
CONFIDENCE, PREDICTED = PROBABILITIES.max(1)
CORRECT = PREDICTED == LABELS
NAMES = tuple("abcdefghij")


# Scores


def test_class_scores_agree_with_scikit_learn_and_lie_in_their_intervals():
    from sklearn.metrics import precision_recall_fscore_support

    scores = errors.class_scores(metrics.confusion(PREDICTED, LABELS))
    theirs = precision_recall_fscore_support(LABELS, PREDICTED)
    for kind, expected in zip(("precision", "recall", "f1"), theirs, strict=False):
        values = [getattr(score, kind) for score in scores]
        assert [value[0] for value in values] == pytest.approx(expected, abs=1e-12)
        assert all(low <= middle <= high for middle, low, high in values)


def test_a_class_that_never_occurs_is_named_has_no_score_and_stops_nothing():
    there = LABELS < 8
    few, guessed = LABELS[there], PREDICTED[there].clamp(max=8)
    matrix = metrics.confusion(guessed, few)
    scores = errors.class_scores(matrix)
    assert np.isnan([scores[8].recall[0], scores[9].recall[0], scores[9].precision[0]]).all()
    assert scores[8].precision[0] == scores[8].f1[0] == 0.0
    assert np.isnan(scores[9].f1).all()
    text = say.say_classes(scores, NAMES)
    assert "No image is labelled i, j." in text
    assert "Never predicted: j." in text
    assert "mixed up most" in say.say_confusion(matrix, NAMES)
    right, points = guessed == few, torch.rand(len(few), 2)
    drawn = (
        plots.confusion_matrix(matrix, NAMES),
        plots.scores_by_class(scores, NAMES),
        plots.reliability([("one", errors.reliability(PROBABILITIES[there], few))]),
        plots.embedding(points, few, right, NAMES, ("x", "y")),
    )
    for figure in drawn:
        assert len(style.svg(figure)) > 1000
        pyplot.close(figure)
    assert [label.get_text() for label in drawn[1].axes[0].get_yticklabels()][:2] in (["i", "j"], ["j", "i"])


def test_no_error_and_nothing_right_are_said_too():
    for guessed in (LABELS, (LABELS + 1) % 10):
        matrix = metrics.confusion(guessed, LABELS)
        assert say.say_classes(errors.class_scores(matrix), NAMES)
        assert say.say_confusion(matrix, NAMES)


def test_calibration_gives_the_metrics_with_intervals_around_them():
    found = errors.calibration(PROBABILITIES, LABELS)
    assert found["NLL"][0] == metrics.nll(PROBABILITIES, LABELS)
    assert found["Brier"][0] == metrics.brier(PROBABILITIES, LABELS)
    assert found["ECE"][0] == metrics.ece(PROBABILITIES, LABELS)
    assert all(low < value < high for value, low, high in (found["NLL"], found["Brier"]))
    rows = torch.stack([CONFIDENCE.double(), CONFIDENCE.double() - CORRECT.double()], 1).numpy()
    assert errors._binned_gap(rows) == pytest.approx(metrics.ece(PROBABILITIES, LABELS), abs=1e-7)


def test_reliability_bins_hold_all_images_once_and_their_mean_gap_is_the_ece():
    bins = errors.reliability(PROBABILITIES, LABELS)
    assert sum(part.n for part in bins) == 600
    assert [part.confidence for part in bins] == sorted(part.confidence for part in bins)
    gap = sum(part.n * abs(part.confidence - part.accuracy[0]) for part in bins) / 600
    assert gap == pytest.approx(metrics.ece(PROBABILITIES, LABELS), abs=1e-9)


def test_risk_coverage_ends_in_the_accuracy_and_begins_with_the_surest():
    coverage, reached = errors.risk_coverage(CONFIDENCE, CORRECT)
    assert (coverage[-1].item(), reached[-1].item()) == pytest.approx((1.0, CORRECT.double().mean().item()))
    assert reached[0] == CORRECT[CONFIDENCE.argmax()].double()
    assert errors.coverage_for(CONFIDENCE, CORRECT, 0.0) == 1.0
    assert errors.coverage_for(CONFIDENCE, torch.zeros(600, dtype=torch.bool), 0.5) == 0.0


def test_worst_errors_are_errors_the_surest_first():
    worst = errors.worst_errors(PROBABILITIES, LABELS, 12)
    assert not CORRECT[worst].any()
    assert (CONFIDENCE[worst].diff() <= 0).all()
    assert len(errors.worst_errors(PROBABILITIES, PREDICTED, 12)) == 0


# Two networks, people


def test_the_paired_interval_is_that_of_a_bootstrap_over_images():
    second = CORRECT & (torch.rand(600, generator=GENERATOR) > 0.1)
    found = errors.paired(CORRECT, second)
    assert (found.only_second, found.difference[0]) == (0, pytest.approx(found.only_first / 600))
    assert found.p == metrics.mcnemar(CORRECT, second)
    low, high = metrics.bootstrap((CORRECT.int() - second.int()).numpy(), np.mean)
    assert found.difference[1:] == pytest.approx((low, high), abs=0.006)
    assert errors.paired(CORRECT, CORRECT).difference == (0.0, 0.0, 0.0)


def published(*accuracies, v6=0.9):
    """Models that miss the last images: all nested, so that differences are known."""
    n, m = len(LABELS), 200
    shift = torch.stack([torch.arange(n) >= round(accuracy * n) for accuracy in accuracies]).long()
    shift_v6 = torch.stack([torch.arange(m) >= round(v6 * accuracy * m) for accuracy in accuracies]).long()
    v6_labels = torch.zeros(m, dtype=torch.int64)
    names = tuple(f"model {i}" for i in range(len(accuracies)))
    return Published(names, (LABELS + shift) % 10, shift_v6, v6_labels)


def test_standings_are_sorted_and_say_who_is_clearly_better():
    ours = torch.arange(600) < 540
    rows = errors.standings(ours, published(0.5, 0.99, 0.9), LABELS)
    assert [row.name for row in rows] == ["model 1", "model 2", "model 0"]
    text = say.say_standing(rows, 0.9)
    assert "**1 are clearly worse**" in text
    assert "1 clearly better" in text
    assert "1 cannot be told apart" in text


def test_the_line_of_published_models_foretells_the_other_test_set():
    models = published(*torch.linspace(0.5, 0.9, 12).tolist())
    value, low, high = errors.expected_v6(0.7, models, LABELS)
    assert value == pytest.approx(0.63, abs=0.01)
    assert low <= value <= high


def test_rank_correlation_agrees_with_scipy_also_with_ties():
    from scipy.stats import spearmanr

    first, second = torch.randint(0, 5, (300,), generator=GENERATOR), torch.rand(300, generator=GENERATOR)
    found = errors.rank_correlation(first, second)
    assert found[0] == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert found[1] <= found[0] <= found[2]
    assert np.isnan(errors.rank_correlation(torch.ones(5), torch.arange(5.0))[0])


def test_entropy_is_0_for_certain_and_ln_10_for_no_idea():
    rows = torch.stack([torch.eye(10)[3], torch.full((10,), 0.1)])
    assert errors.entropy(rows).tolist() == pytest.approx([0.0, np.log(10)], abs=1e-6)


def test_groups_by_agreement_hold_each_image_once():
    counts = torch.nn.functional.one_hot(LABELS, 10) * 50
    counts[::3, 0] += 10
    groups = errors.by_agreement(counts, PROBABILITIES, LABELS)
    assert sum(group.n for group in groups) == 600
    assert groups[0].name == "all"
    assert groups[0].people == 0.0
    assert [group.people for group in groups] == sorted(group.people for group in groups)


# Which record


class Shelf:
    """As much of a store as the choice of a record looks at."""

    def __init__(self, *records):
        self.records = records

    def all(self):
        return list(self.records)


def record(tmp_path, accuracy=0.9, weights=True, finished="1", **fields):
    data = DataConfig(**{"dataset": "shapes10", **fields})
    config = RunConfig(train=TrainConfig(precision="fp32", epochs=1 + accuracy), data=data)
    path = tmp_path / config.id
    path.mkdir()
    if weights:
        (path / "weights.safetensors").touch()
    return Record(path, config, {"validation_accuracy": accuracy}, {"finished": finished}, ())


@pytest.fixture
def choose(monkeypatch):
    def chosen(records, final, opened=()):
        monkeypatch.setattr(errors, "final_ids", lambda: {record.id: "x" for record in final})
        monkeypatch.setattr(errors, "find_test", lambda record, store: record if record in opened else None)
        return next(iter(errors.rank_records(Shelf(*records), "shapes10")), None)

    return chosen


def test_the_best_final_record_that_was_opened_is_chosen_else_the_newest(tmp_path, choose):
    good, better = record(tmp_path, 0.8, finished="2"), record(tmp_path, 0.9)
    bare, other = record(tmp_path, 0.95, weights=False), record(tmp_path, 0.99, dataset="cifar10")
    everything = [good, better, bare, other]
    assert choose(everything, everything, everything) is better
    assert choose(everything, everything, [good]) is good
    assert choose(everything, everything) is good
    assert choose(everything, [better]) is better
    assert choose(everything, []) is None


def fitted_on_all(split, accuracy, seed=0):
    """The same run on all images, whose validation accuracy says what it remembers."""
    data = replace(split.config.data, fit_on="all")
    config = replace(split.config, data=data, seed=seed)
    return replace(split, config=config, metrics={"validation_accuracy": accuracy})


def test_a_network_fitted_on_all_images_counts_by_its_siblings_validation(tmp_path, choose):
    split, middle = record(tmp_path, 0.9), record(tmp_path, 0.95)
    whole = fitted_on_all(split, 0.999)
    assert errors.split_siblings(whole, Shelf(split, whole)) == [split]
    assert errors.split_siblings(split, Shelf(whole)) == [split]
    assert errors.held_out_accuracy(whole, Shelf(split, whole)) == 0.9
    assert choose([split, whole, middle], [whole, middle], [whole, middle]) is middle
    better = fitted_on_all(middle, 0.1)
    assert choose([split, whole, middle, better], [whole, better], [whole, better]) is better


def test_what_was_fitted_on_is_no_validation_also_without_a_sibling(tmp_path, choose):
    alone = fitted_on_all(record(tmp_path, 0.5), 0.999)
    poor = record(tmp_path, 0.2)
    assert errors.held_out_accuracy(alone, Shelf(alone, poor)) is None
    assert choose([alone, poor], [alone, poor], [alone, poor]) is alone  # it was trained on more images
    longer = replace(poor, config=replace(poor.config, train=replace(poor.config.train, epochs=400.0)))
    assert choose([alone, longer], [alone, longer], [alone, longer]) is longer
    assert choose([alone], [alone], [alone]) is alone


def test_seeds_that_tie_stand_in_their_order_whatever_they_remember(tmp_path, choose):
    split = record(tmp_path, 0.9)
    seeds = [fitted_on_all(split, accuracy, seed) for seed, accuracy in ((2, 0.99), (1, 0.97), (0, 0.95))]
    assert choose([split, *seeds], seeds, seeds) is seeds[2]


def test_a_test_part_that_is_altered_was_opened_all_the_same(tmp_path, monkeypatch):
    good, better = record(tmp_path, 0.8), record(tmp_path, 0.9)

    def find_test(one, store):
        if one is better:
            raise RecordError("altered")
        return one

    monkeypatch.setattr(errors, "final_ids", lambda: {good.id: "x", better.id: "x"})
    monkeypatch.setattr(errors, "find_test", find_test)
    assert errors.rank_records(Shelf(good, better), "shapes10") == [better, good]


def test_the_temperature_is_that_of_a_sibling_whose_weights_can_be_used(tmp_path):
    split = record(tmp_path, 0.9)
    whole = fitted_on_all(split, 0.999)
    images = ImageSet(torch.zeros(600, 3, 1, 1, dtype=torch.uint8), LABELS, torch.arange(600), "made up")

    class Sibling:
        """A record whose network gives the logits above, or none."""

        config, group_id, failed, has_weights = split.config, split.group_id, "", True

        def __init__(self, usable, **measured):
            self.usable, self.metrics = usable, measured

        def load_model(self, device):
            if not self.usable:
                raise RecordError("of another network")
            return Given()

    class Given(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.place = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return LOGITS[: len(images)]

    def heat(*shelf):
        return errors.held_out_temperature(whole, Shelf(*shelf), images.subset(torch.arange(500)), None, "fp32")

    expected = metrics.temperature(LOGITS[:500], LABELS[:500])
    assert heat(whole, Sibling(True)) == heat(whole, Sibling(False), Sibling(True)) == expected
    assert heat(whole, Sibling(False)) is None
    assert heat(whole, Sibling(False, temperature=0.7)) == 0.7  # its record has it, the weights are not needed
    assert heat(whole) is None


def test_predictions_of_another_length_are_refused_in_one_line(tmp_path):
    known = record(tmp_path)
    errors.require_length(LOGITS, LABELS, known)
    with pytest.raises(RecordError, match=r"\(599, 10\) predictions for 600"):
        errors.require_length(LOGITS[1:], LABELS, known)


# Findings change when their numbers do


def test_accuracy_names_the_exact_images_only_where_some_are_not():
    assert "94.84% (94.39 to 95.26)" in say.say_accuracy(9484, 10_000, "CIFAR-10")
    assert "exactly" not in say.say_accuracy(9484, 10_000, "CIFAR-10", (9484, 10_000))
    assert "9,979" in say.say_accuracy(9484, 10_000, "CIFAR-10 (x)", (9470, 9979))


def test_confusion_names_the_darkest_pair():
    matrix = torch.diag(torch.full((10,), 90))
    assert "no error" in say.say_confusion(matrix, NAMES)
    matrix[2, 5], matrix[5, 2], matrix[0, 1] = 4, 3, 6
    text = say.say_confusion(matrix, NAMES)
    assert "**c and f**" in text
    assert "4 times" in text
    assert "all 13 errors" in text


def test_calibration_says_which_way_and_whether_the_temperature_helps():
    sure = [errors.Bin(0.9, (0.8, 0.7, 0.9), 100)]
    text = say.say_calibration(sure, (0.1, 0.08, 0.12), (0.02, 0.01, 0.03), 1.5)
    assert "too sure" in text
    assert "**lowers**" in text
    modest = [errors.Bin(0.7, (0.8, 0.7, 0.9), 100)]
    text = say.say_calibration(modest, (0.1, 0.08, 0.12), (0.11, 0.09, 0.13), 0.8)
    assert "not sure enough" in text
    assert "does not clearly change" in text
    assert "T =" not in say.say_calibration(sure, (0.1, 0.08, 0.12), None, 1.0)


def test_coverage_says_what_could_be_answered():
    sorted_hits = torch.arange(100) < 60
    assert "60% of the images" in say.say_coverage(-torch.arange(100.0), sorted_hits, 1.0)
    assert "hundredth" in say.say_coverage(torch.arange(100.0), sorted_hits, 1.0)


def test_shared_errors_and_label_errors_are_counted():
    right = torch.ones(3, 600, dtype=torch.bool)
    right[:, 7] = False
    ours = torch.ones(600, dtype=torch.bool)
    ours[7] = False
    text = say.say_shared(ours, right)
    assert "**1** images" in text
    assert "100% of them" in text
    assert "100.00%" in say.say_label_errors(ours, torch.tensor([7]))


def test_people_views_and_corruptions_say_more_less_or_not_settled():
    groups = [
        errors.Agreement(name, 100, error, (0.1, 0.0, 0.2), 0.1)
        for name, error in (("all", (0.1, 0.05, 0.2)), ("under 80%", (0.4, 0.3, 0.5)))
    ]
    assert "**more often**" in say.say_people((0.3, 0.2, 0.4), groups)
    assert "not clearly" in say.say_people((0.3, 0.2, 0.4), groups[::-1])
    assert "cannot be compared" in say.say_people((np.nan, np.nan, np.nan), groups)
    for low, high, word in ((0.001, 0.01, "helps"), (-0.01, -0.001, "hurts"), (-0.01, 0.01, "no difference")):
        assert word in say.say_views(errors.Paired((0.0, low, high), 0.1, 1, 1), 100)
    assert "**blur**" in say.say_corruptions({"noise": [9, 5], "blur": [9, 4]}, 10, 10)
    assert "**noise**" in say.say_corruptions({"noise": [9, 3], "blur": [9, 4]}, 10, 10)
    assert "drop of 5.0" in say.say_v6((0.9, 0.89, 0.91), 0.95)
    assert "guess" in say.say_v6((0.9, 0.89, 0.91), 0.95, 0.96)


def test_skips_and_neighbours_follow_their_numbers():
    big, small = torch.full((20,), 2.0), torch.linspace(0.5, 0.6, 20)
    norms = [BlockNorms("layers.0.0", 1, 1, False, big, small), BlockNorms("layers.1.0", 2, 1, True, small, big)]
    assert "**1 of 2**" in say.say_skips(norms)
    assert "block 1 of layer 2" in say.say_skips(norms)
    plain = BlockNorms("layers.0.0", 1, 1, False, torch.full((20,), torch.nan), small)
    assert "plain" in say.say_skips([plain])
    text = say.say_neighbours(0.5, torch.tensor([[1, 1]]), torch.tensor([0]), torch.tensor([1]))
    assert "predicted class in 100%" in text


def test_an_exercise_is_unanswered_right_or_hinted_at():
    assert say.say_answer(None, 3, 0.1, "count") == "Not answered yet."
    assert say.say_answer(3.05, 3, 0.1, "count") == "Right."
    assert "count" in say.say_answer(4, 3, 0.1, "count")
