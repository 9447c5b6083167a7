"""What the random search found, in sentences: numbers in, Markdown out, so that a finding changes when they change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from tpsnet_lib.analysis.importance import NOISE, Importance
from tpsnet_lib.analysis.original_results import difference_of_fractions
from tpsnet_lib.analysis.search import CHANCE, VARIABLES, Array, Interval, Trial, good_range, images, scored
from tpsnet_lib.analysis.search_budgets import LEAST_PAIRS, Contest
from tpsnet_lib.config import MEMBERS, RECIPES
from tpsnet_lib.metrics import wilson
from tpsnet_lib.runs.search_space import Space


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction as people read it."""
    return f"{100 * fraction:.{digits}f}%"


def points(value: Interval, digits: int = 1) -> str:
    """A difference of fractions and its 95% interval, in points of percent: `+3.1 points (+0.4 to +5.8)`."""
    middle, low, high = (100 * number for number in value)
    return f"{middle:+.{digits}f} points ({low:+.{digits}f} to {high:+.{digits}f})"


def correlation(value: Interval) -> str:
    """A rank correlation and its 95% interval: `0.81 (0.62 to 0.91)`."""
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


def say_budget(fits: int, cells: int, before: Interval, after: Interval) -> str:
    """What the budget does to the draws; the triples are mean depth a layer, mean width, and how many draws."""
    return (
        f"The budget lets **{fits} of {cells}** combinations pass, {percent(fits / cells)}. It does not thin them"
        f" evenly: before it a draw has {before[0]:.1f} blocks a layer and width {before[1]:.1f} on average"
        f" (n = {before[2]:,}), after it {after[0]:.1f} and {after[1]:.1f} (n = {after[2]:,}). What is deep *and* wide"
        " is gone, so among the draws that are left, depth and width are tied together."
    )


def say_shift(name: str, acceptance: float, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """What a budget does to the shares of some choices, before and after it; the largest change is named."""
    most = max(before, key=lambda choice: abs(after[choice] - before[choice]))
    return (
        f"In the space `{name}` the budget lets {percent(acceptance)} of the draws pass. Largest shift: {most} makes"
        f" up {percent(before[most], 0)} of the draws before it and **{percent(after[most], 0)}** after it. A search"
        " says nothing of what its budget hardly ever lets through."
    )


def say_trials(found: Sequence[Trial], declared: int) -> str:
    """How many trials there are, how many failed, and how good the best of them looks."""
    if not found:
        return f"None of the {declared} declared trials has a record yet."
    failed = sum(bool(trial.record.failed) for trial in found)
    middle = median(trial.accuracy for trial in found)
    best = max(found, key=lambda trial: trial.accuracy)
    _, low, high = scored(best)
    config = best.record.config
    asked = counted(config.train.epochs, "epoch")
    asked += f" of {config.data.train_size:,} images" if config.data.train_size else ""
    spoiled = f"**{failed} failed** and count as chance level, {percent(CHANCE, 0)}" if failed else "none failed"
    return (
        f"{len(found)} of {declared} declared trials have a record, {asked} each; {spoiled}. The median"
        f" validation accuracy is {percent(middle)}, the best {percent(best.accuracy)} ({best.label};"
        f" on {images(best):,} images its 95% interval is {percent(low)} to {percent(high)}, before any thought of"
        " having been chosen)."
    )


def say_live(live: Sequence[float], recorded: Sequence[float], alike: tuple[int, int]) -> str:
    """Whether small live trials put the draws in the order that their records do."""
    if not live:
        return "None of these draws has a record at a larger budget, so there is nothing to compare with."
    same = "agree on the best" if live.index(max(live)) == recorded.index(max(recorded)) else "name another best"
    low, high = wilson(*alike)
    return (
        f"Of the {alike[1]} pairs of these {len(live)} draws the live trials order **{alike[0]}** as the records do,"
        f" {percent(alike[0] / max(1, alike[1]), 0)} (a coin: 50%; so few trials would leave {percent(low, 0)} to"
        f" {percent(high, 0)} open even if the pairs were independent); the two {same}."
    )


def say_best_of(expected: Sequence[float], n: int, top: float) -> str:
    """What another n trials would bring beyond half as many, against the top 5% of the trials."""
    n = min(n, len(expected))
    half = max(1, n // 2)
    side = "reaches" if expected[n - 1] >= top else "stays below"
    return (
        f"The best of {n} trials is expected at {percent(expected[n - 1])}, that of {half} at"
        f" {percent(expected[half - 1])}: the second half of the work brought"
        f" **{100 * (expected[n - 1] - expected[half - 1]):.1f} points**. The best of {n} {side} the border of the top"
        f" 5% of these trials, {percent(top)}."
    )


def say_choice(label: str, first: str, second: str, difference: Interval, counts: tuple[int, int]) -> str:
    """Whether one choice lowers the median error below another's; the difference is first less second."""
    _, low, high = difference
    verdict = (
        f"**{first} is better**" if high < 0 else f"**{second} is better**" if low > 0 else "these trials do not tell"
    )
    return (
        f"{label}: median error with {first} (n = {counts[0]}) less that with {second} (n = {counts[1]})"
        f" is {points(difference)}: {verdict}."
    )


def say_range(variable: str, value: Interval, whole: tuple[float, float]) -> str:
    """In which part of a variable's range the best trials lie, and whether that says anything."""
    _, low, high = value
    wide = low <= whole[0] and high >= whole[1]
    told = "all of what was drawn: nothing is ruled out" if wide else f"of {whole[0]:.3g} to {whole[1]:.3g} drawn"
    return f"{VARIABLES[variable]}: the best trials have {low:.3g} to {high:.3g}, {told}."


def say_importance(found: Sequence[Importance], unseen: float, n: int) -> str:
    """Which variables matter to the forest beyond a column of noise, and whether the forest is worth asking; `unseen`
    is the share of the variance that it explains of trials it has not seen."""
    if not found:
        return f"{n} trials are too few for a forest, or all are equally good."
    floor = next(each.share[2] for each in found if each.variable == NOISE)
    real = [each for each in found if each.variable != NOISE]
    named = [
        f"**{VARIABLES[each.variable]}** ({percent(each.share[0], 0)} of the variance,"
        f" {percent(each.share[1], 0)} to {percent(each.share[2], 0)})"
        for each in real
        if each.share[1] > floor and unseen > 0
    ]
    said = f"surely above a column of noise: {', '.join(named)}" if named else "no variable is surely above noise"
    alone = sum(each.share[0] for each in real)
    worth = (
        f"explains {percent(unseen, 0)} of the variance: it knows something"
        if unseen > 0.3
        else f"explains only {percent(unseen, 0)} of the variance: do not trust it far"
        if unseen > 0
        else "does no better than their mean: do not trust it"
    )
    return (
        f"From {n} trials, {said}. One at a time the variables explain {percent(alone, 0)} of what the forest sees, the"
        f" rest only together. Of trials that it has not seen, such a forest {worth}."
    )


def say_ranking(annealed: Interval, cut: Interval, gain: Interval, n: int, short: float, long: float) -> str:
    """Whether short trials rank like long ones, with their schedule matched to their budget and without; `gain` is the
    first correlation less the second, over the same draws."""
    if n < 3 or math.isnan(annealed[0]) or math.isnan(cut[0]):
        return f"{n} draws have a record at both budgets: too few to rank."
    ahead = "matched" if gain[0] > 0 else "unmatched"
    sure = gain[1] > 0 or gain[2] < 0
    verdict = f"**the {ahead} one ranks better**" if sure else "which of the two ranks better is not settled"
    return (
        f"Between {short:g} and {counted(long, 'epoch')} the rank correlation over {n} draws is"
        f" **{correlation(annealed)}** with the schedule matched to the budget, and {correlation(cut)} where"
        f" the long schedule is cut at {counted(short, 'epoch')}. The difference, on the same draws, is"
        f" {gain[0]:+.2f} ({gain[1]:+.2f} to {gain[2]:+.2f}): {verdict}."
    )


def say_annealing(names: Sequence[str], matched: Sequence[float], stretched: Sequence[float], n: int) -> str:
    """Whether the order of networks turns where the schedule does not end with the run; accuracies on n images."""
    orders = [sorted(names, key=lambda name: -scores[names.index(name)]) for scores in (matched, stretched)]
    cost = sum(a - b for a, b in zip(matched, stretched, strict=True)) / len(names)
    turned = "**turns the order round**" if orders[0] != orders[1] else "keeps the order here"
    told = [f"{' before '.join(order)}" for order in orders]
    close = [max(scores) - min(scores) < 2 * math.sqrt(0.5 / n) for scores in (matched, stretched)]
    doubt = (
        f" But at least one of the two orders hangs on less than {200 * math.sqrt(0.5 / n):.1f} points, which {n:,}"
        " images and one seed cannot tell from none."
        if any(close)
        else ""
    )
    return (
        f"Matched: {told[0]}. Not annealed: {told[1]}. Leaving out the end of the schedule changes"
        f" the accuracy by {-100 * cost:+.1f} points on average and {turned}.{doubt}"
    )


def say_optimism(sizes: Sequence[int], small: Sequence[float], large: Sequence[float], counts: tuple[int, int]) -> str:
    """By how much the best of k looks too good from validation noise alone, on fewer and on more images."""
    return (
        f"The best of {sizes[-1]} looks **{100 * small[-1]:.2f} points** too good when {counts[0]:,} images choose it"
        f" and {100 * large[-1]:.2f} when {counts[1]:,} do; a single trial chosen beforehand, 0 on average."
    )


def say_surprise(sizes: Sequence[int], gap: Interval, beyond: Interval, n: int) -> str:
    """What a winner loses when it is trained again from a fresh seed, and how much of that comes of being chosen."""
    if n < 3:
        return (
            f"{n} draws have a record from a fresh seed: run `tpsnet run search_winners` to see by how much a winner"
            " falls back."
        )
    verdict = "**the curse is there**" if beyond[1] > 0 else "that choosing costs anything is not settled by so few"
    return (
        f"The best of {sizes[-1]}, trained again from a fresh seed, changes by {points(_turned(gap))}. A draw that"
        f" nobody chose changes by {100 * (beyond[0] - gap[0]):+.1f}; what is left for being chosen is"
        f" {points(_turned(beyond))}, n = {n} draws run twice: {verdict}."
    )


def say_winner(again: Sequence[tuple[Trial, Trial]]) -> str:
    """What became of the very best of the draws that were trained again from a fresh seed."""
    if not again:
        return "No draw has been trained from a fresh seed yet."
    first, second = max(again, key=lambda pair: pair[0].accuracy)
    difference = difference_of_fractions(second.accuracy, first.accuracy, images(second))
    place = 1 + sum(other.accuracy > second.accuracy for _, other in again)
    rank = "still the best" if place == 1 else f"now number {place}"
    return (
        f"The best of them, {first.label}, had {percent(first.accuracy)} when it was chosen and has"
        f" **{percent(second.accuracy)}** from the fresh seed, {points(difference)} by the choice of"
        f" {images(second):,} images alone: {rank} of the {len(again)}."
    )


def _turned(value: Interval) -> Interval:
    return -value[0], -value[2], -value[1]


def say_regret(sizes: Sequence[int], annealed: Interval, cut: Interval, n: int) -> str:
    """What choosing with short trials costs in long ones."""
    if n < 3:
        return f"{n} draws have a record at both budgets: too few to say what choosing early costs."
    return (
        f"Who picks the best of {sizes[-1]} from short annealed trials ends {100 * annealed[0]:.1f} points"
        f" ({100 * annealed[1]:.1f} to {100 * annealed[2]:.1f}) below the best long one; from trials cut off a longer"
        f" schedule, {100 * cut[0]:.1f} ({100 * cut[1]:.1f} to {100 * cut[2]:.1f}), n = {n} draws."
    )


def say_contest(found: Contest | None, n: int, budgets: tuple[float, float]) -> str:
    """Random search, successive halving or ASHA at equal compute, told where none has used more than half the draws."""
    if found is None:
        return (
            f"{n} draws have a record at both budgets: {LEAST_PAIRS} or more, with the long budget at least twice the"
            " short one, would let random search and successive halving be compared."
        )
    at = max(0, found.n // (2 * found.rate) - 1)
    long, first, promoted = found.draws(at)
    halving, asha = (_at(gain, at) for gain in (found.halving_gain, found.asha_gain))
    verdict = (
        "**halving is the better use of the time**"
        if halving[1] > 0
        else "**random search is the better use of the time**"
        if halving[2] < 0
        else "which one is better is not settled by these draws"
    )
    too = "a gain" if asha[1] > 0 else "a loss" if asha[2] < 0 else "not settled"
    return (
        f"With {found.epochs[at]:g} epochs in all, random search trains {counted(long, 'draw')} for {budgets[1]:g}"
        f" epochs; halving trains {counted(first, 'draw')} for {budgets[0]:g} and the best {promoted} of them anew for"
        f" {budgets[1]:g}. The network chosen is expected at {percent(found.random[0, at])} and"
        f" {percent(found.halving[0, at])}; halving less random is {points(halving)}, n = {found.n} draws at both"
        f" budgets: {verdict}. ASHA, which promotes without waiting, is expected at {percent(found.asha[0, at])}, less"
        f" random {points(asha)}: {too}."
    )


def _at(curve: Array, index: int) -> Interval:
    return float(curve[0, index]), float(curve[1, index]), float(curve[2, index])


def counted(count: float, noun: str) -> str:
    """A count with its noun: `1 draw`, `2 draws`."""
    return f"{count:g} {noun}" + ("" if count == 1 else "s")


def beside_original(found: Sequence[Trial], theirs: Space, ours: Space) -> list[dict[str, str]]:
    """What the original drew and chose in its searches beside what was drawn and won here: a row a variable."""
    best = max(found, key=lambda trial: trial.accuracy)
    tpsnet, recipe, scores = MEMBERS["tpsnet"], RECIPES["original"], [trial.accuracy for trial in found]
    chosen = {"blocks": tpsnet.blocks, "width": tpsnet.stem, "optimizer": recipe.optimizer, "lr": recipe.lr}
    rows = []
    for name, value in chosen.items():
        here = best.record.config.model.blocks if name == "blocks" else best.values[name]
        numbers = [float(trial.values["depth" if name == "blocks" else name]) for trial in found if name != "optimizer"]
        low, high = good_range(numbers, scores)[1:] if numbers else (0.0, 0.0)
        unit = " in all" if name == "blocks" else ""
        rows.append(
            {
                "": VARIABLES.get(name, "blocks a layer").partition(",")[0],
                "the original drew": dimension(theirs.variables.get(name)),
                "it chose": _shown(value),
                "drawn here": dimension(ours.variables.get(name)),
                "best here": _shown(here),
                "95% of winners here": f"{low:.3g} to {high:.3g}{unit}" if numbers else _winners(found, name),
            }
        )
    return rows


def dimension(given: Any) -> str:
    """A dimension of a space in words: `1 to 23`, `sgd, adam`; a dash where the variable is not drawn."""
    if given is None:
        return "–"
    if isinstance(given, Mapping):
        ((kind, bounds),) = given.items()
        return f"{bounds[0]:g} to {bounds[1]:g}" + (", log" if kind == "log" else "")
    return given if isinstance(given, str) else ", ".join(str(value) for value in dict.fromkeys(given))


def _winners(found: Sequence[Trial], name: str) -> str:
    top = sorted(found, key=lambda trial: -trial.accuracy)[: max(1, len(found) // 10)]
    counts = Counter(str(trial.values[name]) for trial in top).most_common()
    return ", ".join(f"{value} {count}" for value, count in counts) + f" of the best {len(top)}"


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else f"{value:.3g}" if isinstance(value, float) else str(value)
