"""Nothing active gets into the page: HTML from notebooks and records is read as a browser reads it, and cleaned.

nh3 (ammonia, html5ever) does it; comments, declarations, scripts, styles, forms and frames are dropped."""

import re

import nh3

from tpsnet_lib.errors import TpsnetError

_MATH = """
math mi mn mo mtext mspace mrow mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd mstyle
"""
_TEXT = """
a abbr article b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure footer
h1 h2 h3 h4 h5 h6 header hr i img kbd li mark ol p pre s samp section small span strong sub summary sup
table tbody td tfoot th thead tr u ul var wbr
"""
TAGS = {*_MATH.split(), *_TEXT.split()}
DROPPED_WHOLE = {"script", "style", "svg", "template", "noscript", "title", "textarea", "iframe", "noembed", "xmp"}
ATTRIBUTES = {
    "*": {"class", "id", "title", "data-cell", "lang", "dir", "tabindex"},
    "a": {"href", "download"},
    "img": {"src", "alt", "width", "height"},
    "td": {"colspan", "rowspan", "headers"},
    "th": {"colspan", "rowspan", "scope", "headers"},
    "details": {"open"},
    "ol": {"start"},
    "math": {"display"},
    "mo": {"stretchy", "fence", "form", "lspace", "rspace"},
    "mi": {"mathvariant"},
    "mspace": {"width"},
    "mtable": {"columnalign"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mfrac": {"linethickness"},
}
_IMAGE = re.compile(r"data:image/(png|jpeg|webp|svg\+xml)[;,]")  # an SVG inside <img> runs no script and loads nothing
DEEPEST = 500
_LINK = re.compile(r"#|https?://|mailto:|data:text/csv,|(\./)?\d\d_\w+\.ipynb(#|$)")  # the last becomes a chapter


def clean(html: str) -> str:
    """HTML of which nothing runs and nothing is loaded when the page is opened; links that are followed by hand stay.

    Images are `data:` images, and links lead within the page, to http(s) or mail addresses, or to an embedded CSV.
    Raises `TpsnetError` as `check_depth` does."""
    check_depth(html)
    return nh3.clean(
        html,
        tags=TAGS,
        clean_content_tags=DROPPED_WHOLE,
        attributes=ATTRIBUTES,
        attribute_filter=_kept,
        url_schemes={"http", "https", "mailto", "data"},
        strip_comments=True,
        link_rel=None,
    )


def check_depth(html: str) -> None:
    """Raise `TpsnetError` for elements nested so deep that a browser stops there, and every parser takes minutes."""
    depth = 0
    for closing in re.findall(r"<(/?)(?!(?:br|hr|img|col|input|meta|link|p|li|t[dhr])\b)[a-zA-Z][^<>]*(?<!/)>", html):
        depth = max(0, depth + (-1 if closing else 1))
        if depth > DEEPEST:
            raise TpsnetError(f"HTML with elements nested over {DEEPEST} deep is not shown")


def _kept(tag: str, attribute: str, value: str) -> str | None:
    if attribute == "src":
        return value if _IMAGE.match(value) else None
    if attribute == "href":
        return value if _LINK.match(value) else None
    return value
