"""Blocks of one's own: a class joins the family by one line; its networks are counted, trained and recorded as others.

class MyBlock(nn.Module):
    def __init__(self, inputs, outputs, stride): ...
    def forward(self, x): ...        # [B, inputs, H, W] to [B, outputs, H / stride, W / stride]

config = ModelConfig(blocks=(2, 2, 2), channels=(16, 32, 64), block=register_block(MyBlock))

Its convolutions begin as all others of a network do (`config.init`), whatever `__init__` gave them: so blocks are
compared, and not first weights. A block that is to begin otherwise has a method `initialise(self)`, called then."""

import difflib
import hashlib
import inspect
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tpsnet_lib.errors import ConfigError, brief

_blocks: dict[str, type[nn.Module]] = {}  # by name


def register_block(block: type[nn.Module]) -> str:
    """The name under which configs take a block: its class, and a digest of the source of its methods.

    So a class that is changed is another block, with records of its own. Raises `ConfigError` for a class that cannot
    be built as `block(inputs, outputs, stride)`, or that returns maps of another shape."""
    if not isinstance(block, type) or not issubclass(block, nn.Module):
        given = getattr(block, "__name__", brief(block))
        raise ConfigError(f"{given} is no block: give a class derived from torch.nn.Module, without brackets")
    classes = block.__mro__[: block.__mro__.index(nn.Module)]
    methods = [method for kind in classes for method in vars(kind).values() if inspect.isfunction(method)]
    if not methods:
        raise ConfigError(f"{block.__name__} is no block: give it __init__(self, inputs, outputs, stride) and forward")
    try:
        inspect.signature(block).bind(1, 1, 1)
    except TypeError as error:
        problem = f"it is built as {block.__name__}(inputs, outputs, stride), and its __init__ has other arguments"
        raise ConfigError(f"{block.__name__} is no block: {problem} ({error})") from error
    try:
        source = "".join(map(inspect.getsource, methods))
    except OSError as error:
        raise ConfigError(f"the source of {block.__name__} cannot be read: write it in a cell or a file") from error
    name = f"own:{block.__name__}:{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    _blocks[name] = block
    cost_of_block.cache_clear()  # a class of this name and source may lean on other code than before
    try:
        for inputs, outputs, stride in ((4, 8, 2), (8, 8, 1)):
            cost_of_block(name, inputs, outputs, stride, 8)
    except ConfigError:
        del _blocks[name]
        raise
    return name


def find_block(name: str) -> type[nn.Module]:
    """The class of a registered block; `ConfigError` if this process does not know it."""
    if name not in _blocks:
        raise ConfigError(f"model.block is {name}: run the code that registers it first (own_blocks.register_block)")
    return _blocks[name]


def initialise_own(network: nn.Module) -> None:
    """Call the `initialise` of each registered block in a network that has one."""
    for block in network.modules():
        if type(block) in _blocks.values() and callable(initialise := getattr(block, "initialise", None)):
            try:
                initialise()
            except Exception as error:  # whatever a student's method raises is one line
                fault = f"{type(error).__name__}: {brief(error)}"
                raise ConfigError(f"{type(block).__name__}.initialise raises {fault}") from error


def list_of_layers(module: nn.Module) -> str:
    """The name of an attribute that keeps layers in a plain list, where the module does not know them; empty: none."""
    lists = {name: value for name, value in vars(module).items() if isinstance(value, list | tuple)}
    return next((name for name, parts in lists.items() if any(isinstance(part, nn.Module) for part in parts)), "")


def _what_it_raises(build: Callable[[], nn.Module], given: list[int], error: Exception) -> str:
    """An error of a block in words, met again by real maps: torch's meta device names no layers and shapes."""
    try:
        build().eval()(torch.zeros(given))
    except Exception as again:
        error = again
    if "before Module.__init__() call" in str(error):
        return "an error: begin `__init__` with `super().__init__()`"
    near = isinstance(error, AttributeError) and difflib.get_close_matches(error.name or "", dir(error.obj), 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{type(error).__name__}: {brief(error)} (channels of the small version){meant}"


@lru_cache
def cost_of_block(name: str, inputs: int, outputs: int, stride: int, side: int) -> tuple[int, int]:
    """Parameters, and MACs of one image whose maps have `side` pixels before the block, counted on the block itself.

    It is built without memory (torch's meta device), and torch counts the multiplications of a forward pass.
    Raises `ConfigError` for whatever the class raises, and where its result has another shape than
    [1, outputs, side / stride, side / stride]."""
    kind, given = find_block(name), [1, inputs, side, side]
    called = f"as {kind.__name__}({inputs}, {outputs}, {stride}) for maps of {given}"
    try:
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            block = kind(inputs, outputs, stride).eval()
            result = block(torch.empty(given))
            fault, expected = "", [1, outputs, -(-side // stride), -(-side // stride)]
            if listed := list_of_layers(block):
                fault = f"self.{listed} is a plain list, whose layers are not trained: write nn.ModuleList(...)"
            elif result is None:
                fault = "its forward returns None (is a `return` missing?)"
            elif not isinstance(result, torch.Tensor):
                fault = f"its forward returns a {type(result).__name__}, expected is one tensor"
            elif list(result.shape) != expected:
                fault = f"it maps {given} to {list(result.shape)}, expected is {expected}"
    except Exception as error:  # whatever a student's class raises is one line
        fault = f"{called} it raises {_what_it_raises(lambda: kind(inputs, outputs, stride), given, error)}"
    if fault:
        raise ConfigError(f"{kind.__name__} is no block: {fault}")
    return sum(parameter.numel() for parameter in block.parameters()), counter.get_total_flops() // 2
