"""The appendix of records: the runs behind the figures, in groups that differ by seed alone."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from tpsnet_lib import stats
from tpsnet_lib.config import MEMBERS, RunConfig
from tpsnet_lib.profiles import profile_names
from tpsnet_lib.progress import duration
from tpsnet_lib.runs.experiments import all_experiments, collect
from tpsnet_lib.runs.record_files import history_as_csv
from tpsnet_lib.runs.records import Record, Store, committed_folder

HISTORY_LIMIT = 2**17  # bytes of embedded histories; those beyond are left to the record store


def names(store: Store) -> dict[str, str]:
    """What each record is called by the first experiment that declares it, by id: `search_classroom, draw 27`."""
    declared = [each for each in all_experiments() if not each.is_check]
    by_id: dict[str, str] = {}
    for experiment in sorted(declared, key=lambda each: each.name in profile_names()):
        for run, record in collect(experiment, store):
            if record is not None:
                name = experiment.name if run.label == experiment.name else f"{experiment.name}, {run.label}"
                by_id.setdefault(record.id, name)
    return by_id


Tests = Mapping[str, Mapping[str, Any]]  # the metrics of the tests that were opened, by the id of the record


def groups(records: Sequence[Record], tests: Tests, called: Mapping[str, str]) -> list[dict[str, Any]]:
    """Records grouped by everything but the seed: first the recipes that were fitted on all training images, then the
    others, best validation accuracy first.

    `called` has what a record is called, by id."""
    by_group: dict[str, list[Record]] = {}
    for record in records:
        by_group.setdefault(record.group_id, []).append(record)
    room = HISTORY_LIMIT
    result = []
    for members in sorted(
        by_group.values(), key=lambda group: (group[0].validation_accuracy is not None, -_mean(group))
    ):
        rows = []
        for record in sorted(members, key=lambda record: record.config.seed):
            history = _history_link(_shown_history(record))
            room -= len(history)
            rows.append(
                {
                    "id": record.id,
                    "numbers": _numbers(record, tests.get(record.id, {}).get("accuracy")),
                    "hardware": record.hardware,
                    "history": history if room >= 0 else "",
                    "fresh": is_fresh(record),
                }
            )
        result.append(
            {
                "id": members[0].group_id,
                "name": "; ".join(sorted({called[record.id] for record in members if record.id in called})),
                "config": _settings(members[0].config),
                "summary": _summary(members, tests),
                "records": rows,
            }
        )
    return result


def is_fresh(record: Record) -> bool:
    """Whether a record was made for this page and is not among the committed ones."""
    return committed_folder() not in record.path.parents


def _shown_history(record: Record) -> list[dict[str, float]]:
    """A record's history without what is no validation: scores on images that it was fitted on."""
    rows: list[dict[str, float]] = record.history()
    left_out = ("validation",) if record.validation_accuracy is None else ()
    return [{name: value for name, value in row.items() if not name.startswith(left_out)} for row in rows]


def _accuracies(records: Sequence[Record]) -> list[float]:
    return [value for record in records if (value := record.validation_accuracy) is not None]


def _mean(records: Sequence[Record]) -> float:
    values = _accuracies(records)
    return sum(values) / len(values) if values else -1.0


def _summary(records: Sequence[Record], tests: Tests) -> str:
    """What the records of a group share: their number, means over seeds, size, data, and the file of trials."""
    opened = [
        tests[record.id] for record in sorted(records, key=lambda record: record.config.seed) if record.id in tests
    ]
    means = {"test accuracy": [test["accuracy"] for test in opened], "validation accuracy": _accuracies(records)}
    sizes = {f"{record.metrics['parameters']:,} parameters" for record in records if "parameters" in record.metrics}
    files = {record.path.name for record in records if record.path.suffix == ".jsonl"}
    parts = [f"n = {len(records)}"]
    parts += [
        f"{name}{f' of {len(values)}' if len(values) < len(records) else ''} {stats.mean(values):%} over seeds"
        for name, values in means.items()
        if len(values) > 1
    ]
    if exact := [test for test in opened if "exact_n" in test]:
        right = ", ".join(f"{test['exact_correct']:,}" for test in exact)
        mean = stats.mean([test["exact_accuracy"] for test in exact])
        parts.append(
            f"of {exact[0]['exact_n']:,} test images with the original pixels {right} right, {mean:%} over seeds"
        )
    return "; ".join([*parts, *sizes, *sorted({record.stamp for record in records}), *sorted(files)])


def _numbers(record: Record, test: float | None) -> list[str]:
    """Seed, accuracies in percent (validation, test, training) and time."""

    def percent(value: Any) -> str:
        return f"{100 * value:.2f}" if isinstance(value, (int, float)) else "–"

    return [
        str(record.config.seed),
        "fitted" if record.validation_accuracy is None else percent(record.metrics.get("validation_accuracy")),
        percent(test),
        percent(record.metrics.get("train_accuracy")),
        duration(record.seconds) if "seconds" in record.metrics else "–",
    ]


def _settings(config: RunConfig) -> str:
    """What differs from the defaults, as `tpsnet train --set` takes it; a named member by its name."""
    tree = {name: value for name, value in config.to_dict().items() if isinstance(value, Mapping)}
    member = next((name for name, model in MEMBERS.items() if model == config.model), "")
    parts = [f"model={member}"] if member else []
    for section, values in tree.items():
        if section != "model" or not member:
            parts += [f"{section}.{key}={_setting(value)}" for key, value in values.items()]
    return " ".join(parts)


def _setting(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def _history_link(rows: Sequence[Mapping[str, float]]) -> str:
    """An epoch a line as a CSV `data:` link; empty if there is no history."""
    if not rows:
        return ""
    return "data:text/csv," + quote(history_as_csv(rows), safe=",.:-_+")
