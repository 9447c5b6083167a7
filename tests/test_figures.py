"""The figures for slides are those of the records: drawn again, they have the same words and the same shapes."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
from tpsnet_lib.files import project_root
from tpsnet_lib.plots import style
from tpsnet_lib.report import figures
from tpsnet_lib.report.pictures import darkened, slim_svg
from tpsnet_lib.runs.records import Store, committed_folder

FOLDER = project_root() / "figures"
NAMES = sorted(path.stem for path in FOLDER.glob("*.svg") if not path.stem.endswith("-dark"))


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    made = figures.draw(Store(committed_folder()))
    return {name: slim_svg(style.svg(figure)) for name, figure in made.items()}


def words(svg: str) -> list[str]:
    return sorted(
        "".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    )


def places(svg: str) -> list[float]:
    found = re.findall(r' (?:d|x|y)="([^"]*)"|translate\(([^)]*)\)', svg)
    return [float(number) for parts in found for number in re.findall(r"-?\d+(?:\.\d+)?", "".join(parts))]


def same(one: str, other: str) -> bool:
    """Whether two figures have the same words, and shapes within a fifth of a point."""
    first, second = places(one), places(other)
    alike = len(first) == len(second) and bool(np.abs(np.subtract(first, second)).max() <= 0.2)
    return words(one) == words(other) and alike


def test_there_are_a_dozen_and_more_in_light_and_dark() -> None:
    assert len(NAMES) >= 12
    assert {*figures.FROM_RECORDS, *figures.WITH_LABELS, "published_models", "people"} == set(NAMES)
    for name in NAMES:
        assert (FOLDER / f"{name}-dark.svg").read_text() == darkened((FOLDER / f"{name}.svg").read_text())


@pytest.mark.slow
def test_drawn_again_from_the_records_they_are_the_same(drawn: dict[str, str]) -> None:
    assert set(figures.FROM_RECORDS) <= set(drawn) <= set(NAMES)
    differing = [name for name, svg in drawn.items() if not same((FOLDER / f"{name}.svg").read_text(), svg)]
    assert not differing, "run `tpsnet figures`"


def test_another_number_is_another_figure() -> None:
    ablation, accuracy = ((FOLDER / f"{name}.svg").read_text() for name in ("ablation", "accuracy"))
    assert same(ablation, ablation)
    assert not same(ablation, ablation.replace("muon", "moon").replace("cutout", "cut"))
    first = max(re.findall(r' d="[^"]*"', accuracy), key=len)
    moved = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]) + 1}", first)
    assert not same(accuracy, accuracy.replace(first, moved))


def test_the_page_of_them_shows_each_with_caption_records_and_licence(tmp_path: Path) -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    assert "MIT licence" in text
    for name in NAMES:
        part = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f'src="{name}.svg"' in part
        assert f'srcset="{name}-dark.svg"' in part
        assert re.search(r'alt="[^"]{20,}"', part)
        assert len(part.partition("</picture>")[2].split()) > 8
    assert set(figures._entries(FOLDER / "README.md")) == set(NAMES)
