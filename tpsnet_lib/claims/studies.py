"""The tests of the claims that runs declared for them answer, the largest budget first.

A place such as `study_layers/N=2` names the runs of one label of an experiment."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import logit  # type: ignore[import-untyped]

from tpsnet_lib import stats
from tpsnet_lib.analysis import peers
from tpsnet_lib.analysis.groups import Group, by_machine, contrast_within_machines, hardware_and_threads
from tpsnet_lib.claims.evidence import (
    Answer,
    Evidence,
    at_least,
    at_most,
    better,
    cost_ratio,
    greater,
    overfitting,
    too_short_to_overfit,
    uneven_epochs,
)

LOGIT = 0.05  # the smallest effect of interest in logits: one point at an accuracy of 70%
TENTH = math.log(1.1)  # the smallest effect of interest for a ratio of times

Answers = Callable[[Evidence], Iterator[Answer]]

CONTROL, CONTROL_LONG = "study_control/B=1", "study_long/B=1, 48 epochs"  # one block in each of three layers
SMALL = "effects_layers/N=3"  # the same at 77,000 parameters
ONE_BLOCK, FIVE_BLOCKS = "1 against 5", "5 against 1"  # judged before the pair of three and five, by the first side


def by_look(study: str) -> tuple[str, str, str]:
    """Where a study's runs are: those of the first look; with the seeds that a second look added; these alone."""
    return study, f"{study}+{study}_again", f"{study}_again"


SHORT, ALL_SHORT, LATER_SHORT = by_look("study_blocks")  # three more seeds of three and five blocks
LONG, ALL_LONG, LATER_LONG = by_look("study_long")  # two more seeds of these for 48 epochs
WIDE, ALL_WIDE, LATER_WIDE = by_look("study_width")  # three more seeds of the wide network of three blocks
SMALL_DEEP, SMALL_DEEP_LONG = "effects_blocks/B=5", "effects_blocks_long/B=5"
SMALL_THREE, SMALL_THREE_LONG = "effects_blocks/B=3", "effects_blocks_long/B=3"


def five_and_three(study: str) -> tuple[str, str]:
    """The places of five and of three blocks a layer in a study of depth."""
    epochs = ", 48 epochs" if study in (LONG, ALL_LONG, LATER_LONG) else ""
    return f"{study}/B=5{epochs}", f"{study}/B=3{epochs}"


def differences(*budgets: tuple[str, str]) -> Answers:
    """That the runs at the first place of each budget are more accurate than those at the second."""

    def answers(evidence: Evidence) -> Iterator[Answer]:
        for places in budgets:
            yield better(*evidence.groups(places))

    return answers


def three_layers_against(layers: int) -> Answers:
    """That three layers beat so many at equal parameters; beside it their lead at equal MACs, if there is none."""

    def answers(evidence: Evidence) -> Iterator[Answer]:
        for control, name in ((CONTROL, "study_layers"), (SMALL, "effects_layers")):
            label = f"N={layers}, MACs" if control == CONTROL else f"N={layers}"
            answer = better(*evidence.groups((control, f"{name}/N={layers}")))
            at_macs = better(*evidence.groups((control, f"{name}_macs/{label}"))).estimate
            is_reverse = at_macs.has_interval and at_macs.value * answer.estimate.value < 0
            remark = f"at equal MACs {at_macs:points}".replace(" points", "") if is_reverse else ""
            yield replace(answer, remark=remark)

    return answers


def gain_of_dropout(*budgets: tuple[str, str]) -> Answers:
    """As `differences`, of networks with dropout and one without it: does that one overfit at all?"""

    def answers(evidence: Evidence) -> Iterator[Answer]:
        for places, answer in zip(budgets, differences(*budgets)(evidence), strict=True):
            without = evidence.group(places[1])
            yield replace(answer, too_short=too_short_to_overfit([without]))

    return answers


def reproduction(evidence: Evidence) -> Iterator[Answer]:
    """That our runs of the original's recipe are at most a point below its published accuracy."""
    group, published = evidence.group("reproduction/reproduction"), peers.published_model("TPSNet")
    n = int(published["n"])
    difference = stats.published_difference(group.accuracies, n, published["accuracy"], n)
    yield at_least(difference, [group], -stats.SMALLEST_EFFECT)


def odd_blocks(evidence: Evidence) -> Iterator[Answer]:
    """Fit a parabola in B and a jump between odd and even B to the means by least squares; the jump is judged."""
    for control, experiment, depths in ((CONTROL, "study_blocks", 6), (SMALL, "effects_blocks", 5)):
        groups = evidence.groups([control, *_depths(experiment, depths)])
        deeper = contrast_within_machines(groups[1:], _odd_minus_even(2, depths))
        notes = (f"The trend is a parabola in the number of blocks. Without one block a layer: {deeper:points}.",)
        remark = f"beyond a parabola; {deeper:points value} without one block a layer" if deeper.n else ""
        answer = greater(contrast_within_machines(groups, _odd_minus_even(1, depths)), groups)
        yield replace(answer, notes=notes, remark=remark)


def _odd_minus_even(first: int, last: int) -> list[float]:
    """The weights of the means of depths `first` to `last` in the jump that `odd_blocks` fits beside a parabola."""
    blocks = np.arange(float(first), last + 1)
    jump = np.where(blocks % 2 == 1, 0.5, -0.5)
    weights: list[float] = np.linalg.pinv(np.stack([blocks**0, blocks, blocks**2, jump], axis=1))[3].tolist()
    return weights


def wider_at_three_blocks(evidence: Evidence) -> Iterator[Answer]:
    """That the wide network of three blocks beats the narrow one; a first look, with fewer seeds, is a test too."""
    pairs = ((WIDE, SHORT), (ALL_WIDE, ALL_SHORT), (LATER_WIDE, LATER_SHORT))
    looks = (better(*evidence.groups((f"{wide}/B=3, wide", f"{narrow}/B=3"))) for wide, narrow in pairs)
    yield from _two_looks(looks)
    yield better(*evidence.groups(("effects_depth/B=3", "effects_blocks/B=3")))


def _two_looks(
    looks: Iterable[Answer], before: Mapping[str, Answer] = {}, seeds: str = "seeds"
) -> tuple[Answer, Answer]:
    """The answers of two looks, that with more seeds first, each with what was judged in its place before: the second
    after the first, both after `before`; and with what the later seeds say alone. `looks` are in the order of
    `by_look`."""
    first, second, later = looks
    earlier = {**before, f"{first.estimate.n} {seeds} a side": first}
    alone = f"Later seeds alone: {later.in_words()}" if later.estimate.n > 1 else ""
    return replace(second, before=earlier, later=alone), replace(first, before=before)


def shallow_and_wide(evidence: Evidence) -> Iterator[Answer]:
    """That three blocks a layer beat five, as both are among the original's (three and more).

    Judged at first, and so each a test of its own: one block against five, then these with fewer seeds."""
    yield better(*evidence.groups(("table1_matched/model=model1", "table1_matched/model=tpsnet")))
    first, second = (_three_blocks_against_five(evidence, name, CONTROL, 6) for name in (SHORT, ALL_SHORT))
    later = better(*evidence.groups(five_and_three(LATER_SHORT)[::-1]))
    one_block = better(*evidence.groups((CONTROL, f"{SHORT}/B=5")))
    all_seeds = better(*evidence.groups((CONTROL, f"{ALL_SHORT}/B=5")))
    note = f"One block against five, all seeds (untested): {all_seeds.in_words()}."
    second = replace(second, notes=(*second.notes, note))
    yield from _two_looks((first, second, later), {ONE_BLOCK: one_block})
    yield _three_blocks_against_five(evidence, "effects_blocks", SMALL, 5)


def _three_blocks_against_five(evidence: Evidence, experiment: str, one_block: str, most: int) -> Answer:
    """The comparison by an experiment on depth, with the means of all its depths: 1 (`one_block`) to `most` blocks."""
    answer = better(*evidence.groups((f"{experiment}/B=3", f"{experiment}/B=5")))
    places = [one_block, *_depths(experiment, most)]
    done = [group for place in places if (group := evidence.group(place)).records]
    if not done:
        return answer
    best = max(done, key=lambda group: group.estimate.value).config.model.blocks[0]
    means = ", ".join(f"{group.estimate:% value} ({group.estimate.n})" for group in done)
    remark = f"of 1 to {len(done)} blocks {best} lead (untested)"
    return replace(
        answer, remark=remark, notes=(*answer.notes, f"Means of 1 to {len(done)} blocks, with their seeds: {means}.")
    )


def _depths(experiment: str, largest: int) -> list[str]:
    return [f"{experiment}/B={count}" for count in range(2, largest + 1)]


def gain_of_depth(evidence: Evidence, logits: bool) -> Iterator[Answer]:
    """The rise of the deep network's accuracy from the short run to the longer one, minus that of the shallow one.

    Of five blocks against three, as `shallow_and_wide`; that of one block was judged before."""

    def gain(deep_long: str, deep: str, shallow_long: str, shallow: str) -> Answer:
        return _gain(evidence.groups((deep_long, deep, shallow_long, shallow)), logits)

    def of_five_and_three(long: str, short: str) -> Answer:
        (deep_long, shallow_long), (deep, shallow) = five_and_three(long), five_and_three(short)
        return gain(deep_long, deep, shallow_long, shallow)

    # The short runs had all their seeds before the first long one was judged.
    looks = (of_five_and_three(*pair) for pair in ((LONG, ALL_SHORT), (ALL_LONG, ALL_SHORT), (LATER_LONG, LATER_SHORT)))
    before = gain(five_and_three(LONG)[0], f"{SHORT}/B=5", CONTROL_LONG, CONTROL)
    yield from _two_looks(looks, {FIVE_BLOCKS: before}, "long seeds")
    yield gain(SMALL_DEEP_LONG, SMALL_DEEP, SMALL_THREE_LONG, SMALL_THREE)


def _gain(groups: Sequence[Group], logits: bool) -> Answer:
    """The gain of the first network from its short run, the second group, minus that of the third from the fourth."""
    weights = (1, -1, -1, 1)
    if logits:
        estimate = contrast_within_machines(groups, weights, lambda group: logit(group.accuracies))
        accuracies = [accuracy for group in groups for accuracy in group.accuracies]
        point = max((stats.SMALLEST_EFFECT / (p * (1 - p)) for p in accuracies), default=math.nan)
        note = (
            f"The smallest effect that matters is {LOGIT} in logits: a point of accuracy at 70%. At the highest"
            f" accuracy of these runs a point is {point:.2f}."
        )
        answer = replace(greater(estimate, groups, LOGIT), form=".2", notes=(note,))
    else:
        answer = greater(contrast_within_machines(groups, weights), groups)
    return replace(answer, remark=_blocks(groups[0], groups[2]))


def deep_and_narrow(evidence: Evidence) -> Iterator[Answer]:
    """That the deep network is more accurate than the shallow one after a longer run (pairs as in `gain_of_depth`)."""

    def lead(*places: str) -> Answer:
        deep, wide = evidence.groups(places)
        return replace(better(deep, wide), remark=_blocks(deep, wide))

    yield lead("reproduction/reproduction", "reproduction_models/model=model1")
    looks = (lead(*five_and_three(study)) for study in (LONG, ALL_LONG, LATER_LONG))
    yield from _two_looks(looks, {FIVE_BLOCKS: lead(five_and_three(LONG)[0], CONTROL_LONG)})
    yield _untested(lead(five_and_three(ALL_LONG)[0], CONTROL_LONG))
    yield lead(SMALL_DEEP_LONG, SMALL_THREE_LONG)


def _untested(answer: Answer) -> Answer:
    """Another pair of networks of the same experiments, which is shown beside that of the test."""
    return replace(answer, scope=f" ({answer.remark}, untested)" * bool(answer.remark))


def _blocks(first: Group, second: Group) -> str:
    """How many blocks a layer two networks have; empty if one is not declared."""
    if not (first.configs and second.configs):
        return ""
    return f"{first.config.model.blocks[0]} blocks against {second.config.model.blocks[0]}"


def more_overfitting(evidence: Evidence) -> Iterator[Answer]:
    """That the deep network overfits at most a point more than the shallow one (`overfitting`), pairs as above."""

    def more(*places: str) -> Answer:
        return _more_overfitting(evidence.groups(places))

    yield more("table1_matched/model=tpsnet", "table1_matched/model=model1")
    looks = (more(*five_and_three(study)) for study in (LONG, ALL_LONG, LATER_LONG))
    yield from _two_looks(looks, {FIVE_BLOCKS: more(five_and_three(LONG)[0], CONTROL_LONG)})
    yield from (_untested(more(place, CONTROL_LONG)) for place in five_and_three(ALL_LONG))
    yield more(*five_and_three(ALL_SHORT))
    yield more(SMALL_DEEP_LONG, SMALL_THREE_LONG)


def _more_overfitting(groups: Sequence[Group]) -> Answer:
    answer = at_most(contrast_within_machines(groups, (1, -1), overfitting), groups, stats.SMALLEST_EFFECT)
    gaps = ", ".join(f"{group.label} {stats.mean(overfitting(group)):points value}" for group in groups)
    notes = (
        "Overfitting is the accuracy on augmented training images minus that on validation images. By network:"
        f" {gaps}. Below 0, a network is better on new images than on its augmented own.",
    )
    return replace(answer, notes=notes, too_short=too_short_to_overfit(groups), remark=_blocks(*groups))


def equal_size(evidence: Evidence, three_layers: bool = False) -> Iterator[Answer]:
    """That the two networks of equal size whose means are furthest apart are at most a point apart; `three_layers`: of
    those that have three, as all of the original's do."""
    five = ("model1", "model2", "tpsnet", "deep17", "deep23")
    for places in (
        ["reproduction/reproduction", "reproduction_models/model=model1", "reproduction_models/model=model2"],
        [f"table1_matched/model={name}" for name in five],
        [CONTROL, *_depths("study_blocks", 6), "study_layers/N=2", "study_layers/N=4"],
        [SMALL, *_depths("effects_blocks", 5), "effects_layers/N=2", "effects_layers/N=4"],
    ):
        kept = [place for place in places if not (three_layers and place.endswith(("/N=2", "/N=4")))]
        groups = by_machine([evidence.group(place) for place in kept])[0]
        done = [group for group in groups if group.configs and not group.missing]
        done = done if len(done) > 1 else groups
        best, worst = (choose(done, key=lambda group: group.estimate.value) for choose in (max, min))
        note = (
            f"The difference is that of {best.label} and {worst.label}, the two networks furthest apart of {len(done)}."
        )
        apart = stats.furthest_apart([group.accuracies for group in done])
        answer = at_most(apart, groups, stats.SMALLEST_EFFECT)
        remark = _shapes(best, worst, done) if done[0].records else ""
        yield replace(answer, form="distance", measure="furthest apart", notes=(note,), remark=remark)


def _shapes(first: Group, second: Group, groups: Sequence[Group]) -> str:
    """By what the shapes of two networks differ: the number of layers, which is three in all of the original's; else
    that of blocks, which is three or more there."""
    layers, others = (len(group.config.model.blocks) for group in (first, second))
    if layers != others:
        return f"{layers} layers against {others}: wider than the claim, whose networks have 3"
    deep = [group.accuracies for group in groups if min(group.config.model.blocks) >= 3]
    if len(deep) < 2:
        return _blocks(first, second)
    apart = f"{stats.furthest_apart(deep):points}".replace("+", "")
    return f"{_blocks(first, second)}; of 3 and more, as the original's, {apart}"


def cost_of_depth(evidence: Evidence) -> Iterator[Answer]:
    """That an epoch of the deep network takes longer than one of the wide network (`cost_ratio`)."""
    costs = [
        _cost(by_machine([evidence.group(place) for place in places], hardware_and_threads)[0])
        for places in (
            ("table1_matched/model=tpsnet", "table1_matched/model=model1"),
            (f"{ALONE}/B=5", f"{ALONE}/B=1"),
            (five_and_three(ALL_LONG)[0], CONTROL_LONG),
            (f"{ALL_SHORT}/B=5", CONTROL),
            five_and_three(ALL_LONG),
            five_and_three(ALL_SHORT),
            ("effects_depth/B=2", "effects_width/w=12"),
        )
    ]
    for answer, slowest in costs:
        beside = max(other for each, other in costs if each is not answer)
        note = (
            "The ratio is an epoch of the deep network to one of the wide, each run's fastest, on one kind of machine;"
            f" the smallest that matters is {math.exp(TENTH):.1f}. A run's slowest epoch took up to {slowest:.1f} times"
            f" its fastest (of the other runs up to {beside:.1f})."
        )
        yield replace(answer, notes=(" ".join([note, *answer.notes]),))


ALONE = "epoch_times"  # its runs were alone on their machine, unlike those of the study


def _cost(groups: Sequence[Group]) -> tuple[Answer, float]:
    """The cost of the first network beside the second's, and how many times its fastest a run's slowest epoch took."""
    recipes = [config.train for group in groups for config in group.configs]
    epochs = max((train.epochs for train in recipes), default=0)
    length = "alone on their machine" if groups[0].experiment == ALONE else f"{epochs:g} epochs"
    how = f"{' and '.join(sorted({train.precision for train in recipes}))}, {_blocks(*groups)}, {length}"
    deep, wide = ([record.span for record in group.records] for group in groups)
    apart = deep and wide and (max(deep)[1] <= min(wide)[0] or max(wide)[1] <= min(deep)[0])
    notes = ["All runs of one network came before those of the other."] if apart else []
    notes += [f"{record.hardware}." for record in groups[0].records[:1]]
    slowest = max((uneven_epochs(record) for group in groups for record in group.records), default=1.0)
    answer = greater(cost_ratio(*groups), groups, TENTH)
    return replace(answer, form="ratio", remark=how, scope=f" ({how})", notes=tuple(notes)), slowest
