"""Final networks: the seeds of one recipe as one result; the best is chosen by validation, never by test accuracy."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tpsnet_lib import stats
from tpsnet_lib.config import RunConfig
from tpsnet_lib.model_cost import training_flops
from tpsnet_lib.profiles import profile_names
from tpsnet_lib.runs import openings
from tpsnet_lib.runs.experiments import collect, experiments_folder, final_experiments, load_experiment
from tpsnet_lib.runs.records import Record, Store, committed_folder
from tpsnet_lib.runs.test_set import TestResult, find_test
from tpsnet_lib.stats import Estimate

CLASSES_OF_HARDWARE = {"cuda": "on one GPU", "cpu": "on two CPU cores"}  # as all final runs were trained


@dataclass(frozen=True)
class Final:
    """The runs of one recipe that differ by seed alone, with the test result of each; None where it was not opened."""

    name: str
    records: tuple[Record, ...]
    tests: tuple[TestResult | None, ...]
    held_out: tuple[Record, ...] = ()  # runs of the same recipe that were not fitted on the validation images
    alone: tuple[Record, ...] = ()  # the runs that had their machine to themselves
    at_once: int = 1  # the most runs that went side by side on the machine of the others
    looks: tuple[tuple[Record, TestResult], ...] = ()  # runs that were opened undeclared: no mean or figure has them

    @property
    def run(self) -> RunConfig:
        """The run config of the first seed."""
        return self.records[0].config

    @property
    def of_a_profile(self) -> bool:
        """Whether a profile of the notebooks declares it, for a run of minutes."""
        return self.name.partition(",")[0] in profile_names()

    @property
    def was_tuned(self) -> bool:
        """Whether an experiment compares variants of this recipe."""
        return _has_choices(self.name)

    @property
    def opened(self) -> list[tuple[Record, TestResult]]:
        """The runs that the test set was opened for, by seed."""
        pairs = zip(self.records, self.tests, strict=True)
        return [(record, test) for record, test in pairs if test is not None]

    @property
    def counted(self) -> tuple[Record, ...]:
        """The runs that the figures are of: those that were opened; all of them while none is."""
        return tuple(record for record, _ in self.opened) or self.records

    @property
    def with_curve(self) -> Record:
        """The run whose learning curve is shown: one that held validation images out, if there is one."""
        return (self.held_out or self.counted)[0]

    @property
    def training_flops(self) -> float:
        """Floating-point operations of the whole training for each of its images."""
        return training_flops(self.run, self.run.train.epochs * self.run.train.copies)

    @property
    def validation(self) -> Estimate:
        """The accuracy on validation images of the runs that were not fitted on them, the mean over seeds."""
        return stats.mean([record.metrics["validation_accuracy"] for record in self.held_out])

    def accuracy(self, kind: str = "") -> Estimate:
        """Test accuracy over the opened seeds. `kind`: empty, or `exact_` for the images with the original pixels.

        The interval is a t interval if there are several seeds (what other seeds would give on these images), and
        Wilson's if there is one (over the images)."""
        tests = [test.metrics for _, test in self.opened]
        if len(tests) == 1:
            n = int(tests[0][f"{kind}n"])
            return stats.proportion(round(tests[0][f"{kind}accuracy"] * n), n)
        return stats.mean([test[f"{kind}accuracy"] for test in tests])

    def over_images(self, kind: str = "") -> Estimate:
        """Test accuracy, the mean over the opened seeds, with Wilson's interval over the choice of test images.

        `kind` as in `accuracy`; without an opened run the estimate has no value."""
        n = int(self.opened[0][1].metrics[f"{kind}n"]) if self.opened else 0
        return stats.proportion(round(self.accuracy(kind).value * n) if n else 0, n)

    @property
    def range_of_seeds(self) -> str:
        """The lowest and the highest test accuracy of the opened seeds in words: `96.88 to 96.90`."""
        accuracies = [100 * test.metrics["accuracy"] for _, test in self.opened]
        return f"{min(accuracies):.2f} to {max(accuracies):.2f}"

    @property
    def timed(self) -> tuple[Record, ...]:
        """The runs whose minutes are quoted: those that had the machine to themselves, or all if none had."""
        return tuple(record for record in self.counted if record in self.alone) or self.counted

    @property
    def minutes(self) -> float:
        """Minutes of training of one run, the mean over `timed`."""
        return sum(record.seconds for record in self.timed) / 60 / len(self.timed)

    @property
    def trained_on(self) -> str:
        """The class of hardware that the recipe was trained on, in words."""
        return CLASSES_OF_HARDWARE.get(self.records[0].provenance["device"], "here")

    @property
    def hardware(self) -> str:
        """The hardware of the runs, in words."""
        return " and ".join(sorted({record.hardware for record in self.counted}))


def _has_choices(name: str) -> bool:
    return (experiments_folder() / f"{name}_choices.yaml").is_file()


class _Declared(NamedTuple):
    """The finished runs of a recipe by id, with the experiment and the label that declare it first."""

    experiment: str
    label: str
    runs: dict[str, tuple[Record, TestResult | None]]


def finals(store: Store, dataset: str = "cifar10") -> list[Final]:
    """The results of every recipe that is declared final, the best first: the one rule of which network is the best.

    The best has the highest accuracy on validation images that were kept out of fitting, of runs that did not choose
    the recipe where there are some. Nothing measured compares a recipe without such a run: it stands before the first
    whose training takes less arithmetic. A record whose test set was opened for a look alone is left out, whatever was
    declared afterwards. A recipe that several experiments declare has the name of the first. Raises `RecordError` where
    the log of openings and the results do not agree."""
    openings.require_whole(store)
    found: dict[tuple[str, str], _Declared] = {}  # by recipe and data
    looks: dict[tuple[str, str], dict[str, tuple[Record, TestResult]]] = {}
    for experiment in final_experiments():
        for run, record in collect(experiment, store):
            if record is None or record.failed or record.config.data.dataset != dataset:
                continue
            key, test = (record.group_id, record.stamp), find_test(record, store)
            if test is not None and test.exploratory:
                looks.setdefault(key, {})[record.id] = record, test
            else:
                recipe = found.setdefault(key, _Declared(experiment.name, run.label, {}))
                recipe.runs[record.id] = record, test
    shared = Counter(recipe.experiment for recipe in found.values())
    all_records = store.all()
    results = []
    for key, (experiment_name, label, runs) in found.items():
        records, opened = zip(*sorted(runs.values(), key=lambda pair: pair[0].config.seed), strict=True)
        counts = {record.id: runs_at_once(record, all_records) for record in records}
        alone = tuple(record for record in records if counts[record.id] == 1)
        name = f"{experiment_name}, {label}" if shared[experiment_name] > 1 else experiment_name
        seen = tuple(looks.get(key, {}).values())
        held_out = _held_out_runs(records[0], all_records)
        if _has_choices(name):  # a run that chose the recipe flatters it
            chose = {run_id for run in load_experiment(f"{name}_choices").runs for run_id in run.config.possible_ids}
            held_out = tuple(run for run in held_out if run.id not in chose) or held_out
        results.append(Final(name, records, opened, held_out, alone, max(counts.values()), seen))
    return _ranked(results)


def recipes_opened_before(final: Final) -> int:
    """How many other recipes the committed log had opened on the test set when the first run of this one began."""
    store, began = Store(committed_folder()), min(str(record.provenance["started"]) for record in final.records)
    lines = [line for line in openings.all_openings(store) if line["opened"] < began]
    return len({store.load(line["record"]).group_id for line in lines} - {final.records[0].group_id})


def _ranked(results: Iterable[Final]) -> list[Final]:
    by_arithmetic = sorted(results, key=lambda final: -final.training_flops)
    ranked = sorted((final for final in by_arithmetic if final.held_out), key=lambda final: -final.validation.value)
    for final in by_arithmetic:
        if not final.held_out:
            less = (at for at, other in enumerate(ranked) if other.training_flops < final.training_flops)
            ranked.insert(next(less, len(ranked)), final)
    return ranked


def leading(ranked: Iterable[Final]) -> list[Final]:
    """The best recipe of each class of hardware, a GPU and a CPU, in the order of `finals`."""
    best: dict[str, Final] = {}
    for final in ranked:
        best.setdefault(final.records[0].provenance["device"], final)
    return list(best.values())


def best_by_validation(ranked: Iterable[Final]) -> Final | None:
    """The best of the recipes that validation images can judge; None where they judge none."""
    return next((final for final in ranked if final.held_out), None)


def role(final: Final, ranked: Sequence[Final]) -> str:
    """What a recipe is among all, empty for most: test accuracy describes and chooses nothing; validation chooses.
    One of a profile, which shows that the chapters work, has no role."""
    if final.of_a_profile:
        return ""
    opened = [each.accuracy().value for each in leading(ranked) if each.opened]
    most_accurate = final.opened and final.accuracy().value == max(opened, default=None)
    if final is best_by_validation(ranked):
        return "our best network" if most_accurate else "our best network by validation"
    return "our most accurate network" if most_accurate else ""


def rank_records(store: Store, dataset: str) -> list[Record]:
    """The records with weights of `finals`, in the order in which they are taken where none is named: those that were
    opened on the test set, recipe by recipe and by seed, then the others, the newest first."""
    ranked = finals(store, dataset)
    opened = [record for final in ranked for record, _ in final.opened]
    shut = [record for final in ranked for record in final.records if record not in opened]
    shut.sort(key=lambda record: str(record.provenance["finished"]), reverse=True)
    return [record for record in (*opened, *shut) if record.has_weights]


def _held_out_runs(record: Record, records: Iterable[Record]) -> tuple[Record, ...]:
    """The runs of a record's recipe that were not fitted on the validation images, by seed."""
    group_id = replace(record.config, data=replace(record.config.data, fit_on="split")).group_id
    runs = [run for run in records if run.group_id == group_id and not run.failed]
    return tuple(sorted(runs, key=lambda run: run.config.seed))


def runs_at_once(record: Record, others: Iterable[Record]) -> int:
    """The most runs, this one counted, that went at one time on its machine, as far as the records know."""
    machine, (start, end) = _machine(record), record.span
    spans = [other.span for other in others if other.id != record.id and _machine(other) == machine]
    begun = [start, *(other_start for other_start, _ in spans if start < other_start < end)]
    return max(1 + sum(s <= moment < e for s, e in spans) for moment in begun)


def _machine(record: Record) -> tuple[str, str]:
    return str(record.provenance.get("host", "")), record.hardware
