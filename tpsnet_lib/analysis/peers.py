"""Published networks of like size: their results, ours beside them, and which of all no other beats at equal cost."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tpsnet_lib.analysis.final_runs import Final
from tpsnet_lib.config import MEMBERS, PARAMETER_BUDGET, ModelConfig
from tpsnet_lib.errors import DataError, brief
from tpsnet_lib.files import project_root, read_text
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.progress import duration

_COLUMNS = (
    *("model", "member", "parameters", "macs", "accuracy", "n", "n_of", "readings"),
    *("epochs", "minutes", "hardware"),
    *("what", "checked", "source"),
)
_NUMBERS = ("parameters", "macs", "accuracy", "n", "readings", "epochs", "minutes")


def published(path: Path | None = None) -> list[dict[str, Any]]:
    """The published results, from `report/published.csv`; a number that is not known is None.

    `accuracy` is a fraction, `n` the number of test images or of runs as `n_of` says, `readings` of how many on the
    test images it is the best (None: of one, or not known), `minutes` those of training, `checked` whether the figure
    was read at its source, `estimate` None. Counts of a named member of the family are computed. Raises `DataError`
    that names the line that is no such row."""
    path = path or project_root() / "report" / "published.csv"
    table = csv.DictReader(read_text(path, 2**20, DataError).splitlines(), strict=True)
    rows: list[dict[str, Any]] = []
    try:
        if tuple(table.fieldnames or ()) != _COLUMNS:
            raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")
        for row in table:
            rows.append(_published_row(row))
    except (csv.Error, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}, line {table.line_num}: {brief(error)}; mend it, or restore it from git") from error
    return rows


def published_model(name: str) -> dict[str, Any]:
    """The row of `published` of one model."""
    return next(row for row in published() if row["model"] == name)


def others_in_budget() -> list[dict[str, Any]]:
    """The rows of `published` under the budget of parameters, TPSNet left out."""
    return [row for row in published() if row["parameters"] < PARAMETER_BUDGET and row["model"] != "TPSNet"]


def of_layout(model: ModelConfig) -> dict[str, Any] | None:
    """The row of `published` whose name ends with this layout, its blocks and the channels of its first layer."""
    layout = f"[{','.join(map(str, model.blocks))}] @ {model.channels[0]}"
    return next((row for row in published() if row["model"].endswith(layout)), None)


def source_link(source: str, text: str = "") -> str:
    """The source of a row, or a text, as HTML: it leads to the repository, if the source names one (`owner/name`); the
    name of that may go on in the next line."""
    text = escape(text) or re.sub(r"(?<=[/_])", "<wbr>", escape(source))
    return f'<a href="https://github.com/{source}">{text}</a>' if re.fullmatch(r"[\w.-]+/[\w.-]+", source) else text


_OURS_ALONE = dict.fromkeys(("estimate", "range of seeds", "95% over images"))  # what `final_row` alone knows


def _published_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table with its numbers; `ValueError` for one that lacks a cell, or whose numbers are none."""
    if None in row or None in row.values():
        raise ValueError("it has more or fewer cells than the head")
    values = {**row, **{name: _positive(name, row[name]) if row[name] else None for name in _NUMBERS}, **_OURS_ALONE}
    if member := MEMBERS.get(row["member"]):
        values |= {"parameters": count_parameters(member), "macs": count_macs(member)}
    if values["parameters"] is None or values["accuracy"] is None or values["accuracy"] > 1:
        raise ValueError("a model needs parameters (or its member's name), and an accuracy as a fraction")
    return values


def _positive(name: str, text: str) -> float:
    if not 0 < (number := float(text)) < 1e15:
        raise ValueError(f"{name} is {brief(text)}")
    return number


def final_row(final: Final) -> dict[str, Any]:
    """A recipe's result in the form of `published`'s rows, with its `estimate`; accuracy is None if it is not opened.

    `minutes` are those of a run that had the machine to itself; if none had, `hardware` says so."""
    estimate = final.accuracy()
    first, ids = final.records[0], [record.id for record in final.counted]
    return {
        "model": final.name,
        "parameters": first.metrics["parameters"],
        "macs": first.metrics["macs"],
        "accuracy": estimate.value if estimate.n else None,
        "estimate": final.over_images(),
        "range of seeds": _whole(final.range_of_seeds) if len(final.opened) > 1 else None,
        "95% over images": _whole(f"{final.over_images():%.1 interval}") if final.opened else None,
        "n": estimate.n or None,
        "n_of": estimate.of,
        "epochs": first.metrics["epochs"],
        "minutes": final.minutes,
        "hardware": final.hardware + _which_timed(final),
        "source": f"record{'s' if len(ids) > 1 else ''} {', '.join(ids)}",
        "stamp": first.stamp,
        "records": final.counted,
    }


def _whole(interval: str) -> str:
    """An interval with spaces at which no line breaks."""
    return interval.replace(" ", "\u00a0")


def _which_timed(final: Final) -> str:
    """Which runs the minutes are of, where they are not of all or had not the machine to themselves."""
    if final.timed[0] not in final.alone:
        return ", beside other runs"
    some = len(final.timed) < len(final.counted)
    return f"; minutes of {len(final.timed)} of {len(final.counted)} runs, alone" if some else ""


def beside_published(finals: Iterable[Final]) -> list[dict[str, Any]]:
    """The rows of own results and those of `published`, in one list, each with its minutes in words as its `time`."""
    rows = [*map(final_row, finals), *published()]
    return [{**row, "time": None if row["minutes"] is None else duration(60 * row["minutes"])} for row in rows]


def frontier(rows: Sequence[Mapping[str, Any]], cost_name: str) -> list[Mapping[str, Any]]:
    """The rows that no other beats at equal or lower cost, by rising cost (Pareto); rows without both are left out."""
    complete = [row for row in rows if row.get(cost_name) is not None and row.get("accuracy") is not None]
    best: list[Mapping[str, Any]] = []
    for row in sorted(complete, key=lambda row: (row[cost_name], -row["accuracy"])):
        if not best or row["accuracy"] > best[-1]["accuracy"]:
            best.append(row)
    return best
