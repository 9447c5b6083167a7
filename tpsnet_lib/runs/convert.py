"""A recorded network as a file for other programs: torch.export (.pt2), or ONNX (.onnx).

The file takes images as bytes and gives probabilities, so that whoever runs it need not know how a network of this
project takes its inputs."""

from pathlib import Path

import torch
from torch import Tensor, nn

from tpsnet_lib.data.datasets import MEAN, STD
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.runs.records import Record
from tpsnet_lib.whole_files import move_whole, naming, temporary


class BytesToProbabilities(nn.Module):
    """A network with its normalisation and softmax: images uint8 [B, C, 32, 32] to probabilities [B, classes]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, colours: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN[:colours])[:, None, None])
        self.register_buffer("deviation", 255 * torch.tensor(STD[:colours])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        probabilities: Tensor = self.network((images.float() - self.mean) / self.deviation).softmax(1)
        return probabilities


def write_network(record: Record, path: Path) -> Path:
    """Write the network of a record as `path`, whose suffix says how: `.pt2` or `.onnx`; the batch may be of any size.

    Raises `ConfigError` for another suffix, for a file that is there already, or for ONNX where its packages are not
    installed, `RecordError` for a record without weights."""
    if path.suffix not in (".pt2", ".onnx"):
        raise ConfigError(f"{path} is neither .pt2 (torch.export) nor .onnx: the name's ending says what to write")
    if path.exists():
        raise ConfigError(f"{path} exists already and is not overwritten: name another")
    colours = record.config.model.colours
    model = BytesToProbabilities(record.load_model(), colours).eval()
    images = torch.zeros(2, colours, 32, 32, dtype=torch.uint8)
    batch = {"images": {0: torch.export.Dim("batch")}}
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), temporary(path) as work:
        whole = work / f"network{path.suffix}"
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(model, (images,), dynamic_shapes=batch), whole)
        else:
            try:
                program = torch.onnx.export(model, (images,), dynamo=True, dynamic_shapes=batch, verbose=False)
            except ImportError as error:
                raise ConfigError(f"ONNX needs two packages more ({error}): pip install onnx onnxscript") from error
            assert program is not None
            program.save(str(whole))
        move_whole(whole, path)
    return path
