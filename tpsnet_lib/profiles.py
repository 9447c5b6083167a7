"""Profiles: how much is asked of the notebooks, as data, and the check of a parameter against what profiles give it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpsnet_lib.config_fields import refuse_unknown
from tpsnet_lib.errors import QUOTED, ConfigError, brief
from tpsnet_lib.files import project_root
from tpsnet_lib.plain_yaml import read_yaml

LEAST = {  # of the numbers that 1 is not the least of
    **dict.fromkeys(("epochs", "live_epochs"), 0.001),  # as a config's: a run may end inside an epoch
    "draws": 100,  # of fewer repetitions a spread says little
    "live_draws": 4,  # what does not differ between trials has no effect to show
    "habit_size": 2,  # images: one half chooses the epoch, the other scores it
}
CHOICES = {"precision": ("auto", "fp32", "bf16")}  # of parameters that are words


@dataclass(frozen=True)
class Profile:
    """What one profile of `report/profiles.yaml` asks: common and per-notebook parameters, seconds expected of each
    notebook, and the seconds after which a cell is stopped."""

    name: str
    parameters: dict[str, Any]
    notebooks: dict[str, dict[str, Any]]
    seconds: dict[str, int]
    cell_timeout: int
    machine: str  # that the seconds are of


def profile_names() -> list[str]:
    """The profiles of `report/profiles.yaml`."""
    return list(read_yaml(_file())["profiles"])


def load_profile(name: str, path: Path | None = None) -> Profile:
    """A profile by name, from `report/profiles.yaml` unless another file is given.

    Raises `ConfigError` that names the profile or key and what is known."""
    path = path or _file()
    tree = read_yaml(path)
    try:
        return _profile(name, tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path}: profile {name} has a value of another kind ({brief(error)})") from error


def _file() -> Path:
    return project_root() / "report" / "profiles.yaml"


def _profile(name: str, tree: Mapping[str, Any]) -> Profile:
    refuse_unknown("", tree, ("machine", "profiles"))
    profiles = tree.get("profiles") or {}
    if name not in profiles:
        choices = f"choose one of {', '.join(map(str, profiles))[:QUOTED]}" if profiles else "it has none"
        raise ConfigError(f"profile {name!r} is not there: {choices}")
    asked = profiles[name]
    refuse_unknown(name, asked, ("cell_timeout", "parameters", "notebooks"))
    notebooks = asked.get("notebooks") or {}
    for notebook, entry in notebooks.items():
        refuse_unknown(f"{name}.{str(notebook)[:QUOTED]}", entry, ("seconds", "parameters"))
    return Profile(
        name=name,
        parameters=dict(asked.get("parameters") or {}),
        notebooks={notebook: dict(entry.get("parameters") or {}) for notebook, entry in notebooks.items()},
        seconds={notebook: int(entry["seconds"]) for notebook, entry in notebooks.items() if "seconds" in entry},
        cell_timeout=int(asked.get("cell_timeout", 3600)),
        machine=str(tree.get("machine", "the reference machine"))[:QUOTED],
    )


def profile_values() -> dict[str, dict[str, list[Any]]]:
    """Of each notebook, by its name: what the profiles give each of its parameters, in the order of the profiles."""
    values: dict[str, dict[str, list[Any]]] = {}
    for profile in map(load_profile, profile_names()):
        for notebook, own in profile.notebooks.items():
            for name, value in {**profile.parameters, **own}.items():
                values.setdefault(notebook, {}).setdefault(name, []).append(value)
    return values


def check_parameters(given: Mapping[str, Any]) -> None:
    """Refuse, in the kernel of a notebook, a parameter of another type or range than in the profiles.

    `given`: the notebook's names with their values; it is the one most of whose parameters are among them. Raises
    `ConfigError`."""
    for name, examples in max(profile_values().values(), key=lambda declared: len(declared.keys() & given)).items():
        if name in given and (way_out := refusal(name, given[name], examples)):
            raise ConfigError(f"parameter {name} is {brief(given[name])}: {way_out}")


def refusal(name: str, value: Any, examples: Sequence[Any]) -> str:
    """What to give in place of a parameter's value, in words; empty if it is of the type of the last example, and its
    numbers are at least 1 (or as in `LEAST`), or at least what an example has (0 where that means something)."""
    if isinstance(value, str) and value not in CHOICES.get(name, (value,)):
        return f"choose one of {', '.join(CHOICES[name])}"
    if not _is_like(value, examples[-1]):
        example = examples[len(examples) // 2]  # of `quick`, as the notebook has it
        return f"give a value such as {'[a, b]' if example == [] else brief(example)}"
    least = min([LEAST.get(name, 1), *(number for example in examples for number in _numbers(example))])
    if not all(number >= least for number in _numbers(value)):
        return f"give {'numbers' if isinstance(value, list) else 'a number'} of at least {least:g}"
    return ""


def _numbers(value: Any) -> list[float]:
    """A number, or those of a list."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return [item for item in items if isinstance(item, (int, float)) and not isinstance(item, bool)]


def _is_like(value: Any, expected: Any) -> bool:
    if expected is None:
        return True
    if isinstance(expected, bool) or isinstance(value, bool):
        return isinstance(expected, bool) and isinstance(value, bool)
    if isinstance(expected, float):
        return isinstance(value, (int, float))
    if isinstance(expected, (list, tuple)):
        items = isinstance(value, (list, tuple)) and len(value) > 0
        return items and (not expected or all(_is_like(item, expected[0]) for item in value))
    return isinstance(value, type(expected))
