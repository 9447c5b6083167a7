"""What is wrong with an answer, in one helpful line: checks of numbers, names and ranges; `code_checks` has others.

    check = number(45_600, within=0.05)
    check(450)      "450 is too small."
    check(45_000)   ""

A check is given to a `tasks.Task`. Whatever it is asked about, also nonsense, it returns a sentence and raises nothing
that a student would see."""

import dataclasses
import difflib
import math
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.progress import running_shell

NOT_ANSWERED = "**Not answered yet.**"

NO_POWER = "In Python `^` is no power: write `**`, as in `3**2`."

Check = Callable[[Any], str]  # what is wrong with an answer, in one sentence; empty: it is right


MODULES = {"np": np, "F": nn.functional, "torch": torch, "math": math}  # by their short names in the notebooks


class Slip(str):
    """What is wrong with the form of an answer, as a misspelt name is: it costs no hint."""


def number(
    right: float | Callable[[], float], within: float = 0.01, example: str = "0.5", whole: bool = False
) -> Check:
    """Answers that are a number within a fraction of the right one (0: a whole number, as with `whole`), which may be a
    function of no arguments."""

    def wrong(answer: Any) -> str:
        one_tensor = isinstance(answer, torch.Tensor) and answer.numel() == 1
        if isinstance(answer, torch.Tensor) and answer.numel() > 1:
            return Slip(f"Give one number: your tensor has {answer.numel():,}.")
        if isinstance(answer, tuple) and len(answer) > 1 and all(type(part) is int and part >= 0 for part in answer):
            return Slip(_comma(answer, whole or within == 0))
        if callable(answer) or isinstance(answer, ModuleType):
            return Slip(f"Give a number, such as {example}, not {_kind(answer)}: call it, or write its value.")
        if isinstance(answer, bool) or not (isinstance(answer, Real) or one_tensor):
            return Slip(f"Give a number without quotes or brackets, such as {example}, not {quoted(answer)}.")
        value, target = float(answer), float(right() if callable(right) else right)
        if not math.isfinite(value):
            return Slip(f"Give a finite number, such as {example}.")
        if (whole or within == 0) and not value.is_integer():
            return Slip(f"Give a whole number, such as {example}.")
        if abs(value - target) <= within * abs(target):
            return ""
        if 1 < target <= 100 and abs(100 * value - target) <= within * abs(target):
            return Slip(f"Give it in percent, such as {example}.")
        digits = len(f"{value:.10g}".partition(".")[2])  # behind the point
        if digits and within and not whole and round(target, digits) == value:
            return Slip(f"{value:,.10g} is rounded too much: give another digit.")
        return f"{value:,.10g} is too {'large' if value > target else 'small'}."

    return wrong


def _kind(answer: Any) -> str:
    """What is handed over in the place of a number, in words."""
    if isinstance(answer, nn.Module):
        return f"a {type(answer).__name__}, which computes when it is called"
    return "a module of functions" if isinstance(answer, ModuleType) else "a function"


def _comma(parts: Sequence[int], whole: bool) -> str:
    """What a number with a comma in it was to be: `45,619` is two numbers."""
    thousands = all(part == 0 or 100 <= part < 1000 for part in parts[1:])
    meant = [f"{parts[0]}{''.join(f'{part:03}' for part in parts[1:])}"] if thousands else []
    if len(parts) == 2 and not whole:
        meant.append(f"{parts[0]}.{parts[1]}")
    if not meant and not thousands:
        return f"Give one number: a comma makes {len(parts)} of it."
    way_out = f"write {' or '.join(f'`{each}`' for each in meant)}" if meant else "write it without commas"
    return f"A comma makes {'two' if len(parts) == 2 else 'several'} numbers of one: {way_out}."


def names(right: Collection[str] | Callable[[], Collection[str]], known: Collection[str]) -> Check:
    """Answers that are a set of names, or one name, among those that are known."""

    def wrong(answer: Any) -> str:
        chosen = {answer} if isinstance(answer, str) else answer
        if isinstance(answer, str) and len(parts := answer.split(",")) > 1:
            return Slip(f"Give several names as a list: {[part.strip() for part in parts]}.")
        target = set(right() if callable(right) else right)
        lower = {each.lower(): each for each in known}
        if not isinstance(chosen, list | tuple | set | frozenset) or not all(isinstance(each, str) for each in chosen):
            wrong_one = min(set(known) - target or known)  # an example that gives nothing away
            example = f"or a list of names such as [{wrong_one!r}]" if len(target) > 1 else f"such as {wrong_one!r}"
            return Slip(f"Give a name in quotes, {example}, not {quoted(answer)}.")
        chosen = {each if each in known else lower.get(" ".join(each.lower().split()), each) for each in chosen}
        if unknown := sorted(chosen - set(known)):
            word = unknown[0].lower()
            joined = [each for each in lower if each in word]
            if len(joined) > 1 and sum(map(len, joined)) >= len(word.replace(" ", "")):
                return Slip(f"{unknown[0]!r} is several names in one: a comma is missing between their quotes.")
            near = difflib.get_close_matches(word, lower, 1) or [each for each in lower if word and word in each]
            way_out = f"did you mean {lower[near[0]]!r}?" if near else f"choose from {', '.join(known)}."
            return Slip(f"{unknown[0]!r} is not known: {way_out}")
        if len(chosen) == 1 and not target & chosen:
            return f"{min(chosen)!r} is not right."
        missing = len(target - chosen)
        if extra := len(chosen - target):
            surplus = f"{extra} of your {len(chosen)} names {'does' if extra == 1 else 'do'} not belong there"
            return f"{surplus}." if missing else Slip(f"{surplus}; none is missing.")  # hints are about missing ones
        return f"{missing} more {'is' if missing == 1 else 'are'} missing." if missing else ""

    wrong.known = tuple(known)  # type: ignore[attr-defined]  # for a name that is written without quotes
    return wrong


def ranges(needed: Collection[str], then: Check, example: str) -> Check:
    """Answers that are variables with their ranges, among them the needed ones; `then` checks those of this form."""

    def wrong(answer: Any) -> str:
        if isinstance(answer, dict) and not all(isinstance(name, str) for name in answer):
            return Slip(f"The name of a variable stands in quotes, such as {example}.")
        if not isinstance(answer, dict):
            return Slip(f"Give the variables with their ranges, such as {example}, not {quoted(answer)}.")
        for name, part in answer.items():
            if isinstance(part, dict) and part.keys() >= set(needed):
                return Slip(f"Leave out {name!r}: give the variables that stand in it.")
        for name in [name for name in needed if name not in answer]:
            near = difflib.get_close_matches(name, answer.keys() - needed, 1)
            missing = f"`{name}` is missing: give the variables with their ranges, such as {example}."
            return Slip(f"{near[0]!r} is not known: did you mean {name!r}?" if near else missing)
        for name, dimension in answer.items():
            if not isinstance(dimension, list | tuple | dict | str) or not dimension:  # such as pool: fits
                way_out = f"choices, such as [2, 3], or such as {{'int': [1, 9]}}, not {quoted(dimension)}"
                return Slip(f"`{name}`: give a list of {way_out}.")
            if isinstance(dimension, dict) and (kind := next(iter(dimension))) in (int, float):
                return Slip(f"`{name}`: `{kind.__name__}` stands in quotes, such as {{'int': [1, 9]}}.")
            if isinstance(dimension, dict) and len(dimension) == 1 and kind not in ("int", "uniform", "log"):
                return Slip(f"`{name}`: {kind!r} is not known: a range of whole numbers is {{'int': [1, 9]}}.")
            for values in dimension.values() if isinstance(dimension, dict) else ():
                if isinstance(values, list | tuple) and len(values) == 2 and _falls(*values):
                    return Slip(f"`{name}`: the low end {values[0]} is above the high end {values[1]}.")
        return then(answer)

    return wrong


def _falls(low: Any, high: Any) -> bool:
    return isinstance(low, Real) and isinstance(high, Real) and low > high


MEANT = {  # a part of an error's message -> what is to be written
    "only one element tensors can be converted": Slip(  # math.cos(tensor), float(tensor), torch.tensor(list)
        "A tensor of several values is taken for one number: a function of `math` has one of torch's, as"
        " `torch.cos`; for `float(x)` write `x.float()`, and for a list of tensors `torch.stack(x)`."
    ),
    r"unsupported operand type\(s\) for \^|bitwise_xor": Slip(NO_POWER),
    "^'module' object is not callable$": Slip(
        "A module of functions, as `F` or `np`, cannot be called: call a function of it, as `F.relu(x)`."
    ),
    "unsupported operand .*'module'": Slip(
        "A letter of the formula is a module here, as `F` is torch.nn.functional: write its number."
    ),
    r"Subtraction.*bool tensor|Negative.*bool tensor": Slip(
        "Booleans are not subtracted: the opposite of a tensor of them is `~x`, as numbers they are `x.float()`."
    ),
    "infer output dtype": Slip("A tensor of booleans or whole numbers has no mean: write `.float().mean()`."),
    r"conv2d\(\) received an invalid combination.*\(bool": Slip(
        "A convolution has a stride of True or False: an argument is missing before it, or write `skip=skip`."
    ),
    "Boolean value of Tensor with more than one value": Slip(
        "`not`, `and`, `or` and `if` take one value: for each value of a tensor write `~x`, `x & y`, `x | y`."
    ),
    r"unexpected keyword argument '(axis|out)'|\b(axis|out)=NoneType": Slip(
        "NumPy's functions do not suit a tensor: use its own, as `x.float().mean()`."
    ),
}


def raised(error: Exception) -> str:
    """What an answer raises, in one sentence: a slip if a name or attribute is unknown or this project refuses it."""
    message = re.sub(r"\s+", " ", str(error)).strip() or "no message"
    if isinstance(error, TpsnetError):
        message = message.removeprefix("space of yours: ")  # as notebook 03 calls it
        return Slip(f"Your answer has a fault: {message}{'' if message.endswith(('?', '.')) else '.'}")
    if isinstance(error, NameError) and error.name:
        owned = with_its_owner(error)
        way_out = way_out_of(error.name, {**notebook_names(), **_names_where_it_failed(error)})
        return Slip(f"`{error.name}` is not defined: {f'write `{owned}`.' if owned else way_out}")
    if a_class := re.match(r"(?:[\w.]*\.)?([A-Z]\w+)(?<!Tensor) is not a Module subclass", message):
        return Slip(f"`{a_class[1]}` is the class: make a part of it, `{a_class[1]}(...)` with its arguments.")
    if made := _made_of_a_tensor(error):
        return Slip(f"`nn.{made}(...)` makes a module, which computes when it is called: write `nn.{made}()(...)`.")
    if "Boolean value of Tensor" in message and _is_of_a_library(error):
        return Slip("A function that takes one number is given a tensor of several.")
    if said := next((said for part, said in MEANT.items() if re.search(part, message)), None):
        return said
    of_module = isinstance(error, AttributeError) and isinstance(error.obj, ModuleType)
    if not of_module and (made := _module_taken_for_a_result(message)):
        return Slip(f"`nn.{made}(...)` makes a module, which computes when it is called: write `nn.{made}()(x)`.")
    message = message if len(message) <= 160 else f"{message[:157]}..."
    sentence = f"Your answer raises {type(error).__name__} (`{message.replace('`', chr(39))}`)."
    if not isinstance(error, AttributeError):
        return sentence
    if not error.name:  # torch names none where a module has no such part
        return Slip(sentence)
    near = [each for each in dir(error.obj) if each.lower() == error.name.lower()]
    near = near or difflib.get_close_matches(error.name, dir(error.obj), 2, cutoff=0.75)
    likeness = [difflib.SequenceMatcher(None, each, error.name).ratio() for each in near]
    meant = " or ".join(f"`{each}`" for each, alike in zip(near, likeness, strict=True) if alike == max(likeness))
    return Slip(f"There is no `{error.name}`: did you mean {meant}?") if near else sentence


def _made_of_a_tensor(error: Exception) -> str:
    """The standard module that was made with a tensor for an option, as by `nn.CrossEntropyLoss(x, y)`, or empty."""
    makers = [
        frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "__init__"
    ]
    made = [given for given in makers if type(given.get("self")).__module__.startswith("torch.nn.")]
    with_tensors = [given for given in made if any(isinstance(value, torch.Tensor) for value in given.values())]
    return type(with_tensors[0]["self"]).__name__ if with_tensors else ""


def _is_of_a_library(error: Exception) -> bool:
    """Whether an error was raised in this project's or another's code, and not in a cell."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return any(folder in Path(frame.f_code.co_filename).parts for folder in ("site-packages", "tpsnet_lib"))


def _module_taken_for_a_result(message: str) -> str:
    """The activation that an error says was met in the place of a tensor, as by `self.conv2(nn.ReLU(x))`, or empty."""
    met = re.findall(r"(?:got \(|'|not )([A-Z]\w+)\b", message)
    return next((name for name in met if name in nn.modules.activation.__all__), "")


def way_out_of(name: str, known: Mapping[str, Any]) -> str:
    """What a name that is not defined may stand for, in one sentence; `known`: the names that are."""
    if in_capitals := next((each for each in known if each.lower() == name.lower()), ""):
        return f"did you mean `{in_capitals}`?"
    near = difflib.get_close_matches(name, known, 1, cutoff=0.75)
    if hasattr(math, name) or not near:  # log, sqrt, exp, pi; and mean, relu, cdist
        for short, home in MODULES.items():
            if hasattr(home, name) and not isinstance(getattr(home, name), ModuleType):
                called = home.__name__ if home.__name__ == short else f"{home.__name__} as {short}"
                return f"write `{short}.{name}`{'' if short in known else f', after `import {called}`'}."
    if name in ("math", "numpy", "scipy", "pandas"):
        return f"write `import {name}` before it."
    if name in sys.stdlib_module_names:  # abc, code, string: more likely a word
        return f"a text stands in quotes. If the module is meant, write `import {name}` before it."
    if near:
        return f"did you mean `{near[0]}`?"
    where = "was a cell above not run (a folded one too), or is a line missing that gives it a value?"
    return f"{where} (If a text is meant, it stands in quotes.)"


def with_its_owner(error: NameError) -> str:
    """The unknown name behind what has it where the error was raised, as `self.norm1`; empty where nothing has."""
    local = _names_where_it_failed(error)
    owners = [each for each in local if each == "self" or dataclasses.is_dataclass(local[each])]
    return next((f"{each}.{error.name}" for each in owners if hasattr(local[each], error.name or "")), "")


def _names_where_it_failed(error: Exception) -> Mapping[str, Any]:
    """The arguments and variables of the function in which an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_locals if trace is not None else {}


def quoted(answer: Any) -> str:
    """An answer as code, cut after 40 letters."""
    text = re.sub(r"\s+", " ", repr(answer))
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"


def notebook_names() -> dict[str, Any]:
    """A copy of the names that the notebook's cells have defined; none in plain Python."""
    shell = running_shell()
    return dict(shell.user_ns) if shell else {}
