"""What the project promises of its own files: pins, environments, sizes."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SAME_NAME = """
beautifulsoup4 filelock html5lib hypothesis ipykernel ipython ipywidgets jinja2 jupyterlab latex2mathml
llvmlite markupsafe matplotlib mypy nbclient nbconvert nbformat nbval nh3 numba numpy onnx onnxscript optuna
pandas papermill pillow pytest pytest-xdist pyyaml ruff safetensors scikit-learn scipy seaborn statsmodels torchmetrics
torchvision tqdm types-pyyaml types-tqdm wandb
"""  # on conda-forge as where pip finds them


def pins() -> dict[str, str]:
    """Name and version of each pin, as Python 3.12 takes them."""
    found = {}
    for line in (ROOT / "pins.txt").read_text().splitlines():
        if line.startswith(("#", " ")):  # how it was made, and the hashes
            continue
        name, version, marker = re.fullmatch(r"(\S+?)==([^ ;]+)(?: ; (.*?))? \\", line).groups()  # type: ignore[union-attr]
        if "< '3.12'" not in (marker or ""):
            found[name] = version
    return found


def requirements() -> list[str]:
    """What the project itself asks for, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [item for group in project["optional-dependencies"].values() for item in group]
    return [re.match(r"[\w.-]+", item)[0] for item in asked]  # type: ignore[index]


def test_everything_asked_for_is_pinned() -> None:
    assert set(requirements()) <= set(pins())


def test_the_conda_environment_names_the_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    named = dict(item.split("=") for item in environment["dependencies"] if isinstance(item, str) and "=" in item)
    assert named.pop("python") == "3.12"
    named["torch"], named["ray"] = named.pop("pytorch"), named.pop("ray-tune")  # their names on conda-forge
    named["jupyter-client"] = named.pop("jupyter_client")
    assert named == {name: pins()[name] for name in requirements()}
    assert set(named) - {"torch", "ray", "jupyter-client"} == set(SAME_NAME.split())


@pytest.mark.parametrize(("line", "accepted"), [(None, True), ("--no-deps -e .", False), ("-e", False)])
def test_pip_takes_what_conda_hands_to_it(line: str | None, accepted: bool, tmp_path: Path) -> None:
    """Conda writes the pip block as a requirements file; pip's own reader is asked, and a planted fault is refused."""
    block = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    (tmp_path / "block.txt").write_text("\n".join(block if line is None else [line]))
    code = (
        "import sys\n"
        "from pip._internal.network.session import PipSession\n"
        "from pip._internal.req.req_file import parse_requirements\n"
        "print([each.is_editable for each in parse_requirements(sys.argv[1], PipSession())])\n"
    )
    call = [sys.executable, "-c", code, str(tmp_path / "block.txt")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == accepted, done.stderr
    assert (done.stdout == "[True]\n") == accepted


@pytest.mark.slow
def test_the_engine_runs_where_only_its_packages_are() -> None:
    """Ray, numba, plotting and papermill may be absent, as on a GPU image; pandas comes with statsmodels."""
    code = (
        "import sys\n"
        "for name in 'numba llvmlite matplotlib seaborn papermill nbformat nbconvert sklearn IPython'.split():\n"
        "    sys.modules[name] = None\n"
        "from tpsnet_lib.cli import main\n"
        "from tpsnet_lib.runs import experiments, records, search_space, test_set\n"
        "sys.exit(main.main(['run']))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_tracked_files_stay_small_and_name_no_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    if listed.returncode or not paths:
        pytest.skip("not a git checkout")
    # The shipped weights are most of it. With two packed batches of CIFAR-10 it stays within the 64 MiB that one call
    # carries to a GPU.
    assert sum(path.stat().st_size for path in paths) < 29 * 2**20
    forbidden = re.compile(rb"/(?:home|root|work)/\w|\b(?:pypi|npmjs)[.]org|files[.]python|[.]debian[.]org")
    for path in paths:
        if (
            path.suffix in (".py", ".md", ".ipynb", ".yaml", ".yml", ".toml", ".txt", ".html", ".json")
            and path.name != Path(__file__).name
        ):
            assert not forbidden.search(path.read_bytes()), f"{path} names a machine's path or a registry"
