"""The words of earlier versions that still work; a line on standard error names the word of today."""

from tpsnet_lib.files import warn

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
    "name": {"laptop": "two_cores"},  # of members, recipes and experiments, also as the beginning of one (`laptop_...`)
    "execution": {"graphs": "captured"},
}


def current_word(kind: str, word: str) -> str:
    """The word of today for one of a kind of `NEW_WORDS`; others are returned as they are."""
    first, underscore, rest = word.partition("_")
    if (new := NEW_WORDS.get(kind, {}).get(first)) is None:
        return word
    new += underscore + rest
    warn(f"{word} is called {new} now")
    return new
