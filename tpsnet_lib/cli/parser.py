"""What the command line offers: every command, its options and its help; one line answers words it does not know."""

import argparse
import difflib
import functools
import re
from collections.abc import Callable
from typing import NoReturn

from tpsnet_lib import __version__
from tpsnet_lib.old_words import current_word

Add = Callable[[str, str, str], argparse.ArgumentParser]
EXECUTIONS = ("auto", "eager", "plain", "compiled", "captured", "captured-compiled")  # `compile_step`'s, without torch


class Parser(argparse.ArgumentParser):
    """A parser whose refusal is one line that says what may have been meant."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message}{_meant(message)}\n")


def _meant(message: str) -> str:
    """What the user may have meant by words that argparse refuses."""
    if invalid := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
        choices = [choice.strip("' ") for choice in invalid[2].split(",")]
        near = difflib.get_close_matches(invalid[1], choices, 1)
        return f"; did you mean {near[0]}?" if near else "; --help lists what there is"
    if unknown := re.search(r"unrecognized arguments: --([\w-]+)[ =]?(\S*)", message):
        name = unknown[1].replace("-", "_")
        from tpsnet_lib.config import DataConfig, ModelConfig, TrainConfig

        for part in (TrainConfig, ModelConfig, DataConfig):
            if name in part.__dataclass_fields__:
                return f"; fields of a run are set by --set {part.section}.{name}={unknown[2] or '...'}"
    return "; --help lists what there is"


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands. What it parses has `function`, which `main` imports and calls: `module:name`."""
    parser = Parser(
        prog="tpsnet",
        description="Residual networks under 5,000,000 parameters on CIFAR-10: train, search, test, report.",
        epilog="Example: tpsnet train --set model=classroom --set train.epochs=2 --set data.train_size=2000",
    )
    parser.add_argument("--version", action="version", version=f"tpsnet {__version__}")
    shared = Parser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(function: str, about: str, example: str) -> argparse.ArgumentParser:
        """Add the command that is carried out by a function of a module of `cli`, and has its name."""
        command = commands.add_parser(
            function.partition(":")[2],
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=f"Example: {example}",
            parents=[shared],
        )
        command.set_defaults(function=f"tpsnet_lib.cli.{function}")
        return command

    _add_network_commands(add)
    _add_run_commands(add)
    _add_record_commands(add)
    _add_report_commands(add)
    _add_setup_commands(add)
    return parser


def _add_data_options(command: argparse.ArgumentParser, device: bool = True, own: bool = True) -> None:
    """`own`: whether the command takes a data set of one's own too."""
    what = "folder that holds CIFAR-10 (else $TPSNET_DATA, else ./data)"
    own_data = ", or a folder of photographs for each class"
    command.add_argument("--data", metavar="DIR", help=what + own_data * own)
    if device:
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="end standard output with one JSON object on a line")


def _add_execution(command: argparse.ArgumentParser) -> None:
    ways = (
        "of a step: eager; plain, without the faster layers of fast_cpu too; compiled by torch.compile; captured"
        " as a CUDA graph, or both (default: auto, which captures on CUDA, and compiles long runs there)"
    )
    today = functools.partial(current_word, "execution")
    command.add_argument("--execution", type=today, choices=EXECUTIONS, default="auto", help=ways)


def _add_wandb(command: argparse.ArgumentParser) -> None:
    what = "mirror the runs in Weights & Biases, or in report/local/wandb for `wandb sync` (default: %(default)s)"
    command.add_argument("--wandb", choices=("off", "offline", "online"), default="off", help=what)


def _add_network_commands(new: Add) -> None:
    example = "tpsnet describe --blocks 3 3 3 --channels 68 136 272 --stem 34"
    command = new("network_commands:describe", "a network's layers, shapes, parameters and MACs", example)
    add = command.add_argument
    add("name", nargs="?", help="a named member, such as tpsnet, model1, model2, classroom")
    add("--blocks", nargs="+", metavar="B", help="residual blocks of each layer")
    add("--channels", nargs="+", metavar="C", help="output channels of each layer")
    add("--kernels", nargs="+", metavar="F", help="convolution kernel, of all layers or of each")
    add("--skip-kernels", nargs="+", metavar="K", help="skip kernel, of all layers or of each")
    add("--pool", metavar="P", help="average-pool kernel over the last feature map")
    add("--stem", metavar="W", help="output channels of the first convolution")
    add("--set", action="append", default=[], metavar="model.FIELD=VALUE", help="any other field")
    add("--draw", metavar="FILE", help="draw the network, as .svg or .png")
    _add_json(command)

    about = "what data there is; download CIFAR-10, or what people and published models said of its test images"
    command = new("network_commands:data", about, "tpsnet data download --data ./data")
    add = command.add_argument
    add("verb", nargs="?", choices=("status", "download", "reference"), default="status")
    add(
        "--dataset", choices=("cifar10", "cifar100", "fashion_mnist"), default="cifar10", help="status, download: which"
    )
    _add_data_options(command, device=False)
    mirror = "an address to try first: the archive's, or for `reference` a folder's"
    add("--mirror", action="append", default=[], metavar="URL", help=mirror)

    example = "tpsnet train --set model.blocks=[3,3,3] --set train.epochs=2 --set data.train_size=2000"
    command = new("network_commands:train", "train one network and keep its record", example)
    add = command.add_argument
    add("config", nargs="?", metavar="CONFIG.yaml", help="model, train, data and seed; default: the original")
    add("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="goes over the file")
    _add_data_options(command)
    add("--out", metavar="STORE", help="folder that takes the record (default: report/local/records)")
    add("--resume", action="store_true", help="go on from the checkpoint of this run, if there is one")
    _add_execution(command)
    _add_wandb(command)
    _add_json(command)


def _add_run_commands(new: Add) -> None:
    example = (
        "tpsnet run search_classroom --workers 2; on a Ray cluster: tpsnet run search_original_9 --backend ray"
        " --address HOST:6379 --gpus-per-run 0.5 --asha"
    )
    command = new("run_commands:run", "run experiments, or whatever is pending", example)
    add = command.add_argument
    add("experiment", nargs="*", help="names in report/experiments (without: a list of them)")
    add("--pending", action="store_true", help="all that have no record and suit this machine")
    add("--minutes", type=float, metavar="M", help="stop after so long, with checkpoints; the same command goes on")
    workers = "runs side by side (default: 1; on CUDA 3; a cluster: all that fit)"
    add("--workers", type=int, metavar="N", help=workers)
    _add_execution(command)
    add("--backend", choices=("local", "ray"), default="local", help="processes here, or Ray Tune")
    add("--address", metavar="HOST:PORT", help="ray: a running cluster, or auto (default: Ray here)")
    add("--gpus-per-run", type=float, metavar="F", help="ray: a share, such as 0.25: four on a GPU")
    add("--asha", action="store_true", help="ray: train 1, 3, 9 ... epochs, and only the best on")
    _add_wandb(command)
    _add_data_options(command)
    add("--out", metavar="STORE", help="folder that takes the records")

    about = "measure our loop, time to an accuracy, augmentation or search beside another way; or what a card trains"
    example = "tpsnet bench augment; on a quiet machine: tpsnet bench time --target 0.9 --epochs 8"
    command = new("run_commands:bench", about, example)
    add = command.add_argument
    add("what", choices=("loop", "time", "augment", "search", "card", "airbench"))
    add("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="a run in place of the usual ones")
    add("--repeats", type=int, default=5, metavar="N", help="turns, or runs, of each side (default: %(default)s)")
    add("--seconds", type=float, metavar="S", help="loop: of a turn (5); card: of all recipes (60)")
    add("--workers", type=int, nargs="+", metavar="N", help="loop: of its DataLoader (0, 1, 2, 4 ... cores)")
    add("--target", type=float, default=0.9, help="time: validation accuracy to reach (%(default)s)")
    add("--epochs", type=float, metavar="N", help="time: our schedule's length, if not the recipe's")
    add("--minutes", type=float, default=60, metavar="M", help="time: at most, of a side (%(default)s)")
    _add_data_options(command)
    _add_json(command)


def _add_record_commands(new: Add) -> None:
    store = "the store that holds the record, if not the default"
    default_network = "a record with weights (default: the best that was opened)"
    command = new("record_commands:test", "open the test set for a record, once", "tpsnet test 0b25b88ff21a")
    add = command.add_argument
    add("record", nargs="?", help="a record's id or folder (default: the best one that was opened)")
    exploratory = "open a record that was not declared final before it trained: no table shows it"
    add("--exploratory", action="store_true", help=exploratory)
    add("--log", action="store_true", help="of an opened record: keep its score of today in the log")
    _add_data_options(command)
    add("--out", metavar="STORE", help=store)
    _add_json(command)

    about = "say what a network takes your photographs for"
    command = new("record_commands:predict", about, "tpsnet predict cat.jpg dog.png")
    add = command.add_argument
    add("photo", nargs="+", metavar="PHOTO", help="a JPEG, PNG, GIF or WebP file")
    add("--record", metavar="ID", help=default_network)
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    add("--out", metavar="STORE", help=store)
    _add_json(command)

    about = "write a network for other programs: .pt2 by torch.export, .onnx"
    add = new("record_commands:convert", about, "tpsnet convert best.pt2").add_argument
    add("file", metavar="FILE", help="its ending, .pt2 or .onnx, says what to write")
    add("--record", metavar="ID", help=default_network)
    add("--out", metavar="STORE", help=store)

    about = "list, verify or publish records; export finished ones to a file, and import them into another store"
    example = "tpsnet records export card_wide --out wide.tar; elsewhere: tpsnet records import wide.tar"
    command = new("record_commands:records", about, example)
    add = command.add_argument
    add("verb", nargs="?", choices=("list", "verify", "publish", "export", "import"), default="list")
    names = "ids or experiments (publish: what to copy; list, export: default all; import: the archive)"
    add("names", nargs="*", help=names)
    add("--weights", action="store_true", help="publish weights too")
    add("--out", metavar="PATH", help="the store, if not the default (export: the archive to write)")
    add("--store", metavar="STORE", help="export: the store to read, if not the default")
    _add_json(command)


def _add_report_commands(new: Add) -> None:
    example = "tpsnet notebooks --profile smoke --only 02"
    notebooks = new("report_commands:notebooks", "execute the notebooks in order", example)
    about = "execute the notebooks and write the report, one HTML file"
    report = new("report_commands:report", about, "tpsnet report --profile quick")
    for command in (notebooks, report):
        add = command.add_argument
        add("--profile", help="smoke, quick or full (default: quick)")
        add("--only", action="append", default=[], metavar="NN", help="this notebook; may be repeated")
        add("--keep-going", action="store_true", help="run the rest after a failure")
        add("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
        _add_data_options(command, device=False, own=False)
        add("--out", metavar="PATH", help="where it goes (default: under report/local)")
    add = notebooks.add_argument
    add("--prepare", action="store_true", help="only write copies with the parameters, for nbval")
    add("--student", metavar="DIR", help="only write copies without worked solutions there")
    address = "of the GitHub repository that will hold DIR: its copies get badges for Colab and Binder"
    add("--address", metavar="URL", help=address)
    report.add_argument("--no-run", action="store_true", help="of the notebooks executed before")

    about = "make the figures and the README's findings from the page and the records"
    command = new("report_commands:figures", about, "tpsnet figures")
    command.add_argument("--out", metavar="DIR", help="folder (default: figures)")


def _add_setup_commands(new: Add) -> None:
    new("setup_venv:setup", "create .venv from the pins", "python3 -m tpsnet_lib setup")
    new("setup_venv:check", "run ruff, mypy, the tests and nbval over the notebooks", "tpsnet check")
    command = new("setup_venv:lab", "open JupyterLab on the first notebook", "tpsnet lab --port 9999 --no-browser")
    command.add_argument("jupyter", nargs="*", metavar="OPTION", help="options of JupyterLab")
