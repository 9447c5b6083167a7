"""What the five notebooks share: the opening line, figures with their captions, predictions, and tasks that check.

    lab = course.open_lab(dataset=dataset, data=data, store=store)   the data and the records of a chapter
    lab.show(plots.mean_images(...))                                 a figure that carries its caption and alt text
    course.finding(f"The accuracy is {accuracy:%}.")                 a sentence that follows its numbers
    guess = course.predict("How many pairs?", low=0, high=1000)      before the result,
    course.compare(guess, 312)                                       and beside it
    course.explore(draw, cutout=[12, 0, 24])                         a figure that sliders change
    size = course.task("images", course.number(45_600, within=0.05), hints=["The width falls with the root of n."])
    size.check(answer)                                               one line for any answer, never a traceback

`tasks` says where a task, its blank and its worked solution stand, `answer_checks` and `code_checks` what is
wrong with an answer."""

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from tpsnet_lib.answer_checks import Slip, names, notebook_names, number, ranges
from tpsnet_lib.cell_errors import explain_errors, open_notebook
from tpsnet_lib.chapter_copies import OLDER, is_older
from tpsnet_lib.code_checks import function, module
from tpsnet_lib.data import cifar10, datasets
from tpsnet_lib.data.datasets import ImageSet
from tpsnet_lib.errors import DataError
from tpsnet_lib.files import project_root
from tpsnet_lib.plots import style
from tpsnet_lib.plots.style import finding
from tpsnet_lib.profiles import check_parameters
from tpsnet_lib.progress import Progress, running_shell
from tpsnet_lib.runs.fresh_runs import fresh_store
from tpsnet_lib.runs.records import Store, default_store, local_folder
from tpsnet_lib.tasks import hide_solutions, task

__all__ = [
    "Lab",
    "Prediction",
    "Slip",
    "compare",
    "explore",
    "finding",
    "function",
    "has_front_end",
    "hide_solutions",
    "module",
    "names",
    "number",
    "open_lab",
    "predict",
    "ranges",
    "task",
    "track",
]

Item = TypeVar("Item")

SYNTHETIC = (
    "Data: **synthetic images** (shapes10), drawn shapes in place of CIFAR-10's photographs. The method is the same,"
    " but what is trained or measured here is no statement about CIFAR-10, which `tpsnet data download` gets. Recorded"
    " results name the data set that they are of."
)

# For JupyterLab. Source code that a cell shows scrolls in a box; a line that is too wide breaks between words, not
# within one. A figure is scaled to its window, not cut. In a table, names of rows stay whole, and long texts wrap. A
# slider of a kernel that has ended has no broken chain beside it.
STYLE = (
    "<style>.highlight pre {white-space: pre-wrap !important; word-break: normal !important;"
    " overflow-wrap: normal !important; overflow: auto; max-height: 52em; font-size: 12px !important}"
    " .jp-RenderedSVG :is(svg, img) {max-width: 100% !important; height: auto !important}"
    " .jp-RenderedHTMLCommon.jp-OutputArea-output :is(td, th) {max-width: 15em}"
    " .jp-RenderedHTMLCommon.jp-OutputArea-output thead th {max-width: 7em}"
    " .jp-RenderedHTMLCommon.jp-OutputArea-output tbody th {white-space: nowrap; max-width: none}"
    " .jupyter-widgets-disconnected::before {display: none}</style>"
)

# The opening line -----------------------------------------------------------------------------------------------------


@dataclass
class Lab:
    """The data and the records of a chapter. `root` is the folder that holds CIFAR-10, None for built-in images."""

    dataset: str
    root: Path | None
    store: Store
    scratch: Any = None  # a temporary folder, which lives as long as its lab

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the ten classes, in the order of their labels."""
        return datasets.class_names(self.dataset)

    @cached_property
    def all_train(self) -> ImageSet:
        """All training images in the official order: those of `train` and those of `validation`."""
        return datasets.load_train(self.dataset, self.root)

    @cached_property
    def train(self) -> ImageSet:
        """The training images that networks are fitted on (CIFAR-10: 45,000; shapes10: 9,000)."""
        return self.all_train.subset(datasets.split(self.dataset)[0])

    @cached_property
    def validation(self) -> ImageSet:
        """The training images that are held back to choose by (CIFAR-10: 5,000; shapes10: 1,000)."""
        return self.all_train.subset(datasets.split(self.dataset)[1])

    @cached_property
    def fresh(self) -> Store:
        """An empty store, in which a run is trained anew; it lies in the store that was asked for, if one was."""
        asked = self.store.writable != local_folder()
        return fresh_store(self.store.writable / "fresh" if asked else None)

    show = staticmethod(style.show)


def open_lab(dataset: str = "auto", data: str = "", store: str = "", recompute: bool = False) -> Lab:
    """Open a chapter: check its parameters, find the data and the records, and say which data set this is.

    `dataset`: `cifar10`, `shapes10`, or `auto`: CIFAR-10 if it is found (in `data`, if given), else shapes10.
    `store`: the folder of new records. With `recompute` and without it, all records are new, in a temporary folder.
    Raises `ConfigError` for a parameter of another type or out of range, `DataError` if CIFAR-10 is asked for and is
    not there."""
    if "profile" in (given := notebook_names()):
        check_parameters(given)
    _asked.clear()  # a chapter that is opened again may be about another network
    root = cifar10.find_root(data or None)
    dataset = datasets.resolve_dataset(dataset, data)
    if dataset == "cifar10" and root is None:
        raise DataError(_no_cifar10(data))
    finding(_notice(dataset, root or data or None))
    if is_older(open_notebook(given), project_root() / "notebooks"):
        finding(
            f"**This notebook {OLDER}**, so that a cell may fail. Rename it, get a new one (`make lab`, or `tpsnet"
            " notebooks --student DIR`), and bring your answers over."
        )
    if has_front_end():
        from IPython.display import HTML, display

        display(HTML(STYLE))
        explain_errors()
    scratch = tempfile.TemporaryDirectory() if recompute and not store else None
    records = Store(Path(scratch.name)) if scratch else default_store(store or None)
    if not records.takes_records:
        finding(
            f"**{records.writable} cannot be written**, so cells that train a network will fail: give the parameter"
            " `store` a folder of your own."
        )
    return Lab(dataset, root if dataset == "cifar10" else None, records, scratch)


def _no_cifar10(data: str) -> str:
    place = data or os.environ.get("TPSNET_DATA", "")
    missing = ", which does not exist" if place and not Path(place).expanduser().exists() else ""
    found = f"no CIFAR-10 in {place}{missing}" if place else "CIFAR-10 was not found"
    return (
        f"{found}: get it with `tpsnet data download`, give the parameter `data` the folder that holds it, or write"
        ' `dataset = "shapes10"`'
    )


def _notice(dataset: str, root: str | Path | None) -> str:
    if dataset == "shapes10":
        return SYNTHETIC
    name, _, state = datasets.fingerprint(dataset, root).stamp.rstrip(")").partition(" (")
    about = f" This copy is known to hold {state} among its 60,000 (notebook 01, section 1)." if state else ""
    unknown = " **This copy is unverified**: its content is none that the project knows."
    return f"Data: **{name}**, 50,000 training images.{unknown if state == 'unverified' else about}"


def track(items: Sequence[Item], label: str = "") -> Iterator[Item]:
    """The items one after another, with a bar of how many are done where somebody waits for them."""
    if not has_front_end():
        yield from items
        return
    with Progress(len(items), label, delay=0.2) as progress:  # none where the first item fails
        for item in items:
            yield item
            progress.advance()


# Predictions ----------------------------------------------------------------------------------------------------------


@dataclass
class Prediction:
    """What a student expects, kept before the result is shown."""

    question: str
    unit: str = ""
    value: Any = None
    result: Any = None
    line: Any = None  # the widget that says whether a prediction is kept

    def said(self, value: Any) -> str:
        """A value with the unit: `3 pairs`, `3%`."""
        return f"{value}{self.unit if self.unit == '%' else f' {self.unit}'}".strip()

    @property
    def note(self) -> str:
        """A line that says what was predicted; empty before that."""
        return "" if self.value is None else f"Kept: {self.said(self.value)}"


RESTART = "To predict, restart the kernel, and run this cell before the next one."
NOT_KEPT = "No prediction was kept: run cell by cell, and keep one before you run the next cell."
NOT_CHOSEN = "Not chosen yet. A click counts while no cell runs."
SHOWN = f"The result is already shown. {RESTART}"
# By question and choices: a cell that is run again asks anew, and keeps what was predicted; `open_lab` forgets it.
_asked: dict[tuple[Any, ...], Prediction] = {}


def has_front_end() -> bool:
    """Whether somebody sits at this notebook: false under papermill, nbval and in plain Python."""
    at_screen = "JPY_SESSION_NAME" in os.environ or "VSCODE_PID" in os.environ or "google.colab" in sys.modules
    return at_screen and running_shell() is not None


def predict(
    question: str,
    options: Sequence[str] = (),
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    when: bool = True,
) -> Prediction | None:
    """Ask for a prediction: one of `options`, a number from `low` to `high`, or a text; None where nobody is there, and
    where `when` says that the question makes no sense.

    A choice is kept as it is made, and no more after `compare` has shown the result. A slider starts in the middle and
    is no prediction until it is moved or its button keeps the value that it shows."""
    if not (when and has_front_end()):
        return None
    import ipywidgets
    from IPython.display import display

    prediction = _asked.setdefault((question, *options, low, high), Prediction(question, unit))
    kept, behind = prediction.value, unit
    if options:
        knob: Any = ipywidgets.ToggleButtons(options=list(options), value=kept, style={"button_width": "auto"})
    elif low is not None and high is not None:
        whole = isinstance(low, int) and isinstance(high, int)
        slider = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        step = 1 if whole else 10.0 ** math.floor(math.log10((high - low) / 100))  # so that round numbers can be kept
        middle, wide = (low + high) // 2 if whole else (low + high) / 2, ipywidgets.Layout(width="32em")
        knob = slider(value=middle if kept is None else kept, min=low, max=high, step=step, layout=wide)
        behind = f"{unit} ({low:g} to {high:g})".strip()
    else:
        knob = ipywidgets.Text(value=kept or "", placeholder="your prediction")
    begin = SHOWN if prediction.result is not None else NOT_CHOSEN
    line = prediction.line = ipywidgets.HTML(escape(prediction.note) or begin)
    button = ipywidgets.Button(description="Keep my prediction", layout=ipywidgets.Layout(width="12em"))

    def keep(_: Any) -> None:
        if prediction.result is not None:
            line.value = SHOWN
        elif knob.value in (None, ""):
            line.value = "Write an answer first."
        else:
            prediction.value = round(knob.value, 6) if isinstance(knob.value, float) else knob.value
            line.value = escape(prediction.note)

    button.on_click(keep)
    knob.observe(keep, "value")
    title = ipywidgets.HTML(f"<b>Predict first.</b> {escape(question)}")
    below = ipywidgets.HBox([line] if options else [button, line])  # a click on an option keeps it
    display(ipywidgets.VBox([title, ipywidgets.HBox([knob, ipywidgets.Label(behind)]), below]))
    return prediction


def compare(prediction: Prediction | None, result: Any) -> None:
    """Show a result beside its prediction; nothing where none was asked for. How to predict is said once a notebook."""
    if prediction is None:
        return
    nothing = prediction.value in (None, "")
    predicted = "" if nothing else f"Predicted: **{prediction.said(prediction.value)}**. "
    hint = f" ({NOT_KEPT})" if nothing and not any(each.result is not None for each in _asked.values()) else ""
    prediction.result = result
    if nothing and prediction.line is not None:
        prediction.line.value = SHOWN
    finding(f"*{prediction.question}* {predicted}Result: **{prediction.said(result)}**.{hint}")


def explore(draw: Callable[..., Figure], begin: Mapping[str, Any] | None = None, /, **knobs: Sequence[Any]) -> None:
    """Show a figure that a slider for each knob changes; where nobody is there, or there is nothing to choose, the one
    of the knobs' first values.

    `draw` takes one value of each knob by its name and returns a described figure; a knob lists its values. A slider
    begins at its first value, or where `begin` says, so that it need not begin at the result."""
    if not has_front_end() or all(len(values) == 1 for values in knobs.values()):
        style.show(draw(**{name: values[0] for name, values in knobs.items()}))
        return
    import ipywidgets

    widest = f"{max(map(len, knobs)) + 1}ch"  # so that all sliders begin at one place
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=sorted(values),
            value=(begin or {}).get(name, values[0]),
            description=name,
            continuous_update=False,
            style={"description_width": widest},
        )
        for name, values in knobs.items()
    }
    ipywidgets.interact(lambda **chosen: style.show(draw(**chosen)), **sliders)
