"""What the command line says to words that it does not know: one line, with what may have been meant."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose refusal is one line that says what may have been meant."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}{_meant(message)}\n")


def _meant(message: str) -> str:
    """What may have been meant by what argparse refuses."""
    if invalid := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
        choices = [choice.strip("' ") for choice in invalid[2].split(",")]
        near = difflib.get_close_matches(invalid[1], choices, 1)
        return f"; did you mean {near[0]}?" if near else "; --help lists what there is"
    if unknown := re.search(
        r"unrecognized arguments: --(\w+)[ =]?(\S*)", message.replace("-", "_").replace("__", "--")
    ):
        from tpsnet_lib.config import DataConfig, ModelConfig, TrainConfig

        for part in (TrainConfig, ModelConfig, DataConfig):
            if unknown[1] in part.__dataclass_fields__:
                return f"; fields of a run are set by --set {part.section}.{unknown[1]}={unknown[2] or '...'}"
    return "; --help lists what there is"
