"""The figures for slides are those of the committed page and records."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.files import project_root
from tpsnet_lib.report import figures
from tpsnet_lib.report.pictures import darkened, light_svg, svg_source, with_dark
from tpsnet_lib.runs.records import Store, committed_folder

FOLDER, PAGE = project_root() / "figures", project_root() / "report" / "index.html"
NAMES = sorted(path.stem for path in FOLDER.glob("*.svg") if not path.stem.endswith("-dark"))


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


@pytest.mark.slow
def test_made_again_from_the_page_and_the_records_they_are_the_same() -> None:
    made = figures.pictures(PAGE, Store(committed_folder()))
    assert len(made) >= 12
    assert set(made) == set(NAMES), "run `tpsnet figures`"
    text = (FOLDER / "README.md").read_text("utf-8")
    for name, picture in made.items():
        kept = (FOLDER / f"{name}.svg").read_text("utf-8")
        assert kept == picture.svg if name in figures.ON_THE_PAGE else same(kept, picture.svg), "run `tpsnet figures`"
        assert (FOLDER / f"{name}-dark.svg").read_text("utf-8") == darkened(kept)
        assert len(picture.alt) > 20
        assert len(picture.caption.split()) > 8
        assert picture.entry(name) in text, "run `tpsnet figures`"
    assert "MIT licence" in text


def test_another_number_is_another_figure() -> None:
    ablation, accuracy = ((FOLDER / f"{name}.svg").read_text() for name in ("ablation", "accuracy"))
    assert same(ablation, ablation)
    assert not same(ablation, ablation.replace("muon", "moon").replace("cutout", "cut"))
    first = max(re.findall(r' d="[^"]*"', accuracy), key=len)
    moved = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]) + 1}", first)
    assert not same(accuracy, accuracy.replace(first, moved))


def test_what_is_said_of_a_figure_cannot_end_its_attribute() -> None:
    assert 'alt="a &quot;horse&quot;"' in figures.Picture("", 'a "horse"', "").entry("horse")


def test_a_page_without_a_figure_is_one_line(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(PAGE.read_text("utf-8").replace('id="figure-2"', 'id="figure-x"'), "utf-8")
    with pytest.raises(TpsnetError, match="no figure in #figure-2: build it"):
        figures.pictures(page, Store(tmp_path))


def test_the_light_figure_comes_out_of_its_address_as_it_went_in() -> None:
    svg = '<svg version="1.1"><text style="fill:#0072b2">it\'s "5" &lt; 6 é</text></svg>'
    assert svg_source(with_dark(svg)) != svg_source(svg)
    assert light_svg(svg_source(with_dark(svg))) == svg
