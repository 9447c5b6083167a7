"""The report: the notebooks executed, a landing page in front of them, the records behind them, in one file."""

import datetime
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup

from tpsnet_lib.analysis.final_runs import Final
from tpsnet_lib.data import datasets
from tpsnet_lib.device import resolve_device
from tpsnet_lib.errors import TpsnetError, warn
from tpsnet_lib.files import project_root
from tpsnet_lib.profiles import load_profile
from tpsnet_lib.report import appendix, closing, figures, first_screen, landing, page, run_notebooks
from tpsnet_lib.runs import fresh_runs
from tpsnet_lib.runs.provenance import commit, hardware
from tpsnet_lib.runs.records import Record, Store, committed_folder, default_store
from tpsnet_lib.runs.test_set import find_final_test
from tpsnet_lib.whole_files import write_whole

QUESTION = (
    "How good can a residual network with fewer than 5,000,000 parameters get on CIFAR-10,"
    " and which design choices make it so?"
)


def make(
    profile: str,
    *,
    only: Sequence[str] = (),
    keep_going: bool = False,
    parameters: Mapping[str, Any] | None = None,
    out: Path | None = None,
    run: bool = True,
) -> Path:
    """Execute the notebooks with a profile and write the page; returns its path.

    The `full` report stands on the committed records alone and goes to `report/index.html`, others to `report/local`.
    Raises `TpsnetError` that names the cell if a notebook failed (unless `keep_going`: then the page shows how far it
    came), or that names the notebooks that are still to be executed."""
    began = datetime.datetime.now().astimezone()
    given = dict(parameters or {})
    dataset = _dataset(profile, given)
    store = Store(committed_folder()) if profile == "full" else default_store()
    if run:
        _announce(profile, only, dataset)
        executed = _execute(profile, only, keep_going, given)
    else:
        executed = _executed_before(profile, only)
        _warn_of_older_chapters(executed, store)
    facts = {
        "started": began.strftime("%Y-%m-%d %H:%M %Z"),
        "profile": profile,
        "data": dataset,
        "hardware": hardware(resolve_device("auto")),
        "commit": commit(),
    }
    trained = fresh_runs.latest_fresh()
    names = appendix.names(store)
    fresh = None
    if trained and datetime.datetime.fromisoformat(trained.provenance["started"]) >= began.replace(microsecond=0):
        fresh = trained
    sections = landing.sections(store, fresh, not dataset.startswith("CIFAR-10"), names)
    shown = [record for record in store.all() if not record.failed]
    if trained is not None and _is_new(trained, shown, executed):
        shown.append(trained)
    meta = {"title": landing.TITLE, "question": QUESTION, **facts}
    tests = {record.id: test.metrics for record in shown if (test := find_final_test(record, store))}
    html = page.render(sections, executed, shown, meta, closing.sections(store, names), tests, names)
    name = "index.html" if dataset.startswith("CIFAR-10") or profile == "smoke" else "index-shapes10.html"
    target = project_root() / "report" / ("index.html" if profile == "full" else f"local/{name}")
    return page.write(out or target, html)


def _folder(profile: str) -> Path:
    """Where the notebooks lie that were executed with a profile."""
    return project_root() / "report" / "local" / "notebooks" / profile


def _execute(profile: str, only: Sequence[str], keep_going: bool, given: Mapping[str, Any]) -> list[Path]:
    """Execute the notebooks; those that came so far. `TpsnetError` if one failed, unless the others are to go on."""
    results = run_notebooks.run(profile, only=only, keep_going=keep_going, out=_folder(profile), parameters=given)
    failed = [str(result) for result in results if result.status == "failed"]
    if failed and not keep_going:
        raise TpsnetError("; ".join(failed))
    return [result.path for result in results if result.path is not None]


def _executed_before(profile: str, only: Sequence[str]) -> list[Path]:
    """The notebooks as they were executed; `TpsnetError` names those that were not."""
    executed = [_folder(profile) / path.name for path in run_notebooks.choose(only)]
    if missing := [path.name for path in executed if not path.is_file()]:
        raise TpsnetError(f"{', '.join(missing)}: not executed yet with profile {profile}; leave out --no-run")
    return executed


def _is_new(trained: Record, known: Sequence[Record], executed: Sequence[Path]) -> bool:
    """Whether the run that chapter 4 trained stands in its figures and no record is known by its id, as on another
    processor."""
    if trained.id in {record.id for record in known}:
        return False
    return any(trained.id in path.read_text("utf-8") for path in executed)


def _warn_of_older_chapters(executed: Sequence[Path], store: Store) -> None:
    """Say how many records are newer than the chapters, whose numbers may then differ from those before them."""
    about = [run_notebooks.read_notebook(path).metadata.get("papermill", {}) for path in executed]
    last = max((str(each.get("end_time")) for each in about), default="")
    newer = [record for record in store.all() if str(record.provenance.get("finished", "")) > last]
    if newer:
        warn(f"{len(newer):,} records are newer than the chapters, which do not have them: leave out --no-run")


def _dataset(profile: str, given: Mapping[str, Any]) -> str:
    """The stamp of the data that the notebooks will find; a place that was named and holds none is an error."""
    chosen = given.get("dataset") or load_profile(profile).parameters.get("dataset", "auto")
    data = given.get("data") or os.environ.get("TPSNET_DATA")
    fingerprint = datasets.fingerprint(datasets.resolve_dataset(chosen, data), data)
    return f"{fingerprint.stamp}, training images {fingerprint.sha256[:12]}"


def _announce(profile: str, only: Sequence[str], dataset: str) -> None:
    if not dataset.startswith("CIFAR-10") and profile != "smoke":
        print(
            "no CIFAR-10 on this machine: running on shapes10, the built-in synthetic images, and saying so throughout"
            " (`tpsnet data download` gets CIFAR-10)",
            file=sys.stderr,
        )
    print(f"{profile} on {dataset}: {run_notebooks.estimate(profile, only=only)}", file=sys.stderr, flush=True)


def readme(root: Path, folder: Path) -> list[Path]:
    """Make the figures, and the README's findings between their two markers, from the committed page and records."""
    store = Store(committed_folder())
    paths = figures.write(folder, root / "report" / "index.html", store)
    text = (root / "README.md").read_text("utf-8")
    write_whole(root / "README.md", with_findings(text, first_screen.opened_recipes(store)))
    return paths


def with_findings(text: str, recipes: Sequence[Final]) -> str:
    """A README's text with its findings as these records give them."""
    start, end = "from the records -->\n", "<!-- end of findings -->"
    before, _, rest = text.partition(start)
    findings = BeautifulSoup(" ".join(first_screen.sentences(recipes)), "html.parser").get_text()
    words = textwrap.fill(" ".join(findings.split()), 118)
    return f"{before}{start}{words}\n{end}{rest.partition(end)[2]}"
