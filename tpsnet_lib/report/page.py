"""One self-contained HTML page: a landing part, the executed notebooks, and the records behind their figures."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from bs4 import BeautifulSoup
from markupsafe import Markup

from tpsnet_lib import stats
from tpsnet_lib.claims.judge import Row
from tpsnet_lib.config import MEMBERS
from tpsnet_lib.files import TpsnetError, write_whole
from tpsnet_lib.plots import style
from tpsnet_lib.progress import duration
from tpsnet_lib.report.notebook_html import ACTIVE, ASSETS, NO_ALT, chapter, tidy
from tpsnet_lib.report.pictures import darkened_colours, png_source, slim_svg, svg_source, with_dark
from tpsnet_lib.report.sanitise import clean
from tpsnet_lib.runs.records import committed_folder, held_out

SIZE_LIMIT = 5 * 2**20  # bytes of a page, above which it warns
HISTORY_LIMIT = 2**20  # bytes of embedded histories; those beyond are left to the record store
POLICY = "Content-Security-Policy"
ADDRESSES = ("src", "href", "srcset", "poster", "action", "data", "background", "xlink:href")
NUMBERED = "figure > figcaption, table > caption:not(details *)"
FACTS = {"started": "Started", "stamp": "Data set", "fingerprint": "Fingerprint (SHA-256)", "minutes": "Minutes taken"}


@dataclass(frozen=True)
class Section:
    """A part of the landing page: its heading, its HTML (see `table`, `figure`) and the id that links point to; a
    part with a `summary` waits folded under it."""

    title: str
    html: str
    id: str
    summary: str = ""


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | Mapping[str, str], caption: str = "") -> str:
    """Rows as an HTML table; `columns` are keys, or keys with their headings. Values are escaped unless `Markup`."""
    heads = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    parts = [Markup("<table>"), Markup("<caption>{}</caption>").format(caption) if caption else Markup("")]
    parts += [Markup("<thead><tr>"), *(Markup('<th scope="col">{}</th>').format(head) for head in heads.values())]
    parts.append(Markup("</tr></thead><tbody>"))
    for row in rows:
        cells = (Markup("<td>{}</td>").format(_shown(row.get(key))) for key in heads)
        parts.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))
    return str(Markup("").join([*parts, Markup("</tbody></table>")]))


def _shown(value: Any) -> Any:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else value


def record_link(record_id: str) -> Markup:
    """A link to a record of the appendix; where the page does not list it, the id stays as text."""
    return Markup('<a href="#record-{0}"><code>{0}</code></a>').format(record_id)


def verdict(name: str) -> Markup:
    """A verdict with a dot in its colour, that of the figures."""
    return Markup('<strong class="verdict {}">{}</strong>').format(name.replace(" ", "-"), name)


def _verdict_rules() -> str:
    """The style rules that give a verdict's dot its colour on light and on dark paper."""
    light = "".join(f".{name.replace(' ', '-')}{{--verdict:{colour}}}" for name, colour in style.VERDICTS.items())
    return f"{light}@media(prefers-color-scheme:dark){{{darkened_colours(light)}}}"


def record_links(ids: Iterable[str]) -> Markup:
    """Links to records of the appendix, one after another."""
    return Markup(" ").join(map(record_link, ids))


def claims(rows: Sequence[Row]) -> str:
    """The original's claims as an HTML table: under each claim, its tests: budget, verdict, estimate and records."""
    records = {record.id: record for row in rows for record in row.records}
    text = "Every verdict names its budget first, and is adjusted over all tests of the table (Holm);"
    text += " chapter 2 has fewer, so that it can settle more. Intervals at 95%."
    parts = [Markup('<div class="claims scroll" tabindex="0"><table><caption>{}</caption><thead><tr>').format(
        f"{text} {style.stands_on(list(records.values()))}"
    )]  # fmt: skip
    parts += [Markup('<th scope="col">{}</th>').format(head) for head in ("verdict", "tested", "estimate", "records")]
    parts.append(Markup("</tr></thead>"))
    for letter, group in itertools.groupby(rows, key=lambda row: row.claim):
        tests = list(group)
        head = Markup('<tbody><tr><th colspan="4">({}) <small>The original:</small> {}</th></tr>')
        parts += [head.format(letter, tests[0].original), *map(_claim_row, tests), Markup("</tbody>")]
    return str(Markup("").join([*parts, Markup("</table></div>")]))


def _claim_row(row: Row) -> Markup:
    budget = [Markup("<small>{}:</small>").format(row.budget)] if row.n else []
    grounds = [row.difference, f"{row.estimate.basis}; adjusted p {row.p:.2g}"] if row.n else []
    notes = (Markup("<small>{}</small>").format(note) for note in row.notes)
    links = record_links(record.id for record in row.records)
    where = [Markup('<span class="sources">{}</span>').format(links)] if links else []
    where += [Markup("Pending: {}").format(with_code(row.pending))] if row.pending else []
    cells = (_lines([*budget, verdict(row.verdict)]), row.sentence, _lines([*grounds, *notes]), _lines(where))
    return Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in cells))


def _lines(parts: Iterable[Any]) -> Markup:
    return Markup("<br>").join(parts)


def with_code(text: str) -> Markup:
    """Text with its parts in backticks as code."""
    parts = [Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(text.split("`"))]
    return Markup("").join(parts)


def figure(
    fig: Any, alt: str, caption: str = "", fmt: str = "svg", records: Sequence[str] = (), narrow: Any = None
) -> str:
    """A matplotlib figure as an embedded image, `svg` or `png` at 2x, with its alternative text and caption; `narrow`
    is an SVG figure that takes its place on a phone."""
    if not alt.strip():
        raise TpsnetError(f"figure {caption!r} has no alternative text: say in a sentence what it shows")
    across, down = fig.get_size_inches()
    width = Markup("") if fmt == "svg" else Markup(' width="{}"').format(round(100 * across))
    source = svg_source(with_dark(slim_svg(style.svg(fig)))) if fmt == "svg" else png_source(style.png(fig))
    image = Markup('<img class="{}" alt="{}"{} src="{}">')
    images = [image.format("broad" if narrow else "", alt, width, source)]
    if narrow:
        images.append(image.format("narrow", alt, "", svg_source(with_dark(slim_svg(style.svg(narrow))))))
    folded = Markup('<details class="sources"><summary>Data</summary>Records: {}</details>')
    sources = folded.format(record_links(records)) if records else ""
    parts = [
        Markup('<figure class="wide">' if across >= 2 * down else "<figure>"),
        Markup('<div class="scroll" tabindex="0">{}</div>').format(Markup("").join(images)),
        Markup("<figcaption>{}{}</figcaption>").format(caption, sources) if caption or records else "",
        Markup("</figure>"),
    ]
    return str(Markup("").join(parts))


def render(
    sections: Sequence[Section],
    notebooks: Sequence[Path],
    records: Sequence[Any],
    meta: Mapping[str, Any],
    closing: Sequence[Section] = (),
    tests: Mapping[str, float] | None = None,
) -> str:
    """The whole page as HTML: sections, the notebooks as chapters, and what closes it, folded.

    `tests` has the test accuracy of each record that was opened, by id.
    `meta` has `title`, and may have `question`, `footer`, and facts for the header
    (`started`, `host`, `profile`, `stamp`, `fingerprint`, `hardware`, `minutes`, ...), shown in the order given.

    Raises `TpsnetError` that lists every image without alternative text and every formula that cannot be read."""
    problems: list[str] = []
    chapters = [chapter(path, problems, notice=place == 0) for place, path in enumerate(notebooks)]
    around = [*sections, *closing]
    landing: list[BeautifulSoup] = []
    for section in around:
        soup = BeautifulSoup(clean(section.html), "html.parser")
        tidy(soup, f"section {section.id}", problems)
        landing.append(soup)
    _number_across(landing)
    shown = [replace(s, html=Markup(soup)) for s, soup in zip(around, landing, strict=True)]
    if problems:
        raise TpsnetError(f"the page has {len(problems)} fault(s): {'; '.join(problems)}")
    facts = [(FACTS.get(key, key.capitalize()), value) for key, value in meta.items() if value not in (None, "")]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True)
    html = environment.get_template("page.html.j2").render(
        title=meta["title"],
        question=meta.get("question"),
        footer=meta.get("footer", ""),
        facts=[fact for fact in facts if fact[0] not in ("Title", "Question", "Footer")],
        css=Markup((ASSETS / "page.css").read_text("utf-8") + _verdict_rules()),
        sections=shown[: len(sections)],
        closing=shown[len(sections) :],
        chapters=chapters,
        groups=_groups(records, tests or {}),
    )
    return _without_dangling_links(html)


def write(path: Path, html: str) -> Path:
    """Write the page, whole or not at all, after checking that it stands alone; says so on standard error if it is
    over 5 MB. Raises `TpsnetError` that lists what keeps it from standing alone."""
    if found := faults(html):
        raise TpsnetError(f"{path.name} would not stand alone: {'; '.join(found)}")
    size = len(html.encode("utf-8"))
    if size > SIZE_LIMIT:
        limit = SIZE_LIMIT / 2**20
        print(f"{path.name} has {size / 2**20:.1f} MB, over {limit:.0f} MB: use smaller figures", file=sys.stderr)
    write_whole(path, html)
    return path.resolve()


def faults(html: str) -> list[str]:
    """What keeps a page from standing alone: scripts, outside addresses, images without alternative text, ids twice."""
    soup = BeautifulSoup(html, "html.parser")
    found = [
        f"a <{tag.name}> element"
        for tag in soup(ACTIVE)
        if tag.name != "meta" or tag.get("http-equiv", POLICY) != POLICY
    ]
    ids: set[str] = set()
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            text = str(value).strip()
            followed = tag.name == "a" and name == "href" and text.startswith(("http://", "https://", "mailto:"))
            if name in ADDRESSES and not text.startswith(("#", "data:")) and not followed:
                found.append(f"an outside address in <{tag.name} {name}={text[:80]!r}>")
            if name.startswith("on"):
                found.append(f"a script in <{tag.name} {name}>")
            if name == "id" and text in ids:
                found.append(f"the id {text!r} twice")
        ids.add(str(tag.get("id", "")))
        if tag.name == "img" and str(tag.get("alt", "")).strip() in NO_ALT:
            found.append("an image without alternative text")
        styles = str(tag.get("style", "")) + (tag.get_text() if tag.name == "style" else "")
        if re.search(r"@import|url\((?!\s*['\"]?(data:|#))", styles):
            found.append(f"an outside address in the style of <{tag.name}>")
    return found


def _number_across(parts: Sequence[BeautifulSoup]) -> None:
    """Number the figures and tables of several parts in one row; a folded table, which is not printed, has none."""
    whole = BeautifulSoup("", "html.parser")
    counts = {"figcaption": 0, "caption": 0}
    for caption in itertools.chain.from_iterable(part.select(NUMBERED) for part in parts):
        counts[caption.name] += 1
        label = whole.new_tag("b", attrs={"class": "label"})
        label.string = f"{'Figure' if caption.name == 'figcaption' else 'Table'} {counts[caption.name]}. "
        caption.insert(0, label)


def _without_dangling_links(html: str) -> str:
    """Links into the page that lead nowhere (a record that is not listed) become plain text."""
    ids = set(re.findall(r'\bid="([^"]+)"', html))

    def kept(match: re.Match[str]) -> str:
        return match[0] if match[1] in ids else match[2]

    return re.sub(r'<a href="#([^"]+)">(.*?)</a>', kept, html, flags=re.DOTALL)


def _groups(records: Sequence[Any], tests: Mapping[str, float]) -> list[dict[str, Any]]:
    """The appendix: records grouped by everything but the seed: first the recipes that were fitted on all training
    images, then the others, best validation accuracy first."""
    groups: dict[str, list[Any]] = {}
    for record in records:
        groups.setdefault(record.group_id, []).append(record)
    room = HISTORY_LIMIT
    result = []
    for members in sorted(groups.values(), key=lambda group: (not _fitted_on_all(group[0]), -_mean(group))):
        rows = []
        for record in sorted(members, key=lambda record: record.config.seed):
            history = _history_link(_told(record))
            room -= len(history)
            rows.append(
                {
                    "id": record.id,
                    "numbers": _numbers(record, tests.get(record.id)),
                    "hardware": record.hardware,
                    "history": history if room >= 0 else "",
                    "fresh": committed_folder() not in record.path.parents,
                }
            )
        result.append({"config": _settings(members[0].config), "summary": _summary(members, tests), "records": rows})
    return result


def _fitted_on_all(record: Any) -> bool:
    return bool(record.config.data.fit_on == "all")


def _told(record: Any) -> list[dict[str, float]]:
    """A record's history without what is no validation: scores on images that it was fitted on."""
    rows: list[dict[str, float]] = record.history()
    if not _fitted_on_all(record):
        return rows
    return [{name: value for name, value in row.items() if not name.startswith("validation")} for row in rows]


def _accuracies(records: Sequence[Any]) -> list[float]:
    found = (held_out(record) for record in records if "validation_accuracy" in record.metrics)
    return [value for value in found if value is not None]


def _mean(records: Sequence[Any]) -> float:
    values = _accuracies(records)
    return sum(values) / len(values) if values else -1.0


def _summary(records: Sequence[Any], tests: Mapping[str, float]) -> str:
    """What the records of a group share: their number, means over seeds, size, data, and the file of trials."""
    opened = [tests[record.id] for record in records if record.id in tests]
    means = {"test accuracy": opened, "validation accuracy": _accuracies(records)}
    sizes = {f"{record.metrics['parameters']:,} parameters" for record in records if "parameters" in record.metrics}
    files = {record.path.name for record in records if record.path.suffix == ".jsonl"}
    parts = [f"n = {len(records)}"]
    parts += [
        f"{name}{f' of {len(values)}' if len(values) < len(records) else ''} {stats.mean(values):%}"
        for name, values in means.items()
        if len(values) > 1
    ]
    return "; ".join([*parts, *sizes, *sorted({record.stamp for record in records}), *sorted(files)])


def _numbers(record: Any, test: float | None) -> list[str]:
    """Seed, accuracies in percent (validation, test, training) and time."""

    def percent(value: Any) -> str:
        return f"{100 * value:.2f}" if isinstance(value, (int, float)) else "–"

    seconds = record.metrics.get("seconds")
    return [
        str(record.config.seed),
        "fitted" if _fitted_on_all(record) else percent(record.metrics.get("validation_accuracy")),
        percent(test),
        percent(record.metrics.get("train_accuracy")),
        duration(seconds) if isinstance(seconds, (int, float)) else "–",
    ]


def _settings(config: Any) -> str:
    """What differs from the defaults, as `tpsnet train --set` takes it; a named member by its name."""
    tree = {name: value for name, value in config.to_dict().items() if isinstance(value, Mapping)}
    member = next((name for name, model in MEMBERS.items() if model == config.model), "")
    parts = [f"model={member}"] if member else []
    for section, values in tree.items():
        if section != "model" or not member:
            parts += [f"{section}.{key}={_setting(value)}" for key, value in values.items()]
    return " ".join(parts)


def _setting(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def _history_link(rows: Sequence[Mapping[str, float]]) -> str:
    """An epoch a line as a CSV `data:` link; empty if there is no history."""
    if not rows:
        return ""
    lines = [",".join(rows[0]), *(",".join(f"{value:.6g}" for value in row.values()) for row in rows)]
    return "data:text/csv," + quote("\n".join(lines) + "\n", safe=",.:-_+")
