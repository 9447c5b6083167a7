"""The fields of a config: their ranges and choices, and the check of every value against them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Any

from tpsnet_lib.files import ConfigError, brief


def option(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    or_like: str = "",
) -> Any:
    """A dataclass field with the range or the choices its value is checked against; `or_like` is a regular expression
    of what may stand in a choice's place."""
    return field(default=default, metadata={"low": low, "high": high, "choices": tuple(choices), "or_like": or_like})


def record_ids() -> Any:
    """A dataclass field of the ids of records, by default of none."""
    return field(default=(), metadata={"low": None, "high": None, "choices": ()})


class Checked:
    """Validation shared by the config dataclasses: types are those of the defaults, ranges those of the metadata."""

    section = ""

    def __post_init__(self) -> None:
        for spec in fields(self):  # type: ignore[arg-type]
            value = checked(f"{self.section}.{spec.name}", getattr(self, spec.name), spec.default, spec.metadata)
            object.__setattr__(self, spec.name, value)


def checked(name: str, value: Any, default: Any, limits: Mapping[str, Any]) -> Any:
    if default == ():
        return _checked_ids(name, value)
    if isinstance(default, tuple):
        values = value if isinstance(value, (list, tuple)) else (value,)
        if not values:
            raise ConfigError(f"{name} is empty: give one value a layer, such as {list(default)}")
        return tuple(checked(name, item, 1, limits) for item in values)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} is {brief(value)}: give true or false")
        return value
    if isinstance(default, str):
        if value not in limits["choices"] and not (limits["or_like"] and re.fullmatch(limits["or_like"], str(value))):
            raise ConfigError(f"{name} is {brief(value)}: choose one of {', '.join(limits['choices'])}")
        return value
    try:  # YAML reads 1e-3 as a string: a number written so is still a number
        number = float(value) if isinstance(default, float) else int(value)
        exact = isinstance(default, float) or number == float(value)
    except (TypeError, ValueError, OverflowError):
        number, exact = 0, False
    if not exact or isinstance(value, bool):
        kind = "a number" if isinstance(default, float) else "a whole number"
        raise ConfigError(f"{name} is {brief(value)}: give {kind}")
    low, high = limits["low"], limits["high"]
    if not (low is None or number >= low) or not (high is None or number <= high) or number != number:
        raise ConfigError(f"{name} is {brief(value)}: give a value from {low:g} to {high:g}")
    return number


def _checked_ids(name: str, value: Any) -> tuple[str, ...]:
    """Ids in the order of their digits, each once: which order they are written in makes no other run."""
    ids = value if isinstance(value, (list, tuple)) else [value]
    for item in ids:
        if not isinstance(item, str) or not re.fullmatch("[0-9a-f]{12}", item):
            raise ConfigError(f"{name} is {brief(item)}: give ids of records, in quotes, such as '0b25b88ff21a'")
    return tuple(sorted(set(ids)))
