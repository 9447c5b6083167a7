"""What the look at the data found, in sentences, and the hints of its exercises: numbers in, Markdown out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from torch import Tensor

from tpsnet_lib import metrics
from tpsnet_lib.analysis.dataset import SAME_PHOTOGRAPH, ChannelStatistics, Choice, Components, Pairs
from tpsnet_lib.data.datasets import MEAN, STD, Fingerprint

NOT_YET = "*Not answered yet.* Put your answer in the place of `None` and run the cell again."
BREAKS_DIGITS = frozenset({"random flip", "alternating flip", "TrivialAugment"})


def say_copy(found: Fingerprint, inexact: Sequence[int], names: Sequence[str], labels: Tensor) -> str:
    """Which copy of the data this is, and what is known to be wrong with it."""
    if found.stamp == "shapes10":
        text = "These are the built-in drawn images of **shapes10**: nothing below is a statement about CIFAR-10."
        return f"{text} To see CIFAR-10, run `tpsnet data download` and start again."
    state = "a copy whose content is known" if found.verified else "a copy that **nobody has verified**"
    text = f"The stamp of this data set is **{found.stamp}**, {state}."
    if not inexact:
        return f"{text} No training image is known to be inexact."
    classes = labels[list(inexact)].bincount(minlength=len(names)).tolist()
    parts = " and ".join(f"{count} of {name}" for name, count in zip(names, classes, strict=True) if count)
    share = 100 * len(inexact) / len(labels)
    return (
        f"{text} Of the training images, {len(inexact)} ({share:.2f}%) show the right picture with pixels that are not"
        f" exactly the official ones: {parts}. Their positions begin {', '.join(map(str, inexact[:8]))}."
    )


def say_statistics(found: ChannelStatistics, stamp: str) -> str:
    """Whether the constants fit these images, which deviation STD is, and what the network's input then looks like."""
    off = max(abs(a - b) for a, b in zip(found.mean, MEAN, strict=True))
    from_pixels, from_images = (
        max(abs(a - b) for a, b in zip(values, STD, strict=True)) for values in (found.pixel_std, found.image_std)
    )
    off_words = f"at most {off:.4f}" if off >= 0.0001 else "less than 0.0001"
    spread = [pixel / constant for pixel, constant in zip(found.pixel_std, STD, strict=True)]
    kind = "the mean of the images' *own* deviations" if from_images < from_pixels else "the deviation of all pixels"
    fit = f"is {kind}" if min(from_images, from_pixels) < 0.001 else "is neither deviation of these images"
    return (
        f"On {stamp} the constants MEAN are off by {off_words}. STD {fit}: it differs by up to {from_pixels:.4f}"
        f" from the deviation of all pixels and by up to {from_images:.4f} from the mean of each image's own."
        f" Normalised pixels therefore have a deviation of {min(spread):.2f} to {max(spread):.2f}, not of 1."
    )


def say_means(hits: int, n: int) -> str:
    """How far the mean images alone get, against chance."""
    low, high = metrics.wilson(hits, n)
    standing = "above" if low > 0.1 else "not settled against"
    return (
        f"Naming the class whose mean image is closest is right on **{100 * hits / n:.1f}%** of {n:,} validation images"
        f" (95% interval {100 * low:.1f} to {100 * high:.1f}): {standing} the 10% of guessing, and all that colour at"
        f" each place can say."
    )


def say_duplicates(exact: int, pairs: Pairs, labels: Tensor, leaked: int, validation: int, stamp: str) -> str:
    """How many copies there are, whether their labels agree, and what they can do to the validation score at most."""
    close = pairs.above()
    text = f"{stamp}: **{exact}** exact duplicates, **{len(close)}** pairs whose detail agrees to {SAME_PHOTOGRAPH}"
    if not len(close):
        return f"{text}; the closest pair reaches {float(pairs.detail[0]):.2f}." if len(pairs) else f"{text}."
    differ = int((labels[close.first] != labels[close.second]).sum())
    return (
        f"{text} ({differ} of them with two different labels). **{leaked}** of the {validation:,} validation images"
        f" have such a twin among the images that are fitted, so a network that learns these by heart gains at most"
        f" {100 * leaked / validation:.1f} points of validation accuracy."
    )


def say_neighbours(hits: int, n: int) -> str:
    """How good the nearest neighbour in 8 x 8 pixels is as a classifier."""
    return (
        f"By the way we have built a classifier: the nearest other image has the same label for"
        f" **{100 * hits / n:.1f}%** of all {n:,} images. A network has to beat that to have learned anything beyond"
        f" looking up."
    )


def say_map(components: Components, agreement: Mapping[str, float], n: int) -> str:
    """How much of the variance the first components hold, and how well each map keeps classes together."""
    first = components.explained
    best = max(agreement.values())
    parts = ", ".join(f"{100 * value:.0f}% {place}" for place, value in agreement.items())
    lesson = (
        "Islands of one class are rare: pixels are a poor place to tell classes apart."
        if best < 0.5
        else "Here pixels alone tell many classes apart."
    )
    return (
        f"The first component holds {100 * float(first[0]):.0f}% of the variance, the first two"
        f" {100 * float(first[:2].sum()):.0f}%, all {len(first)} together {100 * float(first.sum()):.0f}%. Of {n:,}"
        f" images, the nearest other one has the same label for {parts} (by chance 10%). {lesson}"
    )


def say_changes(changes: Mapping[str, tuple[float, float]]) -> str:
    """Which augmentation reaches most pixels, and which moves their values least on average."""
    widest = max(changes, key=lambda name: changes[name][0])
    mildest = min(changes, key=lambda name: changes[name][1])
    return (
        f"**{widest}** changes most pixels, {100 * changes[widest][0]:.0f}% of them; **{mildest}** changes the values"
        f" least, by {changes[mildest][1]:.1f} of 255 on average."
    )


def say_flips(shown: Mapping[str, float], epochs: int) -> str:
    """What each kind of flip has shown of the images after some epochs."""
    parts = ", ".join(f"**{100 * share:.0f}%** with the {name}" for name, share in shown.items())
    return f"After {epochs} epochs, the share of images shown both ways is {parts}."


def say_split(counts: np.ndarray, deviation: float, stratified: int, random: float, tight: float) -> str:
    """What stratifying changes: class counts a lot, the noise of an accuracy rather little."""
    low, high = int(counts.min()), int(counts.max())
    less = 100 * (1 - tight / random)
    narrower = f"{less:.0f}%" if less >= 1 else "less than 1%"
    return (
        f"In {len(counts):,} random draws a class had between {low} and {high} images (deviation {deviation:.1f}); ours"
        f" has {stratified} of each, always, so that every class's accuracy is known equally well. On the accuracy"
        f" over all classes the effect is small: the nearest-neighbour classifier's score has a deviation of"
        f" {100 * random:.2f} points over random sets and of {100 * tight:.2f} over stratified ones, narrower by"
        f" {narrower}."
    )


def say_fixed(shared: np.ndarray, own: np.ndarray) -> str:
    """What it is worth that two classifiers are compared on the same images."""
    ratio = float((own.std() / shared.std()) ** 2)
    gain = (
        f"A set of its own for each would have to be **{ratio:.1f} times** as large to tell them apart as well."
        if ratio > 1.05
        else "These two share so little that it hardly matters; for networks, which share most errors, it does."
    )
    return (
        f"The difference of the two scores varies by {100 * shared.std():.2f} points where both see the same images,"
        f" and by {100 * own.std():.2f} where each has its own. {gain}"
    )


def say_interval(accuracy: float, n: int) -> str:
    """The interval of an accuracy measured on so many images."""
    low, high = metrics.wilson(round(accuracy * n), n)
    return (
        f"An accuracy of {100 * accuracy:.1f}% on {n:,} images has the 95% interval {100 * low:.2f} to"
        f" {100 * high:.2f}%, that is {100 * (high - low) / 2:.2f} points to either side."
    )


def say_choice(apart: Sequence[Choice], alike: Sequence[Choice], accuracy: float) -> str:
    """By how much a choice on the test set inflates the score, and that fresh images undo it."""
    last, near = apart[-1], alike[-1]
    return (
        f"All models are equally good ({100 * accuracy:.1f}%), yet the best of {last.models} scores"
        f" **{100 * (last.chosen - accuracy):+.2f} points** on the images it was chosen by and"
        f" {100 * (last.fresh - accuracy):+.2f} on fresh ones. Models that agree on most images mislead less,"
        f" {100 * (near.chosen - accuracy):+.2f} points, but in the same direction."
    )


# Exercises: an answer in, a hint out ---------------------------------------------------------------------------------


def check_deviation(answer: float | None, found: ChannelStatistics) -> str:
    """The deviation of the normalised red pixels."""
    if answer is None:
        return NOT_YET
    right = found.pixel_std[0] / STD[0]
    if abs(answer - right) < 0.02:
        return f"**Right**: {found.pixel_std[0]:.4f} / {STD[0]} = {right:.3f}."
    return "Not yet. Subtracting a constant leaves a deviation as it is; dividing by a constant divides it by that."


def check_digits(answer: Collection[str] | None) -> str:
    """Which augmentations give a handwritten digit a false label."""
    if answer is None:
        return NOT_YET
    given = set(answer)
    if given == BREAKS_DIGITS:
        return (
            "**Right**: a mirrored 2 is no digit, and TrivialAugment turns by up to 135 degrees, which makes a 6 a 9."
        )
    if missing := BREAKS_DIGITS - given:
        return f"Not yet: {len(missing)} more would hurt. Think of 2 and 5 in a mirror, and of how far each step turns."
    return f"Not yet: {', '.join(sorted(given - BREAKS_DIGITS))} leaves a digit what it is, at this strength."


def check_size(answer: int | None, accuracy: float, half: float) -> str:
    """How many images an interval of half-width `half` needs at an accuracy, to within 5%."""
    if answer is None:
        return NOT_YET
    if answer < 1:
        return "Not yet: give a number of images, 1 or more."
    low, high = metrics.wilson(round(accuracy * answer), answer)
    ratio = (high - low) / 2 / half
    if abs(ratio - 1) < 0.025:
        return f"**Right**: {answer:,} images give {100 * (high - low) / 2:.3f} points to either side."
    size = "few" if ratio > 1 else "many"
    width = f"{answer:,} images give {100 * (high - low) / 2:.3f} points"
    return f"Not yet, too {size}: {width}. The width falls with the root of n."
