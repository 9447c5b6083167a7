"""The page: its lengths, one value for each quantity, and its numbers and figures as the records have them."""

from __future__ import annotations

import copy
import functools
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import matplotlib as mpl
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure

mpl.use("Agg")
from compare_pages import compare
from test_figures import words

from tpsnet_lib import stats
from tpsnet_lib.analysis import architecture
from tpsnet_lib.analysis.final_runs import Final, leading
from tpsnet_lib.analysis.training import ablation
from tpsnet_lib.data.datasets import image_counts
from tpsnet_lib.files import project_root
from tpsnet_lib.plots import architecture as architecture_plots
from tpsnet_lib.plots import network_drawing, style
from tpsnet_lib.plots.training import ablation as ablation_plot
from tpsnet_lib.plots.training import learning_curves
from tpsnet_lib.report import first_screen, landing
from tpsnet_lib.report.first_screen import VERDICTS, opened_recipes
from tpsnet_lib.report.pictures import slim_svg
from tpsnet_lib.runs.experiments import collect, load_experiment
from tpsnet_lib.runs.records import Record, Store, committed_folder, read_record, read_trials

PATH = project_root() / "report" / "index.html"
HTML = PATH.read_text("utf-8")
PAGE = BeautifulSoup(HTML, "html.parser")  # tests only read it
WORDS, FIGURES, BYTES = 12_000, 45, 4 * 2**20

POINTS = r"([+−]\d[\d.]*(?: points)? \([^)]*\))"
RATIO = r"([\d.]+ \([\d.]+ to [\d.]+\))"
QUANTITIES = {  # what a number claims to be: the places that say it, in the README, before the chapters and in them
    "accuracy of card_broad": [
        r"\(recipe card_ ?broad ?, [\d.]+ million parameters, [\w ]+\) classifies ([\d.]+%)",
        r"\bcard_ ?broad \(ours\) [\d.]+ M ([\d.]+%)",
        r"Over \d seeds the accuracy is ([\d.]+%)",
    ],
    "seeds' range of card_broad": [
        r"correctly: the mean of \d seeds \(([\d.]+) to ([\d.]+)\)",
        r"Over \d seeds the accuracy is [\d.]+% \(seeds: ([\d.]+)% to ([\d.]+)%\)",
    ],
    "seeds of card_broad": [
        r"correctly: the mean of (\d+) seeds",
        r"\bcard_ ?broad \(ours\) [\d.]+ M [\d.]+% (\d+) seeds",
        r"Over (\d+) seeds the accuracy is",
    ],
    "accuracy of two_cores": [
        r"\(recipe two_cores ?, [\d.]+ million\) reaches ([\d.]+%)",
        r"\btwo_ ?cores \(ours\) [\d.]+ M ([\d.]+%)",
    ],
    "card_broad against TPSNet": [
        rf"; the difference is {POINTS}",
        rf"\bcard_ ?broad against [\d.]+% of one run: {POINTS}",
    ],
    "two_cores against TPSNet": [
        rf"reaches [\d.]+% \([^)]*\), against TPSNet {POINTS}",
        rf"\btwo_cores against [\d.]+% of one run: {POINTS}",
    ],
    "whether card_broad is better": [
        r"; the difference is [+−][\d.]+ points \([^)]*\): ([\w ]+?) ?[.(]",
        r"\bcard_ ?broad against [^:]*: [^:]* That it is better: ([\w ]+?) ?\.",
    ],
    "whether two_cores is better": [
        r"reaches [\d.]+% \([^)]*\), against TPSNet [+−][\d.]+ points \([^)]*\): ([\w ]+?) ?\.",
        r"\btwo_cores against [^:]*: [^:]* That it is better: ([\w ]+?) ?\.",
    ],
    "accuracy of the original": [
        r"original, TPSNet, reports ([\d.]+%)",
        r"\bTPSNet 4\.96 M ([\d.]+%)",
        r"The original reports ([\d.]+%) on",
        r"against ([\d.]+%) of one run",
    ],
    "runs whose lowest loss is not the last": [
        r"In (\d+ of) our ([\d,]+) runs another epoch",
        r"By the original's rule (\d+ of) ([\d,]+) runs would",
    ],
    "gain by the lowest loss": [
        r"a run would claim \+([\d.]+) points",
        r"All together would claim \+?([\d.]+) (?:±|points)",
    ],
    "ranking that was cut off": [
        rf"agrees with the last one at a rank correlation of {RATIO}",
        rf"agrees with that at the end at {RATIO}",
        rf"matched, {RATIO} with it cut",
    ],
    "ranking with a schedule of its own": [
        rf"on a schedule of their own agrees at {RATIO}",
        rf"with a schedule of their own at {RATIO}",
        rf"Rank correlation with the long trials: {RATIO}",
    ],
    "pairs of seeds": [
        r"Of our (\d+) pairs of fully trained networks of one recipe with another seed, (\d+) differ",
        r"Of (\d+) pairs of runs of one recipe with another seed, (\d+) are",
    ],
    "spread of seeds": [r"\bstandard deviation ([\d.]+) points\)", r"; one run's standard deviation is (\d+\.\d+)\."],
    "Model 2 against Model 1": [
        rf"images alone the difference is {POINTS}",
        rf"Model 2 \([\d.]+%\) - Model 1 \([\d.]+%\): {POINTS}",
    ],
    "three layers against two": [
        rf"Three residual layers beat two, at matched parameters {POINTS}",
        rf"\b(?:N: N=3 over N=2 [\w ]+|three layers beat two of equal size) {POINTS}",
    ],
    "three layers against four": [
        rf"Three residual layers beat four, at matched parameters {POINTS}",
        rf"\bN: N=3 over N=4 [\w ]+ {POINTS}",
    ],
    "width at one block": [
        rf"Wider is better at one block a layer {POINTS}",
        rf"\bw: w=23 over w=16 [\w ]+ {POINTS}",
    ],
    "SGD against the Adam family": [
        rf"random trials: medians {POINTS}",
        rf"SGD \(0\.01–1\) minus Adam family: {POINTS}",
    ],
    "0.01 among the best rates": [
        rf"random trials: nearest minus random {POINTS}",
        rf"Nearest minus random: {POINTS}",
    ],
    "SGD at 0.01 in the study": [
        rf"0\.01 is among the best rates for SGD, [^(]*? {POINTS}",
        rf"SGD at 0\.01 minus SGD at 0\.3, the best of five rates: {POINTS}",
    ],
    "trials of the search": [
        r"(\d+) trials have a record",
        r"The best fifth of (\d+) trials",
        r"All orders of (\d+) trials",
        r"resamples of (\d+) trials",
        r"random quarter of a panel's trials \((\d+)\)",
    ],
    "inexact images": [r"(\d+) inexact images"],
}


TURNED = "SGD against the Adam family"


def plain(html: str) -> str:
    """The text of a page, folded parts and the README included, with single spaces and none before a stop."""
    soup = BeautifulSoup(html, "html.parser")
    for part in soup(["style", "nav"]):
        part.decompose()
    readme = re.sub(r"[*`]", "", (project_root() / "README.md").read_text("utf-8"))
    text = " ".join(f"{readme} {soup.get_text(' ')}".split())
    return re.sub(r" (?=[.,:;)%])|(?<=\() ", "", text)


TEXT = plain(HTML)


def sightings(text: str, name: str) -> list[re.Match[str]]:
    return [found for pattern in QUANTITIES[name] for found in re.finditer(pattern, text)]


def values(text: str, name: str) -> set[str]:
    """The values that are given; where a chapter speaks of errors and the claims of accuracies, without signs.
    A verdict that the first screen gives in words of its own is the chapters' one."""
    verdicts = {words: verdict for verdict, words in VERDICTS.items()}
    given = (" ".join(each.groups()).replace(" points", "") for each in sightings(text, name))
    found = {verdicts.get(each, each) for each in given}
    return {" ".join(sorted(re.findall(r"[\d.]+", each))) for each in found} if name == TURNED else found


@functools.cache
def visible() -> BeautifulSoup:
    """What a reader sees without unfolding anything: prose, tables, captions and printed results; no bibliography."""
    soup = BeautifulSoup(HTML, "html.parser")
    for part in [*soup(["details", "nav"]), *soup.select("#references")]:
        part.decompose()
    return soup.main


def test_it_keeps_its_lengths() -> None:
    assert len(visible().get_text(" ").split()) <= WORDS
    assert len(PAGE("figure")) <= FIGURES
    assert len(HTML.encode()) <= BYTES


@pytest.mark.parametrize("name", QUANTITIES)
def test_a_quantity_has_one_value_wherever_it_stands(name: str) -> None:
    silent = [pattern for pattern in QUANTITIES[name] if not re.search(pattern, TEXT)]
    assert not silent, "the page says it in other words: change the pattern"
    assert len(sightings(TEXT, name)) >= 2
    assert len(values(TEXT, name)) == 1, [TEXT[found.start() : found.end()] for found in sightings(TEXT, name)]


@pytest.mark.parametrize("name", QUANTITIES)
def test_a_planted_second_value_is_seen(name: str) -> None:
    last = sightings(TEXT, name)[-1]
    if "whether" in name:
        other = stats.DOES_NOT_HOLD if values(TEXT, name) == {stats.HOLDS} else stats.HOLDS
    else:
        other = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), last[1], count=1)
    planted = TEXT[: last.start(1)] + other + TEXT[last.end(1) :]
    assert len(values(planted, name)) == 2


LISTED = set(re.findall(r'id="record-([0-9a-f]{12})"', HTML))
OPENED = {link["href"].removeprefix("#record-") for link in PAGE.select("#openings a[href^='#record-']")}


def unlisted() -> list[Record]:
    """The committed records that the page does not list, failed ones apart: those that are younger than the page."""
    return [each for each in Store(committed_folder()).all() if not each.failed and each.id not in LISTED]


def at_its_commit() -> set[str] | None:
    """The ids of the folders of records in the commit that the page was built from; None where git does not know it."""
    built = re.search(r"<dt>Commit</dt><dd>([0-9a-f]{7,40})", HTML)
    call = ["git", "ls-tree", "-r", "--name-only", built[1] if built else "", "report/records/"]
    try:
        done = subprocess.run(call, cwd=project_root(), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return set(re.findall(r"^report/records/([0-9a-f]{12})/config\.json$", done.stdout, re.MULTILINE))


def keep_what_is_listed(folder: Path) -> None:
    """Take out of a copy of the records what is younger than the page: records, trials, and results of openings."""
    for path in folder.glob("[0-9a-f]*/config.json"):
        if path.parent.name not in LISTED and not read_record(path.parent).failed:
            shutil.rmtree(path.parent)
        elif path.parent.name not in OPENED:
            shutil.rmtree(path.parent / "test", ignore_errors=True)
    for file in folder.glob("*.trials.jsonl"):
        rows = zip(file.read_text("utf-8").splitlines(), read_trials(file).items(), strict=True)
        kept = [line for line, (run_id, record) in rows if run_id in LISTED or record.failed]
        file.write_text("".join(f"{line}\n" for line in kept), "utf-8")


def numbers(soup: BeautifulSoup) -> list[str]:
    for folded in soup("details"):
        folded.decompose()
    return re.findall(r"[+−]?\d(?:[\d,.:]*\d)?", soup.get_text(" "))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The records that the page was made from, whatever was committed since."""
    folder = tmp_path_factory.mktemp("page") / "records"
    shutil.copytree(committed_folder(), folder)
    keep_what_is_listed(folder)
    return Store(folder)


def test_it_lists_every_record_of_its_commit_and_younger_ones_are_named() -> None:
    younger = unlisted()
    if younger:
        names = ", ".join(record.id for record in younger)
        warnings.warn(f"{len(younger)} records are younger than report/index.html: {names}", stacklevel=1)
    count = re.search(r"The newest of its ([\d,]+) committed records is of (\d{4}-\d\d-\d\d)", TEXT)
    committed = [record for record in Store(committed_folder()).all() if record.id in LISTED]
    assert count is not None
    assert int(count[1].replace(",", "")) == len(committed)
    assert count[2] == max(record.provenance["finished"] for record in committed)[:10]
    assert not {record.id for record in younger} & (at_its_commit() or set())


@pytest.mark.slow
def test_its_numbers_before_the_chapters_are_those_of_its_records(store: Store) -> None:
    made = {section.id: section.html for section in landing.sections(store, None, synthetic=False)}
    for name in ("answer", "winner", "claims", "mistakes", "limitations"):
        there = copy.copy(PAGE.find(id=name))
        for part in there(class_="label"):  # figures and tables are numbered when the page is put together
            part.decompose()
        there.h2.decompose()
        assert numbers(there) == numbers(BeautifulSoup(made[name], "html.parser")), name


def test_its_figures_are_those_of_its_records(store: Store) -> None:
    drawn = [unquote(source) for source in re.findall(r'src="data:image/svg\+xml,([^"]*)"', HTML)]
    there = [words(svg.replace("http%3A", "http:")) for svg in drawn]
    made = {name: draw(store) for name, draw in FROM_RECORDS.items()}
    missing = [name for name, figure in made.items() if words(slim_svg(style.svg(figure))) not in there]
    assert not missing


def test_a_figure_with_other_words_is_seen_and_so_is_one_that_is_missing() -> None:
    faults, kinds = compare(HTML, HTML)
    assert not faults
    assert len(kinds["alike"]) >= 25
    few = "</figure>".join(HTML.split("</figure>")[:4])  # its first figures suffice to plant a fault in
    assert not compare(few, few)[0]
    planted = re.sub(r"%3E(9[5-9])%3C/text", "%3E93%3C/text", few, count=1)  # a tick of the first figure
    assert planted != few
    assert compare(few, planted)[0][0].startswith("Figure 1. stands on the same records and has other words")
    assert compare(few, few.replace('<figcaption><b class="label">Figure 2. ', "<figcaption><b>", 1))[0]


def test_a_figure_with_a_time_of_this_machine_says_so_and_other_times_are_no_fault(store: Store) -> None:
    """Another machine, or the same one an hour later, has other times, and so an axis with other ticks."""
    figure = next(part for part in PAGE("figure") if "Larger points are deeper" in part.get_text())
    few = "</figure>".join(HTML.split("</figure>")[:4]) + f"</figure>{figure}"
    slower = re.sub(r"%3E(\d)%3C/text", r"%3E7\1%3C/text", str(figure))
    assert slower != str(figure)
    assert compare(few, few.replace(str(figure), slower))[0] == []


def leader(store: Store) -> Final:
    return leading(opened_recipes(store))[0]


def design_variables(store: Store) -> Figure:
    variables = architecture.design_variables(store).items()
    return architecture_plots.design_variables({symbol: found for symbol, found in variables if len(symbol) == 1})


def learning_curve(store: Store) -> Figure:
    record = leader(store).with_curve
    return learning_curves(record, image_counts(record.config.data)[1])


FROM_RECORDS: dict[str, Callable[[Store], Figure]] = {
    "accuracy": lambda store: first_screen.frontier(opened_recipes(store)),
    "winner": lambda store: network_drawing.draw_network(leader(store).run.model),
    "learning curve": learning_curve,
    "design variables": design_variables,
    "ablation": lambda store: ablation_plot(ablation(collect(load_experiment("ablation_broad"), store)), "card_broad"),
}


def test_a_number_is_traced_to_its_records_by_links() -> None:
    ids = {tag["id"] for tag in PAGE(id=True)}
    assert not [link["href"] for link in PAGE.select("a[href^='#']") if link["href"][1:] not in ids]
    sources = [part.get_text(" ") for part in PAGE.select("figcaption .sources, .claims .sources")]
    named = {found for text in sources for found in re.findall(r"\b[0-9a-f]{12}\b", text)}
    assert len(named) >= 100
    assert named <= LISTED
    openings = [row.get_text(" ") for row in PAGE.select("#openings tbody tr")]
    assert len(openings) >= len(OPENED) > 6
    assert all(re.search(r"\d\.\d\d%", row) for row in openings if set(row.split()) & LISTED)


def test_it_says_its_age() -> None:
    newest = r"The newest of its [\d,]+ committed records is of \d{4}"
    assert re.search(rf"This page was built on \d{{4}}-\d\d-\d\d\. {newest}", TEXT)
    assert "host" not in visible().footer.get_text().lower()
