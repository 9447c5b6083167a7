"""The words of earlier versions that still work; a line on standard error names the word of today."""

from collections.abc import Collection

from tpsnet_lib.errors import warn

_EXECUTION = {
    "--plain": "--execution=plain",
    "--no-compile": "--execution=eager",
    "--compile": "--execution=compiled",
    "--cuda-graphs": "--execution=captured",
}
NEW_WORDS = {  # by what they are words of: a command, or a kind of name
    "train": _EXECUTION,
    "run": _EXECUTION,
    "test": {"--not-choosing": "--exploratory"},
    "bench": {"--to": "--target"},
    "records": {"pack": "export", "unpack": "import"},
    "name": {"laptop": "two_cores", "best": "card_wide"},  # of members, recipes, experiments; of `laptop_split` too
    "execution": {"graphs": "captured"},
}


def current_word(kind: str, word: str, known: Collection[str] | None = None) -> str:
    """The word of today for one of a kind of `NEW_WORDS`; others are returned as they are, and so is one whose new word
    is not among those that are known."""
    new = renamed(kind, word)
    if new == word or (known is not None and new not in known):
        return word
    warn(f"{word} is called {new} now")
    return new


def renamed(kind: str, word: str) -> str:
    """The same without a line on standard error, for what was written down before."""
    first, underscore, rest = word.partition("_") if kind == "name" else (word, "", "")
    return NEW_WORDS.get(kind, {}).get(first, first) + underscore + rest
