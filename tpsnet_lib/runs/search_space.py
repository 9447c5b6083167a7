"""Random search: spaces as data, and draws from them that are the same on every machine."""

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from tpsnet_lib.config import IMAGE_SIZE, PARAMETER_BUDGET, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.config_fields import checked, refuse_unknown, way_to_field
from tpsnet_lib.config_parsing import merged, parse
from tpsnet_lib.errors import QUOTED, ConfigError, brief, way_to
from tpsnet_lib.files import project_root
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.plain_yaml import read_yaml
from tpsnet_lib.runs.record_files import NUMBER

_SHAPE = ("layers", "blocks", "width", "factor", "kernels", "skip_kernels", "pool")
_MODEL = {spec.name for spec in fields(ModelConfig)} - {"blocks", "channels", "stem"}
_TRAIN = {spec.name for spec in fields(TrainConfig)}
_CAN_BE_DRAWN = [*_SHAPE, *sorted((_MODEL | _TRAIN) - {*_SHAPE})]
_FIELDS = {spec.name: spec for kind in (TrainConfig, ModelConfig) for spec in fields(kind)}
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML takes it as a text if it has no point, or no sign
_ANALYSED = {*_SHAPE, "dropout", "block_dropout", "optimizer", "lr", "batch_size"} - {"factor"}  # by `drawn_values`
_EACH = ("blocks", "kernels", "skip_kernels")  # what may be drawn for each layer
_WHOLE = {"layers", "width", *_EACH, *(name for name, spec in _FIELDS.items() if type(spec.default) is int)}
# What the shape is computed from.
_LIMITS = {"layers": (1, 5), "blocks": (1, 128), "width": (1, 1024), "factor": (0.1, 64)}
_DEFAULTS = {"layers": 3, "width": 16, "factor": 2, "blocks": 1}  # where a space does not give them
MAX_TRIES = 1000  # draws for one member under the budget before the space is called empty
MAX_SHARE = 20  # draws a member that are made in the mean, at most
MAX_DRAWS = 2000  # members of a search


@dataclass(frozen=True)
class Space:
    """What is drawn: variables with their dimensions, those drawn anew for each layer, and the budget."""

    name: str
    variables: Mapping[str, Any]
    each: Sequence[str]
    parameters: int
    macs: int

    @property
    def not_analysed(self) -> str:
        """Which variables `drawn_values` leaves out, in a sentence: they vary the trials, and no table has them."""
        others = [name for name in self.variables if name not in _ANALYSED and len(_values(self.variables[name])) > 1]
        return f" Varied too, but in no analysis: {', '.join(others)}." if others else ""


@dataclass(frozen=True)
class Draws:
    """Drawn configs, the values behind each, and how many draws it took to stay under the budget."""

    configs: list[RunConfig]
    values: list[dict[str, Any]]
    tries: int

    @property
    def acceptance(self) -> float:
        """The share of draws that the budget let pass."""
        return len(self.configs) / self.tries


def spaces_file() -> Path:
    """Where the named spaces are declared."""
    return project_root() / "report" / "spaces.yaml"


def load_spaces(path: Path | None = None) -> dict[str, Space]:
    """The named spaces of a file, else of `report/spaces.yaml`; `ConfigError` names the file and what is wrong."""
    path = path or spaces_file()
    try:
        return {str(name): parse_space(str(name)[:QUOTED], tree) for name, tree in read_yaml(path).items()}
    except ConfigError as error:
        prefix = "" if str(path) in str(error) else f"{path}: "
        raise ConfigError(f"{prefix}{error}") from error


def parse_space(name: str, tree: Mapping[str, Any]) -> Space:
    """A mapping as a space; a variable or dimension that is not known is a `ConfigError` that names it."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"space {name} is {brief(tree)}: give variables, and a budget if you like")
    if variable := next((key for key in tree if key in _CAN_BE_DRAWN), ""):
        raise ConfigError(f"space {name}: {variable} stands under `variables:`, as all that is drawn")
    refuse_unknown(f"space {name}", tree, ("about", "variables", "each", "budget"))
    variables, budget, each = tree.get("variables", {}), tree.get("budget", {}), tree.get("each", ())
    for part, value in (("variables", variables), ("budget", budget)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"space {name}: {part} is {brief(value)}: give a mapping")
    if not variables:
        raise ConfigError(f"space {name}: it has no variables to draw")
    if not isinstance(each, (list, tuple)) or any(variable not in _EACH for variable in each):
        raise ConfigError(f"space {name}: each is {brief(each)}: give a list of {', '.join(_EACH)}")
    variables = {variable: _with_numbers(dimension) for variable, dimension in variables.items()}
    for variable, dimension in variables.items():
        if variable not in _CAN_BE_DRAWN:
            known = way_to_field(str(variable), _CAN_BE_DRAWN)
            raise ConfigError(f"space {name}: {str(variable)[:QUOTED]} is not a variable that can be drawn: {known}")
        if fault := _fault(variable, dimension):
            raise ConfigError(f"space {name}: {variable} is {brief(dimension)}: {fault}")
        for value in _values(dimension):  # one that no config takes would never be drawn, without a word
            if spec := _FIELDS.get(variable):
                if type(spec.default) is str and NUMBER.allows(value):
                    raise ConfigError(f"space {name}: {variable} is {brief(dimension)}: {way_to(variable, _SHAPE)}")
                checked(f"space {name}: {variable}", value, spec.default, spec.metadata)
    refuse_unknown(f"space {name}: budget", budget, ("parameters", "macs"))
    parameters, macs = budget.get("parameters", PARAMETER_BUDGET), budget.get("macs", 0)
    if not isinstance(parameters, int) or not isinstance(macs, int):
        raise ConfigError(f"space {name}: budget is {brief(budget)}: give whole numbers of parameters and macs")
    return Space(name, variables, tuple(each), parameters, macs)


def _with_numbers(dimension: Any) -> Any:
    """A dimension whose numbers may be written as people write them: `1e-3` is a text in YAML."""
    if isinstance(dimension, Mapping):
        return {kind: _with_numbers(values) for kind, values in dimension.items()}
    if not isinstance(dimension, list):
        return dimension
    return [float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value for value in dimension]


def _values(dimension: Any) -> Sequence[Any]:
    """The choices of a dimension, or the ends of its range; none of one that depends on other variables."""
    if isinstance(dimension, Mapping):
        (dimension,) = dimension.values()
    return dimension if isinstance(dimension, (list, tuple)) else ()


def _fault(variable: str, dimension: Any) -> str:
    """Why `_draw` cannot draw a variable from a dimension, or would draw what is out of its range; else empty."""
    low, high = _LIMITS.get(variable, (-math.inf, math.inf))
    limited = variable in _LIMITS
    if dimension == "fits" and not limited:
        return ""

    # A list of choices has no kind; a mapping of one kind has its range.
    kind, values = "", dimension
    if isinstance(dimension, Mapping) and len(dimension) == 1:
        ((kind, values),) = dimension.items()
    if kind not in ("", "int", "uniform", "log") or not isinstance(values, (list, tuple)) or not values:
        way_out = f"write [{dimension}]" if isinstance(dimension, (str, int, float)) else "give choices"
        return f"{way_out}, or a range as {{'int': [low, high]}} ('uniform', 'log')"

    # The values: numbers where something is computed from them, in order, in the variable's limits, of the kind.
    if (kind or limited) and not all(map(NUMBER.allows, values)):
        return f"give numbers{', without quotes' * any(isinstance(value, str) for value in values)}"
    if kind and len(values) == 2 and values[0] > values[1]:
        return f"the low end {values[0]} is above the high end {values[1]}"
    if kind and len(values) != 2:
        return f"give {{'{kind}': [low, high]}}"
    if limited and not all(low <= value <= high for value in values):
        return f"give numbers from {low} to {high}"
    if variable in _WHOLE and kind in ("uniform", "log"):
        return "give whole numbers: choices, or {'int': [low, high]}"
    if (kind == "int" or variable in ("layers", "width")) and not all(isinstance(value, int) for value in values):
        return "give whole numbers"
    return "give numbers above 0" if kind == "log" and values[0] <= 0 else ""


def sample(space: Space, seed: int, n: int, base: Mapping[str, Any] | None = None) -> Draws:
    """The first `n` draws of a space from a seed: a pure function of the three.

    So every machine and backend draws the same, and a longer search continues a shorter one.
    Draws over the budget, or that cannot be built, are drawn again. `base` holds what is not
    drawn (`train`, `data`, fields of `model`). `ConfigError` if nothing fits the budget."""
    configs: list[RunConfig] = []
    values: list[dict[str, Any]] = []
    tries = 0
    if not (isinstance(n, int) and 1 <= n <= MAX_DRAWS):
        problem = f"{brief(n)} draws are asked for: give from 1 to {MAX_DRAWS:,}"
        raise ConfigError(f"space {space.name}: {problem}")
    parse({part: tree for part, tree in (base or {}).items() if part != "model"})  # a wrong recipe is no budget's fault
    for index in range(n):
        for attempt in range(MAX_TRIES):
            tries += 1
            if tries > MAX_TRIES + MAX_SHARE * index:
                problem = f"{index} of {tries:,} draws can be built within its budget; widen either"
                raise ConfigError(f"space {space.name}: {problem}")
            rng = random.Random(f"{space.name}/{seed}/{index}/{attempt}")
            draw = _draw_values(space, rng)
            config = _config(draw, base or {}, space)
            if config is not None:
                configs.append(config)
                values.append(draw)
                break
        else:
            raise ConfigError(f"space {space.name}: no draw of {MAX_TRIES} {_why_none_fits(space)}")
    return Draws(configs, values, tries)


def _draw_values(space: Space, rng: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {}
    layers = _draw(rng, space.variables.get("layers", [_DEFAULTS["layers"]]), 0)
    values["layers"] = layers
    for name, dimension in space.variables.items():
        if name == "layers":
            continue
        last_side = IMAGE_SIZE // 2 ** (layers - 1)
        draws = [_draw(rng, dimension, last_side) for _ in range(layers if name in space.each else 1)]
        values[name] = draws if name in space.each else draws[0]
    return values


def _draw(rng: random.Random, dimension: Any, last_side: int) -> Any:
    if dimension == "fits":
        return rng.choice([side for side in range(1, last_side + 1) if last_side % side == 0])
    if not isinstance(dimension, Mapping):
        return rng.choice(list(dimension))
    ((kind, (low, high)),) = dimension.items()
    if kind == "int":
        return rng.randint(low, high)
    if kind == "uniform":
        return round(rng.uniform(low, high), 4)
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.4g}")


def _why_none_fits(space: Space) -> str:
    """What is wrong with every draw: it cannot be built, or even the smallest of some is over the budget."""
    sizes, fault = [], ""
    for number in range(100):
        try:
            model = parse({"model": _model(_draw_values(space, random.Random(number)))}).model
            sizes.append((count_parameters(model), count_macs(model)))
        except ConfigError as error:
            fault = str(error)
    if not sizes:
        return f"can be built: {fault}"
    parameters, macs = map(min, zip(*sizes, strict=True))
    absent = ", ".join(f"{name} = {value}" for name, value in _DEFAULTS.items() if name not in space.variables)
    not_given = f"; what is not drawn has its default: {absent}" if absent else ""
    budget = f"{space.parameters:,} parameters{f' and {space.macs:,} MACs' if space.macs else ''}"
    smallest = f"the smallest have {parameters:,} parameters and {macs:,} MACs"
    return f"is under its budget of {budget}: {smallest}{not_given}"


def default_pool(layers: int) -> int:
    """The average pool of a network whose space draws none: the side of its last map."""
    return IMAGE_SIZE >> (layers - 1)  # each layer after the first halves it


def _model(values: Mapping[str, Any]) -> dict[str, Any]:
    """The network of a draw, as a config writes it."""
    layers, width, factor, blocks = (values.get(name, default) for name, default in _DEFAULTS.items())
    model: dict[str, Any] = {
        "blocks": blocks if isinstance(blocks, list) else [blocks] * layers,
        "channels": [round(width * factor ** (i + 1)) for i in range(layers)],
        "stem": width,
        "pool": values.get("pool", default_pool(layers)),
    }
    return model | {name: values[name] for name in values if name in _MODEL and name != "pool"}


def _config(values: Mapping[str, Any], base: Mapping[str, Any], space: Space) -> RunConfig | None:
    """The config of a draw; None where it is over the budget or cannot be built."""
    train = {name: values[name] for name in values if name in _TRAIN}
    tree = merged(base, {"model": _model(values), "train": train})
    try:  # the network alone first: most draws end here, over the budget
        model = parse({"model": tree["model"]}).model
        over = count_parameters(model) > space.parameters or (space.macs and count_macs(model) > space.macs)
        return None if over else parse(tree)
    except ConfigError:
        return None  # such as a kernel that is even: no member of the family


def drawn_values(config: RunConfig) -> dict[str, Any]:
    """The drawn variables of a config, with one number a network where a draw has one a layer."""
    model, train = config.model, config.train
    layers = range(len(model.blocks))
    return {
        "layers": len(model.blocks),
        "depth": sum(model.blocks),
        "width": model.stem,
        "kernel": fmean(model.kernel(layer) for layer in layers),
        "skip_kernel": fmean(model.skip_kernel(layer) for layer in layers),
        "pool": model.pool,
        "dropout": model.dropout,
        "block_dropout": model.block_dropout,
        "optimizer": train.optimizer,
        "lr": train.lr,
        "batch_size": train.batch_size,
    }
