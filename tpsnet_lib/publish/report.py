"""The report: the notebooks executed, a landing page in front of them, the records behind them, in one file."""

from __future__ import annotations

import datetime
import os
import socket
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup

from tpsnet_lib import data
from tpsnet_lib.config import PARAMETER_BUDGET
from tpsnet_lib.files import TpsnetError, project_root, write_whole
from tpsnet_lib.progress import duration
from tpsnet_lib.publish import notebooks, page
from tpsnet_lib.publish.page import Section
from tpsnet_lib.publish.pictures import slim_svg
from tpsnet_lib.publish.plots import style, training
from tpsnet_lib.study import answers, cost, experiments
from tpsnet_lib.study.compare import MATTERS
from tpsnet_lib.study.evaluate import TestResult, find_test
from tpsnet_lib.study.provenance import commit, hardware
from tpsnet_lib.study.records import Record, Store, committed_folder, default_store
from tpsnet_lib.train import resolve_device

TITLE = "TPSNet: residual networks under five million parameters"
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
    folder = project_root() / "report" / "local" / "notebooks" / profile
    executed = [folder / path.name for path in notebooks.choose(only)]
    if run:
        _announce(profile, only, dataset)
        results = notebooks.run(profile, only=only, keep_going=keep_going, out=folder, parameters=given)
        failed = [str(result) for result in results if result.status == "failed"]
        if failed and not keep_going:
            raise TpsnetError("; ".join(failed))
        executed = [result.path for result in results if result.path is not None]
    if missing := [path.name for path in executed if not path.is_file()]:
        raise TpsnetError(f"{', '.join(missing)}: not executed yet with profile {profile}; leave out --no-run")
    minutes = (datetime.datetime.now().astimezone() - began).total_seconds() / 60
    store = Store(committed_folder()) if profile == "full" else default_store()
    facts = {
        "started": began.strftime("%Y-%m-%d %H:%M %Z"),
        "host": socket.gethostname() if profile != "full" else "",
        "profile": profile,
        "data": dataset,
        "hardware": hardware(resolve_device("auto")),
        "minutes": f"{minutes:.1f}" if run else "",
        "commit": commit(),
    }
    fresh = cost.latest_fresh() if run else None
    if fresh is not None and datetime.datetime.fromisoformat(fresh.provenance["started"]) < began.replace(
        microsecond=0
    ):
        fresh = None  # of an earlier report
    sections = landing(facts, store, fresh, synthetic=not dataset.startswith("CIFAR-10"))
    shown = [record for record in store.all() if not record.failed]
    html = page.render(sections, executed, shown, {"title": TITLE, "question": QUESTION, **facts})
    name = "index.html" if dataset.startswith("CIFAR-10") or profile == "smoke" else "index-shapes10.html"
    target = project_root() / "report" / ("index.html" if profile == "full" else f"local/{name}")
    return page.write(out or target, html)


def _dataset(profile: str, given: Mapping[str, Any]) -> str:
    """The stamp of the data that the notebooks will find; a place that was named and holds none is an error."""
    chosen = given.get("dataset") or notebooks.load_profile(profile).parameters.get("dataset", "auto")
    named = given.get("data") or os.environ.get("TPSNET_DATA")
    if chosen == "shapes10" or (chosen == "auto" and not named and data.find_root() is None):
        found = data.fingerprint("shapes10")
    else:
        found = data.fingerprint("cifar10", given.get("data") or None)
    return f"{found.stamp}, training images {found.sha256[:12]}"


def _announce(profile: str, only: Sequence[str], dataset: str) -> None:
    if not dataset.startswith("CIFAR-10") and profile != "smoke":
        print(
            "no CIFAR-10 on this machine: running on shapes10, the built-in synthetic images, and saying so throughout"
            " (`tpsnet data download` gets CIFAR-10)",
            file=sys.stderr,
        )
    print(f"{profile} on {dataset}: {notebooks.estimate(profile, only=only)}", file=sys.stderr, flush=True)


def final_records(store: Store) -> list[tuple[str, Record, TestResult]]:
    """The records that were opened on the test set because their experiment is declared final, best first."""
    found = []
    for experiment in experiments.all_experiments():
        for _, record in experiments.collect(experiment, store) if experiment.final else ():
            result = None if record is None or record.failed else find_test(record, store)
            if record is not None and result is not None and record.stamp.startswith("CIFAR-10"):
                found.append((experiment.name, record, result))
    return sorted(found, key=lambda item: -item[2].metrics["accuracy"])


def landing(facts: Mapping[str, Any], store: Store, fresh: Record | None, synthetic: bool) -> list[Section]:
    """The sections before the notebooks: the answer so far, the original's claims, where that stands among published
    networks, this machine's run, what is pending."""
    finals = final_records(store)
    sections = [
        Section("The answer so far", _answer(finals), "answer"),
        Section("The original's claims, tested", _claims(store), "claims"),
    ]
    if synthetic:
        note = (
            "<p><strong>The notebooks below ran on shapes10, small synthetic pictures that the library draws"
            " itself.</strong> Their figures show that everything works; they say nothing about CIFAR-10.</p>"
        )
        sections.insert(0, Section("Synthetic images", note, "synthetic"))
    rows = [cost.our_row(record, result, f"ours, {name}") for name, record, result in finals[:1]]
    figure = training.pareto([*rows, *cost.published()], "parameters")
    alt = "Test accuracy against parameters: the published networks, and the best of this report's records."
    records = [record for _, record, _ in finals[:1]]
    text = "Test accuracy against parameters. Published figures are as their authors report them."
    sections.append(
        Section(
            "Where that stands",
            page.figure(figure, alt, style.caption(text, records), records=[record.id for record in records])
            + "<p>What each published network used, with its source, is in notebook 4.</p>",
            "pareto",
        )
    )
    if fresh is not None:
        sections.append(Section("This machine's own run", _own_run(fresh, facts), "own"))
    return [*sections, Section("What is still to be run", _pending(store), "pending")]


def _answer(finals: Sequence[tuple[str, Record, TestResult]]) -> str:
    if not finals:
        return (
            "<p>No committed record has been opened on the test set yet. The published TPSNet reports 94.84%"
            " at 4,959,770 parameters; the notebooks below say how the question is being answered.</p>"
        )
    name, record, result = finals[0]
    said, config = result.metrics, record.config
    exact = ""
    if "exact_n" in said:
        exact = f" On the {said['exact_n']:,} images with exactly the original pixels it is {_percent(said, 'exact_')}."
    original = next(row for row in cost.published() if row["model"] == "TPSNet")
    gap = 100 * (said["accuracy"] - original["accuracy"])
    return (
        f"<p>The best network that has a record reaches <strong>{_percent(said, '')}</strong> on the {said['n']:,} test"
        f" images of {said['fingerprint']['stamp']}, with {record.metrics['parameters']:,} of {PARAMETER_BUDGET:,}"
        f" parameters, {config.train.epochs:g} epochs and {duration(record.metrics['seconds'])} of training on"
        f" {record.hardware}: experiment <em>{name}</em>, record {page.record_link(record.id)}, one network, one crop,"
        f" n = 1 seed, Wilson interval at 95%.{exact} The published TPSNet reports"
        f" {100 * original['accuracy']:.2f}% after {original['epochs']:g} epochs on a {original['hardware']}: this is"
        f" {abs(gap):.2f} points {'above' if gap >= 0 else 'below'} it.</p>"
    )


def _claims(store: Store) -> str:
    found = answers.judged("abcdefgh", store)
    about = (
        "A claim holds if the interval of the difference lies above 0. It does not hold if the interval leaves no room"
        f" for an advantage of {100 * MATTERS:.0f} point. Else it is not settled. Each verdict is about networks of"
        " that size in runs of that length, and of intervals at 95% one in twenty misses."
    )
    return f"<p>{answers.said_of_answers(found)}</p>{page.claims(found)}<p>{about}</p>"


def _percent(said: Mapping[str, Any], kind: str) -> str:
    low, high = 100 * said[f"{kind}low"], 100 * said[f"{kind}high"]
    return f"{100 * said[f'{kind}accuracy']:.2f}% ({low:.2f} to {high:.2f})"


def _own_run(record: Record, facts: Mapping[str, Any]) -> str:
    measured = record.metrics
    _, validation = _sizes(record)
    row = {
        "network": f"{measured['parameters']:,} parameters, {measured['macs'] / 1e6:.0f} million MACs an image",
        "data": record.stamp,
        "validation accuracy": f"{100 * measured['validation_accuracy']:.2f}% (n = {validation:,} images)",
        "epochs": f"{measured['epochs']:g}",
        "time": duration(measured["seconds"]),
        "images a second": f"{measured['images_per_second']:,.0f}",
        "hardware": record.hardware,
        "started": f"{record.provenance['started']}, host {facts['host'] or record.provenance['host']}",
    }
    rows = [{"what": key, "figure": value} for key, value in row.items()]
    return "<p>Notebook 4 trained this network afresh for this page.</p>" + page.table(rows, {"what": "", "figure": ""})


def _sizes(record: Record) -> tuple[int, int]:
    fit, validation = data.split(record.config.data.dataset)
    return record.config.data.train_size or len(fit), record.config.data.validation_size or len(validation)


def _pending(store: Store) -> str:
    rows = []
    afresh = notebooks.profile_names()  # an experiment of a profile's name is what that profile trains for every page
    for experiment in (e for e in experiments.all_experiments() if e.name not in afresh):
        left = len(experiments.pending([experiment], store))
        if left:
            minutes = left * experiment.minutes
            needs = "one GPU" if experiment.needs == "gpu" else "two CPU cores"
            total = len(experiment.runs)
            rows.append(
                {"name": experiment.name, "asks": experiment.question, "left": f"{left} of {total}", "needs": needs}
                | {"time": duration(60 * minutes)}
            )
    if not rows:
        return "<p>Every declared experiment has its records.</p>"
    heads = {"name": "experiment", "asks": "question", "left": "runs left", "needs": "needs", "time": "about"}
    return (
        "<p>Declared and not run yet; <code>tpsnet run NAME</code> runs one, <code>tpsnet run --pending</code> all that"
        " this machine can.</p>" + page.table(rows, heads)
    )


def readme(root: Path, figures: Path) -> Path:
    """Make the README's figure, and its findings between their two markers, from the committed records."""
    finals = final_records(Store(committed_folder()))
    rows = [cost.our_row(record, result, f"ours, {name}") for name, record, result in finals[:1]]
    path = figures / "accuracy.svg"
    write_whole(path, slim_svg(style.svg(training.pareto([*rows, *cost.published()], "parameters"))))
    text = (root / "README.md").read_text("utf-8")
    write_whole(root / "README.md", with_findings(text, finals))
    return path


def with_findings(text: str, finals: Sequence[tuple[str, Record, TestResult]]) -> str:
    """A README's text with its findings as these records give them."""
    start, end = "from the records -->\n", "<!-- end of findings -->"
    before, _, rest = text.partition(start)
    answer = " ".join(BeautifulSoup(_answer(finals), "html.parser").get_text().split())
    return f"{before}{start}{textwrap.fill(answer, 118)}\n{end}{rest.partition(end)[2]}"
