"""What a reader of notebook 01 can rely on: its own cells find planted copies, wrong constants and luck, its sentences
follow their numbers, and its worked solutions pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import torch

from tpsnet_lib import course, tasks
from tpsnet_lib.analysis.dataset import AUGMENTATIONS, single_mixes
from tpsnet_lib.config import TrainConfig
from tpsnet_lib.data.augment import augment
from tpsnet_lib.data.datasets import STD, ImageSet, load_train

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "01_explore_data.ipynb"
CELLS = nbformat.read(NOTEBOOK, as_version=4).cells  # type: ignore[no-untyped-call]
SOURCES = {cell.id: cell.source for cell in CELLS if cell.cell_type == "code"}
DRAWN = load_train("shapes10").subset(torch.arange(600))
Chapter = Callable[..., tuple[dict[str, Any], list[str]]]


def lab_of(images: torch.Tensor) -> SimpleNamespace:
    """A lab of 600 images, of which the last 100 validate; it draws nothing."""
    everything = ImageSet(images, DRAWN.labels, DRAWN.indices, "CIFAR-10")
    train, validation = everything.subset(torch.arange(500)), everything.subset(torch.arange(500, 600))
    names = course.datasets.class_names("shapes10")
    return SimpleNamespace(
        all_train=everything,
        train=train,
        validation=validation,
        class_names=names,
        dataset="shapes10",
        root=None,
        show=lambda figure: None,
    )


@pytest.fixture
def chapter(monkeypatch: pytest.MonkeyPatch) -> Chapter:
    """Runs cells of the notebook by their ids on some images: the names that they leave, and what they say."""
    said: list[str] = []
    monkeypatch.setattr(tasks, "finding", said.append)

    def run(images: torch.Tensor, *ids: str, answers: Mapping[str, str] = {}) -> tuple[dict[str, Any], list[str]]:
        lab = lab_of(images)
        room: dict[str, Any] = {"lab": lab, "display": lambda table: None, "draws": 300, "seed": 0}
        monkeypatch.setattr(tasks, "notebook_names", lambda: dict(room))
        exec(SOURCES["imports"], room)
        room |= {"finding": lambda text, **_: said.append(text), "images": images, "labels": lab.all_train.labels}
        room |= {"train": lab.train, "validation": lab.validation, "names": lab.class_names}
        for cell in ids:
            blank = "raise NotImplementedError" if "raise NotImplementedError" in SOURCES[cell] else "None"
            exec(SOURCES[cell].replace(blank, answers.get(cell, blank)), room)
        return room, said

    return run


def test_the_cell_finds_copies_across_the_split_also_brighter_or_noisy_ones(chapter: Chapter) -> None:
    images = DRAWN.images.clone()
    noise = torch.randint(-6, 7, images[7].shape, generator=torch.Generator().manual_seed(0))
    images[510] = images[3]
    images[520] = (images[5] * 0.8 + 40).clamp(0, 255).byte()
    images[530] = (images[7] + noise).clamp(0, 255).byte()
    before, _ = chapter(DRAWN.images, "search", "pairs")
    room, said = chapter(images, "search", "pairs", "thresholds")
    assert room["neighbour"][[10, 20, 30]].tolist() == [3, 5, 7]
    assert int(room["close"].sum()) == int(before["close"].sum()) + 3
    assert said[0].startswith(f"**{int(before['close'].sum())}** of 100")
    assert said[1].startswith(f"**{int(room['close'].sum())}** of 100")


def test_the_cell_says_which_deviation_the_constants_are(chapter: Chapter) -> None:
    room, said = chapter(DRAWN.images, "deviations", "constants-finding")
    pixels = DRAWN.images.double() / 255
    assert room["pixel_std"] == pytest.approx(pixels.permute(1, 0, 2, 3).flatten(1).std(1, correction=0), abs=1e-9)
    assert room["image_std"] == pytest.approx(pixels.std((2, 3), correction=0).mean(0).float(), abs=1e-5)
    assert "**neither**" in said[0]
    bright, dark = (0.5 + sign * torch.tensor(STD).view(1, 3, 1, 1).expand(300, 3, 32, 32) for sign in (1, -1))
    room, _ = chapter((255 * torch.cat([bright, dark])).round().byte(), "deviations", "constants-finding")
    assert room["off"]["all pixels"] < 0.003  # from image to image, up to rounding, and not within images
    assert room["off"]["within images"] == pytest.approx(max(STD), abs=1e-4)


def test_choosing_gains_by_luck_and_fresh_images_take_it_back(chapter: Chapter) -> None:
    room, said = chapter(DRAWN.images, "split", "noise", "choose", "luck")
    gain = {kind: room["gain"][kind] for kind in room["kinds"]}
    differing, alike, fresh = gain.values()
    assert differing == pytest.approx(0.24 * 2.8, abs=0.05)  # 2.8 deviations: expected maximum of 300 normals
    assert 0 < alike < differing / 2
    assert fresh == pytest.approx(0, abs=0.05)
    assert f"{differing:+.2f} points" in said[-1]


def test_the_alternating_flip_shows_every_image_both_ways_and_chance_does_not(
    chapter: Chapter, capsys: pytest.CaptureFixture[str]
) -> None:
    chapter(DRAWN.images, "flips")
    chance, turns = (float(share) for share in re.findall(r"epochs ([\d.]+)%", capsys.readouterr().out))
    assert chance == pytest.approx(50, abs=4)
    assert turns == 100


TASKS = {"exercise-deviation": "1", "exercise-digits": "['cutout']", "exercise-size": "5000"}
NEEDED = {"exercise-deviation": ["deviations"], "exercise-digits": [], "exercise-size": []}


@pytest.mark.parametrize("cell", TASKS)
def test_a_task_takes_a_wrong_answer_and_its_worked_solution(cell: str, chapter: Chapter) -> None:
    cells = [*NEEDED[cell], "task-deviation", cell]
    _, said = chapter(DRAWN.images, *cells)
    assert said[-1].startswith(tasks.NOT_ANSWERED)
    assert "the worked solution stands in for it" in said[-1]
    _, said = chapter(DRAWN.images, *cells, answers={cell: TASKS[cell]})
    assert "Hint 1" in said[-1]
    room, _ = chapter(DRAWN.images, *cells)
    solution = room["answer"]
    _, said = chapter(DRAWN.images, *cells, answers={cell: repr(solution)})
    assert said[-1] == "**Right.**"


def test_the_nearest_mean_is_taken_from_the_worked_solution_until_it_is_written(
    chapter: Chapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.solutions, "hidden", False)
    room, said = chapter(DRAWN.images, "task-nearest-mean", "exercise-nearest-mean", "components")
    assert "the worked solution stands in for it" in said[0]
    assert re.search(r"names \*\*\d+\.\d% \(", said[1])
    assert room["nearest_mean"](room["means"], room["means"]).tolist() == list(range(10))
    body = "return images.flatten(1).float().matmul(means.flatten(1).T).argmax(1)"
    _, said = chapter(
        DRAWN.images, "task-nearest-mean", "exercise-nearest-mean", answers={"exercise-nearest-mean": body}
    )
    assert "is the first that differs" in said[-1]
    tasks.hide_solutions()  # as in the students' copies, which go on with it unseen
    room, _ = chapter(DRAWN.images, "task-nearest-mean", "exercise-nearest-mean", "components")
    assert room["nearest_mean"](room["means"], room["means"]).tolist() == list(range(10))
    assert not room["nearest_task"].passed


def test_every_solution_belongs_to_a_task() -> None:
    text = (NOTEBOOK.parent / "solutions" / f"{NOTEBOOK.stem}.py").read_text("utf-8")
    titles = re.findall(r"^# %% (.+)$", text, re.MULTILINE)
    asked = "\n".join(SOURCES.values())
    assert len(titles) == len(set(titles)) == 4
    assert all(f'"{title}"' in asked for title in titles)


def test_every_augmentation_shown_does_one_thing_and_none_does_nothing() -> None:
    before, index = DRAWN.images[:100], torch.arange(100)
    for recipe in AUGMENTATIONS.values():
        assert (augment(before, index, recipe, 0, 0) != before).any()
    for recipe in [*AUGMENTATIONS.values(), *single_mixes().values()]:
        used = [recipe.crop, recipe.flip != "none", recipe.rotation, recipe.cutout, recipe.trivial]
        assert sum(map(bool, [*used, recipe.mixup, recipe.cutmix])) == 1
    plain = TrainConfig(crop=0, flip="none", rotation=0.0)
    assert torch.equal(augment(before, index, plain, 0, 0), before)
