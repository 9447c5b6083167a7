"""What a run is: frozen dataclasses, their validation, named members and recipes, and the id a run is known by."""

import hashlib
import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tpsnet_lib.config_fields import Checked, checked, option
from tpsnet_lib.errors import ConfigError, brief
from tpsnet_lib.plain_yaml import read_yaml

PARAMETER_BUDGET = 5_000_000
CLASSES = 10
IMAGE_SIZE = 32
OWN_BLOCK = r"own:\w+:[0-9a-f]{8}"  # a class of `own_blocks.register_block`, with a digest of its source
OWN_DATA = r"own:[\w-]+:\d+:[0-9a-f]{8}"  # a folder's name, its number of classes, a digest of its images


@dataclass(frozen=True)
class ModelConfig(Checked):
    """A member of the residual family: N layers of B_i blocks of C_i channels, kernels F_i and K_i, pool P."""

    section = "model"

    blocks: tuple[int, ...] = option((13, 13, 13), 1, 128)  # B_i, residual blocks of layer i; N is its length
    channels: tuple[int, ...] = option((32, 64, 128), 1, 4096)  # C_i, output channels of layer i
    kernels: tuple[int, ...] = option((3,), 1, 9, odd=True)  # F_i; one value stands for all layers
    skip_kernels: tuple[int, ...] = option((1,), 1, 9, odd=True)  # K_i of the projection skips; one stands for all
    pool: int = option(8, 1, 32)  # P, side of the pool over the last feature map; then the mean of what is left
    stem: int = option(16, 1, 1024)  # output channels of the first convolution
    block: str = option("basic", choices=("basic", "preact"), or_like=OWN_BLOCK)  # He 2015 or 2016, or your own
    residual: bool = option(True)  # False: the plain network of the same layers, no skips
    dropout: float = option(0.0, 0, 0.9)  # before the classifier
    block_dropout: float = option(0.0, 0, 0.9)  # between the two convolutions of a block
    drop_path: float = option(0.0, 0, 0.9)  # stochastic depth: block k of n is dropped at k/n of this
    squeeze: int = option(0, 0, 64)  # squeeze-and-excitation: the ratio by which it reduces channels; 0: none
    stem_kind: str = option("conv", choices=("conv", "whiten"))  # whiten: fixed 2x2 kernels, to 24 channels
    downsample: str = option("stride", choices=("stride", "pool"))  # pool: a conv + max-pool 2 opens every layer
    activation: str = option("relu", choices=("relu", "gelu"))
    head_pool: str = option("avg", choices=("avg", "max"))
    init: str = option("kaiming", choices=("kaiming", "dirac"))  # dirac: convolutions begin as the identity
    logit_scale: float = option(1.0, 0.001, 100)  # logits are multiplied by it
    classes: int = option(CLASSES, 2, 250)  # of the data set: a run config sets this field and the next by its data
    colours: int = option(3, 1, 3)  # channels of an image

    def __post_init__(self) -> None:
        super().__post_init__()

        # One value a layer, or one for all.
        layers = len(self.blocks)
        if not 1 <= layers <= 5:
            raise ConfigError(f"model.blocks has {layers} layers: give 1 to 5")
        if len(self.channels) != layers:
            raise ConfigError(
                f"model.blocks is {brief(list(self.blocks))}, model.channels is {brief(list(self.channels))}: give two"
                " lists of one length, with a value a layer"
            )
        for name in ("kernels", "skip_kernels"):
            values = getattr(self, name)
            if len(values) not in (1, layers):
                raise ConfigError(
                    f"model.{name} has {len(values)} values for {layers} layers: give one, or one a layer"
                )
            if len(set(values)) == 1:  # (3, 3, 3) and (3,) are one network and so one id
                object.__setattr__(self, name, values[:1])

        # What one field asks of others.
        if self.stem_kind == "whiten" and self.stem != 24:
            raise ConfigError(f"model.stem is {self.stem}: a whitened stem has 24 channels (2 x 3 colours x 2 x 2)")
        of_blocks = ("kernels", "skip_kernels", "residual", "block_dropout", "drop_path", "squeeze")
        changed = [key for key in of_blocks if getattr(self, key) != getattr(ModelConfig, key)]  # from the default
        if self.own_block and changed:
            raise ConfigError(f"model.{changed[0]} is set: a block of one's own decides that itself, leave it out")
        if self.stem_kind == "whiten" and self.colours != 3:
            raise ConfigError(f"model.stem_kind is whiten: it is for images of 3 colours, these have {self.colours}")
        if self.drop_path and not self.residual:
            raise ConfigError(f"model.drop_path is {self.drop_path}: a plain network has no way round a block")

        # Strides and the pool must leave a pixel.
        if self.last_side < 1:
            raise ConfigError(f"model.blocks has {layers} layers: they pool the feature map away, give fewer layers")
        if self.pool > self.last_side:
            raise ConfigError(
                f"model.pool is {self.pool}: the last feature map is {self.last_side} x {self.last_side},"
                f" give at most {self.last_side}"
            )

    @property
    def own_block(self) -> bool:
        """Whether the blocks are of a class of one's own."""
        return self.block.startswith("own:")

    @property
    def last_side(self) -> int:
        """Height and width of the last feature map, in pixels."""
        return self.last_side_of(IMAGE_SIZE)

    def last_side_of(self, size: int) -> int:
        """Height and width of the last feature map of images of `size` pixels a side."""
        side = size - 1 if self.stem_kind == "whiten" else size
        for index in range(len(self.blocks)):
            if self.downsample == "pool":
                side = side // 2
            elif index > 0:
                side = (side + 1) // 2
        return side

    def squeezed(self, channels: int) -> int:
        """Channels between the two linear layers of a squeeze-and-excitation."""
        return max(1, channels // self.squeeze)

    def kernel(self, layer: int) -> int:
        """F of a layer, counted from 0."""
        return self.kernels[layer if len(self.kernels) > 1 else 0]

    def skip_kernel(self, layer: int) -> int:
        """K of a layer, counted from 0."""
        return self.skip_kernels[layer if len(self.skip_kernels) > 1 else 0]


@dataclass(frozen=True)
class TrainConfig(Checked):
    """A recipe; the defaults are the original's: 300 epochs of SGD, cosine to 0, crop, rotation and flip."""

    section = "train"

    epochs: float = option(300.0, 0.001, 10_000)  # may be a fraction: the run ends inside an epoch
    schedule_epochs: float = option(0.0, 0, 10_000)  # length of the schedule; 0: the run's own, which ends annealed
    batch_size: int = option(128, 1, 8192)
    optimizer: str = option("sgd", choices=("sgd", "adam", "adamax", "adamw", "muon"))
    lr: float = option(0.01, 0.0, 100)
    momentum: float = option(0.9, 0, 0.9999)  # SGD's, and of Muon's kernels; beta1 of the Adam family
    nesterov: bool = option(False)
    weight_decay: float = option(5e-4, 0, 1)
    decay_norms: bool = option(True)  # False: no weight decay on norms and biases
    norm_lr_scale: float = option(1.0, 0, 1000)  # learning rate of norms and biases, relative to lr
    schedule: str = option("cosine", choices=("cosine", "onecycle", "linear", "constant"))  # onecycle: up, then down
    warmup_epochs: float = option(0.0, 0, 1000)  # linear; of onecycle, 0 stands for 30% of the schedule
    label_smoothing: float = option(0.0, 0, 0.9)
    clip_norm: float = option(0.0, 0, 1e6)  # largest gradient norm; 0: no clipping
    ema_decay: float = option(0.0, 0, 0.99999)  # exponential moving average of the weights, used at the end; 0: none
    precision: str = option("auto", choices=("auto", "fp32", "bf16"))  # auto is resolved before a run has an id
    crop: int = option(4, 0, 16)  # padding of the random crop, in pixels; 0: none
    crop_padding: str = option("zero", choices=("zero", "reflect"))
    flip: str = option("random", choices=("none", "random", "alternate"))  # alternate: every image every other epoch
    rotation: float = option(5.0, 0, 180)  # degrees to either side
    cutout: int = option(0, 0, 32)  # side of the erased square, in pixels
    trivial: bool = option(False)  # TrivialAugment, one draw an image
    trivial_space: str = option("wide", choices=("wide", "standard"))  # its strengths
    erasing: float = option(0.0, 0, 1)  # random erasing: the share of the images that lose a rectangle
    copies: int = option(1, 1, 64)  # times each image of a step is shown in it, with draws of its own
    mixup: float = option(0.0, 0, 10)  # alpha of the Beta distribution; 0: none
    cutmix: float = option(0.0, 0, 10)  # alpha; with mixup also set, one of the two is drawn
    mix_per: str = option("image", choices=("image", "batch"))  # what gets a draw of its own
    mix_probability: float = option(1.0, 0, 1)  # the share of the images, or of the batches, that are mixed
    mix_off_epochs: float = option(0.0, 0, 10_000)  # mixing is off for this many epochs at the end
    stem_epochs: float = option(0.0, 0, 10_000)  # the stem (whitened: its bias) trains for so many; 0: all
    small_epochs: float = option(0.0, 0, 10_000)  # this many epochs at the start see smaller images
    small_size: int = option(24, 8, 32)  # their side, in pixels
    asam: float = option(0.0, 0, 100)  # rho of adaptive sharpness-aware minimisation, at twice the cost; 0: none
    teacher: tuple[str, ...] = option(())  # records whose networks' averaged logits are learned from (distillation)
    teacher_share: float = option(0.5, 0, 1)  # the share of a target that is the teacher's; the rest is the label's

    def with_epochs(self, epochs: float) -> Self:
        """The recipe at another length, annealed to its end: each of `EPOCH_SPANS` keeps its share of the run."""
        spans = {name: round(getattr(self, name) * epochs / self.epochs, 6) for name in EPOCH_SPANS}
        return replace(self, epochs=epochs, schedule_epochs=0.0, **spans)


EPOCH_SPANS = ("warmup_epochs", "small_epochs", "stem_epochs", "mix_off_epochs")  # the parts of a run, in epochs


@dataclass(frozen=True)
class DataConfig(Checked):
    """Which images: the data set, how many of its training images are fitted, and whether validation is kept out."""

    section = "data"

    dataset: str = option("cifar10", choices=("cifar10", "shapes10", "cifar100", "fashion_mnist"), or_like=OWN_DATA)
    train_size: int = option(0, 0, 50_000)  # fit on the first so many of the split, equal classes; 0: all
    validation_size: int = option(0, 0, 50_000)  # validate on so many; 0: all
    fit_on: str = option("split", choices=("split", "all"))  # all: validation images too, once all is chosen

    @property
    def classes(self) -> int:
        """How many classes the data set has; the name of a folder of one's own says it (`own:flowers:5:1a2b3c4d`)."""
        if self.dataset.startswith("own:"):
            return int(self.dataset.split(":")[2])
        return 100 if self.dataset == "cifar100" else CLASSES

    @property
    def colours(self) -> int:
        """Channels of an image."""
        return 1 if self.dataset == "fashion_mnist" else 3


@dataclass(frozen=True)
class RunConfig:
    """One training run. Its id is a hash of what differs from the defaults, so a new field orphans no record."""

    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    seed: int = option(0, 0, 2**31 - 1)

    def __post_init__(self) -> None:
        limits = self.__dataclass_fields__["seed"].metadata
        object.__setattr__(self, "seed", checked("seed", self.seed, 0, limits))
        if self.train.trivial and self.data.colours != 3:
            raise ConfigError(f"train.trivial is True: TrivialAugment is for colours, {self.data.dataset} has greys")
        # The data decide how many classes and colours the network has.
        if (self.model.classes, self.model.colours) != (self.data.classes, self.data.colours):
            fitting = replace(self.model, classes=self.data.classes, colours=self.data.colours)
            object.__setattr__(self, "model", fitting)
        if self.train.small_epochs and self.model.last_side_of(self.train.small_size) < 1:
            raise ConfigError(f"train.small_size is {self.train.small_size}: this network pools so small an image away")

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, by section; empty sections and a seed of 0 are left out."""
        sections = {name: _differences(getattr(self, name)) for name in ("model", "train", "data")}
        return {
            **{name: value for name, value in sections.items() if value},
            **({"seed": self.seed} if self.seed else {}),
        }

    @cached_property
    def id(self) -> str:
        """The first 12 hex digits of the SHA-256 of the canonical JSON; `ConfigError` while precision is `auto`."""
        return _digest(self._resolved_dict())

    @cached_property
    def group_id(self) -> str:
        """The id without the seed: runs of one group differ by chance alone."""
        return _digest({key: value for key, value in self._resolved_dict().items() if key != "seed"})

    def with_precision(self, precision: str) -> Self:
        """The same run with an `auto` precision replaced by `fp32` or `bf16`; a precision already chosen stays."""
        if self.train.precision != "auto":
            return self
        return replace(self, train=replace(self.train, precision=precision))

    @property
    def possible_ids(self) -> list[str]:
        """The ids that the run may have: one, or, while its precision is left to the machine, bf16's and fp32's."""
        if self.train.precision != "auto":
            return [self.id]
        return [self.with_precision(precision).id for precision in ("bf16", "fp32")]

    def with_seed(self, seed: int) -> Self:
        """The same run from another seed."""
        return replace(self, seed=seed)

    def with_epochs(self, epochs: float) -> Self:
        """The same run at another length, annealed to its end."""
        return replace(self, train=self.train.with_epochs(epochs))

    def _resolved_dict(self) -> dict[str, Any]:
        if self.train.precision == "auto":
            raise ConfigError("train.precision is 'auto': a run has an id once its precision is resolved")
        return self.to_dict()


def _differences(config: Any) -> dict[str, Any]:
    changed = {}
    for spec in fields(config):
        value = getattr(config, spec.name)
        if value != spec.default:
            changed[spec.name] = list(value) if isinstance(value, tuple) else value
    return changed


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]


_FAMILY = read_yaml(Path(__file__).parent / "family.yaml")
MEMBERS = {name: ModelConfig(**values) for name, values in _FAMILY["members"].items()}  # networks that have a name
RECIPES: dict[str, TrainConfig] = {}
for _name, _values in _FAMILY["recipes"].items():
    _base = _values.pop("recipe", None)  # one that stands above it
    RECIPES[_name] = replace(RECIPES[_base] if _base else TrainConfig(), **_values)
