"""What is wrong with code, in one helpful line: checks of answers that are a function, a class or a module."""

import copy
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tpsnet_lib.answer_checks import NOT_ANSWERED, Check, Slip, quoted, raised
from tpsnet_lib.own_blocks import list_of_layers

STILL_RAISES = (
    f"{NOT_ANSWERED} `raise NotImplementedError` is still in the cell above this line: put your lines in its place, or"
    " delete it if they are there, and run the cell again."
)


def function(
    expected: Any,
    *arguments: Any,
    by: Callable[[Any], Any] | None = None,
    mistakes: Mapping[str, Callable[..., Any]] | None = None,
) -> Check:
    """Answers that are a function (or a class) with the right result for some arguments, which a wrong one is told.

    `expected` is that result, or a function that gives it for the same arguments; close tensors are equal. `by` takes
    the answer in place of the arguments, and returns what is held against the expected result. `mistakes`: what is said
    -> a function with that mistake: an answer that gives the same is told of it."""

    @functools.cache
    def given_by(function: Callable[..., Any]) -> Any:
        return by(function) if by else function(*copy.deepcopy(arguments))

    @functools.cache
    def target() -> Any:
        return expected(*copy.deepcopy(arguments)) if callable(expected) else expected

    def wrong(answer: Any) -> str:
        if isinstance(answer, nn.Module):
            return Slip(_itself(answer))
        inputs: list[str] = []  # of each call of the answer

        def noted(*given: Any) -> Any:
            inputs.append(_together(given))
            return answer(*given)

        given = copy.deepcopy(arguments)  # an answer may change what it gets
        try:
            value, fault = _called(answer, lambda: by(noted) if by else noted(*given))
        except Exception as error:
            value, fault = None, raised(error)
        if fault:
            says_all = isinstance(fault, Slip) or fault == STILL_RAISES or not inputs
            return fault if says_all else _with_input(inputs[-1], fault)
        if fault := _difference(value, target()):
            for mistake, mistaken in (mistakes or {}).items():
                if not _difference(value, given_by(mistaken)):
                    return Slip(mistake)
        if not by:
            return _with_input(inputs[0], fault)
        calls = len(inputs)
        if isinstance(value, list) and (len(value),) == np.shape(target())[:1] == (calls,) and _are_short(inputs):
            return next(filter(None, map(_with_input, inputs, map(_difference, value, target()))), "")
        return fault

    return wrong


def _with_input(given: str, fault: str) -> str:
    """What is wrong with a result, after the input if that is short."""
    return type(fault)(f"For the input {given}: {fault}") if fault and given and _are_short([given]) else fault


def _are_short(inputs: Sequence[str]) -> bool:
    return all(len(given) <= 80 for given in inputs)


def _itself(answer: Any) -> str:
    return f"Give the function (or class) itself, without brackets or quotes, not {quoted(answer)}."


def _called(answer: Any, call: Callable[[], Any]) -> tuple[Any, str]:
    """What the call of an answer returns, and in one sentence why it cannot be called or returns nothing, or empty."""
    if not callable(answer):
        return None, Slip(_itself(answer))
    try:
        value = call()
    except NotImplementedError as error:
        if str(error):  # raised by a library; that of a blank has no message
            raise
        return None, STILL_RAISES
    if value is None or (isinstance(value, list) and any(each is None for each in value)):
        return None, Slip("Your function returns None: is a `return` missing?")
    return value, ""


def module(
    inputs: Tensor,
    cases: Mapping[str, tuple[Sequence[Any], nn.Module]],
    mistakes: Mapping[str, Callable[[Any, Tensor], Tensor]] | None = None,
) -> Check:
    """Answers that make a module, as a class or a function does, which computes what the right one computes.

    `cases`: what is asked -> the arguments that the answer gets, and the right module for them, in evaluation mode;
    the answer's module gets its weights, and both get `inputs` [B, ...]. `mistakes`: what is said -> what the right
    module and the inputs give with that mistake: an answer that gives the same is told of it."""
    cases = {case: (arguments, _with_unlike_norms(right)) for case, (arguments, right) in cases.items()}

    def problem(answer: Any, arguments: Sequence[Any], right: nn.Module) -> str:
        part, fault = _called(answer, lambda: answer(*arguments))
        if fault := fault or _other_parts(part, right):
            return fault
        part.load_state_dict(right.state_dict())
        with torch.no_grad():
            outputs, fault = _called(part, lambda: part.eval()(inputs.clone()))
            if fault := fault or _difference(outputs, right(inputs)):
                alike = (say for say, give in (mistakes or {}).items() if not _difference(outputs, give(right, inputs)))
                return Slip(said) if (said := next(alike, "")) else fault
        try:  # as behind another block, whose output its ReLU needs for the gradient
            part.train()(inputs.clone().requires_grad_().relu()).sum().backward()
        except RuntimeError as error:
            if "inplace operation" not in str(error):
                raise
            return Slip("It cannot be trained: it changes a tensor in place. Write `out = out + x`, not `out += x`.")
        return ""

    def wrong(answer: Any) -> str:
        if isinstance(answer, nn.Module):
            return Slip(_itself(answer))
        for case, (arguments, right) in cases.items():
            try:
                fault = problem(answer, arguments, right)
            except Exception as error:
                fault = raised(error)
            if fault:
                return fault if fault == STILL_RAISES else type(fault)(f"With `{case}`: {fault}")
        return ""

    return wrong


def _with_unlike_norms(right: nn.Module) -> nn.Module:
    """A copy whose batch norms have weights and statistics of their own each: fresh ones hardly change their input, so
    that one that is left out, used twice or misplaced would not be seen."""
    draw, changed = torch.Generator().manual_seed(0), copy.deepcopy(right)
    for norm in (part for part in changed.modules() if isinstance(part, nn.BatchNorm2d)):
        for name, value in norm.state_dict().items():
            if name in ("weight", "running_var"):
                value.uniform_(0.5, 2, generator=draw)
            elif value.dim():
                value.normal_(generator=draw)
    return changed


def _other_parts(part: Any, right: nn.Module) -> str:
    """How the parts of a module differ from those of the right one, in one sentence; empty: they do not."""
    if not isinstance(part, nn.Module):
        return f"Your answer makes {quoted(part)}, which is no nn.Module."
    if isinstance(right, nn.Sequential):
        blocks = f"{len(right)} block{'s' * (len(right) != 1)}"
        if not isinstance(part, nn.Sequential):
            return f"Your answer makes a {type(part).__name__}; expected is an nn.Sequential of {blocks}."
        if len(part) != len(right):
            return f"Your nn.Sequential has {len(part)} part{'s' * (len(part) != 1)}; expected: {blocks}."
    shapes, wanted = ({name: list(value.shape) for name, value in m.state_dict().items()} for m in (part, right))
    for name in [*wanted, *shapes]:
        if name not in shapes:
            if listed := list_of_layers(part):
                way_out = "make it an `nn.Sequential()`, and append to that"
                return Slip(f"`self.{listed}` is a plain list, whose layers belong to no network: {way_out}.")
            return f"It has no `{name}`; expected is one of the shape {wanted[name]}."
        if name not in wanted:
            return f"It has `{name}`, of the shape {shapes[name]}, which should not be there."
        if shapes[name] != wanted[name]:
            return f"The shape of `{name}` is {shapes[name]}; expected is {wanted[name]}."
    if len(list(part.parameters())) < len(list(right.parameters())):
        return Slip("Two of its parts are one and the same module, so they share weights: make a new one for each.")
    return ""


def _difference(value: Any, target: Any) -> str:
    """How a result differs from the right one, in one sentence; empty: it does not."""
    if isinstance(value, nn.Module):
        made = type(value).__name__
        return Slip(f"Your function returns a module: `nn.{made}(...)` makes one; write `nn.{made}()(x)` to compute.")
    if any(map(callable, value if isinstance(value, list) else [value])):
        return Slip("Your function returns a function: call it, with its argument in brackets.")
    if isinstance(value, tuple) and hasattr(value, "indices"):  # what .min(1) and .max(1) of a tensor return
        part = "values" if isinstance(target, Tensor) and target.is_floating_point() else "indices"
        return Slip(f"Your function returns values and their positions: take `.{part}` of them.")
    if isinstance(target, Tensor) and target.dim() and isinstance(value, list | tuple):
        numbers = f"{len(target)} numbers" if target.dim() == 1 else f"the shape {list(target.shape)}"
        return Slip(f"Your function returns a {type(value).__name__}; expected is a tensor of {numbers}.")
    try:
        result, wanted = torch.as_tensor(value), torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        are_numbers = isinstance(target, Real | np.ndarray | Tensor)
        if are_numbers and isinstance(value[0] if isinstance(value, list) and value else value, str):
            return Slip(f"Your function returns a text ({quoted(value)}); expected is a number.")
        is_right = not are_numbers and value == target
        return "" if is_right else f"Your function returns {quoted(value)}, which is not the expected result."
    if result.shape != wanted.shape:
        return f"Your function returns {_returned(result, wanted)}; expected {_expected(list(wanted.shape))}."
    if wanted.dim() and wanted.dtype == torch.int64 and result.is_floating_point():
        return Slip("Your function returns numbers with a point; expected are whole ones, int64: leave out `.float()`.")
    largest = wanted.abs().max().item() if wanted.numel() else 0.0  # whose rounding shows in values near 0 too
    differ = ~torch.isclose(result.double(), wanted.double(), rtol=1e-4, atol=max(1e-5, 1e-6 * largest))
    if not differ.any():
        return ""
    first = tuple(differ.nonzero()[0].tolist())
    if result.numel() == 1:
        return f"Your function returns {result[first].item():.6g}; expected is {wanted[first].item():.6g}."
    pair = f"{result[first].item():.6g} instead of {wanted[first].item():.6g}"
    if result.dim() == 1:
        return f"Value {first[0] + 1} of {len(result)} is the first that differs: {pair}."
    spans = (f"from {each.min().item():.3g} to {each.max().item():.3g}" for each in (result.double(), wanted.double()))
    count = f"{int(differ.sum()):,} of {differ.numel():,} values differ"
    return f"The shape is right, but {count}, the first is {pair}. Yours run {', those expected '.join(spans)}."


def _returned(result: Tensor, wanted: Tensor) -> str:
    """The shape of a result: in words too where a number or a row of numbers is wanted."""
    shape = list(result.shape)
    if not shape:
        return "one number"
    rows = {1: f"a row of {shape[-1]}", 2: f"{shape[0]} rows of {shape[-1]}"}
    in_words = wanted.dim() < 2 and rows.get(len(shape))
    return f"{in_words} (the shape {shape})" if in_words else f"the shape {shape}"


def _expected(shape: list[int]) -> str:
    if len(shape) > 1:
        return f"is {shape}"
    return f"are {shape[0]} numbers" if shape else "is one number"


def _together(arguments: Sequence[Any]) -> str:
    """The arguments of a call in few letters."""
    if len(arguments) > 1 and all(isinstance(each, Tensor) and each.numel() > 8 for each in arguments):
        return f"tensors of shape {' and '.join(str(list(each.shape)) for each in arguments)}"
    return ", ".join(map(_compact, arguments))


def _compact(value: Any) -> str:
    """An argument in few letters: short rows as they are, of other arrays the shape."""
    if isinstance(value, list | tuple):
        tensors = len(value) > 1 and all(isinstance(part, Tensor) for part in value)
        if tensors and sum(part.numel() for part in value) > 8:
            return f"a list of {len(value)} tensors of shape {list(value[0].shape)}"
        return f"[{', '.join(map(_compact, value))}]"
    if isinstance(value, Real):
        return f"{value:g}"
    if not isinstance(value, Tensor | np.ndarray):
        return quoted(value)
    tensor = torch.as_tensor(value)
    if tensor.numel() > 8:
        return f"a tensor of shape {list(tensor.shape)}"
    return re.sub(r"\.0(?=[,\]])", "", str(_rounded(tensor.tolist())))


def _rounded(value: Any) -> Any:
    """Numbers, also in lists, with three digits."""
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value
