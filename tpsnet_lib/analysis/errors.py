"""What notebook 05 analyses: a trained network, its predictions on the test images, and networks to compare it with."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from tpsnet_lib import metrics, stats
from tpsnet_lib.analysis.final_runs import best_by_validation, finals, rank_records, role
from tpsnet_lib.analysis.training import SMALLEST_GAIN
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import ImageSet, load_test
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.errors import RecordError
from tpsnet_lib.model import Block, ResNet
from tpsnet_lib.runs.experiments import collect, final_ids, load_experiment
from tpsnet_lib.runs.fresh_runs import fresh_folder
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.openings import before_the_rule
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.test_set import find_test, open_test, score
from tpsnet_lib.stats import Estimate

BASELINE = "classroom"  # the experiment whose network errors under corruptions are compared with


@dataclass(frozen=True)
class NetworkUnderTest:
    """A record to analyse, its network, the test images, and the network's logits on them, float32 [N, classes]."""

    record: Record
    network: ResNet
    test: ImageSet
    logits: Tensor
    exploratory: bool  # opened for a look alone: no experiment declares the record final
    notes: tuple[str, ...] = ()  # records that were passed over, predictions that were set aside, and why
    trained_now: bool = False

    @property
    def dataset(self) -> str:
        """The data set of the record."""
        return self.record.config.data.dataset

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their labels."""
        return self.record.class_names

    @property
    def precision(self) -> str:
        """The precision in which networks run fastest on this machine: `bf16` or `fp32`."""
        return native_precision(resolve_device("auto"))

    @property
    def description(self) -> str:
        """Which network this is and what may rest on its results, in Markdown."""
        origin = "trained now: no final record is in use" if self.trained_now else "read from the store"
        early = ", before declarations had to be committed" if self.record.id in before_the_rule() else ""
        declared = (
            f"declared final{early}" if not self.exploratory else "exploratory: no choice may rest on its test results"
        )
        size = f"{self.record.metrics['parameters']:,} parameters, {self.record.metrics['macs'] / 1e6:.0f} million"
        epochs = self.record.metrics["epochs"]
        return (
            f"The network under test is record `{self.record.id}` ({origin}; {declared}): {size} multiply-accumulates"
            f" an image, {epochs:g} epoch{'s' * (epochs != 1)}."
        )


def choose_network(
    store: Store, dataset: str, run_id: str, root: str | Path | None, fallback: RunConfig
) -> NetworkUnderTest:
    """The record of the id `run_id`, if that is not empty, else the first of `rank_records`, ready to be analysed.

    Of those a record whose weights cannot be used is passed over for the next; where none is left, `fallback` is
    trained. The notes say why. Raises `RecordError` if no record has the id, or none that can be used."""
    if wanted := run_id.strip().lower():
        if store.find(wanted) is None and (folder := fresh_folder(wanted)):
            raise RecordError(
                f"{folder} holds record {wanted}, whose test set stayed shut in notebook 4: no experiment declares it."
                " Give the id of another (`tpsnet records list`), or none"
            )
        return read_network(store.load(wanted), store, root)
    notes: list[str] = []
    for record in rank_records(store, dataset):
        try:
            tested = read_network(record, store, root)
        except RecordError as error:
            notes.append(f"Record {record.id} is passed over: {error}")
        else:
            return replace(tested, notes=(*notes, *tested.notes))
    tested = read_network(load_or_run(fallback, root=root, store=store, keep_weights=True), store, root)
    return replace(tested, notes=(*notes, *tested.notes), trained_now=True)


def recipe_of(record: Record, store: Store) -> str:
    """The final recipe of a record, and what chose it, in Markdown; empty if no experiment declares it final."""
    recipes = finals(store, record.config.data.dataset)
    final = next((each for each in recipes if record.id in {run.id for run in each.records}), None)
    if final is None:
        return ""
    among_all = role(final, recipes)
    text = f"It is of recipe *{final.name}*" + (f", {among_all}" if among_all else "")
    judged = best_by_validation(recipes)
    if final is judged:
        which = "it" if record in final.held_out else "another run, which kept images out of fitting,"
        return f"{text}: {which} was right on {final.validation:% value} of the images kept out."
    if final.held_out or judged is None:
        return f"{text}."
    return (
        f"{text}. No run of it kept validation images out: it is ranked before those whose training takes less"
        f" arithmetic. The best network by validation is *{judged.name}*."
    )


def read_network(record: Record, store: Store, root: str | Path | None) -> NetworkUnderTest:
    """A record's network, and its predictions as they were kept when the test set was opened for it, which is done now
    if it never was.

    Kept predictions that cannot be used (altered, of another length) are computed anew and not kept. Raises
    `RecordError` for weights that cannot be used."""
    device = resolve_device("auto")
    network, test = record.load_model(device), load_test(record.config.data.dataset, root)
    try:
        opened = open_test(record, root=root, device=device.type, store=store, exploratory=True)  # asked of most
        if len(opened.logits) != len(test):
            raise RecordError(f"it holds {len(opened.logits):,} predictions for {len(test):,} test images")
        return NetworkUnderTest(record, network, test, opened.logits, opened.exploratory)
    except RecordError as error:
        logits, _ = score(record, root=root, device=device.type)
        note = f"Its kept predictions are set aside for new ones: {error}"
        return NetworkUnderTest(record, network, test, logits, record.id not in final_ids(), (note,))


# Networks to compare with -------------------------------------------------------------------------------------------


def logits_by_seed(record: Record, store: Store, n: int) -> dict[int, Tensor]:
    """The test logits float32 [n, classes] of a record's recipe by seed, the record's own among them.

    Only of records that were opened on the same n test images and under the same promise: beside one that was declared
    final stands none that was opened for a look alone. Predictions that are altered or of another length are left
    out."""
    opened = {}
    for other in store.all():
        if other.group_id == record.group_id:
            with contextlib.suppress(RecordError):
                opened[other.config.seed] = find_test(other, store)
    own, alike = opened.get(record.config.seed), {}
    for seed, result in sorted(opened.items()):
        if own is None or result is None or len(result.logits) != n:
            continue
        if all(result.metrics[name] == own.metrics[name] for name in ("fingerprint", "not_choosing")):
            alike[seed] = result.logits
    return alike


def baseline(record: Record, store: Store) -> tuple[Record, ResNet] | None:
    """The record and network of the experiment `BASELINE`, which others of its data set are compared with; None if
    there is none, if its weights cannot be used, or if `record` is it."""
    dataset = record.config.data.dataset
    for _, other in collect(load_experiment(BASELINE), store):
        if other is not None and not other.failed and other.config.data.dataset == dataset and other.id != record.id:
            with contextlib.suppress(RecordError):
                return other, other.load_model(resolve_device("auto"))
    return None


# Sentences about results --------------------------------------------------------------------------------------------


def chance(gain: Estimate) -> str:
    """What the interval of a difference says of chance, and of what matters of finished networks, in words."""
    if not gain.has_interval:
        return "not measured against chance"
    if gain.low <= 0 <= gain.high:
        return "no more than chance can bring (its interval includes 0)"
    small = max(abs(gain.low), abs(gain.high)) < SMALLEST_GAIN
    side = "above" if gain.low > 0 else "below"
    return f"more than chance (its interval lies {side} 0)" + ", but less than would matter" * small


def helps(gain: Estimate) -> str:
    """Whether a difference of accuracies is a gain that matters, and what chance has to do with it, in a sentence."""
    verdict = stats.verdict(gain, SMALLEST_GAIN)
    and_chance = "" if verdict == stats.HOLDS else f"; the gain is {chance(gain)}"
    return f'Verdict on "it helps": **{verdict}**, on {gain.n:,} {gain.of}{and_chance}.'


def least_sure_bin(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """What a temperature does to the bin of the lowest confidence, which the mean over all bins hides, in a sentence.

    A table has a row a bin, the least sure first: `confidence`, and `accuracy`, an `Estimate`."""
    ends = [(table.confidence.iloc[0], table.accuracy.iloc[0].value) for table in (before, after)]
    (sure, right), (then, right_then) = ends
    before_all, after_all = (
        sum(abs(row.confidence - row.accuracy.value) * row.accuracy.n for row in table.itertuples())
        for table in (before, after)
    )
    hidden = ", which the ECE hides" if after_all < before_all else ""
    worse = abs(then - right_then) > abs(sure - right)
    return (
        f"In the least sure bin the mean confidence goes from {sure:.0%} (accuracy {right:.0%}) to {then:.0%} (accuracy"
        f" {right_then:.0%}): {f'away from the accuracy{hidden}' if worse else 'nearer to the accuracy'}."
    )


def surest(risk: Callable[[float], float], n: int) -> str:
    """The error on the surest 90%, 50% and 5% of n images, and whether the last are better than the others of the
    surest half, in a sentence. `risk`: the error by the share of the images that is answered."""
    half, few = max(1, round(0.5 * n)), max(1, round(0.05 * n))
    missed, missed_few = round(half * risk(0.5)), round(few * risk(0.05))
    apart = stats.proportion_difference(missed_few, few, missed - missed_few, half - few)
    better = "better than" if apart.high < 0 else "worse than" if apart.low > 0 else "not shown to differ from"
    return (
        f"The error is then **{risk(0.9):.1%}** on the surest 90% of the images, {missed / half:.1%} on the surest"
        f" half and {missed_few / few:.1%} on the surest {few:,} ({better} the rest of that half:"
        f" {apart:points value}, {apart:points interval}; one cut of many)."
    )


def refines(smaller: int, blocks: int) -> str:
    """In how many of the blocks with a skip the branch is smaller than it, and whether the picture of many shorter
    networks fits, in a sentence."""
    fits = {0: "does not describe this network", blocks: "fits all of them"}.get(smaller, "fits these at most")
    return (
        f"In **{smaller} of {blocks}** blocks the branch is smaller than the skip: the picture of many shorter networks"
        f" {fits}."
    )


def compared_losses(theirs: Mapping[tuple[str, int], Tensor], ours: Mapping[tuple[str, int], Tensor]) -> str:
    """Which of two networks the corruptions cost more, and by how much, with the verdict on ours; and which corruptions
    cost ours more at the highest severity, in sentences. Losses [N] of images, by corruption and severity."""
    less = stats.paired_difference(_mean_loss(theirs), _mean_loss(ours), of="images")
    verdict = stats.verdict(less, stats.SMALLEST_EFFECT)
    who, more = (f"the `{BASELINE}` network", less) if less.value >= 0 else ("ours", less.taken_from(0))
    cost = f"The corruptions cost {who} {more:points} more."
    most = max(severity for _, severity in ours)
    cost_more = {
        name: stats.paired_difference(ours[name, most], theirs[name, most], of="images")
        for name, severity in ours
        if severity == most
    }
    exceptions = [f"{name} ({each:points})" for name, each in cost_more.items() if each.low > 0]
    yet = f" Yet at severity {most} these cost ours more: {', '.join(exceptions)}." if exceptions else ""
    return f'{cost} "Ours loses less on average": **{verdict}**.{yet}'


def _mean_loss(losses: Mapping[tuple[str, int], Tensor]) -> Tensor:
    """The loss [N] of each image, the mean over corruptions and severities."""
    return torch.stack([*losses.values()]).mean(0)


# Inside a network ---------------------------------------------------------------------------------------------------


def block_sizes(network: ResNet, images: Tensor) -> pd.DataFrame:
    """How large skip and branch are in each block: a row for each block and image, with the columns `block` (layer and
    place in it, both from 1, as in `1.2`), `skip` and `branch`, the root mean square of feature maps; nan for the skips
    of a plain network. `images` uint8 [N, 3, 32, 32]."""
    sizes: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        sizes[module] = output.float().square().mean((1, 2, 3)).sqrt().cpu()

    blocks = {
        f"{layer}.{place}": block
        for layer, part in enumerate(network.layers, 1)
        for place, block in enumerate((module for module in part.children() if isinstance(module, Block)), 1)
    }
    with contextlib.ExitStack() as hooks:
        for block in blocks.values():
            for part in (block.projection, block.branch):  # the skip, and the last steps of F, or nothing
                hooks.enter_context(part.register_forward_hook(keep))
        metrics.predict(network, images, batch_size=len(images))
    none = torch.full((len(images),), torch.nan)
    tables = [
        pd.DataFrame({"block": name, "skip": sizes.get(block.projection, none), "branch": sizes[block.branch]})
        for name, block in blocks.items()
    ]
    return pd.concat(tables, ignore_index=True)
