"""Figures made small for a page: an SVG without what no browser needs, a PNG as the same pixels in fewer bytes."""

import base64
import colorsys
import io
import re
from urllib.parse import quote, unquote

from PIL import Image, features

NUMBER = re.compile(r"-?(?<!\d)\d+\.\d+")
PLACES = re.compile(r' (?:x|y|width|height)="[^"]*"|(?:translate|rotate)\([^)"(]*\)')
LONE = re.compile(r"<g>(<(text|path|use|image)\b(?:[^<]*/>|[^<]*</\2>))</g>")  # a group of one, which says nothing
LEFT_OUT = (
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->",  # some of which hold addresses and dates
    r' xmlns:xlink="[^"]*"| type="text/css"| transform="rotate\(-0 [^"]*\)"',
    r'(?<=<g) id="[^"#]*\d"',  # matplotlib's names of groups; clips and marks, which are referred to, keep theirs
    r"text-anchor: start(; )?|; text-anchor: start",
)

PAIRS = (("<?xml", "?>"), ("<!DOCTYPE", ">"), ("<metadata>", "</metadata>"), ("<!--", "-->"))
NESTED = 20  # groups of one that are taken away around each other


def slim_svg(text: str) -> str:
    """An SVG as matplotlib writes it (text as text, or as letters drawn one by one), without metadata, indentation,
    names that nothing refers to and a thousandth of a pixel; the images inside it as `png_source` gives them."""
    if any(text.rfind(begin) > text.rfind(end) for begin, end in PAIRS):
        return text  # torn, and each search for an end would go through all of it
    slim = text
    for pattern in LEFT_OUT:
        slim = re.sub(pattern, "", slim, flags=re.DOTALL)
    slim = re.sub(r">\s+<", "><", slim).strip().replace("xlink:href", "href").replace("DejaVuSans", "D")
    slim = re.sub(r'(?<= d=")[^"]*', lambda points: _points(points[0]), slim)
    slim = PLACES.sub(lambda part: NUMBER.sub(_rounded, part[0]), slim)
    slim = re.sub(r' style="[^"]*"', lambda style: re.sub(r"([:;]) ", r"\1", style[0]), slim)
    slim = re.sub(r"data:image/png;base64,([^\"]+)", lambda image: png_source(image[1]), slim)
    for _ in range(NESTED):
        slim = LONE.sub(r"\1", slim)
    return slim


COLOUR = re.compile(r"#[0-9a-f]{6}\b", re.IGNORECASE)
DARK_PAPER, DARK_INK = "#16181c", "#e4e2dd"  # as page.css has them


def dark_colour(colour: str) -> str:
    """What a colour `#rrggbb` is on dark paper: white is the paper, greys and pale tints turn over, and strong colours
    keep their hue and are no darker than a reader can see."""
    if colour.lower() == "#ffffff":
        return DARK_PAPER
    hue, light, strength = colorsys.rgb_to_hls(*(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)))
    vivid = strength * (1 - abs(2 * light - 1)) > 0.2
    turned = 0.93 - 0.83 * light
    light = max(light, 0.42) if vivid and light <= 0.75 else turned
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, light, strength))


def darkened(svg: str) -> str:
    """An SVG in the colours of a dark page. Black, which an SVG need not name, is the colour of what has none."""
    return darkened_colours(svg).replace("<svg ", f'<svg fill="{DARK_INK}" ', 1)


def darkened_colours(text: str) -> str:
    """A text with each colour `#rrggbb` in it as it is on dark paper."""
    return COLOUR.sub(lambda colour: dark_colour(colour[0]), text)


def with_dark(svg: str) -> str:
    """An SVG that shows itself in dark colours where the reader prefers them; photographs in it keep their own."""
    rules = [f"svg{{fill:{DARK_INK}}}"]
    for colour in sorted({name.lower() for name in COLOUR.findall(svg)}):
        rules += [
            f'[style*="{part}:{colour}"]{{{part}:{dark_colour(colour)}!important}}'
            for part in ("fill", "stroke")
            if f"{part}:{colour}" in svg
        ]
    style = f"{DARK_RULES}{{{''.join(rules)}}}</style>"
    return svg.replace("</svg>", f"{style}</svg>", 1)


DARK_RULES = "<style>@media(prefers-color-scheme:dark)"


def _points(path: str) -> str:
    """A path's points, which come a line each, in one, to a hundredth of a unit."""
    return re.sub(r" ?([A-Za-z]) ?", r"\1", NUMBER.sub(_rounded, " ".join(path.split())))


def _rounded(number: re.Match[str]) -> str:
    short = f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def svg_source(text: str) -> str:
    """A slim SVG as an address that holds it: percent-encoded, which is shorter than base64. The name of its namespace
    is encoded too, so that a page without outside addresses can be told by a search for them."""
    quoted = quote(text.replace("'", "&#39;").replace('"', "'"), safe=" '/:;,=()+-.*@!")
    return "data:image/svg+xml," + quoted.replace("http:", "http%3A")


def light_svg(source: str) -> str:
    """The SVG that an address holds which `svg_source` made, without the dark colours of `with_dark`."""
    text = unquote(source.partition(",")[2]).replace("'", '"').replace("&#39;", "'")
    return re.sub(f"{re.escape(DARK_RULES)}.*?</style>", "", text)


def png_source(data: str | bytes) -> str:
    """A PNG (its bytes, or those in base64) as an address that holds it: as lossless WebP, which every browser has
    shown since 2020, where that is shorter. The pixels are the same."""
    png = data if isinstance(data, bytes) else base64.b64decode(data)
    kind, content = "png", png
    if features.check("webp"):
        small = io.BytesIO()
        with Image.open(io.BytesIO(png)) as image:
            mode = "RGBA" if image.has_transparency_data else "RGB"
            image.convert(mode).save(small, "webp", lossless=True, quality=100, method=6)
        if len(small.getvalue()) < len(png):
            kind, content = "webp", small.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
