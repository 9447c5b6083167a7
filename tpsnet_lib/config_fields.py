"""The fields of a config: their ranges and choices, and the check of every value against them."""

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar

from tpsnet_lib.errors import QUOTED, ConfigError, brief, way_to


def option(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    or_like: str = "",
    odd: bool = False,
) -> Any:
    """A dataclass field with the range or the choices its value is checked against, and whether only odd numbers count;
    `or_like` is a regular expression of what may stand in a choice's place. A text without either may be any."""
    limits = {"low": low, "high": high, "choices": tuple(choices), "or_like": or_like, "odd": odd}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: copy.copy(default), metadata=limits)
    return field(default=default, metadata=limits)


class Checked:
    """Validation shared by the config dataclasses: types are those of the defaults, ranges those of the metadata."""

    section = ""

    def __post_init__(self) -> None:
        for spec in fields(self):  # type: ignore[arg-type]
            default = spec.default_factory() if spec.default_factory is not MISSING else spec.default
            value = getattr(self, spec.name)
            if type(value) is type(default) and value == default:  # most are: a list of experiments parses thousands
                value = default  # 0.0, where -0.0 was given
            else:
                name = f"{self.section}.{spec.name}" if self.section else spec.name
                value = checked(name, value, default, spec.metadata)
            object.__setattr__(self, spec.name, value)


Fields = TypeVar("Fields", bound=Checked)


def from_mapping(kind: type[Fields], tree: Mapping[str, Any]) -> Fields:
    """A mapping as a dataclass of options; a field that it does not have is a `ConfigError`, as a wrong value is."""
    refuse_unknown(kind.section, tree, [spec.name for spec in fields(kind)])  # type: ignore[arg-type]
    return kind(**tree)


SYNONYMS = {  # what people call a field, and its name in one place or another
    "learning_rate": ("lr",),
    "depth": ("blocks",),
    "channels": ("width",),
    "stem": ("width",),
    "width": ("channels",),
    **dict.fromkeys(("skip", "skips", "plain"), ("residual",)),
    "N": ("layers", "blocks"),
    "B": ("blocks",),  # as notebook 02 calls them
    **dict.fromkeys(("w", "C"), ("width", "channels")),
    "F": ("kernels",),
    "K": ("skip_kernels",),
    "P": ("pool",),
}


def way_to_field(word: str, known: Sequence[str]) -> str:
    """What field or variable may have been meant by a word that is not known: the end of a message."""
    meant = [name for name in SYNONYMS.get(word, ()) if name in known]
    return f"did you mean {meant[0]}?" if meant else way_to(word, known)


def refuse_unknown(section: str, tree: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise `ConfigError` for a key that is not known, with what may have been meant."""
    for key in tree:
        if key not in known:
            name = f"{section + '.' if section else ''}{str(key)[:QUOTED]}"
            raise ConfigError(f"{name} is not a field: {way_to_field(str(key), known)}")


def refuse_misplaced_lists(kind: type[Checked], tree: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a list in a field of one value whose name is nearly that of a field of lists."""
    lists = [spec.name for spec in fields(kind) if isinstance(spec.default, tuple)]  # type: ignore[arg-type]
    for key, value in tree.items():
        if isinstance(value, (list, tuple)) and key not in lists and (near := difflib.get_close_matches(key, lists, 1)):
            raise ConfigError(f"{kind.section}.{key} is {brief(value)}, but takes one value: did you mean {near[0]}?")


def checked(name: str, value: Any, default: Any, limits: Mapping[str, Any]) -> Any:
    """A value of the default's type and within its limits; any other is a `ConfigError` that names the field."""
    if default == ():
        return _checked_ids(name, value)
    if isinstance(default, tuple):
        values = value if isinstance(value, (list, tuple)) else (value,)
        if isinstance(value, str) and not value.strip().isdigit():
            raise ConfigError(f"{name} is {brief(value)}: give whole numbers, one a layer, such as {list(default)}")
        if not values:
            raise ConfigError(f"{name} is empty: give one value a layer, such as {list(default)}")
        return tuple(_checked_number(name, item, int, limits) for item in values)
    if isinstance(default, str):
        return _checked_text(name, value, limits)
    for kind, way_out in ((list, "a list"), (dict, "a mapping"), (bool, "true or false")):
        if isinstance(default, kind):
            if not isinstance(value, kind):
                raise ConfigError(f"{name} is {brief(value)}: give {way_out}")
            return value
    return _checked_number(name, value, type(default), limits)


def _checked_ids(name: str, value: Any) -> tuple[str, ...]:
    """Ids in the order of their digits, each once: which order they are written in makes no other run."""
    ids = value if isinstance(value, (list, tuple)) else [value]
    for item in ids:
        if not isinstance(item, str) or not re.fullmatch("[0-9a-f]{12}", item):
            raise ConfigError(f"{name} is {brief(item)}: give ids of records, in quotes, such as '0b25b88ff21a'")
    return tuple(sorted(set(ids)))


def _checked_text(name: str, value: Any, limits: Mapping[str, Any]) -> str:
    """One of the choices, or what is like their pattern; any text where there are neither."""
    choices, pattern = limits["choices"], limits["or_like"]
    is_like = isinstance(value, str) and (re.fullmatch(pattern, value) if pattern else not choices)
    if not is_like and value not in choices:
        way_out = f"choose one of {', '.join(choices)}" if choices else "give text"
        raise ConfigError(f"{name} is {brief(value)}: {way_out}")
    return str(value)


def _checked_number(name: str, value: Any, kind: type[int | float], limits: Mapping[str, Any]) -> int | float:
    """A number of a kind in its range; as YAML reads 1e-3 as a string, a number written so is still a number."""
    try:
        number = kind(value)
        exact = (kind is float or number == float(value)) and not isinstance(value, bool)
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact:
        raise ConfigError(f"{name} is {brief(value)}: give {'a number' if kind is float else 'a whole number'}")
    low, high = limits["low"], limits["high"]
    if not (low is None or number >= low) or not (high is None or number <= high):
        raise ConfigError(f"{name} is {brief(value)}: give a value from {low:g} to {high:g}")
    if limits["odd"] and number % 2 == 0:
        raise ConfigError(f"{name} is {brief(value)}: give an odd number")
    return number
