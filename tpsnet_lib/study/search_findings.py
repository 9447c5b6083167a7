"""What the random search found, in sentences: numbers in, Markdown out, so that a finding changes when they change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tpsnet_lib.metrics import wilson
from tpsnet_lib.study.analyse import CHANCE, VARIABLES, Interval, Trial, images, scored
from tpsnet_lib.study.importance import Importance


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
    scores = sorted(trial.accuracy for trial in found)
    best = max(found, key=lambda trial: trial.accuracy)
    _, low, high = scored(best)
    spoiled = f"**{failed} failed** and count as chance level, {percent(CHANCE, 0)}" if failed else "none failed"
    return (
        f"{len(found)} of {declared} declared trials have a record; {spoiled}. The median validation accuracy is"
        f" {percent(scores[len(scores) // 2])}, the best {percent(best.accuracy)} ({best.label}; on {images(best):,}"
        f" images its 95% interval is {percent(low)} to {percent(high)}, before any thought of having been chosen)."
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


def say_importance(found: Sequence[Importance], quality: Interval, n: int) -> str:
    """Which variables matter to the forest beyond a column of noise, and whether the forest is worth asking."""
    if not found:
        return f"{n} trials are too few for a forest."
    floor = next(each.points[2] for each in found if each.variable == "(noise)")
    above = [each for each in found if each.variable != "(noise)" and each.points[1] > max(0.0, floor)]
    named = [f"**{VARIABLES[each.variable]}** ({each.points[0]:.1f} points)" for each in above]
    said = f"surely above a column of noise are {', '.join(named)}" if named else "no variable is surely above noise"
    explained = (
        f"explains {percent(quality[0], 0)} of the variance ({percent(quality[1], 0)} to {percent(quality[2], 0)})"
    )
    worth = (
        f"{explained}, so it knows something"
        if quality[1] > 0
        else f"{explained}, so do not trust it far"
        if quality[0] > 0
        else "does no better than their mean, so do not trust it"
    )
    return f"From {n} trials, {said}. On trials it has not seen the forest {worth}."


def say_ranking(annealed: Interval, cut: Interval, n: int, short: float, long: float) -> str:
    """Whether short trials rank like long ones, with their schedule matched to their budget and without."""
    if n < 3 or math.isnan(annealed[0]):
        return f"{n} draws have a record at both budgets: too few to rank."
    apart = annealed[1] > cut[2] or cut[1] > annealed[2]
    better = "matched" if annealed[0] > cut[0] else "unmatched"
    verdict = (
        f"the {better} one is ahead by more than the intervals' width"
        if apart
        else f"the {better} one is ahead, but the intervals overlap"
    )
    return (
        f"Between {short:g} and {long:g} epochs the rank correlation over {n} draws is **{correlation(annealed)}** with"
        f" the schedule matched to the budget, and {correlation(cut)} where the long schedule is cut at {short:g}"
        f" epochs: {verdict}."
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


def say_surprise(sizes: Sequence[int], gap: Interval, n: int) -> str:
    """What a winner loses when it is trained again from a fresh seed."""
    if n < 3:
        return (
            f"{n} draws have a record from a fresh seed: run `tpsnet run search_winners` to see by how much a winner"
            " falls back."
        )
    verdict = "it falls back" if gap[1] > 0 else "that it falls back is not settled by so few"
    return (
        f"The best of {sizes[-1]}, trained again from a fresh seed, scores lower by {points(gap)};"
        f" n = {n} draws run twice: {verdict}."
    )


def say_regret(sizes: Sequence[int], annealed: Interval, cut: Interval, n: int) -> str:
    """What choosing with short trials costs in long ones."""
    if n < 3:
        return f"{n} draws have a record at both budgets: too few to say what choosing early costs."
    return (
        f"Who picks the best of {sizes[-1]} from short annealed trials ends {100 * annealed[0]:.1f} points"
        f" ({100 * annealed[1]:.1f} to {100 * annealed[2]:.1f}) below the best long one; from trials cut off a longer"
        f" schedule, {100 * cut[0]:.1f} ({100 * cut[1]:.1f} to {100 * cut[2]:.1f}), n = {n} draws."
    )
