"""What `test`, `predict`, `convert` and `records` do with records. Results go to standard output."""

import difflib
import json
from argparse import Namespace as Options
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tpsnet_lib.errors import ConfigError, RecordError, TpsnetError, brief, warn
from tpsnet_lib.old_words import current_word
from tpsnet_lib.runs import experiments, openings, publish
from tpsnet_lib.runs.export import export_records, import_records
from tpsnet_lib.runs.record_files import SUMS, check_sums
from tpsnet_lib.runs.records import Store, committed_folder, default_store, in_percent, rows


def test(options: Options) -> int:
    """Print a record's score on the test set: the first call opens it, later ones score its weights again."""
    from tpsnet_lib.runs.test_set import find_test, log_score, open_test, score

    store = default_store(options.out)
    name = options.record or _best_opened(store)
    if (folder := Path(name)).is_dir():
        store, name = Store(folder.resolve().parent, *store.folders), folder.resolve().name
    record = store.load(name)
    opened_before = find_test(record, store) is not None
    result = open_test(record, root=options.data, device=options.device, store=store, exploratory=options.exploratory)
    scores = result.metrics
    if opened_before:
        _, scores = score(record, root=options.data, device=options.device)
        if options.log:
            log_score(record, store, scores)
    if options.json:
        print(json.dumps({"record": str(record.path), "id": record.id, "recorded": result.metrics, **scores}))
        return 0
    print(f"{_accuracy(scores, '')} on the {scores['n']:,} test images of {scores['fingerprint']['stamp']}")
    if "exact_n" in scores:
        print(f"{_accuracy(scores, 'exact_')} on the {scores['exact_n']:,} exact ones")
    if opened_before:
        rounded = " (before its weights were rounded, as they are now before they are scored)"
        rounded = rounded if record.id in openings.before_the_rule() else ""
        when = f"recorded when it was opened, {result.metrics['opened'][:10]}"
        print(f"{when}: {result.metrics['correct']:,} correct{rounded}")
    return 0


def predict(options: Options) -> int:
    """Print what a recorded network takes photographs for, and what to keep in mind about that."""
    import torch

    from tpsnet_lib import metrics
    from tpsnet_lib.data.own import load_photo
    from tpsnet_lib.device import resolve_device

    store = default_store(options.out)
    record = store.load(options.record or _best_opened(store))
    images = torch.stack([load_photo(path) for path in options.photo])
    if record.config.model.colours == 1:
        images = images.float().mean(1, keepdim=True).to(torch.uint8)
    logits = metrics.predict(record.load_model(resolve_device(options.device)), images)
    names = record.class_names
    likeliest = logits.softmax(1).topk(min(3, len(names)))
    guesses = [
        {names[position]: round(value, 4) for value, position in zip(values, positions, strict=True)}
        for values, positions in zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
    ]
    if options.json:
        print(json.dumps({"id": record.id, "photos": dict(zip(options.photo, guesses, strict=True))}))
        return 0
    for path, row in zip(options.photo, guesses, strict=True):
        (name, confidence), *runners_up = row.items()
        print(f"{path}: {name}, {confidence:.0%} ({', '.join(f'{label} {share:.0%}' for label, share in runners_up)})")
    print(
        f"By record {record.id}. It knows only {len(names)} classes ({', '.join(names)}) and sees the middle square of"
        f" a photograph at 32 x 32 pixels: whatever else is shown is taken for one of them, also with high confidence."
    )
    return 0


def convert(options: Options) -> int:
    """Write a recorded network as a file for other programs."""
    from tpsnet_lib.runs.convert import write_network

    store = default_store(options.out)
    record = store.load(options.record or _best_opened(store))
    path = write_network(record, Path(options.file))
    print(f"{path}: record {record.id}, images uint8 [B, {record.config.model.colours}, 32, 32] to probabilities")
    return 0


def _accuracy(scores: dict[str, Any], kind: str) -> str:
    percent, low, high = (100 * scores[f"{kind}{name}"] for name in ("accuracy", "low", "high"))
    return f"accuracy {percent:.2f}% (95% interval {low:.2f} to {high:.2f}), {scores[f'{kind}correct']:,} correct"


def _best_opened(store: Store) -> str:
    """The first of `rank_records` whose test part was opened."""
    from tpsnet_lib.analysis.final_runs import rank_records
    from tpsnet_lib.runs.test_set import find_test

    for record in rank_records(store, "cifar10"):
        if find_test(record, store) is not None:
            return record.id
    raise RecordError("no final network has been opened on the test set: name a record, as `tpsnet records` lists them")


def records(options: Options) -> int:
    """List, verify, publish, export or import records."""
    if options.json and options.verb != "list":
        raise ConfigError(f"--json is of records list; records {options.verb} prints its lines alone")
    known = experiments.experiment_names()
    options.names = [current_word("name", name, known) for name in options.names]
    verbs = {"list": _list, "verify": _verify, "publish": _publish, "export": _export, "import": _import}
    return verbs[options.verb](options)


def _list(options: Options) -> int:
    """Print a line for each record, or for those of some experiments and ids."""
    store = default_store(options.out)
    chosen = store.all()
    if options.names:
        wanted = _ids(options.names, store)
        chosen = [record for record in chosen if record.id in wanted]
        if not chosen:
            warn(f"no run of {', '.join(options.names)} has a record yet: `tpsnet run {options.names[0]}` trains it")
    if options.json:
        print(json.dumps(rows(chosen)))
        return 0
    print(f"{'record':12}  held out  parameters  {'blocks x channels':36} data")
    for record in chosen:
        score = record.failed or ("-" if record.validation_accuracy is None else in_percent(record))
        model = record.config.model
        shape = f"{list(model.blocks)} x {list(model.channels)}"
        size = record.metrics.get("parameters", 0)  # as recorded: its block may be one that this process does not know
        weights = ", with weights" if record.has_weights else ""
        print(f"{record.id}  {score:8}  {size:10,}  {shape:36} {record.stamp}{weights}")
    return 0


def _verify(options: Options) -> int:
    """Hold every record against its sums, the trials' files against each other, the logs against the results, and
    these against their logits."""
    from tpsnet_lib.runs import test_set

    store = default_store(options.out)
    verified = store.all()
    faults = [*publish.repeated_rows(store), *openings.faults(store), *test_set.undeclared(store)]
    faults += test_set.miscounted(store)
    for record in verified:
        for folder in (record.path, *(base / record.id / "test" for base in store.folders)):
            try:
                if (folder / SUMS).is_file():
                    check_sums(folder)
            except TpsnetError as error:
                faults.append(str(error))
    for fault in faults:
        warn(fault)
    print(f"{len(faults)} faults in {len(verified)} records" if faults else f"{len(verified)} records are whole")
    return 1 if faults else 0


def _export(options: Options) -> int:
    """Write the writable store's finished records, or any of some experiments and ids, as one archive."""
    if options.out is None:
        raise ConfigError("records export: --out names the archive to write, such as records.tar")
    store = default_store(options.store)
    chosen = Store(store.writable).all() if not options.names else map(store.load, _ids(options.names, store))
    finished = [record for record in chosen if not record.failed and record.path.is_dir()]
    if not finished:
        raise RecordError(f"no finished record with a folder of its own to export in {store.writable}: nothing written")
    export_records(finished, Path(options.out))
    print(f"{len(finished)} records in {options.out}")
    return 0


def _import(options: Options) -> int:
    """Bring an archive's records into the writable store."""
    if len(options.names) != 1:
        raise ConfigError("records import: name one archive, as `records export` wrote it")
    store = default_store(options.out)
    imported, present = import_records(Path(options.names[0]), store.writable)
    print(f"{len(imported)} records brought to {store.writable}, {len(present)} were there already")
    return 0


def _ids(names: Sequence[str], store: Store) -> list[str]:
    """Records' ids as they are; of an experiment's name the ids of its runs that have a record.

    Raises `RecordError` for a name that is neither."""
    ids: list[str] = []
    known = experiments.experiment_names()
    for name in names:
        if name in known:
            ids += [record.id for _, record in experiments.collect(name, store) if record is not None]
        elif store.find(name) is not None:
            ids.append(name)
        else:
            near = difflib.get_close_matches(name, [*known, *(record.id for record in store.all())], 1)
            lists = "`tpsnet run` lists the experiments, `tpsnet records list` all records with their ids"
            way_out = f"did you mean {near[0]}?" if near else lists
            raise RecordError(f"no experiment is called {brief(name)}, and no record has this id: {way_out}")
    return ids


def _publish(options: Options) -> int:
    """Copy records to the committed store; of an experiment, unless weights are asked for, as the rows of one file."""
    if not options.names:
        raise ConfigError("records publish: name an experiment or the ids of records")
    store, target = default_store(options.out), committed_folder()
    for name in options.names:
        if name in experiments.experiment_names() and not options.weights:
            experiment = experiments.load_experiment(name)
            trials = [record for _, record in experiments.collect(experiment, store) if record is not None]
            publish.write_trials(target / f"{name}.trials.jsonl", trials)
            print(f"{len(trials)} of {len(experiment.runs)} runs in {target / f'{name}.trials.jsonl'}")
            continue
        for run_id in _ids([name], store):
            print(publish.publish_record(store.load(run_id), target, weights=options.weights))
    return 0
