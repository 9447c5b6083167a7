"""What the error analysis found, in sentences: numbers in, Markdown out, so that a finding changes when they change."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tpsnet_lib import metrics
from tpsnet_lib.analysis.corruptions import Ratios
from tpsnet_lib.analysis.ensembles import Ensemble
from tpsnet_lib.analysis.errors import Agreement, Bin, ClassScores, Interval, Paired, Standing, coverage_for, share
from tpsnet_lib.analysis.explain import BlockNorms
from tpsnet_lib.analysis.near_duplicates import Seen


def percent(value: Interval, digits: int = 2) -> str:
    """A fraction and its interval as people read them: `94.84% (94.39 to 95.26)`."""
    middle, low, high = (100 * number for number in value)
    return f"{middle:.{digits}f}% ({low:.{digits}f} to {high:.{digits}f})"


def points(value: Interval, digits: int = 2) -> str:
    """A difference of fractions and its interval, in points of percent: `+0.35 points (+0.10 to +0.60)`."""
    middle, low, high = (100 * number for number in value)
    return f"{middle:+.{digits}f} points ({low:+.{digits}f} to {high:+.{digits}f})"


def say_accuracy(hits: int, n: int, stamp: str, exact: tuple[int, int] | None = None) -> str:
    """The headline: accuracy with its Wilson interval, and on the exact images alone where some are not."""
    text = f"On the {n:,} test images of {stamp} the network is right on **{percent(share(hits, n))}**"
    if exact is not None and exact[1] < n:
        text += f"; on the {exact[1]:,} whose pixels are exactly the official ones, on {percent(share(*exact))}"
    return f"{text}. It misses {n - hits:,} images."


def say_seeds(found: Ensemble) -> str:
    """The accuracy over seeds, and what averaging their probabilities buys on the same images."""
    _, low, high = found.gain
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "makes no difference that these images could show"
    seeds = len(found.singles)
    return (
        f"Over {seeds} seeds of this recipe the accuracy is **{percent(found.mean)}** (t interval). The mean of their"
        f" probabilities, an ensemble at {seeds} times the cost, is right on **{percent(found.together)}** of the"
        f" {found.n:,} images: {points(found.gain)} over the mean single network, it **{verdict}**."
    )


def say_confusion(confusion: Tensor, names: Sequence[str]) -> str:
    """Which two classes are mixed up most, in both directions, and what share of all errors that is."""
    wrong = confusion - confusion.diagonal().diag()
    errors = int(wrong.sum())
    if errors == 0:
        return "There is no error to look at."
    both = (wrong + wrong.T).triu()
    row, column = divmod(int(both.argmax()), len(names))
    part = percent(share(int(both[row, column]), errors), 0)
    return (
        f"**{names[row]} and {names[column]}** are mixed up most: {int(wrong[row, column])} times the first is taken"
        f" for the second, {int(wrong[column, row])} times the other way round; together {part} of all"
        f" {errors:,} errors."
    )


def say_classes(scores: Sequence[ClassScores], names: Sequence[str]) -> str:
    """The easiest and the hardest class by recall, and whether their intervals are apart; classes of which
    there is no image, and those never predicted."""
    named = list(zip(scores, names, strict=True))
    seen = [(score.recall, name) for score, name in named if not math.isnan(score.recall[0])]
    absent = [name for score, name in named if math.isnan(score.recall[0])]
    (worst, hardest), (best, easiest) = min(seen), max(seen)
    apart = "do not overlap" if worst[2] < best[1] else "overlap, so this many images do not settle it"
    never = [name for score, name in named if math.isnan(score.precision[0])]
    return (
        f"Hardest is **{hardest}**, recall {percent(worst, 1)}, easiest **{easiest}**, {percent(best, 1)}: the"
        f" intervals {apart}."
        + (f" No image is labelled {', '.join(absent)}." if absent else "")
        + (f" Never predicted: {', '.join(never)}." if never else "")
    )


def say_calibration(before: Sequence[Bin], ece: Interval, scaled: Interval | None, heat: float) -> str:
    """Whether the network is too sure or not sure enough, and what one temperature mends."""
    total = sum(part.n for part in before)
    gap = sum((part.confidence - part.accuracy[0]) * part.n for part in before) / total
    kind = "too sure of itself" if gap > 0 else "not sure enough"
    text = (
        f"On average the network is **{kind}** by {100 * abs(gap):.1f} points; its calibration error is"
        f" {percent(ece, 1)}."
    )
    if scaled is None:
        return text
    does = "lowers" if scaled[2] < ece[1] else "raises" if scaled[1] > ece[2] else "does not clearly change"
    return f"{text} Dividing the logits by T = {heat:.2f} **{does}** it: {percent(scaled, 1)}."


def say_coverage(confidence: Tensor, correct: Tensor, goal: float = 0.99) -> str:
    """What the network reaches on the half it is surest of, and how much it can answer at an accuracy aimed at."""
    half = confidence.argsort(descending=True, stable=True)[: max(1, len(correct) // 2)]
    surest = percent(share(int(correct[half].sum()), len(half)))
    covered = coverage_for(confidence, correct, goal)
    reach = f"it could answer {100 * covered:.0f}% of the images"
    if covered < 0.01:  # a few lucky answers are no share to speak of
        reach = "not even the surest hundredth of its answers is enough"
    return f"On the half it is surest of it is right on **{surest}**; to be right on {100 * goal:g}%, {reach}."


def say_standing(rows: Sequence[Standing], accuracy: float) -> str:
    """Where ours stands among the published models: how many are clearly better, clearly worse, not told apart."""
    better = sum(row.ours.difference[2] < 0 for row in rows)
    worse = sum(row.ours.difference[1] > 0 for row in rows)
    nearest = min(rows, key=lambda row: abs(row.accuracy - accuracy))
    return (
        f"Of {len(rows)} published models, **{worse} are clearly worse** than ours on the same images, {better} clearly"
        f" better, and {len(rows) - better - worse} cannot be told apart from it. Nearest is `{nearest.name}` with"
        f" {100 * nearest.accuracy:.2f}%: ours minus it is {points(nearest.ours.difference)}, McNemar"
        f" p = {nearest.ours.p:.2g}."
    )


def say_shared(correct: Tensor, right: Tensor) -> str:
    """How many images nobody gets right, and how far our errors are the others' too; ours bool [N], theirs [M, N]."""
    theirs = (~right).double().mean(0)  # the share of models that miss an image
    nobody = int(((theirs == 1) & ~correct).sum())
    on_errors, on_others = theirs[~correct], theirs[correct]
    if not len(on_errors) or not len(on_others):
        return f"{nobody} images are missed by all {len(right)} published models and by ours."
    return (
        f"**{nobody}** images are missed by all {len(right)} published models and by ours. An image that ours misses is"
        f" missed by {100 * on_errors.mean().item():.0f}% of them on average, one that ours gets right by"
        f" {100 * on_others.mean().item():.1f}%: were errors independent, the two would be equal."
    )


def say_label_errors(correct: Tensor, label_errors: Tensor) -> str:
    """Accuracy with and without the images whose label is wrong; `correct` bool [N], positions int64 [K]."""
    kept = torch.ones(len(correct), dtype=torch.bool)
    kept[label_errors] = False
    without = share(int(correct[kept].sum()), int(kept.sum()))
    missed = int((~correct[label_errors]).sum())
    return (
        f"Without the {len(label_errors)} images whose label had no majority among five people, accuracy is"
        f" **{percent(without)}** instead of {100 * correct.double().mean().item():.2f}%. It disagrees with the label"
        f" on {percent(share(missed, len(label_errors)), 0)} of those, where the label may be what is wrong."
    )


def say_people(correlation: Interval, groups: Sequence[Agreement]) -> str:
    """Whether the network hesitates where people disagree; `groups` from most to least agreement."""
    if math.isnan(correlation[0]) or len(groups) < 2:
        return "People's disagreement and the network's cannot be compared: one of them is the same for all images."
    most, least = groups[0], groups[-1]
    clear = "more often" if least.error[1] > most.error[2] else "not clearly more often"
    return (
        f"The rank correlation of the network's uncertainty with people's is **{correlation[0]:.2f}**"
        f" ({correlation[1]:.2f} to {correlation[2]:.2f}). Of the images on which {most.name} of the people agree with"
        f" the label it misses {percent(most.error, 1)}, of those with {least.name} {percent(least.error, 1)}:"
        f" **{clear}** where people hesitate too."
    )


def say_v6(expected: Interval, accuracy: float, lowest: float = 0.0) -> str:
    """What the published models' line foretells for ours on images collected anew; `lowest` is their least accuracy."""
    beyond = " (ours is below all of them, where the line is a guess)" if accuracy < lowest else ""
    return (
        f"On CIFAR-10.1, images collected anew in the same way, the published models' line foretells"
        f" **{percent(expected, 1)}** for a network of {100 * accuracy:.2f}% here: a drop of"
        f" {100 * (accuracy - expected[0]):.1f} points{beyond}."
    )


def say_views(change: Paired, n: int) -> str:
    """What test-time augmentation changes on the same images."""
    _, low, high = change.difference
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "makes no difference that these images could show"
    return f"Six views instead of one change the accuracy by {points(change.difference)}, n = {n:,}: it **{verdict}**."


def say_corruptions(hits: dict[str, list[int]], clean: int, n: int) -> str:
    """Which corruption costs most at its worst, and what is left of the accuracy under it."""
    name = min(hits, key=lambda key: hits[key][-1])
    left, whole = percent(share(hits[name][-1], n), 1), percent(share(clean, n), 1)
    return f"At severity 5 **{name}** costs most: {left} is left of {whole} on the same {n:,} images."


def say_relative(plain: Ratios, relative: Ratios, baseline: str, n: int) -> str:
    """How much a network errs under corruptions beside a baseline, and if that is more than their clean errors say."""
    if math.isnan(plain.mean[0]):
        return f"Of {n:,} images {baseline} misses too few under corruptions for a ratio of errors."
    text = (
        f"Under {len(plain.by_name)} corruptions, all severities together, its error is **{percent(plain.mean, 1)}** of"
        f" that of {baseline} on the same {n:,} images."
    )
    if math.isnan(relative.mean[0]):
        return f"{text} What some corruption *adds* to that one's error is too little for a ratio."
    _, low, high = relative.mean
    verdict = "this one **loses less**" if high < 1 else "this one **loses more**" if low > 1 else "**not told apart**"
    name = max(relative.by_name, key=lambda key: relative.by_name[key][0])
    return (
        f"{text} With the errors on clean images taken off both (the *relative* error), what corruptions add is"
        f" **{percent(relative.mean, 1)}** of what they add there: {verdict}. Weakest beside it is {name},"
        f" {percent(relative.by_name[name], 1)}."
    )


def say_skips(norms: Sequence[BlockNorms]) -> str:
    """Whether the skips carry more than the branches add, and where the branches add most."""
    found = [norm for norm in norms if not norm.share.isnan().any()]
    if not found:
        return "This network is plain: it has no skips to carry anything."
    means = [metrics.mean_interval(norm.share.double().numpy()) for norm in found]
    more = sum(high < 0.5 for _, _, high in means)
    mean, norm = max(zip(means, found, strict=True), key=lambda pair: pair[0][0])
    return (
        f"In **{more} of {len(means)}** blocks the skip carries clearly more than the branch adds. The branch's part of"
        f" the two is largest in block {norm.position} of layer {norm.layer}, {percent(mean, 1)} of the sum of both"
        f" sizes, over {len(norm.share)} images."
    )


def say_neighbours(agreement: float, labels_of_nearest: Tensor, labels: Tensor, predicted: Tensor) -> str:
    """Whether the training images nearest to the worst errors side with the label or with the prediction.

    `labels_of_nearest` int64 [M, k]; `labels`, `predicted` int64 [M]."""
    with_prediction = (labels_of_nearest == predicted[:, None]).double().mean().item()
    with_label = (labels_of_nearest == labels[:, None]).double().mean().item()
    return (
        f"In feature space {100 * agreement:.0f}% of a test image's ten nearest test images have its label. The"
        f" training images nearest to the {len(labels)} worst errors have the predicted class in"
        f" {100 * with_prediction:.0f}% of the cases and the label in {100 * with_label:.0f}%."
    )


def say_twins(seen: Seen, n: int, training: int, by_chance: Interval) -> str:
    """What near-duplicates in training do to the accuracy; `by_chance` is how often an image of another label is
    taken for one."""
    start = f"Of {n:,} test images compared with the {training:,} that were trained on,"
    if not seen.count:
        return f"{start} **none** has a near-duplicate among them: the accuracy owes nothing to copies."
    shares = f"{seen.without:%.2 value} instead of {seen.everything:%.2 value}"
    told = (
        "higher"
        if seen.difference.low > 0
        else "lower"
        if seen.difference.high < 0
        else "not told apart by so few images"
    )
    return (
        f"{start} **{seen.count}**, {percent(share(seen.count, n), 1)}, have a near-duplicate there; among images of"
        f" another label, where only chance makes one, {percent(by_chance, 1)} find one. The network is right on"
        f" {seen.with_duplicate:%.1} of those that have one and on {seen.without:%} of the others, a difference"
        f" of {seen.difference:points.1}: **{told}**. Without them its accuracy would be {shares}."
    )


def say_answer(given: float | None, right: float, tolerance: float, hint: str) -> str:
    """What to tell someone who answered an exercise with a number: right, or a hint, or that nothing was given yet."""
    if given is None:
        return "Not answered yet."
    return "Right." if abs(given - right) <= tolerance else f"Not quite: {hint}"
