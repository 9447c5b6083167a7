"""A module of the library imports only from above it, wherever in a file the import stands."""

import ast
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parent.parent / "tpsnet_lib"
ORDER = """
errors
files
whole_files
chapter_copies
old_words
arrays
locks
progress
config_fields
plain_yaml
profiles
config
config_parsing
data/cifar10
data/shapes10
data/own
data/datasets
data/warp
data/trivial_augment
data/random_draws
data/augment
data/batches
data/reference_labels
own_blocks
model_cost
whitening
pointwise
model
fast_cpu/compiler
fast_cpu/instructions
fast_cpu/kernels
fast_cpu/amx
fast_cpu/available
fast_cpu/optimize
device
bf16_products
compile_step
captured_step
stats
metrics
optim
train_state
checkpoint
asam
distillation
train
runs/provenance
runs/record_files
runs/records
runs/load_or_run
runs/openings
runs/publish
runs/export
runs/convert
runs/search_space
runs/experiments
runs/study
runs/test_set
analysis/final_runs
runs/fresh_runs
analysis/peers
runs/wandb_mirror
runs/search_results
runs/round_robin
runs/local_backend
runs/ray_backend
analysis/original_results
analysis/groups
analysis/architecture
analysis/design_predictor
analysis/search
analysis/importance
analysis/recipe_glossary
analysis/training
analysis/tutor
analysis/dataset
analysis/errors
analysis/corruptions
analysis/near_duplicates
plots/phone
plots/style
answer_checks
code_checks
tasks
cell_errors
course
plots/dataset
plots/network_drawing
plots/architecture
plots/parallel_coordinates
plots/search
plots/training
plots/errors
plots/answer
claims/evidence
claims/studies
claims/searches
claims/claims
claims/judge
claims/mistakes
report/run_notebooks
report/pictures
report/elements
report/sanitise
report/student_copies
report/tidy_html
report/notebook_html
report/appendix
report/page
report/limitations
report/design_choices
report/first_screen
report/landing
report/figures
report/closing
report/build
benchmarks/original_loop
benchmarks/step_profile
benchmarks/throughput
benchmarks/card
benchmarks/time_to_accuracy
benchmarks/airbench
cli/kernel_start
cli/setup_venv
cli/parser
cli/network_commands
cli/record_commands
cli/run_commands
cli/report_commands
cli/main
__main__
""".split()  # noqa: SIM905


def modules(library: Path) -> dict[str, Path]:
    """Every module of the library by its place, such as `runs/records`; the folders' `__init__` files say nothing."""
    found = {path.relative_to(library).with_suffix("").as_posix(): path for path in library.rglob("*.py")}
    return {place: path for place, path in found.items() if not place.endswith("__init__")}


@functools.cache
def imported_names(source: str) -> frozenset[str]:
    """What a module imports, also inside functions; `from a import b, c` may name two modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The places that a file imports."""
    for name in imported_names(path.read_text("utf-8")):
        place = name.removeprefix("tpsnet_lib.").replace(".", "/")
        if name.startswith("tpsnet_lib.") and place in known:
            yield place


def violations(library: Path) -> set[tuple[str, str]]:
    """Each module with one that it imports and that does not stand above it."""
    known = modules(library)
    return {
        (place, imported)
        for place, path in known.items()
        for imported in imports(path, known)
        if ORDER.index(imported) >= ORDER.index(place)
    }


def test_every_module_has_its_place() -> None:
    assert sorted(modules(LIBRARY)) == sorted(ORDER)


def test_a_module_imports_only_from_above_it() -> None:
    assert violations(LIBRARY) == set()


@pytest.mark.parametrize(
    ("place", "line", "imported"),
    [
        ("metrics", "from tpsnet_lib import config, train", "train"),  # the second of two names
        ("files", "import tpsnet_lib.model", "model"),
        ("config", "from tpsnet_lib.runs.records import Store", "runs/records"),  # from a folder further down
        ("runs/records", "from tpsnet_lib.runs import experiments", "runs/experiments"),  # within its folder: a circle
        ("data/cifar10", "from tpsnet_lib.data.datasets import load_train", "data/datasets"),  # upward in its folder
        ("train", "def later() -> None:\n    from tpsnet_lib.runs import records", "runs/records"),  # inside a function
    ],
)
def test_a_planted_violation_is_seen(tmp_path: Path, place: str, line: str, imported: str) -> None:
    copy = shutil.copytree(LIBRARY, tmp_path / "tpsnet_lib", ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / f"{place}.py"
    path.write_text(f"{path.read_text('utf-8')}\n\n{line}\n", "utf-8")
    assert violations(copy) == {(place, imported)}
