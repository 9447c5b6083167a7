"""Notebook 05: which network is analysed, what its cells compute, and findings that turn with the predictions."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch.nn import functional as F

from tpsnet_lib import course, metrics, stats, tasks
from tpsnet_lib.analysis import errors
from tpsnet_lib.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.data import datasets, own
from tpsnet_lib.data.datasets import ImageSet, fit_and_validation, normalise
from tpsnet_lib.data.reference_labels import LabelCheck, Published
from tpsnet_lib.errors import ConfigError, DataError, RecordError
from tpsnet_lib.model import Block, build
from tpsnet_lib.plain_yaml import given_value
from tpsnet_lib.plots import errors as plots
from tpsnet_lib.report import run_notebooks
from tpsnet_lib.runs.records import Record

NOTEBOOK = nbformat.read(Path(__file__).parent.parent / "notebooks" / "05_error_analysis.ipynb", as_version=4)
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.randint(0, 10, (600,), generator=GENERATOR)
NAMES = tuple("abcdefghij")
IMAGES = fit_and_validation(DataConfig("shapes10", train_size=10, validation_size=10))[0].images[:6]
SMALL = ModelConfig(blocks=(2, 1), channels=(6, 8), stem=4, pool=4)


def logits(signal: float) -> torch.Tensor:
    """Logits [600, 10] of a network that is the better the stronger the signal."""
    noise = 2 * torch.randn(600, 10, generator=GENERATOR)
    return noise + signal * F.one_hot(LABELS, 10)


GOOD, POOR = logits(5.0), logits(3.0)


# What the cells compute


class Silent:
    """Stands for the lab: it shows nothing."""

    dataset, root, store = "made up", None, SimpleNamespace(all=list)

    def show(self, figure: Any) -> None:
        """Shows nothing."""


def room(given: torch.Tensor, record: Record) -> dict[str, Any]:
    """The names that the cells know after the network was opened; `findings` takes what they say."""
    findings: list[str] = []
    course = SimpleNamespace(predict=lambda *a, **k: None, compare=lambda *a, **k: None)
    course.finding = lambda text, *_, **__: findings.append(text)
    images = torch.zeros(600, 3, 32, 32, dtype=torch.uint8)
    test = ImageSet(images, LABELS, torch.arange(600), "made up")
    found: dict[str, Any] = {}
    for cell in NOTEBOOK.cells:
        if "imports" in cell.metadata.get("tags", []):
            exec(cell.source, found)
    tested = SimpleNamespace(logits=given, record=record, dataset="made up", precision="fp32")
    found |= {"course": course, "lab": Silent(), "findings": findings, "tested": tested, "names": NAMES, "test": test}
    probabilities = given.softmax(1)
    confidence, predicted = probabilities.max(1)
    correct = predicted == LABELS
    return found | {
        "labels": LABELS,
        "probabilities": probabilities,
        "confidence": confidence,
        "predicted": predicted,
        "correct": correct,
        "accuracy": stats.proportion(int(correct.sum()), 600),
        **dict.fromkeys(re.findall(r"\w+_guess", "".join(cell.source for cell in NOTEBOOK.cells))),
        "others": reference(),
    }


def reference() -> SimpleNamespace:
    """People who disagree on every third image, doubtful labels, and published models that miss the last images."""
    people = 50 * F.one_hot(LABELS, 10)
    people[::3, 0] += 20
    right = torch.stack([torch.arange(600) < n for n in (300, 590, 540)])
    new = torch.tensor([0.3, 0.9, 0.7], dtype=torch.float64)
    published = Published(("poor", "good", "fair"), LABELS.where(right, (LABELS + 1) % 10), new)
    checks = [LabelCheck(i, 0, {"given": 0, "guessed": 5, "both": 0, "neither": 0}) for i in range(10)]
    return SimpleNamespace(people=people, published=published, label_checks=checks)


def run(found: dict[str, Any], *tags: str) -> dict[str, Any]:
    """The names after the cells with these tags, in the order of the notebook."""
    for cell in NOTEBOOK.cells:
        if cell.cell_type == "code" and set(tags) & set(cell.metadata.get("tags", [])):
            exec(compile(cell.source, cell.id, "exec"), found)
    return found


def test_the_confusion_matrix_and_recall_are_scikit_learns(tiny_record):
    from sklearn.metrics import confusion_matrix, recall_score

    found = run(room(GOOD, tiny_record), "confusion")
    assert found["counts"].tolist() == confusion_matrix(LABELS, found["predicted"]).tolist()
    recalls = [estimate.value for estimate in found["recall"]]
    assert recalls == pytest.approx(recall_score(LABELS, found["predicted"], average=None))
    assert found["hardest"] == int(np.argmin(recalls))


def test_the_worst_errors_are_errors_of_the_highest_confidence(tiny_record):
    found = room(POOR, tiny_record)
    found |= {"reference": "", "reference_labels": SimpleNamespace(
        find_reference=lambda *a: None, load_reference=lambda *a: SimpleNamespace(notes=(), sources="", people=None)
    )}  # fmt: skip
    found = run(found, "worst")
    confidence, worst = found["confidence"], found["worst"]
    assert len(worst) == 15
    assert not found["correct"][worst].any()
    assert (confidence[worst].diff() <= 0).all()
    others = (~found["correct"]).clone()
    others[worst] = False
    assert confidence[others].max() <= confidence[worst].min()


def test_the_bins_hold_all_images_and_their_mean_gap_is_the_calibration_error(tiny_record):
    found = run(room(GOOD, tiny_record), "bins")
    table = found["reliability"](found["confidence"], found["correct"])
    gaps = sum(row.accuracy.n * abs(row.confidence - row.accuracy.value) for row in table.itertuples()) / 600
    assert gaps == pytest.approx(metrics.ece(found["probabilities"], LABELS), abs=1e-6)
    assert (len(table), list(table.confidence)) == (15, sorted(table.confidence))


def test_the_temperature_is_that_of_the_highest_likelihood_and_scores_no_image_that_it_was_fitted_to(tiny_record):
    found = run(room(GOOD, tiny_record), "temperature")
    even = torch.arange(600) % 2 == 0
    assert found["T_even"] == pytest.approx(metrics.temperature(GOOD[even], LABELS[even]), rel=1e-3)
    assert found["T_odd"] == pytest.approx(metrics.temperature(GOOD[~even], LABELS[~even]), rel=1e-3)
    torch.testing.assert_close(found["scaled"][even], (GOOD[even] / found["T_odd"]).softmax(1))
    torch.testing.assert_close(found["scaled"][~even], (GOOD[~even] / found["T_even"]).softmax(1))


def test_each_published_model_has_the_holm_adjusted_verdict_of_its_own_comparison(tiny_record):
    found = room(GOOD, tiny_record)
    found["correct"] = torch.arange(600) < 540
    table = run(found, "mcnemar", "published")["table"].set_index("name")
    assert table.verdict.to_dict() == {
        plots.OURS: plots.OURS,
        "poor": stats.HOLDS,
        "good": stats.DOES_NOT_HOLD,
        "fair": stats.NOT_SETTLED,  # a tenth of a point would matter, and 600 images do not show so little
    }
    assert table.accuracy["good"].value == pytest.approx(590 / 600)


def test_the_groups_by_agreement_hold_each_image_once(tiny_record):
    groups = pd.DataFrame(run(run(room(GOOD, tiny_record), "temperature"), "people")["groups"])
    assert sum(error.n for error in groups.error) == 600
    assert groups.people[0].value == 0.0
    entropy = [estimate.value for estimate in groups.people if estimate.n]
    assert entropy == sorted(entropy)


@pytest.mark.parametrize("block", ["basic", "preact"])
def test_grad_cam_is_the_class_activation_map_where_the_classifier_is_linear(block, tiny_record):
    """For a linear classifier of mean features, the gradients are its weights (Zhou et al. 2016)."""
    torch.manual_seed(0)
    model = build(replace(SMALL, block=block)).eval()
    classes = torch.tensor([0, 3, 9, 1, 1, 4])
    found = run({"torch": torch, "F": F, "datasets": datasets}, "grad_cam")["grad_cam"](model, IMAGES, classes)
    with torch.no_grad():
        maps = model.feature_maps(normalise(IMAGES))
        heat = (model.head.weight[classes][:, :, None, None] * maps).sum(1, keepdim=True).relu()
        heat = F.interpolate(heat, (32, 32), mode="bilinear")[:, 0]
    expected = heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found.amin(), found.shape) == (0, (6, 32, 32))


def test_six_views_are_three_shifts_and_their_mirrors(tiny_record):
    found = room(GOOD, tiny_record)
    torch.manual_seed(0)
    found |= {"network": build(SMALL), "stress": SimpleNamespace(images=IMAGES, labels=torch.zeros(6, dtype=int))}
    found = run(found | {"clean": {plots.OURS: torch.ones(6)}}, "views")
    views = found["six_views"](IMAGES)
    assert len(views) == 6
    assert torch.equal(views[1], IMAGES)
    assert torch.equal(views[0][..., 1:, 1:], IMAGES[..., :-1, :-1])
    assert torch.equal(views[2][..., :-1, :-1], IMAGES[..., 1:, 1:])
    assert all(torch.equal(views[i].flip(3), views[i + 3]) for i in range(3))


def test_a_risk_that_does_not_look_at_the_confidence_is_not_right(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(tasks, "finding", said.append)
    task = run({"torch": torch, "np": np, "course": course}, "task")["risk_task"]
    for wrong in (slice(None, 3), slice(1, None)):  # the first images, or the last ones
        task.check(lambda confidence, correct, coverage, wrong=wrong: (~correct)[wrong].float().mean())
        assert said.pop().startswith("**Not yet.**")


@pytest.mark.parametrize("answer", ["18874368", None, [], 0.5, float("nan"), lambda *given: "x", lambda: 1])
@pytest.mark.parametrize("name", ["risk_task", "line_task", "mean_task"])
def test_wrong_and_nonsense_answers_get_a_line_and_worked_solutions_are_right(name, answer, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(tasks, "finding", said.append)
    task = run({"torch": torch, "np": np, "course": course}, "task")[name]
    solution = task.check(answer)
    assert len(said) == 1
    assert said[0].startswith("**Not answered yet.**" if answer in (None, []) else "**Not yet.**")
    assert task.check(solution) is solution
    assert said[1] == "**Right.**"


def findings(given: torch.Tensor, other: torch.Tensor, record: Record) -> dict[str, list[str]]:
    """What the cells that need no network say of one network's logits beside another seed's, by the tag of a cell."""
    found = room(given, record)
    found |= {"by_seed": {0: given, 1: other}, "with_views": found["correct"], "effects": ["none", "helps", "harms"]}
    found["clean"] = {plots.OURS: found["correct"]}
    for name in ("risk at a coverage", "accuracy on new images", "ensemble"):
        exec(tasks.worked_sections()[name], found)
    missed = (~found["correct"]).nonzero()[:, 0]
    found["worst"] = missed[found["confidence"][missed].argsort(descending=True)][:15]
    said: dict[str, list[str]] = {}
    for cell in NOTEBOOK.cells:
        tags = cell.metadata.get("tags", [])
        name = next((tag for tag in tags if tag.startswith("finding-")), "")
        if name or set(tags) & {"confusion", "bins", "temperature", "mcnemar", "published", "people"}:
            found["findings"].clear()
            exec(compile(cell.source, cell.id, "exec"), found)
            said |= {name: list(found["findings"])} if name else {}
    return said


@pytest.mark.slow
def test_every_finding_turns_when_two_networks_change_places(tiny_record):
    before, after = findings(GOOD, POOR, tiny_record), findings(POOR, GOOD, tiny_record)
    assert len(before) == 7
    for name, sentences in before.items():
        assert sentences, name
        if name not in ("finding-seeds", "finding-worst"):  # the same two seeds; how many of 15 may be the same
            assert sentences != after[name], name
    assert before["finding-seeds"] == after["finding-seeds"]
    assert before["finding-seeds"] != findings(GOOD, GOOD + POOR, tiny_record)["finding-seeds"]


# Photographs of one's own


def cell_of_photographs(*paths: Path) -> None:
    """Runs the cell on an untrained network."""
    found = {"photos": [*map(str, paths)], "network": build(SMALL), "names": NAMES}
    (source,) = (cell.source for cell in NOTEBOOK.cells if cell.id == "photos")
    exec(source, {"own": own, "metrics": metrics, "course": course, **found})


def test_a_photograph_of_ones_own_gets_a_class_and_a_confidence(tmp_path, capsys, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(course, "finding", said.append)
    path = tmp_path / "a photo.png"
    Image.new("RGB", (60, 40), "red").save(path)
    cell_of_photographs(path, path)
    line, again = capsys.readouterr().out.splitlines()
    guessed = re.fullmatch(rf"{re.escape(str(path))}: ([a-j]), (\d+)% confident", line)
    assert again == line
    assert int(guessed[2]) >= 10
    assert said[0].startswith("What may fool it")
    with pytest.raises(DataError, match="there is no file"):
        cell_of_photographs(tmp_path / "none.png")


def test_without_photographs_a_line_says_how_to_give_them_and_the_command_line_takes_a_list(capsys):
    cell_of_photographs()
    assert capsys.readouterr().out.count("photos = [") == 1
    path = Path(__file__).parent.parent / "notebooks" / "05_error_analysis.ipynb"
    given = {"photos": given_value("-p photos", "[a.jpg, b c.png]")}
    assert run_notebooks.parameters_for(path, None, given) == {"photos": ["a.jpg", "b c.png"]}
    with pytest.raises(ConfigError, match=r"parameter photos is 'a\.jpg'"):
        run_notebooks.parameters_for(path, None, {"photos": "a.jpg"})


# Sentences


def test_what_chance_and_the_smallest_effect_say_is_told_apart():
    def gain(low, high):
        return stats.Estimate((low + high) / 2, low, high, 100, "images")

    assert errors.chance(gain(0.0035, 0.0064)) == ("more than chance (its interval lies above 0)")
    assert errors.chance(gain(0.0002, 0.0008)).endswith("(its interval lies above 0), but less than would matter")
    assert errors.chance(gain(0.005, 0.02)) == "more than chance (its interval lies above 0)"
    assert errors.chance(gain(-0.02, -0.005)) == "more than chance (its interval lies below 0)"
    assert "no more than chance" in errors.chance(gain(-0.001, 0.002))


def test_a_gain_is_said_with_its_verdict_its_images_and_what_chance_can_bring():
    gain = stats.Estimate(0.0005, 0.0002, 0.0008, 10_000, "images")
    assert errors.helps(gain) == (
        'Verdict on "it helps": **shows no difference that matters**, on 10,000 images; the gain is more than chance'
        " (its interval lies above 0), but less than would matter."
    )
    gain = stats.Estimate(0.005, 0.0036, 0.0064, 10_000, "images")
    assert errors.helps(gain) == 'Verdict on "it helps": **holds**, on 10,000 images.'


def test_60_percent_of_the_images_that_tell_take_110_for_a_small_p_value(tiny_record):
    found = run(room(GOOD, tiny_record), "mcnemar")
    difference, p = found["comparison"](110)
    assert (difference.value, found["enough"]) == (pytest.approx(22 / 10_000), 110)
    assert p == pytest.approx(binomtest(66, 110).pvalue)


def test_a_least_sure_bin_that_moves_away_from_its_accuracy_is_said():
    def bins(confidence, surest=0.67):
        return pd.DataFrame({"confidence": [confidence, surest], "accuracy": [stats.proportion(67, 100)] * 2})

    assert errors.least_sure_bin(bins(0.6), bins(0.83)).endswith("83% (accuracy 67%): away from the accuracy.")
    assert "away from the accuracy, which the ECE hides" in errors.least_sure_bin(bins(0.6, surest=0.99), bins(0.83))
    assert "67%): nearer to the accuracy" in errors.least_sure_bin(bins(0.83), bins(0.6))


def test_the_surest_images_are_held_against_the_rest_of_the_surest_half():
    for few, half, words in ((0.2, 0.02, "worse than"), (0.0, 0.02, "better than"), (0.012, 0.012, "not shown to")):
        risks = {0.05: few, 0.5: half, 0.9: 0.03}
        assert f"({words}" in errors.surest(risks.__getitem__, 10_000)


@pytest.mark.parametrize(
    ("smaller", "end"), [(0, "does not describe this network."), (3, "fits these at most."), (12, "fits all of them.")]
)
def test_blocks_whose_branch_is_the_smaller_are_counted(smaller, end):
    assert f"{smaller} of 12" in errors.refines(smaller, 12)
    assert errors.refines(smaller, 12).endswith(end)


# The size of skips and branches


@pytest.mark.parametrize("block", ["basic", "preact"])
def test_the_sizes_are_those_of_the_two_summands_of_each_block(block):
    torch.manual_seed(0)
    model = build(replace(SMALL, block=block, blocks=(1, 1))).eval()
    table = errors.block_sizes(model, IMAGES)
    assert list(table.columns) == ["block", "skip", "branch"]
    assert table.groupby("block").size().to_dict() == {"1.1": 6, "2.1": 6}
    first = model.layers[0][0]
    assert isinstance(first, Block)
    rows = table[table.block == "1.1"]
    with torch.no_grad():
        x = model.stem(normalise(IMAGES))
        skip = first.projection(x) if block == "basic" else (first.projection(x) if first.projects else x)
        if block == "basic":
            expected = skip.square().mean((1, 2, 3)).sqrt()
            torch.testing.assert_close(torch.tensor(rows.skip.to_numpy()), expected, atol=1e-5, rtol=1e-4)
    assert (table.branch > 0).all()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_plain_network_carries_nothing_on_skips():
    table = errors.block_sizes(build(replace(SMALL, residual=False)), IMAGES)
    assert table.skip.isna().all()
    assert table.branch.notna().all()


# Other seeds


def test_only_seeds_of_the_recipe_that_were_opened_alike_stand_together(tmp_path, monkeypatch):
    config = RunConfig(train=TrainConfig(precision="fp32"), data=DataConfig("shapes10"))
    configs = {seed: replace(config, seed=seed) for seed in range(7)}
    configs[9] = RunConfig(train=TrainConfig(precision="fp32"), data=DataConfig("shapes10", train_size=10), seed=9)
    records = {seed: Record(tmp_path, one, {}, {}, ()) for seed, one in configs.items()}
    said = {"fingerprint": {"sha256": "a"}, "not_choosing": False}
    tests = {
        0: said,
        2: {**said, "not_choosing": True},
        3: {**said, "fingerprint": {"sha256": "b"}},
        4: said,
        6: said,
        9: said,
    }

    def find_test(record, store):
        if record.config.seed == 5:
            raise RecordError("altered")
        about, rows = tests.get(record.config.seed), 3 if record.config.seed == 6 else 2
        return about and SimpleNamespace(metrics=about, logits=torch.full((rows, 10), record.config.seed))

    monkeypatch.setattr(errors, "find_test", find_test)
    shelf = SimpleNamespace(all=lambda: list(records.values())[::-1])
    found = errors.logits_by_seed(records[4], shelf, 2)
    assert list(found) == [0, 4]
    assert found[4].unique().item() == 4
    assert list(errors.logits_by_seed(records[2], shelf, 2)) == [2]
    for without in (1, 5):
        assert errors.logits_by_seed(records[without], shelf, 2) == {}


def test_what_costs_our_network_more_is_named_though_it_loses_less_on_average() -> None:
    image = torch.arange(100) / 100
    ours = {("fog", 5): image * 0.2, ("pixelate", 5): image * 0.9}
    theirs = {("fog", 5): image * 0.9 + 0.5, ("pixelate", 5): image * 0.5}
    said = errors.compared_losses(theirs, ours)
    assert '"Ours loses less on average": **holds**' in said
    assert "at severity 5 these cost ours more: pixelate (+" in said
    assert "fog" not in said
    assert "these cost ours more" not in errors.compared_losses(theirs, theirs)
    assert "The corruptions cost the `classroom` network +" in said
    assert "The corruptions cost ours +" in errors.compared_losses(ours, theirs), (
        "less than nothing is said of the other"
    )
