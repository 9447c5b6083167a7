"""Figures get smaller on their way into a page, and a reader sees no difference."""

from __future__ import annotations

import base64
import io
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

mpl.use("Agg")
from matplotlib.figure import Figure

from tpsnet_lib.plots import style
from tpsnet_lib.report import pictures

NAMESPACE = "{http://www.w3.org/2000/svg}"
LABELS = ["accuracy (%), <b> & it's", " 60 draws", "two lines:", "the second"]


def drawing() -> Figure:
    """A figure with what ours have: clipped curves, marks, a picture, texts with and without the style sheet."""
    fig, (left, right) = style.figure(1, 2)
    left.plot(np.geomspace(1, 50, 40), np.sin(np.arange(40)), "o-")
    left.set(xlabel=LABELS[0], xscale="log")
    left.text(3, 0, LABELS[1])
    left.text(3, 0.5, "\n".join(LABELS[2:]), ha="right", rotation=30)
    right.imshow(np.arange(256, dtype=np.uint8).reshape(16, 16), interpolation="none")
    return fig


@pytest.fixture
def drawn() -> str:
    return style.svg(drawing())


def test_the_text_of_a_figure_is_text_in_fonts_that_are_named_once(drawn: str) -> None:
    slim = pictures.slim_svg(drawn)
    root = ElementTree.fromstring(slim)
    texts = ["".join(text.itertext()) for text in root.iter(f"{NAMESPACE}text")]
    assert set(LABELS) <= set(texts)  # the space at the start of a label, too, which holds it off a line
    assert root.attrib["{http://www.w3.org/XML/1998/namespace}space"] == "preserve"
    assert re.findall("font-family:[^}]*", slim) == ["font-family: DejaVu Sans,Verdana,sans-serif"]
    assert all(re.search(r"font-size:[\d.]+px[;\"]", text) for text in re.findall("<t(?:ext|span) [^>]*>", slim))


@pytest.mark.parametrize("fonttype", ["none", "path"])
def test_a_slim_figure_has_the_same_shapes_in_the_same_places(fonttype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", fonttype)
    full = style.svg(drawing())
    slim = pictures.slim_svg(full)
    assert len(slim) < 0.75 * len(full)
    for name in ("path", "text", "use", "image", "clipPath"):
        assert _count(slim, name) == _count(full, name), name
    numbers = [_coordinates(text) for text in (full, slim)]
    assert len(numbers[0]) == len(numbers[1]) > 100
    assert np.abs(np.subtract(*numbers)).max() <= 0.0051
    known = set(re.findall(r' id="([^"]+)"', slim))
    asked = set(re.findall(r'(?:href="|url\()#([^")]+)', slim))
    assert asked
    assert asked <= known


def _count(text: str, name: str) -> int:
    return sum(1 for _ in ElementTree.fromstring(text).iter(NAMESPACE + name))


def _coordinates(text: str) -> list[float]:
    places = re.findall(r' (?:d|x|y)="[^"]*"|translate\([^)]*\)', text)
    return [float(number) for place in places for number in re.findall(r"-?\d+(?:\.\d+)?", place)]


def test_an_svg_comes_out_of_its_address_as_it_went_in(drawn: str) -> None:
    slim = pictures.slim_svg(drawn)
    source = pictures.svg_source(slim)
    assert not re.search(r"https?:|[\"<>#]", source)
    back = ElementTree.fromstring(unquote(source.partition(",")[2]))
    assert ElementTree.tostring(back) == ElementTree.tostring(ElementTree.fromstring(slim))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_a_png_keeps_its_pixels(mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 4, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(80 * values).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(60 * values[..., 0] + 60))
    saved = io.BytesIO()
    image.save(saved, "png")
    source = pictures.png_source(base64.b64encode(saved.getvalue()).decode() + "\n")
    assert source.startswith("data:image/webp;base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert np.array_equal(np.asarray(shown.convert("RGBA")), np.asarray(image.convert("RGBA")))
    assert len(base64.b64decode(source.partition(",")[2])) < len(saved.getvalue())


def test_a_png_that_cannot_be_made_smaller_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = io.BytesIO()
    Image.new("RGB", (2, 2)).save(saved, "png")
    monkeypatch.setattr(pictures.features, "check", lambda _: False)
    source = pictures.png_source(saved.getvalue())
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == saved.getvalue()


def test_a_figure_has_dark_colours_where_they_are_preferred_and_keeps_its_light_ones() -> None:
    fig, axes = style.figure()
    axes.plot([1, 2], color="#009E73")
    slim = pictures.slim_svg(style.svg(fig))
    both = pictures.with_dark(slim)
    light, _, rules = both.partition("<style>@media(prefers-color-scheme:dark)")
    assert light + "</svg>" == slim
    for colour in ("#ffffff", "#009e73", "#656d76"):
        assert f':{colour}"]' in rules
    turned = pictures.darkened(slim)
    assert pictures.DARK_PAPER in turned
    assert "#ffffff" not in turned
    ElementTree.fromstring(both)
    ElementTree.fromstring(turned)


def test_a_photograph_in_a_figure_keeps_its_colours_in_the_dark(drawn: str) -> None:
    photograph = re.compile("<image[^>]*>")
    both = pictures.with_dark(pictures.slim_svg(drawn))
    assert "prefers-color-scheme:dark" in both
    assert photograph.findall(both) == photograph.findall(pictures.slim_svg(drawn)) != []
    assert "image" not in both.partition("<style>@media")[2]


@pytest.mark.parametrize("colour", ["#1F2328", "#656D76", "#0072B2", "#D55E00", "#009E73", "#6B6B6B", "#000000"])
def test_what_is_read_on_white_is_read_on_dark_paper(colour: str) -> None:
    def light(value: str) -> float:
        parts = [int(value[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert (light(pictures.dark_colour(colour)) + 0.05) / (light(pictures.DARK_PAPER) + 0.05) >= 4.5
