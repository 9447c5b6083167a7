"""Changes at random of a valid file, as bytes, as text and as a tree of values; a seed gives the same change again."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

HIT = "TPSNET_FAULT_HIT"  # the file that hostile YAML and pickles would make in the working directory
TOKENS = [
    *("NaN", "-Infinity", "1e999", "-1", "0", "null", "true", "''", "9" * 5000, "0x" + "f" * 5000, "1e-999", "-0.0"),
    *("x" * 20_000, "[" * 3000, "💥"),
    *( "{" * 3000, '{"a":' * 3000, "- " * 3000, "\x00", "\ufeff", "\u2028", "\u202e", "é"),
    *("<<: *a", "&a [*a]", f"!!python/object/apply:os.system ['touch {HIT}']", "!!int x", "!!timestamp x", "? [1]: 2"),
    *("\r", "\n\n", "\t", ",,,,", '"', "'", "\\", "#", ": ", "--- !x", "%YAML 9.9", "2001-99-99", "1:99:99", "../../x"),
]  # fmt: skip
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, float("nan"), float("inf"), -float("inf"), 10**400, 2**63, 1e308, "", "x"),
    *("9" * 5000, "x" * 20_000),
    *("\u202e\u2028\x00", "NaN", "../../x", [], {}, [[]], [None], {"": None}, [0] * 2000, ["x"] * 3),
    {"a": 1},
]  # fmt: skip


def changed_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to three of: bits turned over, a cut, a part twice, a part gone, a part of noise, zeros."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(content) + 1)
        stop = min(len(content), start + rng.choice([1, 8, 64, 1024]))
        part = content[start:stop]
        middle = rng.choice(
            [
                bytes(byte ^ (1 << rng.randrange(8)) for byte in part),
                b"",
                part + part,
                rng.randbytes(len(part)),
                bytes(len(part)),
                b"\xff" * len(part),
            ]
        )
        content = content[:start] + middle + content[stop:]
        if rng.random() < 0.2:
            content = content[:start]
    return content


def changed_text(content: bytes, rng: random.Random) -> bytes:
    """One to three of: a token put in, a token in place of a word or number, a line twice, away, or elsewhere."""
    text = content.decode("utf-8")
    for _ in range(rng.randint(1, 3)):
        token, lines = rng.choice(TOKENS), text.splitlines(keepends=True)
        line = rng.randrange(len(lines)) if lines else 0
        kind = rng.randrange(5)
        if kind == 0 or not lines:
            at = rng.randrange(len(text) + 1)
            text = text[:at] + token + text[at:]
        elif kind == 1:
            words = lines[line].split(" ")
            words[rng.randrange(len(words))] = token
            text = "".join([*lines[:line], " ".join(words), *lines[line + 1 :]])
        elif kind == 2:
            text = "".join([*lines[: line + 1], *lines[line:]])
        elif kind == 3:
            text = "".join([*lines[:line], *lines[line + 1 :]])
        else:
            rng.shuffle(lines)
            text = "".join(lines)
    return text.encode("utf-8")


def changed_tree(tree: Any, rng: random.Random) -> Any:
    """One to three of: a value of another type or size, a key away or under another name, an item twice, a deep one."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            return rng.choice(VALUES)
        holder, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(["x", "", "x" * 5000, "__proto__", "é"])] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.extend([holder[key]] * rng.choice([1, 500]))
        elif kind == 3:
            deep: Any = holder[key]
            for _ in range(rng.choice([1, 50, 400])):
                deep = [deep] if rng.random() < 0.5 else {"a": deep}
            holder[key] = deep
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return tree


def _places(tree: Any) -> Any:
    """Every holder with a key or position in it."""
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, (dict, list)):
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            for key in keys:
                yield holder, key
                waiting.append(holder[key])


def changed_json(content: bytes, rng: random.Random) -> bytes:
    """JSON with another tree, or with its text changed."""
    if rng.random() < 0.3:
        return changed_text(content, rng)
    return json.dumps(changed_tree(json.loads(content), rng)).encode()


def changed_lines(content: bytes, rng: random.Random) -> bytes:
    """JSON lines of which one has another tree, or with their text changed."""
    lines = content.decode().splitlines()
    at = rng.randrange(len(lines))
    if rng.random() < 0.3:
        return changed_text(content, rng)
    lines[at] = json.dumps(changed_tree(json.loads(lines[at]), rng))
    return "".join(f"{line}\n" for line in lines).encode()


def changed_yaml(content: bytes, rng: random.Random) -> bytes:
    """YAML with another tree, or with its text or bytes changed."""
    import yaml

    if rng.random() < 0.5:
        return rng.choice([changed_text, changed_text, changed_bytes])(content, rng)
    try:
        return yaml.safe_dump(changed_tree(yaml.safe_load(content), rng), allow_unicode=True).encode()
    except (RecursionError, ValueError):  # of this test's own dump
        return changed_text(content, rng)


Change = Callable[[bytes, random.Random], bytes]


def either(*changes: Change) -> Change:
    """One of several changes."""
    return lambda content, rng: rng.choice(changes)(content, rng)
