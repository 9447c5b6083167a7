"""YAML as plain values: nothing in a file builds objects, stands for billions of values or nests without end."""

from pathlib import Path
from typing import Any

import yaml

from tpsnet_lib.errors import ConfigError, brief
from tpsnet_lib.files import read_text

LARGEST_YAML = 2**18  # bytes: PyYAML reads some hundred thousand in a second


class _PlainLoader(yaml.SafeLoader):
    """Plain values, each written out: a few lines of aliases can stand for billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name) is not read: write its value out")
        return super().compose_node(parent, index)


def plain_yaml(text: str) -> Any:
    """A text's YAML as plain values; one that is torn, builds objects, has aliases or is too deep is a `ValueError`."""
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        where = f"line {at.line + 1}, character {at.column + 1}: " if at else ""
        raise ValueError(brief(yaml.YAMLError(f"{where}{error.problem or error.context}"))) from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(brief(error)) from error  # PyYAML lets errors of Python through, such as of `!!int x`


def given_value(option: str, text: str) -> Any:
    """The value of an option of the command line, read as YAML; `ConfigError` names the option, as it was written."""
    try:
        return plain_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{option}: the value is not plain YAML ({error})") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping of plain values; one that builds objects, or is no mapping, is a `ConfigError`."""
    text = read_text(path, LARGEST_YAML, ConfigError)
    try:
        value = plain_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not plain YAML: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {type(value).__name__}: give a mapping of fields")
    return value
