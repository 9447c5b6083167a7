"""A run config as people write it: nested mappings, names of networks and recipes, and `--set` on the command line."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from tpsnet_lib.config import MEMBERS, RECIPES, DataConfig, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.config_fields import refuse_misplaced_lists, refuse_unknown
from tpsnet_lib.errors import ConfigError, brief
from tpsnet_lib.old_words import current_word
from tpsnet_lib.plain_yaml import given_value

# A section: its class, the field that a bare name stands for, and what the name may be.
_SECTIONS: dict[str, tuple[type[Any], str, Mapping[str, Any]]] = {
    "model": (ModelConfig, "member", MEMBERS),
    "train": (TrainConfig, "recipe", RECIPES),
    "data": (DataConfig, "dataset", {}),
}


def parse(tree: Mapping[str, Any]) -> RunConfig:
    """A nested mapping as a run config. A section may be a name (`model: tpsnet`), or name its base
    (`model: {member: tpsnet, dropout: 0.1}`, `train: {recipe: sprint, epochs: 2}`).

    Raises `ConfigError` that names the field, its value and what is allowed."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"a run is {brief(tree)}: give a mapping with {', '.join(_SECTIONS)} and seed")
    _refuse_other_keys("a run", tree, "model")
    refuse_unknown("", tree, [*_SECTIONS, "seed"])
    parts = {name: _parse_section(name, tree.get(name) or {}) for name in _SECTIONS}
    return RunConfig(seed=tree.get("seed", 0), **parts)


def _parse_section(name: str, tree: Any) -> Any:
    kind, key, bases = _SECTIONS[name]
    if isinstance(tree, str):
        tree = {key: tree}
    if not isinstance(tree, Mapping):
        example = f'{{"{fields(kind)[0].name}": ...}}'  # both YAML and Python
        raise ConfigError(f"{name} is {brief(tree)}: give fields, such as {example}, or a name")
    _refuse_other_keys(name, tree, fields(kind)[0].name)
    values = dict(tree)
    base = kind()
    if bases and key in values:
        chosen = values.pop(key)
        chosen = current_word("name", chosen, bases) if isinstance(chosen, str) else chosen
        if not isinstance(chosen, str) or chosen not in bases:
            raise ConfigError(f"{name}.{key} is {brief(chosen)}: choose one of {', '.join(bases)}")
        base = bases[chosen]
    refuse_unknown(name, values, [spec.name for spec in fields(kind)] + ([key] if bases else []))
    refuse_misplaced_lists(kind, values)
    if name == "model" and "blocks" in values and "channels" in values:  # another depth: per-layer values start anew
        base = replace(base, kernels=base.kernels[:1], skip_kernels=base.skip_kernels[:1])
    return replace(base, **values)


def _refuse_other_keys(name: str, tree: Mapping[Any, Any], example: str) -> None:
    """Raise `ConfigError` for a key that is no text, as a variable's value is in `{blocks: [3]}` of Python."""
    for key in tree:
        if not isinstance(key, str):
            raise ConfigError(
                f"{name} has the key {brief(key)}, a value and no name: in Python a field's name stands in quotes, as"
                f" {example!r}"
            )


def assignment(text: str) -> tuple[str, Any]:
    """`model.blocks=[3,3,3]` as the dotted name and its value, read as YAML; `ConfigError` for what is no such text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {brief(text)}: give it as section.field=value, such as model.blocks=[3,3,3]")
    return name.strip(), given_value(f"--set {brief(text)}", value)


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings laid over each other, later ones on top; a dotted key (`train.epochs`) is a path.

    A section given as a name in a lower layer is its base when a higher layer sets fields of it; a name given in a
    higher layer starts the section anew."""
    result: dict[str, Any] = {}
    for tree in trees:
        for dotted, value in tree.items():
            section, _, field = str(dotted).partition(".")
            name_field = _SECTIONS[section][1] if section in _SECTIONS else ""
            upper, lower = value, result.get(section)
            if field:  # train.epochs=2
                upper = {field: value}
            elif name_field and isinstance(value, str):  # model=tpsnet
                upper = {name_field: value}
            starts_anew = isinstance(upper, Mapping) and name_field in upper and section != "data"
            if isinstance(upper, Mapping) and isinstance(lower, Mapping) and not starts_anew:
                upper = {**lower, **upper}
            result[section] = upper
    return result
