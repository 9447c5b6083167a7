"""Two builds of the page, figure by figure: `python tests/compare_pages.py COMMITTED REBUILT`.

A figure that stands on the same records must have the same words (ticks, names, numbers) in both. One whose records
differ is named, because younger records change it; so is one that a chapter measures anew (it says so, or it names no
record and differs). Any other difference, a figure that only one page has, or no figure alike at all is a fault, and
the exit status is 1."""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from bs4 import BeautifulSoup, Tag

ANEW = re.compile(r"\b(live|now|this machine)\b")  # in a caption or a label: measured when the page is built
SVG = "data:image/svg+xml,"


@dataclass(frozen=True)
class Drawing:
    """What is compared of a figure: its records as the page names them, and its words, which a photograph lacks."""

    records: str
    words: tuple[str, ...]
    anew: bool


@functools.cache
def drawings(html: str) -> dict[str, Drawing]:
    """The figures of a page by their numbers, such as `Figure 2.3.`"""
    found = {}
    for figure in BeautifulSoup(html, "html.parser")("figure"):
        label = figure.select_one("figcaption .label")
        if label is not None:
            found[label.get_text(strip=True)] = _drawing(figure)
    return found


def _drawing(figure: Tag) -> Drawing:
    sources = figure.select_one("details.sources")
    records = " ".join(sources.get_text(" ").partition("Records:")[2].split()) if sources else ""
    images = [str(image["src"]) for image in figure("img")]
    words = tuple(sorted(word for image in images for word in _words(image)))
    return Drawing(records, words, bool(ANEW.search(f"{figure.figcaption.get_text(' ')} {' '.join(words)}")))


def _words(source: str) -> list[str]:
    if not source.startswith(SVG):
        return []
    svg = unquote(source.removeprefix(SVG)).replace("http%3A", "http:")
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()) for text in texts]


def compare(committed: str, rebuilt: str) -> tuple[list[str], dict[str, list[str]]]:
    """The faults in words, and the numbers of the figures that are alike, stand on other records, or are made anew."""
    ours, theirs = drawings(committed), drawings(rebuilt)
    faults = [f"{number} is in one page only" for number in sorted(ours.keys() ^ theirs.keys())]
    names = ("alike", "of other records", "made anew by a chapter", "without words")
    kinds: dict[str, list[str]] = {name: [] for name in names}
    for number in sorted(ours.keys() & theirs.keys()):
        one, other = ours[number], theirs[number]
        alike = one.words == other.words
        if not one.words and alike:
            kinds["without words"].append(number)
        elif one.anew or other.anew or not (one.records or alike):
            kinds["made anew by a chapter"].append(number)
        elif one.records != other.records:
            kinds["of other records"].append(number)
        elif alike:
            kinds["alike"].append(number)
        else:
            changed = sorted(set(one.words) ^ set(other.words))[:6]
            faults.append(f"{number} stands on the same records and has other words: {changed}")
    return (faults if kinds["alike"] else [*faults, "no figure is alike"]), kinds


if __name__ == "__main__":
    faults, kinds = compare(*(Path(path).read_text("utf-8") for path in sys.argv[1:3]))
    for kind, numbers in kinds.items():
        print(f"{len(numbers)} figures {kind}: {' '.join(number.removeprefix('Figure ') for number in numbers)}")
    sys.exit("\n".join(faults) or 0)
