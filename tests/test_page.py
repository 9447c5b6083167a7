"""What a reader can rely on: the page stands alone, says what its images show, and its links lead somewhere."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import matplotlib as mpl
import nbformat
import pytest
from bs4 import BeautifulSoup
from IPython.display import Code
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

mpl.use("Agg")
from matplotlib.figure import Figure

from tpsnet_lib.config_parsing import parse
from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.plots import style
from tpsnet_lib.report import elements, page
from tpsnet_lib.runs.records import committed_folder

META = {
    "title": "A report",
    "question": "How good?",
    "started": "2026-11-23",
    "stamp": "shapes10",
}


def drawing() -> Figure:
    fig = Figure(figsize=(3, 2))
    fig.subplots().plot([1, 2])
    return fig


def png(**saved: Any) -> str:
    buffer = io.BytesIO()
    drawing().savefig(buffer, format="png", dpi=40, **saved)
    return base64.b64encode(buffer.getvalue()).decode()


def shown(data: dict[str, str], metadata: dict[str, Any] | None = None, source: str = "show()", **cell: Any) -> Any:
    output = new_output("display_data", data=data, metadata=metadata or {})
    return new_code_cell(source, outputs=[output], metadata=cell)


def notebook(folder: Path, name: str, *cells: Any) -> Path:
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=list(cells), metadata={"papermill": {"duration": 75.0}}), path)
    return path


def record(seed: int, accuracy: float, fit_on: str = "split", path: Path = Path()) -> Any:
    train = {"epochs": 30, "precision": "bf16"}
    config = parse({"model": "model1", "train": train, "data": {"fit_on": fit_on}, "seed": seed})
    return SimpleNamespace(
        id=config.id,
        group_id=config.group_id,
        config=config,
        metrics={"validation_accuracy": accuracy, "parameters": 4865580, "seconds": 75.0},
        validation_accuracy=None if fit_on == "all" else accuracy,
        seconds=75.0,
        hardware="two cores",
        stamp="CIFAR-10",
        path=path,
        history=lambda: [
            {"epoch": 1, "train_loss": 2.25, "validation_loss": 2},
            {"epoch": 2, "train_loss": 1.5, "validation_loss": 1.25},
        ],
    )


def soup_of(*notebooks: Path, sections: Any = (), records: Any = ()) -> BeautifulSoup:
    html = page.render(sections, notebooks, records, META)
    assert page.faults(html) == []
    return BeautifulSoup(html, "html.parser")


def test_the_page_stands_alone_and_shows_every_part(tmp_path):
    run = record(0, 0.88)
    rows = [{"claim": "<b>deep</b> & narrow", "n": 4959770, "ours": elements.record_link(run.id)}]
    figure = elements.figure(style.describe(drawing(), alt="A rising line.", caption="Rises.", records=[run]))
    answer = elements.Section(
        "The answer", elements.table(rows, {"claim": "Claim", "n": "Parameters", "ours": "Ours"}) + figure, "answer"
    )
    first = notebook(
        tmp_path,
        "01_data",
        new_markdown_cell("# Data\n\n## Split\n\nText."),
        shown({"image/png": png()}, alt="A line."),
    )
    path = page.write(tmp_path / "out" / "index.html", page.render([answer], [first], [run], META))
    soup = BeautifulSoup(path.read_text("utf-8"), "html.parser")
    assert soup.title.text == "A report"
    assert [heading.text for heading in soup("h2")] == ["The answer", "Data", "Records"]
    assert [link["href"] for link in soup.nav("a")] == ["#answer", "#nb01", "#nb01-split", "#records"]
    assert "shapes10" in soup.select_one(".facts").text
    assert soup.select_one(".notebook .eyebrow").text == "Notebook 01_data.ipynb"
    assert "<b>deep</b> & narrow" in soup.table.text
    assert soup.select_one("td.number").text == "4,959,770"
    assert len(soup.select(f'a[href="#record-{run.id}"]')) == 2
    assert not re.search("https?:", path.read_text("utf-8"))


def test_headings_of_two_notebooks_with_one_name_have_ids_of_their_own(tmp_path):
    text = "# Title\n\n## Same\n\n## Same\n\n[up](#Same) [other](02_b.ipynb) [file](../README.md)"
    soup = soup_of(*(notebook(tmp_path, name, new_markdown_cell(text)) for name in ("01_a", "02_b")))
    assert [heading["id"] for heading in soup("h3")] == ["nb01-same", "nb01-same-2", "nb02-same", "nb02-same-2"]
    assert [link["href"] for link in soup.article("a", href=True)][:2] == ["#nb01-same-2", "#nb02"]


def test_formulas_become_mathml_and_dollars_in_code_stay(tmp_path):
    text = "# M\n\nInline $x_l^2$ and\n\n$$\\sum_{i=1}^n x_i$$\n\n`$HOME$`"
    soup = soup_of(notebook(tmp_path, "01_m", new_markdown_cell(text)))
    assert [math["display"] for math in soup("math")] == ["inline", "block"]
    assert soup.munderover is not None
    assert soup.main.code.text == "$HOME$"
    assert "$x" not in soup.main.text


@pytest.mark.parametrize("tex", ["x^", "\\left(x", "\\nosuch x"])
def test_a_formula_that_cannot_be_read_is_refused_by_name(tmp_path, tex):
    path = notebook(tmp_path, "01_m", new_markdown_cell(f"${tex}$"))
    with pytest.raises(TpsnetError, match=r"01_m.ipynb: formula"):
        page.render([], [path], [], META)


def test_links_to_papers_stay_links_and_nothing_is_loaded_from_them(tmp_path):
    text = "# L\n\n[He 2015](https://arxiv.org/abs/1512.03385), https://example.org/"
    soup = soup_of(notebook(tmp_path, "01_l", new_markdown_cell(text)))
    links = [(link["href"], link.text) for link in soup.select("main .notebook a")]
    assert links[0] == ("https://arxiv.org/abs/1512.03385", "He 2015")
    assert "default-src 'none'" in soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]


@pytest.mark.parametrize(
    ("data", "metadata", "cell"),
    [
        ({"image/png": png()}, {"image/png": {"alt": "said"}}, {}),
        ({"image/png": png()}, {"alt": "said"}, {}),
        ({"image/png": png()}, {}, {"alt": "said"}),
        ({"image/png": png(metadata={"Title": "said"})}, {}, {}),
        ({"image/svg+xml": "<svg><title>said</title></svg>"}, {}, {}),
    ],
)
def test_alternative_text_comes_from_output_cell_or_the_image_itself(tmp_path, data, metadata, cell):
    soup = soup_of(notebook(tmp_path, "01_i", shown(data, metadata, **cell)))
    assert soup.img["alt"] == "said"


def test_images_without_alternative_text_are_refused_with_their_cells(tmp_path):
    bare = shown({"image/png": png()})
    text = new_markdown_cell(f"![](data:image/png;base64,{png()})")
    with pytest.raises(TpsnetError, match=r"2 fault\(s\): 01_i.ipynb, cell 1: .*; 01_i.ipynb, cell 2: "):
        page.render([], [notebook(tmp_path, "01_i", bare, text)], [], META)
    figure = elements.figure(style.describe(drawing(), alt=" ", caption=""))
    with pytest.raises(TpsnetError, match="section made: an image without alternative text"):
        page.render([page.Section("Made", figure, "made")], [], [], META)


def test_a_line_of_markdown_becomes_html_and_all_else_is_escaped():
    html = elements.inline_markdown("**a** *b* `c` [d](https://e.org) <f> [g](javascript:h)")
    marked = '<strong>a</strong> <em>b</em> <code>c</code> <a href="https://e.org">d</a>'
    assert html == f"{marked} &lt;f&gt; [g](javascript:h)"


def test_code_is_folded_under_the_number_of_its_lines_and_noise_is_left_out(tmp_path):
    outputs = [
        new_output("stream", name="stderr", text="progress 1%"),
        new_output("stream", name="stdout", text="10%\r100%\nkept\n"),
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "a widget"}),
        new_output("display_data", data={"application/javascript": "alert(1)"}),
        new_output("display_data", data={"text/html": "<script>alert(1)</script><p onclick='x()'>shown</p>"}),
    ]
    cell = new_code_cell("first = 1\nsecond = 2", outputs=outputs)
    soup = soup_of(notebook(tmp_path, "01_c", cell))
    assert soup.details.summary.text == "Code, 2 lines"
    assert not soup.details.has_attr("open")
    assert "second" in soup.details.select_one(".highlight").text
    assert soup.select_one(".output pre").text.strip() == "100%\nkept"
    assert "shown" in soup.main.text
    assert "progress" not in soup.main.text
    assert "widget" not in soup.main.text


def test_code_is_the_same_with_marks_only_where_they_have_a_colour(tmp_path):
    source = 'def area(side):\n    return side**2  # "squared"'
    soup = soup_of(notebook(tmp_path, "01_c", new_code_cell(source)))
    code = soup.select_one(".highlight pre")
    assert code.text.strip() == source
    assert {tuple(word["class"]) for word in code("span", class_=True)} == {("k",), ("nf",), ("mi",), ("c1",)}


def test_code_that_a_cell_shows_brings_no_style_of_its_own(tmp_path):
    code = Code("def area(side): ...", language="python")._repr_html_()
    table = "<style>#T_1_row0 {color: red}</style><table id='T_1'><tr><td id='T_1_row0'>1</td></tr></table>"
    soup = soup_of(notebook(tmp_path, "01_c", *(shown({"text/html": html}) for html in (code, table))))
    assert "<style>" in code
    assert soup.main("style") == []
    assert soup.select_one(".output_html .highlight .nf").text == "area"


def test_what_is_said_to_whoever_sits_before_the_notebook_stays_there(tmp_path):
    text = (
        "# T\n\nWhy. *Predict:* is it **more**? Then this.\n\n**Afterwards you can** do it.\n\n"
        "*Predict first: which?*\n\n| | |\n| --- | --- |\n| **Reads** | it |\n\n"
        "A layer. **Task 2. Write the\nlayer** here.\n\n### Task 3: more\nDo it.\n\n"
        "## Summary\n- a lesson\n\n**Read next.** A paper.\n\n## Kept\n\nA *predicted* value of **Task force**."
    )
    soup = soup_of(notebook(tmp_path, "01_t", new_markdown_cell(text)))
    said = " ".join(soup.select_one(".notebook .prose").text.split())
    assert said == "Why. Then this. A layer. Kept A predicted value of Task force."


def test_code_that_a_cell_shows_is_folded_as_its_own_is(tmp_path):
    shown_code = Code("def area(side):\n    return side", language="python")._repr_html_()
    soup = soup_of(notebook(tmp_path, "01_c", shown({"text/html": shown_code})))
    folded = soup.select_one(".output details.code")
    assert folded.summary.code.text == "def area(side):"
    assert "return" in folded.select_one(".highlight").text


@pytest.mark.parametrize(("rows", "folded"), [(6, False), (7, True)])
def test_a_long_table_waits_under_the_number_of_its_rows(tmp_path, rows, folded):
    html = f"<table><tbody>{'<tr><td>1</td></tr>' * rows}</tbody></table>"
    soup = soup_of(notebook(tmp_path, "01_t", shown({"text/html": html})))
    assert (soup.table.find_parent("details") is not None) == folded
    assert ("7 rows" in soup.main.text) == folded


def test_the_state_of_the_data_is_said_in_the_first_chapter_alone(tmp_path):
    line = new_output("display_data", data={"text/markdown": "Data: **CIFAR-10**, 50,000 training images."})
    cell = new_code_cell("open()", outputs=[line])
    soup = soup_of(*(notebook(tmp_path, name, cell) for name in ("01_a", "02_b")))
    assert ["50,000" in chapter.text for chapter in soup.select(".notebook")] == [True, False]


def test_an_italic_line_under_a_figure_is_its_caption(tmp_path):
    image = new_output(
        "display_data", data={"image/png": png(), "text/plain": "a"}, metadata={"image/png": {"alt": "a"}}
    )
    said = [
        new_output("display_data", data={"text/markdown": text}) for text in ("*CIFAR-10, n = 3.*", "*Not* a caption.")
    ]
    soup = soup_of(notebook(tmp_path, "01_f", new_code_cell("show()", outputs=[image, *said])))
    assert soup.figcaption.text == "Figure 1.1. CIFAR-10, n = 3."
    assert soup.main.text.count("n = 3") == 1
    assert soup.select_one(".output_markdown").text.strip() == "Not a caption."


def test_a_pandas_table_scrolls_and_its_numbers_stand_to_the_right(tmp_path):
    html = (
        '<div><style scoped>th {color: red}</style><table border="1" class="dataframe"><thead>'
        '<tr style="text-align: right;"><th></th><th>class</th><th>n</th></tr></thead>'
        "<tbody><tr><th>0</th><td>cat</td><td>4,500</td></tr></tbody></table></div>"
    )
    soup = soup_of(notebook(tmp_path, "01_t", shown({"text/html": html, "text/plain": "no"})))
    assert soup.table.parent["class"] == ["scroll"]
    assert soup.table.attrs == {}
    assert [cell.text for cell in soup.table.select(".number")] == ["n", "4,500"]
    assert soup.main.style is None


def test_a_number_with_its_interval_is_marked_so_that_it_stays_in_one_line_and_a_phone_may_break_it(tmp_path):
    cells = ("N=3 over N=2", "+1.1 points (+0.8 to +1.3)".replace(" ", "\u00a0"))
    html = f"<table><tbody><tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr></tbody></table>"
    soup = soup_of(notebook(tmp_path, "01_t", shown({"text/html": html, "text/plain": "no"})))
    assert [cell.text for cell in soup.table.select(".whole")] == ["+1.1 points (+0.8 to +1.3)"]


@pytest.mark.parametrize(("columns", "labels"), [(4, []), (5, ["", "b", "c", "d", "e"])])
def test_a_row_of_a_wide_table_is_a_card_whose_cells_name_their_columns(tmp_path, columns, labels):
    heads, cells = "".join(f"<th>{name}</th>" for name in " bcde"[:columns]), "<td>1</td>" * columns
    html = f"<table><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table>"
    soup = soup_of(notebook(tmp_path, "01_t", shown({"text/html": html, "text/plain": "no"})))
    assert soup.table.attrs == ({"class": ["cards"]} if labels else {})
    assert [cell["data-label"] for cell in soup.select("[data-label]")] == labels


def test_the_appendix_groups_records_by_all_but_the_seed_and_carries_their_histories():
    runs = [record(seed, accuracy) for seed, accuracy in ((1, 0.89), (0, 0.88))]
    soup = soup_of(records=runs)
    group = soup.select_one(".group").text
    assert "model=model1 train.epochs=30 train.precision=bf16" in group
    assert "n = 2; validation accuracy 88.50%" in group
    assert "4,865,580 parameters; CIFAR-10" in group
    assert [row["id"] for row in soup.select("tr[id]")] == [f"record-{runs[1].id}", f"record-{runs[0].id}"]
    csv = unquote(soup.select_one("a[download]")["href"].removeprefix("data:text/csv,"))
    assert csv == "epoch,train_loss,validation_loss\n1,2.25,2\n2,1.5,1.25\n"


def test_a_group_has_the_name_that_its_experiment_gives_it_and_an_anchor():
    run = record(0, 0.88)
    html = page.render([], [], [run], META, names={run.id: "search_classroom, draw 27"})
    head = BeautifulSoup(html, "html.parser").select_one(".group th")
    assert head.b.text == "search_classroom, draw 27"
    assert head["id"] == f"group-{run.group_id}"


def test_an_id_in_a_sentence_leads_to_its_record_and_a_new_one_says_so(tmp_path):
    made, kept = record(0, 0.88), record(1, 0.88, path=committed_folder() / "search.trials.jsonl")
    text = new_markdown_cell(f"Record {made.id} and `{kept.id}`, not {'0' * 12}.")
    prose = soup_of(notebook(tmp_path, "01_r", text), records=[made, kept]).select_one(".prose")
    assert [link["href"] for link in prose("a")] == [f"#record-{made.id}", f"#record-{kept.id}"]
    said = " ".join(prose.text.split())
    assert said == f"Record {made.id} (new, not committed) and {kept.id}, not 000000000000."


def test_the_records_of_a_figure_stand_by_the_row_that_they_are_of(tmp_path):
    told = {"records": ["a1", "b1", "b2"], "rows": {"draw 10 <Muon>": ["b1", "b2"], "draw 9": ["a1"]}}
    cell = shown({"image/png": png()}, {"alt": "a", "caption": "Rises.", **told})
    folded = soup_of(notebook(tmp_path, "01_r", cell)).figcaption.details
    assert " ".join(folded.text.split()) == "Data Records: draw 9: a1; draw 10 <Muon>: b1 b2"


def test_the_method_of_an_interval_waits_with_the_data_and_is_said_once(tmp_path):
    fold = '<details class="method"><summary>Method</summary>n = 10 images.</details>'
    cell = shown({"text/markdown": f"It **holds**.\n\n{fold}"}, {"provenance": "n = 10 images."})
    step = soup_of(notebook(tmp_path, "01_r", cell)).select_one(".step .output")
    assert " ".join(step.text.split()) == "It holds. Data n = 10 images."


LINKS = {"measured": "data-rank", "nowhere": "data-other", "there": "cell-id=rank"}


def test_the_records_of_a_finding_fold_away_under_it_and_a_link_leads_into_them(tmp_path):
    run = record(0, 0.9)
    rows = {"draw 10": [run.id], "draw 9": []}
    cell = shown({"text/markdown": "It **holds**."}, {"records": [run.id], "rows": rows, "provenance": "n = 1 run"})
    cell["id"] = "rank"
    links = ", ".join(f"[{name}](03_search.ipynb#{to})" for name, to in LINKS.items())
    there = new_markdown_cell(f"It is {links}.")
    soup = soup_of(notebook(tmp_path, "03_search", cell), notebook(tmp_path, "04_end", there), records=[run])
    fold = soup.find(id="nb03-data-rank").find_parent("details")
    assert fold["class"] == ["sources"]
    assert [row.select_one(".short").text for row in fold.select(".row")] == ["draw 9", "draw 10"]
    assert fold.find("a")["href"] == f"#record-{run.id}"
    assert [link.text for link in soup.select('a[href="#nb03-data-rank"]')] == ["measured"]
    assert not soup.select('a[href="#nb03-data-other"]')
    assert soup.find(id=soup.find("a", string="there")["href"].removeprefix("#"))


def test_runs_that_were_fitted_on_all_images_come_first_and_show_no_validation():
    runs = [record(0, 0.99), *(record(seed, 0.987, "all") for seed in (0, 1))]
    soup = soup_of(records=runs)
    assert [row["id"] for row in soup.select("tr[id]")] == [f"record-{run.id}" for run in (*runs[1:], runs[0])]
    groups = [group.text for group in soup.select(".group")]
    assert "data.fit_on=all" in groups[0]
    assert "n = 2" in groups[0]
    assert "accuracy" not in groups[0]
    rows = [[cell.text for cell in row("td")] for row in soup.select("tr[id]")]
    assert [row[2] for row in rows] == ["fitted", "fitted", "99.00"]
    links = [unquote(link["href"]) for link in soup.select("a[download]")]
    assert ["validation" in link for link in links] == [False, False, True]


def test_runs_that_were_opened_show_their_test_accuracy_and_trials_the_file_that_they_are_in():
    runs = [record(seed, 0.88, path=Path("records/search.trials.jsonl")) for seed in (0, 1)]
    tests = {
        run.id: {"accuracy": 0.9532 + gain, "exact_accuracy": 0.9522 + gain, "exact_correct": right, "exact_n": 9979}
        for run, gain, right in zip(runs, (0, 0.0002), (9502, 9504), strict=True)
    }
    html = page.render([], [], runs, META, tests=tests)
    soup = BeautifulSoup(html, "html.parser")
    assert [row("td")[3].text for row in soup.select("tr[id]")] == ["95.32", "95.34"]
    assert soup.select("#records thead th")[3].text.replace("\xad", "") == "Test accuracy"
    group = soup.select_one(".group").text
    assert "test accuracy 95.33%" in group
    assert "of 9,979 test images with the original pixels 9,502, 9,504 right, 95.23%" in group
    assert group.endswith("search.trials.jsonl")


def test_a_verdict_has_the_colour_that_it_has_in_figures():
    style_sheet = soup_of(sections=[elements.Section("s", elements.verdict("does not hold"), "s")]).style.text
    for name, colour in style.VERDICTS.items():
        assert f".{name.replace(' ', '-')}{{--verdict:{colour}}}" in style_sheet


def test_a_figure_that_stands_before_the_chapters_is_referred_to(tmp_path):
    figure = elements.figure(
        style.describe(drawing(), alt="A rising line.", caption="Rises.", records=[record(0, 0.88)])
    )
    again = shown({"image/png": png()}, {"alt": "A rising line.", "caption": "Rises."})
    other = shown({"image/png": png()}, {"alt": "A falling line.", "caption": "Falls."})
    soup = soup_of(notebook(tmp_path, "01_r", again, other), sections=[elements.Section("s", figure, "s")])
    assert [caption.b.text for caption in soup("figcaption")] == ["Figure 1. ", "Figure 1.1. "]
    assert [link["href"] for link in soup.select(".notebook p > a")] == ["#figure-1"]
    assert soup.select_one("#figure-1 figcaption").text.startswith("Figure 1. Rises.")


def test_a_folded_table_has_no_number():
    html = "<table><caption>One.</caption></table><details><table><caption>Two.</caption></table></details>"
    soup = soup_of(sections=[elements.Section("s", html + elements.table([], ["a"], "Three."), "s")])
    assert [caption.text for caption in soup("caption")] == ["Table 1. One.", "Two.", "Table 2. Three."]


def test_a_link_to_a_record_that_is_not_listed_becomes_text(tmp_path):
    ids = ["abc123", *(f"b{n}" for n in range(61))]
    cell = shown({"image/png": png()}, {"alt": "a", "caption": "Rises.", "records": ids})
    soup = soup_of(notebook(tmp_path, "01_r", cell))
    assert soup.figcaption.text.startswith("Figure 1.1. Rises.")
    assert soup.figcaption.details.text.split()[:2] == ["Data", "Records:"]
    assert "b59 b60 and more, 62 in all" in soup.figcaption.text
    assert soup.figcaption.a is None


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ("<script>1</script>", "script"),
        ("<img alt='a' src='https://example.org/a.png'>", "outside address"),
        ("<a href='javascript:1'>x</a>", "outside address"),
        ("<p onclick='x()'></p>", "script"),
        ("<style>p {background: url(//example.org/a)}</style>", "outside address"),
        ("<p id='a'></p><p id='a'></p>", "twice"),
    ],
)
def test_a_page_that_does_not_stand_alone_is_not_written(tmp_path, html, fault):
    with pytest.raises(TpsnetError, match=fault):
        page.write(tmp_path / "index.html", html)
    assert not (tmp_path / "index.html").exists()


def test_a_page_over_the_limit_is_written_with_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "SIZE_LIMIT", 10)
    page.write(tmp_path / "index.html", "<p>more than ten bytes</p>")
    assert "use smaller figures" in capsys.readouterr().err


HOSTILE = [
    "<!--><img src=x onerror=alert(1)>-->",
    "<!---><script>1</script>",
    "<p>a--!><img src=x onerror=alert(1)>",
    "<![CDATA[><img src=x onerror=alert(1)>]]>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    '<svg><a><animate attributeName=href values="javascript:alert(1)"/><text>x</text></a></svg>',
    "<p style='background:u\\72l(http://example.org)'>x</p>",
    "<a href='#top' ping='http://example.org'>x</a>",
    "<svg><rect fill='url(http://example.org)'/></svg>",
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    "<img src='data:text/html,<script>1</script>' alt=x>",
    "<a href='data:text/html,<script>1</script>'>x</a>",
    "<a href='jav&#x09;ascript:alert(1)'>x</a>",
    "<form action='http://example.org'><button>x</button></form>",
    "<iframe srcdoc='<script>1</script>'></iframe>",
    "<meta http-equiv=refresh content='0;url=http://example.org'>",
    "<base href='http://example.org/'>",
    "<link rel=stylesheet href='http://example.org/a.css'>",
    "<style>body {position: fixed; background: url(http://example.org)}</style>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea><img src=x onerror=alert(1)></textarea>",
    "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "<object data='http://example.org'></object><embed src='http://example.org'>",
    "<video poster='http://example.org/a.png'><source src='http://example.org/a.mp4'></video>",
]


def active(html: str) -> list[str]:
    """What of a page would run or call out, as html5lib, a browser's parser, reads it."""
    soup = BeautifulSoup(html, "html5lib")
    found = [str(tag)[:80] for tag in soup(["script", "iframe", "object", "embed", "form", "base", "link", "video"])]
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            if name.startswith("on") or name in ("ping", "srcdoc", "poster", "style", "fill", "action"):
                found.append(f"{tag.name} {name}={value}")
            if name in ("src", "href") and not re.match(r"#|https?:|mailto:|data:(image/|text/csv)", str(value)):
                found.append(f"{tag.name} {name}={value}")
            if name == "src" and not str(value).startswith("data:image/"):
                found.append(f"{tag.name} {name}={value}")
    return found


@pytest.mark.parametrize("vector", HOSTILE)
def test_nothing_active_gets_in_by_any_way(tmp_path, vector):
    cells = [
        new_markdown_cell(f"# T\n\n{vector}"),
        shown({"text/html": vector}),
        new_code_cell("x", outputs=[new_output("stream", text=vector)]),
    ]
    html = page.render([elements.Section("s", vector, "s")], [notebook(tmp_path, "01_h", *cells)], [], META)
    assert active(html) == []
