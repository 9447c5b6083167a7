"""Everyone can read the page: axe-core in Chromium finds nothing serious, wide and narrow, light and dark, and nothing
has to be scrolled sideways on a phone but code.

It needs Chromium, node and npm; without them it is skipped, unless TPSNET_AXE=1 says that they must be there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tpsnet_lib.files import project_root
from tpsnet_lib.report import closing, landing, page
from tpsnet_lib.runs.records import Record, Store, committed_folder

HERE = Path(__file__).parent / "axe"
FAULTY = (
    '<!DOCTYPE html><html lang="en"><title>t</title><style>@media (prefers-color-scheme: dark) {.dark {color: #eee}}'
    "</style><body><main><h1>t</h1><p style='color: #ddd; background: #fff'>pale</p>"
    "<p class='dark' style='background: #fff'>pale where dark is preferred</p><img src='data:,'>"
    "<div class='scroll' tabindex='0' style='overflow-x: auto'><p style='width: 600px'>wide</p></div>"
    "</main></body></html>"
)


@pytest.fixture(scope="module")
def chromium() -> str:
    """The path of an installed Chromium, with what the check needs from npm beside it."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    fault = ""
    if not found or not shutil.which("node") or not shutil.which("npm"):
        fault = "Chromium, node and npm are not all installed"
    elif not (HERE / "node_modules" / "axe-core").is_dir():
        done = subprocess.run(["npm", "ci", "--prefix", str(HERE)], capture_output=True, text=True, check=False)
        fault = "" if done.returncode == 0 else f"npm ci failed: {done.stderr[-300:]}"
    if fault and os.environ.get("TPSNET_AXE"):
        pytest.fail(fault)
    if fault:
        pytest.skip(fault)
    return found


def findings(chromium: str, *pages: Path) -> list[dict[str, object]]:
    call = ["node", str(HERE / "check.mjs"), chromium, *map(str, pages)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_the_committed_page_has_no_serious_finding(chromium: str) -> None:
    assert findings(chromium, project_root() / "report" / "index.html") == []


@pytest.mark.slow
def test_a_page_that_is_made_now_has_none_and_planted_faults_are_found(
    chromium: str, tmp_path: Path, tiny_record: Record
) -> None:
    store = Store(committed_folder())
    sections = landing.sections(store, tiny_record, synthetic=True)
    made, faulty = tmp_path / "made.html", tmp_path / "faulty.html"
    made.write_text(page.render(sections, [], [tiny_record], {"title": "t"}, closing.sections(store)), "utf-8")
    faulty.write_text(FAULTY, "utf-8")
    found = findings(chromium, made, faulty)
    assert {each["path"] for each in found} == {str(faulty)}
    contrast = {(each["width"], each["theme"]): each["count"] for each in found if each["rule"] == "color-contrast"}
    assert contrast == {(1280, "light"): 1, (390, "light"): 1, (1280, "dark"): 2, (390, "dark"): 2}
    assert sum(each["rule"] == "image-alt" for each in found) == 4
    assert [each["where"] for each in found if each["rule"] == "scrolls-sideways"] == [["wide"]]
