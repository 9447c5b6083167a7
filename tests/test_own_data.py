"""Data sets of one's own: classes and colours follow the data, records carry its name, other images are another run."""

import gzip
import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUIET
from torchvision.io import write_png

from tpsnet_lib.cli import main
from tpsnet_lib.config import DataConfig, ModelConfig, RunConfig
from tpsnet_lib.config_parsing import parse
from tpsnet_lib.data import datasets, own
from tpsnet_lib.errors import ConfigError, DataError
from tpsnet_lib.model import build
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.records import Store
from tpsnet_lib.runs.test_set import open_test

SMALL = ["--set", "model.blocks=[1]", "--set", "model.channels=[4]", "--set", "model.stem=4", "--set", "train.epochs=2",
         "--set", "train.batch_size=8", "--set", "train.precision=fp32", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Twelve photographs of each of three classes, of different sizes; a class is a colour."""
    folder, draw = tmp_path / "my flowers", torch.Generator().manual_seed(0)
    for colour, name in enumerate(("aster", "bellis", "crocus")):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            photo = torch.randint(0, 90, (3, 40 + number, 64), generator=draw, dtype=torch.uint8)
            photo[colour] += 160
            write_png(photo, str(folder / name / f"{number}.png"))
    (folder / "aster" / "notes.txt").write_text("no photograph")
    return folder


def test_a_folder_is_divided_by_class_into_parts_that_share_no_image(flowers: Path) -> None:
    name = own.name_of(flowers)
    assert name.startswith("own:my-flowers:3:")
    train, test = (own.read(name, part, flowers) for part in ("train", "test"))
    assert train.images.shape == (33, 3, 32, 32)
    assert torch.bincount(train.labels).tolist() == [11, 11, 11]
    assert torch.bincount(test.labels).tolist() == [1, 1, 1]
    everything = torch.cat([train.images, test.images]).flatten(1)
    assert len(everything.unique(dim=0)) == 36
    fit, validation = datasets.fit_and_validation(DataConfig(name, train_size=6), flowers)
    assert sorted(fit.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert sorted(validation.labels.tolist()) == [0, 1, 2]
    assert (train.fingerprint.stamp, train.fingerprint.classes) == (
        "my flowers (own data)",
        ("aster", "bellis", "crocus"),
    )


def test_other_images_are_another_data_set_and_the_old_name_is_refused(flowers: Path) -> None:
    name = own.name_of(flowers)
    write_png(torch.zeros(3, 32, 32, dtype=torch.uint8), str(flowers / "aster" / "0.png"))
    assert own.name_of(flowers) != name
    with pytest.raises(DataError, match="its images are others"):
        datasets.load_train(name, flowers)
    with pytest.raises(DataError, match="give it with --data"):
        datasets.load_train(name, None)


def test_training_on_a_folder_keeps_a_record_that_carries_its_name(
    flowers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "store")]
    assert main.main(["train", "--data", str(flowers), *SMALL, *out, "--json"]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    store = Store(tmp_path / "store")
    assert main.main(["train", "--data", str(flowers), *SMALL, *out]) == 0  # its record is read
    assert re.search(
        r"validation accuracy [\d.]+% \(95% interval [\d.]+ to [\d.]+, 3 images\)", capsys.readouterr().out
    )
    record = store.load(made["id"])
    assert (record.stamp, record.config.model.classes) == ("my flowers (own data)", 3)
    assert record.config.data.dataset == own.name_of(flowers)
    assert record.load_model().head.out_features == 3
    assert made["parameters"] == count_parameters(record.config.model)
    assert open_test(record, root=flowers, store=store, exploratory=True).metrics["n"] == 3
    photo = str(flowers / "crocus" / "3.png")
    assert main.main(["predict", photo, "--record", record.id, *out, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["photos"][photo]) == {"aster", "bellis", "crocus"}
    assert main.main(["data", "--data", str(flowers)]) == 0
    assert "aster, bellis, crocus" in capsys.readouterr().out


@pytest.mark.parametrize(("remove", "message"), [(12, ""), (10, "at least 3 a class")])
def test_a_class_with_too_few_photographs_is_named(flowers: Path, remove: int, message: str) -> None:
    for number in range(remove):
        (flowers / "bellis" / f"{number}.png").unlink()
    if message:
        with pytest.raises(DataError, match=rf"bellis.*{message}"):
            own.name_of(flowers)
    else:  # an empty folder is no class
        assert own.name_of(flowers).startswith("own:my-flowers:2:")


@pytest.mark.parametrize(
    "call", [["notebooks", "--profile", "smoke"], ["notebooks", "-p", "dataset", "auto"], ["report"]], ids=" ".join
)
def test_the_chapters_refuse_data_of_ones_own_before_they_start(
    call: list[str], flowers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main.main([*call, "--only", "01", "--data", str(flowers), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert f"not CIFAR-10, which the chapters are about: `tpsnet train --data {flowers}` trains on it" in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_a_chapter_says_that_other_data_is_not_what_it_is_about(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dataset, data in [("auto", str(flowers)), ("shapes10", str(flowers)), ("cifar100", "")]:
        with pytest.raises(DataError, match="the chapters are about"):
            datasets.resolve_dataset(dataset, data)
    monkeypatch.setenv("TPSNET_DATA", str(flowers))
    with pytest.raises(DataError, match="is a data set of one's own"):
        datasets.load_train("cifar10")


@pytest.mark.parametrize(("place", "held"), [("crocus", "12 photographs themselves"), ("", "in one folder, crocus")])
def test_photographs_of_one_class_are_no_data_set(
    flowers: Path, place: str, held: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("aster", "bellis"):
        shutil.rmtree(flowers / name)
    assert main.main(["train", "--data", str(flowers / place), *SMALL]) == 1
    said = capsys.readouterr().err
    assert held in said
    assert "two folders of photographs or more" in said
    assert said.count("\n") == 1


def test_a_damaged_photograph_is_one_line(flowers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (flowers / "aster" / "0.png").write_bytes(b"not an image")
    assert main.main(["train", "--data", str(flowers), *SMALL]) == 1
    said = capsys.readouterr().err
    assert "0.png" in said
    assert said.count("\n") == 1


# torchvision's ------------------------------------------------------------------------------------------------------


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """FashionMNIST's four files with 100 and 20 images."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 100), ("t10k", 20)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, header, content in (
            (f"{part}-images-idx3-ubyte", struct.pack(">iiii", 2051, count, 28, 28), pixels),
            (f"{part}-labels-idx1-ubyte", struct.pack(">ii", 2049, count), labels),
        ):
            (raw / name).write_bytes(header + content.tobytes())
            (raw / f"{name}.gz").write_bytes(gzip.compress(b""))
    return tmp_path


def test_fashion_mnist_has_one_colour_and_so_has_its_network(fashion: Path) -> None:
    given = {"blocks": [1], "channels": [4], "stem": 4}
    recipe = {"epochs": 1, "batch_size": 10, "precision": "fp32", "cutmix": 1.0, "mixup": 0.2, "cutout": 8}
    recipe |= {"erasing": 0.5, "rotation": 9, "crop_padding": "reflect", "flip": "alternate", "small_epochs": 0.5}
    config = parse({"model": given, "train": recipe, "data": "fashion_mnist"})
    record = load_or_run(config, QUIET, root=fashion, store=Store(fashion / "store"))
    train = datasets.load_train("fashion_mnist", fashion)
    assert train.images.shape == (100, 1, 32, 32)
    assert int(train.images[:, :, :2].max()) == 0, "28 pixels with a margin of 2"
    assert [len(part) for part in datasets.split("fashion_mnist", fashion)] == [90, 10]
    assert record.config.model.colours == 1
    assert record.provenance["fingerprint"]["classes"][0] == "T-shirt/top"
    assert (record.stamp, len(datasets.load_test("fashion_mnist", fashion))) == ("FashionMNIST", 20)


def test_what_is_for_colours_is_refused_for_greys() -> None:
    for tree in ({"train": {"trivial": True}}, {"model": {"stem_kind": "whiten", "stem": 24}}):
        with pytest.raises(ConfigError, match="colours"):
            parse({**tree, "data": "fashion_mnist"})


def test_a_missing_data_set_of_torchvision_names_the_way_out(tmp_path: Path) -> None:
    for name in own.OF_TORCHVISION:
        with pytest.raises(DataError, match=f"tpsnet data download --dataset {name}"):
            datasets.load_train(name, tmp_path)


# Configs ------------------------------------------------------------------------------------------------------------


def test_classes_follow_the_data_and_no_id_of_ten_classes_changes() -> None:
    hundred = RunConfig(ModelConfig(classes=7), data=DataConfig("cifar100")).model
    assert (hundred.classes, hundred.colours) == (100, 3)
    assert build(hundred).head.out_features == 100
    assert count_parameters(hundred) - count_parameters(ModelConfig()) == 90 * 129
    assert not {"classes", "colours"} & set(RunConfig(data=DataConfig("shapes10")).to_dict().get("model", {}))
    assert RunConfig(ModelConfig(classes=7)) == RunConfig()


@pytest.mark.parametrize("name", ["flowers", "own:flowers:5", "own:a/b:5:1a2b3c4d", "own:x:1:1a2b3c4d", 5])
def test_what_is_no_name_of_a_data_set_is_refused(name: object) -> None:
    with pytest.raises(ConfigError):
        parse({"data": {"dataset": name}})


def test_a_whitened_stem_is_for_three_colours() -> None:
    with pytest.raises(ConfigError, match="3 colours"):
        parse({"model": "sprint", "data": "fashion_mnist"})
