"""The words of a recipe: what each ingredient of a network's training is, in one plain line with its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tpsnet_lib.config import RunConfig

ARXIV = "https://arxiv.org/abs/"


@dataclass(frozen=True)
class Word:
    """A word of the glossary: its meaning, where it comes from, and its setting in a run, empty if it is not used."""

    name: str
    meaning: str
    source: str
    setting: Callable[[RunConfig], str]


def _number(field: str, unit: str = "") -> Callable[[RunConfig], str]:
    """The setting of a number of the recipe, empty where it is 0."""

    def setting(run: RunConfig) -> str:
        value = getattr(run.train, field)
        return f"{value:g}{unit.removesuffix('s') if value == 1 else unit}" if value else ""

    return setting


def _mixing(run: RunConfig, alpha: float) -> str:
    """The setting of mixup or CutMix, empty where its alpha is 0."""
    recipe = run.train
    parts = [
        f"alpha {alpha:g}",
        *([f"one of the two for each {recipe.mix_per}"] if recipe.mixup and recipe.cutmix else []),
        *([f"{recipe.mix_probability:.0%} of the {recipe.mix_per}s"] if recipe.mix_probability < 1 else []),
        *([f"off for the last {recipe.mix_off_epochs:g} epochs"] if recipe.mix_off_epochs else []),
    ]
    return ", ".join(parts) if alpha else ""


WORDS = (
    Word(
        "SGD with momentum",
        "Each step follows a running mean of the gradients, which smooths the noise of single batches.",
        "Polyak 1964",
        lambda run: f"rate {run.train.lr:g}, momentum {run.train.momentum:g}" if run.train.optimizer == "sgd" else "",
    ),
    Word(
        "Nesterov",
        "The gradient is taken a little ahead, where momentum is about to carry the weights.",
        "Nesterov 1983",
        lambda run: "on" if run.train.nesterov and run.train.optimizer == "sgd" else "",
    ),
    Word(
        "Muon",
        "Momentum whose step is made orthogonal, so that every direction of a kernel moves equally far.",
        "[Jordan et al. 2024](https://kellerjordan.github.io/posts/muon/)",
        lambda run: f"rate {run.train.lr:g}, momentum {run.train.momentum:g}" if run.train.optimizer == "muon" else "",
    ),
    Word(
        "weight decay",
        "Every step also shrinks the weights a little, which keeps them from growing without use.",
        f"[Loshchilov & Hutter 2017]({ARXIV}1711.05101)",
        _number("weight_decay"),
    ),
    Word(
        "cosine schedule",
        "The learning rate falls from its peak to zero along half a cosine.",
        f"[Loshchilov & Hutter 2016]({ARXIV}1608.03983)",
        lambda run: f"over {run.train.epochs:g} epochs" if run.train.schedule == "cosine" else "",
    ),
    Word(
        "one cycle",
        "The learning rate climbs to its peak, then falls to zero in a straight line.",
        f"[Smith & Topin 2017]({ARXIV}1708.07120)",
        lambda run: f"over {run.train.epochs:g} epochs" if run.train.schedule == "onecycle" else "",
    ),
    Word(
        "warm-up",
        "The rate begins near zero, because the first gradients are the least trustworthy.",
        f"[Goyal et al. 2017]({ARXIV}1706.02677)",
        _number("warmup_epochs", " epochs"),
    ),
    Word(
        "faster norms",
        "Scales and biases of batch norms, and other biases, have a higher learning rate than the kernels.",
        f"[Jordan 2024]({ARXIV}2404.00498)",
        lambda run: f"{run.train.norm_lr_scale:g} times the rate" if run.train.norm_lr_scale != 1 else "",
    ),
    Word(
        "label smoothing",
        "The target is a little short of certainty, so that the network need not be endlessly sure.",
        f"[Szegedy et al. 2015]({ARXIV}1512.00567)",
        _number("label_smoothing"),
    ),
    Word(
        "EMA",
        "The network that is scored is an exponential moving average of the weights, calmer than any single step.",
        f"[Tarvainen & Valpola 2017]({ARXIV}1703.01780)",
        _number("ema_decay"),
    ),
    Word(
        "ASAM",
        "The gradient is taken at the worst weights nearby, which leads to flat minima; a step costs two.",
        f"[Kwon et al. 2021]({ARXIV}2102.11600)",
        lambda run: f"rho {run.train.asam:g}" if run.train.asam else "",
    ),
    Word(
        "distillation",
        "The network also learns from the averaged logits of trained networks of ours on the same altered images.",
        f"[Hinton et al. 2015]({ARXIV}1503.02531)",
        lambda run: (
            f"{run.train.teacher_share:.0%} from records {', '.join(run.train.teacher)}" if run.train.teacher else ""
        ),
    ),
    Word(
        "progressive resizing",
        "The first epochs see smaller images, which cost less time.",
        f"[Tan & Le 2021]({ARXIV}2104.00298)",
        lambda run: (
            f"{run.train.small_size} pixels for {run.train.small_epochs:g} epochs" if run.train.small_epochs else ""
        ),
    ),
    Word(
        "crop",
        "The image is shifted by a few pixels; the edge is filled with zeros or with its own mirror image.",
        f"[He et al. 2015]({ARXIV}1512.03385)",
        lambda run: f"{run.train.crop} pixels, {run.train.crop_padding}" if run.train.crop else "",
    ),
    Word(
        "flip",
        "The image is mirrored left to right: by chance, or alternating, so that two epochs show both sides.",
        f"[Jordan 2024]({ARXIV}2404.00498)",
        lambda run: run.train.flip if run.train.flip != "none" else "",
    ),
    Word(
        "rotation",
        "The image is turned by a few degrees.",
        "the original",
        _number("rotation", " degrees at most"),
    ),
    Word(
        "cutout",
        "A square of the image is erased, so that no single part may decide.",
        f"[DeVries & Taylor 2017]({ARXIV}1708.04552)",
        _number("cutout", " pixels"),
    ),
    Word(
        "TrivialAugment",
        "One random operation of a list (shear, colour, contrast ...) at a random strength for each image.",
        f"[Müller & Hutter 2021]({ARXIV}2103.10158)",
        lambda run: f"{run.train.trivial_space} strengths" if run.train.trivial else "",
    ),
    Word(
        "random erasing",
        "A rectangle of some images is erased, of a size and shape that chance decides.",
        f"[Zhong et al. 2020]({ARXIV}1708.04896)",
        lambda run: f"{run.train.erasing:.0%} of the images" if run.train.erasing else "",
    ),
    Word(
        "copies",
        "Every image of a step is shown in it several times, each time altered in another way.",
        f"[Hoffer et al. 2020]({ARXIV}1901.09335)",
        lambda run: f"{run.train.copies} of each image" if run.train.copies > 1 else "",
    ),
    Word(
        "mixup",
        "Two images and their labels are averaged, with weights that chance decides.",
        f"[Zhang et al. 2018]({ARXIV}1710.09412)",
        lambda run: _mixing(run, run.train.mixup),
    ),
    Word(
        "CutMix",
        "A rectangle of one image is pasted into another, and the labels are mixed by area.",
        f"[Yun et al. 2019]({ARXIV}1905.04899)",
        lambda run: _mixing(run, run.train.cutmix),
    ),
    Word(
        "whitened stem",
        "The first convolution is computed from the data, so that its outputs are uncorrelated; it is not trained.",
        f"[Jordan 2024]({ARXIV}2404.00498)",
        lambda run: f"bias trained for {run.train.stem_epochs:g} epochs" if run.model.stem_kind == "whiten" else "",
    ),
    Word(
        "GELU",
        "A smooth version of ReLU, the function between layers that makes the network more than linear.",
        f"[Hendrycks & Gimpel 2016]({ARXIV}1606.08415)",
        lambda run: "on" if run.model.activation == "gelu" else "",
    ),
    Word(
        "dirac",
        "Convolutions begin as the identity: at first each layer passes its input on.",
        f"[Zagoruyko & Komodakis 2017]({ARXIV}1706.00388)",
        lambda run: "on" if run.model.init == "dirac" else "",
    ),
    Word(
        "early pooling",
        "A max-pool halves the map at the start of every layer, so that later convolutions cost a quarter.",
        f"[Jordan 2024]({ARXIV}2404.00498)",
        lambda run: "on" if run.model.downsample == "pool" else "",
    ),
    Word(
        "logit scale",
        "The last outputs are multiplied by a small constant, so that the network starts unsure.",
        f"[Jordan 2024]({ARXIV}2404.00498)",
        lambda run: f"{run.model.logit_scale:g}" if run.model.logit_scale != 1 else "",
    ),
    Word(
        "squeeze-and-excitation",
        "Each block weighs its channels by a small network that sees their means over the image.",
        f"[Hu et al. 2017]({ARXIV}1709.01507)",
        lambda run: f"1/{run.model.squeeze} of the channels between" if run.model.squeeze else "",
    ),
    Word(
        "stochastic depth",
        "In training, blocks are skipped by chance, the later the more often.",
        f"[Huang et al. 2016]({ARXIV}1603.09382)",
        lambda run: f"rate {run.model.drop_path:g} at the end" if run.model.drop_path else "",
    ),
)


def as_markdown(run: RunConfig) -> str:
    """The rows of `in_words` as a Markdown table, whose sources are links."""
    rows = in_words(run)
    lines = [" | ".join(row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in [" | ".join(rows[0]), " | ".join(["---"] * 4), *lines])


def in_words(run: RunConfig) -> list[dict[str, str]]:
    """The recipe of a run as the rows of a table, a row for each ingredient that the run uses."""
    return [
        {"ingredient": word.name, "setting": setting, "what it does": word.meaning, "source": word.source}
        for word in WORDS
        if (setting := word.setting(run))
    ]


def left_out(whole: RunConfig, changed: RunConfig) -> list[str]:
    """The ingredients that a run uses and a changed one does not; if there is none, those whose setting is another."""
    used = [word for word in WORDS if word.setting(whole)]
    missing = [word.name for word in used if not word.setting(changed)]
    return missing or [word.name for word in used if word.setting(whole) != word.setting(changed)]
