"""A network as a file for other programs gives the probabilities that it gives here."""

from pathlib import Path

import onnx.reference
import pytest
import torch

from tpsnet_lib import metrics
from tpsnet_lib.cli import main
from tpsnet_lib.data import datasets
from tpsnet_lib.runs.records import Record


@pytest.fixture
def given(tiny_record: Record, tmp_path: Path) -> list[str]:
    """The command up to the file to write."""
    return ["convert", "--record", tiny_record.id, "--out", str(tiny_record.path.parent)]


def test_the_exported_program_gives_the_same_probabilities(
    given: list[str], tiny_record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new folder" / "network.pt2"
    assert main.main([*given, str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    program = torch.export.load(path).module()
    for images in (datasets.load_test("shapes10").images[:5], datasets.load_test("shapes10").images[:1]):
        expected = metrics.predict(tiny_record.load_model(), images).softmax(1)
        assert torch.allclose(program(images), expected, atol=1e-5)


def test_the_onnx_file_gives_the_same_probabilities(given: list[str], tiny_record: Record, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    assert main.main([*given, str(path)]) == 0
    images = datasets.load_test("shapes10").images[:3]
    (found,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"images": images.numpy()})
    expected = metrics.predict(tiny_record.load_model(), images).softmax(1)
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("network.pth", "neither .pt2"),
        ("there.pt2", "there.pt2 exists already and is not overwritten: name another"),
        ("network.onnx", "pip install onnx onnxscript"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    name: str,
    line: str,
    given: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def export(*given: object, **options: object) -> None:
        raise ModuleNotFoundError("No module named 'onnxscript'")

    monkeypatch.setattr(torch.onnx, "export", export)  # as where only the engine's packages are
    (tmp_path / "there.pt2").write_text("another's")
    assert main.main([*given, str(tmp_path / name)]) == 1
    assert (tmp_path / "there.pt2").read_text() == "another's"
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.pt2"]
