"""The command line: what programs rely on, and one clear line for what a user can mend."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.io import write_png

from tpsnet_lib import metrics
from tpsnet_lib.cli import main, network_commands, parser, record_commands
from tpsnet_lib.config import MEMBERS
from tpsnet_lib.data import datasets
from tpsnet_lib.data.own import load_photo
from tpsnet_lib.errors import DataError, RecordError
from tpsnet_lib.runs.experiments import final_ids
from tpsnet_lib.runs.records import Record, Store, default_store
from tpsnet_lib.runs.test_set import find_test

SMALL = ["--set", "data.dataset=shapes10", "--set", "data.train_size=100", "--set", "data.validation_size=50",
         "--set", "train.epochs=1", "--set", "train.batch_size=50", "--set", "model.blocks=[1]", "--set",
         "model.channels=[4]", "--set", "model.stem=4", "--device", "cpu"]  # fmt: skip
COUNTS = {"tpsnet": 4_959_770, "model1": 4_865_580, "model2": 4_971_680, "deep17": 4_987_384, "deep23": 4_976_470}


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_describe_gives_the_exact_counts(name: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("describe", name, "--json", capsys=capsys)
    said = json.loads(out)
    assert (code, said["parameters"]) == (0, count)
    assert said["macs"] == sum(layer["macs"] for layer in said["layers"])
    model = MEMBERS[name]
    spelled = ["--blocks", *map(str, model.blocks), "--channels", *map(str, model.channels), "--stem", str(model.stem)]
    assert json.loads(call("describe", *spelled, "--json", capsys=capsys)[1])["parameters"] == count


def test_describe_refuses_what_is_over_the_budget_and_shows_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(
        "describe", "--blocks", "50", "50", "50", "--channels", "32", "64", "128", "--json", capsys=capsys
    )
    assert code == 1
    assert f"{json.loads(out)['parameters']:,} parameters" in err


@pytest.mark.slow
def test_train_and_test_are_drivable_by_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "réc ords"
    code, out, _ = call("train", *SMALL, "--out", str(store), "--json", capsys=capsys)
    said = json.loads(out.splitlines()[-1])
    folder = Path(said["record"])
    assert (code, folder.is_absolute(), folder.parent) == (0, True, store)
    assert 0 <= said["validation_accuracy"] <= 1
    assert json.loads(call("train", *SMALL, "--out", str(store), "--json", capsys=capsys)[1]) == said
    code, _, err = call("test", str(folder), capsys=capsys)
    assert (code, "the test set stays shut" in err) == (1, True)
    code, out, _ = call("test", str(folder), "--exploratory", "--json", capsys=capsys)
    assert (code, json.loads(out)["n"]) == (0, 2000)
    code, out, _ = call("test", str(folder), "--exploratory", capsys=capsys)
    assert "95% interval" in out
    assert "recorded when it was opened" in out


def test_a_long_run_is_announced_with_a_way_to_shorten_it_and_a_short_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = parser.command_line().parse_args(["train", *SMALL, "--set", "train.epochs=3000"])
    config = network_commands._config(options).with_precision("fp32")
    monkeypatch.setattr(network_commands, "LONG", 1.0)
    said = network_commands._length_of(config, options)
    steps = 3000 * (config.data.train_size // config.train.batch_size)
    assert f"3000 epochs, {steps:,} steps, take about" in said
    assert re.search(r"--set train.epochs=\d+ \([\d,]+ steps, about", said)
    assert "train_size" not in said, "it has fewer images already"
    monkeypatch.setattr(network_commands, "LONG", 1e-9)
    one = replace(config, train=replace(config.train, epochs=1))
    said = network_commands._length_of(one, options)
    assert said.startswith("1 epoch, 2 steps, take about")
    assert "train.epochs" not in said, "an epoch is no way to shorten an epoch"
    monkeypatch.setattr(network_commands, "LONG", 1e9)
    assert network_commands._length_of(config, options) == ""
    assert [network_commands._roughly(seconds) for seconds in (3600, 319_691)] == ["1:00:00 h", "89 h"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.lrr=1"], "did you mean lr?"),
        (["--set", "train.lr=-1"], "train.lr is -1: give a value from 0 to 100"),
        (["--set", "train.epochs"], "give it as section.field=value"),
        (["--set", "model.pool=9"], "model.pool is 9: the last feature map is 8 x 8"),
        (["--set", "model.blocks=[99,99,99]"], "over the budget of 5,000,000"),
        (["--set", "data.train_size=60000"], "data.train_size is 60000"),
        (["--device", "tpu"], "--device tpu: choose one of"),
        (["missing.yaml"], "missing.yaml is missing"),
        (["--data", "/nowhere", "--set", "train.epochs=1"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_not_a_traceback(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call("train", *arguments, capsys=capsys)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_wrong_names_are_refused_before_torch_is_loaded() -> None:
    calls = ["describe", "nosuch"], ["run", "nosuch"], ["train", "--set", "train.lrr=1"], ["records", "list", "nosuch"]
    code = (
        "import sys\nfrom tpsnet_lib.cli.main import main\n"
        f"codes = [main(call) for call in {calls}]\n"
        "sys.exit(codes != [1, 1, 1, 1] or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_config_file_that_builds_objects_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("train: !!python/object/apply:os.system ['touch owned']")
    code, _, err = call("train", str(path), capsys=capsys)
    assert (code, "is not plain YAML" in err) == (1, True)


def test_a_config_file_lies_under_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model: classroom\ntrain: {epochs: 7}\nseed: 3\n")
    code, out, _ = call("train", str(path), *SMALL, "--out", str(tmp_path / "s"), "--json", capsys=capsys)
    config = json.loads((Path(json.loads(out)["record"]) / "config.json").read_text())["config"]
    assert (code, config["seed"], config["train"]["epochs"], config["model"]["blocks"]) == (0, 3, 1.0, [1])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    code, _, err = call("train", *SMALL, "--out", str(tmp_path / "store"), capsys=capsys)
    assert (code, "permission denied" in err) == (1, True)


def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import errno

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = call("train", *SMALL, "--out", str(tmp_path), capsys=capsys)
    assert (code, "the disk is full" in err) == (1, True)
    assert not list(tmp_path.glob("[0-9a-f]*"))


@pytest.mark.parametrize(
    "command", ["describe", "data", "train", "test", "run", "records", "bench", "notebooks", "report", "figures",
                "convert", "predict", "setup", "check", "lab"]
)  # fmt: skip
def test_every_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main([command, "--help"])
    assert stop.value.code == 0
    assert "Example: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian"], "did you mean train?"),
        (["notebook"], "did you mean notebooks?"),
        (["train", "--epochs", "2"], "--set train.epochs="),
        (["train", "--batch-size=64"], "--set train.batch_size=64"),
        (["train", "--channels", "16"], "--set model.channels="),
        (["records", "lst"], "did you mean list?"),
        (["describe", "--nonsense"], "--help lists"),
        ([], "COMMAND"),
    ],
)
def test_what_may_have_been_meant_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main(words)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("words", "line"), [(["help"], "commands:"), (["help", "train"], "CONFIG.yaml")])
def test_help_is_a_word(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main.main(words)
    assert (stop.value.code, line in capsys.readouterr().out) == (0, True)


def test_the_original_names_work() -> None:
    root = Path(__file__).parent.parent
    for name in ("train.py", "test.py"):
        done = subprocess.run([sys.executable, root / name, "--help"], capture_output=True, text=True, check=True)
        assert "Example: " in done.stdout


def test_a_bare_test_wants_a_final_network_that_was_opened(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no final network has been opened"):
        record_commands._best_opened(Store(tmp_path))
    chosen = record_commands._best_opened(default_store())
    assert find_test(default_store().load(chosen), default_store()) is not None
    assert chosen in final_ids()


def test_predict_names_the_class_of_each_photograph_and_what_the_network_does_not_know(
    tmp_path: Path, tiny_record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    image, photo = datasets.load_test("shapes10").images[0], tmp_path / "shape.png"
    side = torch.zeros(3, 32, 15, dtype=torch.uint8)
    write_png(torch.cat([side, image, side], 2), str(photo))
    assert torch.equal(load_photo(photo), image)  # the middle square
    write_png(torch.full((3, 90, 200), 77, dtype=torch.uint8), str(tmp_path / "grey.png"))
    assert load_photo(tmp_path / "grey.png").unique().tolist() == [77]
    Image.new("RGBA", (40, 40), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    assert load_photo(tmp_path / "clear.png").unique().tolist() == [255]  # as it is seen on paper
    given = ["predict", str(photo), "--record", tiny_record.id, "--out", str(tiny_record.path.parent)]
    code, out, _ = call(*given, "--device", "cpu", capsys=capsys)
    assert code == 0
    assert out.startswith(f"{photo}: ")
    assert "only 10 classes (disc, " in out
    found = json.loads(call(*given, "--device", "cpu", "--json", capsys=capsys)[1])
    (row,) = found["photos"].values()
    logits = metrics.predict(tiny_record.load_model(), image[None])
    assert list(row.values()) == pytest.approx(logits.softmax(1)[0].topk(3).values.tolist(), abs=1e-3)
    assert next(iter(row)) == datasets.class_names("shapes10")[int(logits.argmax())]


@pytest.mark.parametrize("text", [None, "not an image"])
def test_predict_refuses_what_is_no_photograph_in_one_line(
    text: str | None, tmp_path: Path, tiny_record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    if text:
        photo.write_text(text)
    given = ["predict", str(photo), "--record", tiny_record.id, "--out", str(tiny_record.path.parent)]
    code, out, err = call(*given, capsys=capsys)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert str(photo) in err


@pytest.mark.parametrize(("path", "said"), [(1, "1 is no path"), (Path.cwd(), "is a folder")])
def test_what_is_no_path_of_a_photograph_is_refused(path: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_photo(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["notebooks", "--student", "", "--only", "01"], "student is empty: give it a value, or leave it out"),
        (["describe", "tpsnet", "--skip-kernels", ""], "skip-kernels is empty"),
        (["run", "quick", "--pending"], "--pending is of all experiments"),
        (["run", "smoke", "--gpus-per-run", "0"], "--gpus-per-run is for Ray"),
        (["bench", "augment", "--repeats", "0"], "--repeats is 0: give at least 1"),
        (["bench", "search", "--set", "seed=1"], "--set is a run's"),
        (["records", "verify", "--json"], "--json is of records list"),
        (["describe", "best"], "no member is called 'best'"),
        (["run", "best_of_all"], "no experiment best_of_all"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(*words, capsys=capsys)
    assert code == 1
    assert said in err
    assert "is called card_wide now" not in err


def test_a_field_that_is_given_as_an_option_is_named_with_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call("train", "--batch-size=1e-3", capsys=capsys)
    assert "--set train.batch_size=1e-3" in capsys.readouterr().err


def test_old_words_are_known_with_a_value_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = main._in_words_of_today(["bench", "time", "--to=0.9"])
    assert words == ["bench", "time", "--target=0.9"]
    options = parser.command_line().parse_args(["train", "--execution", "graphs"])
    assert options.execution == "captured"
    assert main._in_words_of_today(["records", "import", "unpack_it.tar"])[-1] == "unpack_it.tar"
    capsys.readouterr()
    code, out, err = call("records", "list", "laptop", capsys=capsys)
    assert (code, "laptop is called two_cores now" in err) == (0, True)
    head, *lines = out.splitlines()
    assert len(lines) >= 3
    assert head.split()[:3] == ["record", "held", "out"]
    assert any(line.endswith(", with weights") for line in lines)
    assert any(not line.endswith(", with weights") for line in lines)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("nosuch", "`tpsnet run` lists the experiments, `tpsnet records list` all records with their ids"),
        ("two_core", "did you mean two_cores?"),
    ],
)
def test_a_name_that_fits_no_record_lists_none(name: str, way_out: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call("records", "list", "two_cores", name, capsys=capsys)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"no experiment is called {name!r}, and no record has this id: {way_out}" in err


def test_an_experiment_without_a_record_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call("records", "list", "smoke", "--out", str(tmp_path), capsys=capsys)
    assert (code, "no run of smoke has a record yet: `tpsnet run smoke`" in err) == (0, True)


def test_data_status_is_of_the_data_set_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call("data", "status", "--dataset", "cifar100", "--data", str(tmp_path), capsys=capsys)
    assert code == 1
    assert "CIFAR-10 " not in err
