"""Hostile pages: every vector in every place that text of others reaches, in one report that Chromium opens.

The page is opened twice: as it is, and without its own policy, so that what cleans it stands alone. A script of this
test is let in, which notes what runs, opens what is folded, and presses what can be pressed; a server on this machine
notes who asks for what."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tpsnet_lib.config import RunConfig
from tpsnet_lib.config_parsing import parse
from tpsnet_lib.report import closing, landing, page
from tpsnet_lib.runs import experiments, openings
from tpsnet_lib.runs.records import Record, Store

from . import HELD, RAN, WRONG, NotHere, Outcome
from .vectors import VECTORS

PATIENCE = 400  # seconds of Chromium for a page
CONTROL = "<img src=x onerror=window.HIT({n})><img src={url}>"  # in no way cleaned: it must run and ask
NOTES = """
window.HIT = n => document.documentElement.setAttribute('data-hit-' + n, '');
window.alert = window.confirm = window.prompt = () => HIT('dialog');
addEventListener('load', () => {
  document.querySelectorAll('details').forEach(part => part.open = true);
  for (const kind of ['mouseover', 'pointerenter', 'focus', 'click'])
    document.querySelectorAll('main *').forEach(part =>
      kind == 'click' && !part.matches('.press, [href^="data:"], [href*="script"]') ? 0
        : part.dispatchEvent(new MouseEvent(kind, {bubbles: kind == 'click', cancelable: true})));
  document.documentElement.setAttribute('data-loaded', '');
});
"""
Place = Callable[[str, int, Path], Any]


@dataclass(frozen=True)
class Hostile:
    """A vector in a place, with the number that it is known by."""

    number: int
    place: str
    vector: str

    def text(self, base: str) -> str:
        """The vector with its number and address."""
        return self.vector.format(n=self.number, url=f"{base}/out/{self.number}")


def outcomes(short: bool) -> Iterator[Outcome]:
    """Each vector in each place; the short form takes some of the vectors."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise NotHere("no Chromium")
    chosen = VECTORS[::12] if short else VECTORS
    places = [(place, vector) for vector in chosen for place in PLACES]
    hostile = [Hostile(number, place, vector) for number, (place, vector) in enumerate(places, 1)]
    with tempfile.TemporaryDirectory(prefix="tpsnet-pages-") as folder, asked() as (base, requests):
        for policy in (True, False):
            html = with_notes(rendered(hostile, base, Path(folder)), policy)
            ran, called = browsed(chromium, html, base, requests, Path(folder))
            for each in hostile:
                said = f"{each.place}: {each.vector[:100]}"
                ended = RAN if {str(each.number)} & (ran | called) or "dialog" in ran else HELD
                yield Outcome(f"{'page' if policy else 'page without policy'}, {each.number}", ended, said)
        control = f"<!DOCTYPE html><main>{Hostile(999_999, '', CONTROL).text(base)}</main>"
        ran, called = browsed(chromium, with_notes(control, False), base, requests, Path(folder))
        if ran != {"999999"} or called != {"999999"}:
            yield Outcome("a page that is not cleaned", WRONG, f"it was not seen: {ran}, {called}")


def rendered(hostile: list[Hostile], base: str, folder: Path) -> str:
    """The report of all of them, by its own code. Each stands in a notebook, section or record of its own, so that none
    swallows the next; images without alternative text, for which a page is refused, are let pass."""
    chapters: list[Path] = []
    sections: list[page.Section] = []
    records: list[Record] = []
    last: list[page.Section] = []
    for each in hostile:
        made = PLACES[each.place](each.text(base), each.number, folder)
        if isinstance(made, Path):
            chapters.append(made)
        elif isinstance(made, Record):
            records.append(made)
            sections.append(page.Section(made.hardware, landing._own_run(made), f"own{each.number}"))
        else:
            last.append(page.Section(each.text(base), made, f"last{each.number}"))
    chapter, tidy = page.chapter, page.tidy
    words = " ".join(each.text(base) for each in hostile)
    meta = {"title": words, "question": words, "footer": words, "host": words, "hardware": words}
    with (
        mock.patch.object(page, "chapter", lambda path, problems, *more, **named: chapter(path, [], *more, **named)),
        mock.patch.object(page, "tidy", lambda soup, name, problems: tidy(soup, name, [])),
    ):
        return page.render(sections, chapters, records, meta, last)


def _notebook(cell: Any, number: int, folder: Path) -> Path:
    path = folder / f"{number:02}_a.ipynb"
    nbformat.write(new_notebook(cells=[cell]), path)
    return path


def _output(kind: str, text: str, number: int, folder: Path, **metadata: Any) -> Path:
    shown = new_output("display_data", data={kind: text}, metadata=metadata)
    return _notebook(new_code_cell("x", outputs=[shown]), number, folder)


def in_record(text: str, number: int, folder: Path) -> Record:
    """A record whose machine, data set, moment and host are the vector."""
    config = parse({"model": "classroom", "train": {"precision": "fp32"}, "seed": number})
    numbers = dict.fromkeys(("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"), 0.5)
    measured = {**numbers, "parameters": 1, "macs": 1, "seconds": 1.0, "epochs": 1.0, "images_per_second": 1.0}
    made = dict.fromkeys(("hardware", "started", "host", "commit", "device", "finished", "command"), text)
    return Record(folder, config, measured, {**made, "fingerprint": {"stamp": text, "sha256": text}}, ({text: 1.0},))


def in_experiment(text: str, number: int, folder: Path) -> str:
    """The sections on experiments and openings, of an experiment whose name and question are the vector."""
    run = experiments.Run(text, replace(RunConfig(), seed=number), {})
    made = experiments.Experiment(name=text, question=f"{text} `{text}`", priority=1, runs=[run])
    line = {"opened": text, "record": text, "experiment": text, "declaration": text}
    with (
        mock.patch.object(experiments, "all_experiments", return_value=[made]),
        mock.patch.object(openings, "all_openings", return_value=[line]),
        mock.patch.object(openings, "scored_again", return_value=[]),
    ):
        return closing._pending(Store(folder / "none")) + closing._openings(Store(folder / "none"), {})


SVG = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><title>{0}</title>{0}</svg>"
PLACES: dict[str, Place] = {
    "notebook's markdown": lambda text, *where: _notebook(new_markdown_cell(f"# T\n\n{text}"), *where),
    "HTML output": lambda text, *where: _output("text/html", text, *where),
    "SVG output": lambda text, *where: _output("image/svg+xml", SVG.format(text), *where),
    "description of a figure": lambda text, *where: _output(
        "image/svg+xml", SVG.format(""), *where, alt=text, caption=text, records=[text], provenance=text
    ),
    "record": in_record,
    "experiment and opening": in_experiment,
}


def with_notes(html: str, policy: bool) -> str:
    """The page with this test's script let in, under its own policy or under none."""
    found = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', html)
    if found and not policy:
        html = html.replace(found[0], "")
    elif found:
        html = html.replace(found[0], found[0].replace("default-src", "script-src 'nonce-notes'; default-src"))
    head = f'<script nonce="notes">{NOTES}</script>'
    return html.replace("<title>", f"{head}<title>", 1) if "<title>" in html else head + html


class asked:  # noqa: N801 - used as a function
    """A server on this machine and the paths that it is asked for; `pages` are what it serves."""

    def __enter__(self) -> tuple[str, Requests]:
        self.requests = Requests()
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.paths.append(self.path)
                body = requests.pages.get(self.path, b"")
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}", self.requests

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Requests:
    """What a server serves, and what it was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.paths: list[str] = []


def browsed(chromium: str, html: str, base: str, requests: Requests, folder: Path) -> tuple[set[str], set[str]]:
    """The numbers of the vectors that ran, and of those that asked the server, when Chromium opened a page."""
    requests.pages["/page"] = html.encode("utf-8", "replace")
    requests.paths.clear()
    call = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ]
    call += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", f"{base}/page"]
    try:
        done = subprocess.run(call, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotHere(f"Chromium did not finish a page in {PATIENCE} s") from error
    dom = done.stdout.decode("utf-8", "replace")
    root = re.search(r"<html[^>]*>", dom)
    if root is None or "data-loaded" not in root[0]:
        raise NotHere(f"Chromium did not load the page: {done.stderr.decode('utf-8', 'replace')[-300:]}")
    called = {path.split("/")[2] for path in requests.paths if path.startswith("/out/")}
    return set(re.findall(r"data-hit-(\w+)", root[0])), called
