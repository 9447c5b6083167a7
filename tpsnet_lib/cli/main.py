"""The entry point, `tpsnet ...` or `python -m tpsnet_lib ...`: words become a command, an error becomes one line."""

import argparse
import contextlib
import errno
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tpsnet_lib.cli.parser import command_line
from tpsnet_lib.errors import ConfigError, Interrupted, TpsnetError, warn
from tpsnet_lib.old_words import current_word
from tpsnet_lib.whole_files import naming

_SYSTEM_ERRORS = {  # what the system may refuse, in words, and the way out; others in its own
    errno.ENOSPC: ("the disk is full", "make room"),
    errno.EDQUOT: ("the disk quota is used up", "make room"),
    errno.EIO: ("the disk does not read or write it", "look after the disk"),
    errno.EROFS: ("the file system is read-only", "name another place"),
    errno.EACCES: ("permission denied", "change its permissions, or name another place"),
    errno.EPERM: ("permission denied", "change its permissions, or name another place"),
    errno.EISDIR: ("a folder, where a file is needed", "name a file"),
    errno.ENOTDIR: ("a file, where a folder is needed", "name another place"),
    errno.EEXIST: ("a file, where a folder is needed", "name another place"),
    errno.ENAMETOOLONG: ("the name is too long", "name it shorter"),
    errno.ENOENT: ("it is not there", "name another"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. What a user can mend is one line on standard error, never a traceback
    (unless `--debug`)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _run(_none_empty(command_line().parse_args(_in_words_of_today(words))))
        finally:
            with naming(Path("standard output")):  # whose reader may be gone, or its disk full
                sys.stdout.flush()
    except Interrupted as error:
        _print_error(error, words)
        return 130
    except KeyboardInterrupt:
        warn("stopped")
        return 130
    except TpsnetError as error:
        _print_error(error, words)
        return 1
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:
        reason, way_out = _SYSTEM_ERRORS.get(error.errno or 0, (error.strerror or str(error), "name another place"))
        _drop_output()
        place = _short(str(error.filename or "standard output, or a file"))
        _print_error(error, words, f"{place}: {_short(reason)}; nothing was overwritten: {way_out}, and give it again")
        return 1


def _none_empty(options: argparse.Namespace) -> argparse.Namespace:
    """The options, if no text among them is empty, as that of a shell's variable without a value is."""
    for name, value in vars(options).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise ConfigError(f"{name.replace('_', '-')} is empty: give it a value, or leave it out")
    return options


def _run(options: argparse.Namespace) -> int:
    os.environ["MATPLOTLIBRC"] = str(Path(__file__).parent.parent / "report" / "assets" / "tpsnet.mplstyle")
    return int(pkgutil.resolve_name(options.function)(options))


def _drop_output() -> None:
    """Let nothing more be written to standard output, not even by the interpreter at its end."""
    with contextlib.suppress(OSError):  # it may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _short(text: str) -> str:
    """At most 200 characters: the end of a path says the most."""
    return text if len(text) <= 200 else f"...{text[-197:]}"


def _in_words_of_today(arguments: list[str]) -> list[str]:
    """The arguments with old words replaced by the new ones; `help` asks for help, and `lab` needs no `--`."""
    if arguments[:1] == ["help"]:
        return [*arguments[1:2], "--help"]
    if arguments[:1] == ["lab"] and not {"--", "-h", "--help"} & set(arguments):
        ours = [word for word in arguments[1:] if word == "--debug"]
        return ["lab", *ours, "--", *(word for word in arguments[1:] if word != "--debug")]
    options = [word.partition("=") if word.startswith("--") else (word, "", "") for word in arguments[1:]]
    return arguments[:1] + [current_word(arguments[0], name) + equals + value for name, equals, value in options]


def _print_error(error: Exception, words: Sequence[str], line: str = "") -> None:
    if "--debug" in words:
        raise error
    warn(" ".join((line or str(error)).split()))
