"""The claims' table and the headline, once more from the raw records, by scipy and statsmodels alone.

`python tests/recompute.py` prints every test with its difference, interval, Holm-adjusted p-value and verdict; the test
beside it holds them against what the report prints."""

import json
import math
from pathlib import Path

import numpy as np
import yaml
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

REPORT = Path(__file__).parent.parent / "report"
POINT, PENDING = 0.01, (math.nan, math.nan, math.nan, 0, math.inf)
DEFAULTS = {"blocks": [13, 13, 13], "channels": [32, 64, 128], "stem": 16, "pool": 8, "kernels": [3]}
DEFAULTS |= {"skip_kernels": [1], "dropout": 0.0, "block_dropout": 0.0}
ORIGINAL = {"lr": 0.01, "nesterov": False, "schedule": "cosine", "label_smoothing": 0.0, "rotation": 5.0}


def trials(experiment):
    """The raw rows of a file of trials."""
    file = REPORT / "records" / f"{experiment}.trials.jsonl"
    return [json.loads(line)["trial"] for line in file.read_text().splitlines()] if file.is_file() else []


ROWS = [row for file in (REPORT / "records").glob("*.trials.jsonl") for row in trials(file.name.split(".")[0])]
FOLDERS = [
    {name: json.loads((path / f"{name}.json").read_text()) for name in ("config", "metrics")} | {"path": path}
    for path in sorted((REPORT / "records").glob("[0-9a-f]*/"))
]


def declared(experiment):
    """The raw declaration of an experiment; None before it is written."""
    file = REPORT / "experiments" / f"{experiment}.yaml"
    return yaml.safe_load(file.read_text()) if file.is_file() else None


def runs(place):
    """The rows of `experiment/label` by seed, and whether every declared seed has one; of `experiment+later/label` also
    those of the later seeds."""
    name, _, label = place.partition("/")
    if "+" in name:
        parts = [runs(f"{each}/{label}") for each in name.split("+")]
        return {seed: row for part, _ in parts for seed, row in part.items()}, all(whole for _, whole in parts)
    experiment = declared(name)
    if experiment is None or "runs" not in experiment:  # a grid over named members: none has been run
        return {}, False
    run = next(run for run in experiment["runs"] if run["label"] == label)
    train = {**ORIGINAL, **experiment["base"]["train"], **run.get("train", {})}
    wanted = [
        ("model", {k: v for k, v in run["model"].items() if DEFAULTS.get(k) != v}),
        ("train", {k: v for k, v in train.items() if ORIGINAL.get(k) != v and k != "recipe"}),
        ("data", experiment["base"].get("data", {})),
    ]
    same = [row for row in ROWS if all(row["config"].get(section, {}) == value for section, value in wanted)]
    found = {row["config"].get("seed", 0): row for row in same if row["config"].get("seed", 0) in experiment["seeds"]}
    return found, len(found) == len(experiment["seeds"])


def accuracy(found):
    return [row["metrics"]["validation_accuracy"] for _, row in sorted(found.items())]


def hardware(row, *more):
    return [row["provenance"].get(name) for name in ("hardware", *more)]


def by_machine(places, kind=hardware):
    """The rows at several places, by seed, once for each machine with two or more of all, the most in the smallest
    first; else on one machine that has some of all; else whole."""
    groups = [runs(place)[0] for place in places]
    machines = [kind(row) for rows in groups for row in rows.values()]
    machines = [machine for at, machine in enumerate(machines) if machine not in machines[:at]]
    parts = [[{s: row for s, row in rows.items() if kind(row) == one} for rows in groups] for one in sorted(machines)]
    parts.sort(key=lambda part: -min(map(len, part)))
    several = [part for part in parts if min(map(len, part)) > 1]
    return several or [part for part in parts[:1] if min(map(len, part))] or [groups]


def contrast(groups, weights):
    """A weighted sum of means, Welch and Satterthwaite: (value, low, high, n, degrees of freedom)."""
    if min(map(len, groups)) < 2:
        return PENDING
    parts = [w**2 * np.var(x, ddof=1) / len(x) for w, x in zip(weights, groups, strict=True)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, groups, strict=True))
    value = sum(w * np.mean(x) for w, x in zip(weights, groups, strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    return value, value - half, value + half, min(map(len, groups)), freedom


def within_machines(places, weights, value):
    """A contrast on each machine, averaged with the inverse of its variance if all runs have one spread."""
    strata = [[value(rows) for rows in groups] for groups in by_machine(places)]
    shares = [1 / sum(w**2 / max(1, len(x)) for w, x in zip(weights, groups, strict=True)) for groups in strata]
    cells = [values for groups in strata for values in groups]
    whole = contrast(cells, [share / sum(shares) * w for share in shares for w in weights])
    n = min(sum(map(len, parts)) for parts in zip(*strata, strict=True)) if whole[3] else 0
    return *whole[:3], n, whole[4]


def difference(*places):
    """Welch within machines."""
    return within_machines(places, (1, -1), accuracy)


def odd(*places):
    count = np.arange(1, len(places) + 1)
    jump = np.where(count % 2, 0.5, -0.5)
    weights = np.linalg.pinv(np.column_stack([count**0, count, count**2, jump]))[3]
    return within_machines(places, weights, accuracy)


def gain(*places, scale=float):
    return within_machines(places, (1, -1, -1, 1), lambda rows: [scale(value) for value in accuracy(rows)])


def gain_in_logits(*places):
    return gain(*places, scale=lambda p: math.log(p / (1 - p)))


def overfitting(*places):
    """How much further the first's training accuracy is ahead of its validation accuracy."""

    def ahead(rows):
        return [row["metrics"]["train_accuracy"] - row["metrics"]["validation_accuracy"] for row in rows.values()]

    return within_machines(places, (1, -1), ahead)


def furthest(*places):
    """The largest difference of means, with Tukey's interval."""
    values = [accuracy(rows) for rows in by_machine(places)[0]]
    if min(map(len, values)) < 2:
        return PENDING
    means = [np.mean(x) for x in values]
    first, second = int(np.argmax(means)), int(np.argmin(means))
    ends = stats.tukey_hsd(*values).confidence_interval()
    freedom = sum(map(len, values)) - len(values)
    return (
        means[first] - means[second],
        ends.low[first][second],
        ends.high[first][second],
        min(map(len, values)),
        freedom,
    )


def epoch_time(*places):
    """The logarithm of the ratio of fastest epochs, on the machine and threads that most of these runs had."""
    groups = by_machine(places, lambda row: [str(each) for each in hardware(row, "threads")])[0]
    if len({str(hardware(row, "threads")) for rows in groups for row in rows.values()}) > 1:
        return PENDING
    epochs = [[np.diff([e["seconds"] for e in row["curve"]], prepend=0) for row in rows.values()] for rows in groups]
    return contrast([[math.log(min(seconds)) for seconds in runs] for runs in epochs], (1, -1))


def drawn(row, name):
    """A drawn variable of a search's trial, from its raw config."""
    section = row["config"]["train" if name in ("optimizer", "lr") else "model"]
    return section.get(name, {"optimizer": "sgd", "lr": ORIGINAL["lr"], "dropout": 0.0, "block_dropout": 0.0}[name])


def more_than_median(experiment, name):
    """The trials with more than the median of a variable, against the others."""
    rows = trials(experiment)
    border = np.median([drawn(row, name) for row in rows])
    return medians(*([row for row in rows if (drawn(row, name) > border) == side] for side in (True, False)))


def sgd_against_adam():
    """At two decades of rates each: SGD's are those of the search over wider rates once that is done."""
    sgd = [row for row in trials("search_classroom") if drawn(row, "optimizer") == "sgd"]
    adam = [row for row in trials("search_classroom") if drawn(row, "optimizer") != "sgd"]
    if _complete("search_sgd_rate"):
        sgd = [row for row in trials("search_sgd_rate") if drawn(row, "lr") >= 0.01]
    return medians(sgd, adam)


def medians(*groups):
    """The median accuracy of some trials minus that of others; a failed trial is at chance."""
    sides = [[row["metrics"].get("validation_accuracy", 0.1) for row in rows] for rows in groups]

    def statistic(a, b):
        return float(np.median(a) - np.median(b))

    more = {"n_resamples": 20_000, "method": "percentile", "vectorized": False, "batch": 100, "rng": 0}
    result = stats.bootstrap(sides, statistic, **more)
    ends = result.confidence_interval
    return statistic(*sides), ends.low, ends.high, min(map(len, sides)), result.bootstrap_distribution


def near(experiment, x=-2.0):
    """SGD trials whose rate is nearest to 10^x against random ones (permutations), and the rates that winners have."""
    rows = [row for row in trials(experiment) if drawn(row, "optimizer") == "sgd"]
    rates = np.log10([drawn(row, "lr") for row in rows])
    y, count = np.array([row["metrics"].get("validation_accuracy", 0.1) for row in rows]), max(2, round(len(rows) / 4))
    rng = np.random.default_rng(0)
    random = np.median(rng.permuted(np.tile(y, (2000, 1)), axis=1)[:, :count], axis=1)
    low, high = np.quantile(random, [0.025, 0.975], method="inverted_cdf")
    nearest = np.median(y[np.argsort(abs(rates - x), kind="stable")[:count]])
    sample = np.random.default_rng(0).integers(0, len(rows), (2000, count))
    winners = rates[sample[np.arange(2000), y[sample].argmax(1)]]
    judged = None
    if not (ends := np.quantile(winners, [0.025, 0.975]))[0] <= x <= ends[1]:
        middle = np.median(winners)
        side = 1 if ends[1] < x else -1
        judged = side * (middle - x), *sorted(side * (ends - x)), len(rows), side * (winners - x)
    return (nearest - np.median(random), nearest - high, nearest - low, len(rows), nearest - random), judged


CONTROL, LONG = "study_control/B=1", "study_long/B=1, 48 epochs"
SMALL, SMALL_LONG = "effects_layers/N=3", "effects_blocks_long/B=1"
DEEP, SMALL_DEEP = "study_blocks/B=5", "effects_blocks/B=5"
DEEP_LONG, SMALL_DEEP_LONG = "study_long/B=5, 48 epochs", "effects_blocks_long/B=5"
THREE_LONG, SMALL_THREE_LONG = "study_long/B=3, 48 epochs", "effects_blocks_long/B=3"
SMALL_THREE = "effects_blocks/B=3"
FIRST_LOOK = ("study_blocks/B=3", DEEP)
WIDE_FIRST_LOOK = ("study_width/B=3, wide", "study_blocks/B=3")
WIDE_AGAIN = ("study_width+study_width_again/B=3, wide", "study_blocks+study_blocks_again/B=3")
AGAIN = ("study_blocks+study_blocks_again/B=3", "study_blocks+study_blocks_again/B=5")
LATER = ("study_long+study_long_again/B=5, 48 epochs", "study_long+study_long_again/B=3, 48 epochs")
GAIN, GAIN_AGAIN = ((deep, AGAIN[1], three, AGAIN[0]) for deep, three in ((DEEP_LONG, THREE_LONG), LATER))
SMALL_GAIN = (SMALL_DEEP_LONG, SMALL_DEEP, SMALL_THREE_LONG, SMALL_THREE)
GAIN_BEFORE = (DEEP_LONG, DEEP, LONG, CONTROL)
TIMED = ("epoch_times/B=5", "epoch_times/B=1")


def study(name, first, last):
    return [f"{name}/B={count}" for count in range(first, last + 1)]


TENTH = math.log(1.1)  # of a ratio of times
TESTS = {  # (what is computed, the places of each budget, the smallest effect, the bound of "at most")
    "three layers against two": (difference, [(CONTROL, "study_layers/N=2"), (SMALL, "effects_layers/N=2")]),
    "three layers against two, MACs": (
        difference,
        [(CONTROL, "study_layers_macs/N=2, MACs"), (SMALL, "effects_layers_macs/N=2")],
    ),
    "three layers against four": (difference, [(CONTROL, "study_layers/N=4"), (SMALL, "effects_layers/N=4")]),
    "three layers against four, MACs": (
        difference,
        [(CONTROL, "study_layers_macs/N=4, MACs"), (SMALL, "effects_layers_macs/N=4")],
    ),
    "odd": (odd, [(CONTROL, *study("study_blocks", 2, 6)), (SMALL, *study("effects_blocks", 2, 5))]),
    "dropout": (difference, [("study_dropout/B=1, dropout 0.2", CONTROL), ("effects_dropout/D=0.2", SMALL)]),
    "dropout, longer run": (difference, [("study_dropout_long/B=1, dropout 0.2, 48 epochs", LONG)]),
    "block dropout": (
        difference,
        [("study_dropout/B=1, block dropout 0.2", CONTROL), ("effects_dropout/Db=0.2", SMALL)],
    ),
    "block dropout, longer run": (difference, [("study_dropout_long/B=1, block dropout 0.2, 48 epochs", LONG)]),
    "shallow, short run": (difference, [AGAIN, FIRST_LOOK, (SMALL_THREE, SMALL_DEEP)]),
    "deep, longer run": (difference, [LATER, (DEEP_LONG, THREE_LONG), (SMALL_DEEP_LONG, SMALL_THREE_LONG)]),
    "gain in points": (gain, [GAIN_AGAIN, GAIN, SMALL_GAIN]),
    "gain in logits": (gain_in_logits, [GAIN_AGAIN, GAIN, SMALL_GAIN], 0.05),
    "width at one block": (difference, [("study_width/B=1, wide", CONTROL), ("effects_width/w=12", SMALL)]),
    "width at three blocks": (
        difference,
        [WIDE_AGAIN, WIDE_FIRST_LOOK, ("effects_depth/B=3", SMALL_THREE)],
    ),
    "overfitting": (
        overfitting,
        [LATER, (DEEP_LONG, THREE_LONG), AGAIN[::-1], (SMALL_DEEP_LONG, SMALL_THREE_LONG)],
        0.0,
        POINT,
    ),
    "equal size": (
        furthest,
        [
            (CONTROL, *study("study_blocks", 2, 6), "study_layers/N=2", "study_layers/N=4"),
            (SMALL, *study("effects_blocks", 2, 5), "effects_layers/N=2", "effects_layers/N=4"),
        ],
        0.0,
        POINT,
    ),
    "equal size, three layers": (
        furthest,
        [(CONTROL, *study("study_blocks", 2, 6)), (SMALL, *study("effects_blocks", 2, 5))],
        0.0,
        POINT,
    ),
    "cost": (
        epoch_time,
        [TIMED, (DEEP_LONG, LONG), ("effects_depth/B=2", "effects_width/w=12")],
        TENTH,
    ),
}
BEFORE = {  # what was judged in the place of a test, and counts: (computed, places, smallest effect, bound, instead)
    "one block": (difference, (CONTROL, DEEP), POINT, None, AGAIN),
    "first look": (difference, FIRST_LOOK, POINT, None, AGAIN),
    "first look, wide": (difference, WIDE_FIRST_LOOK, POINT, None, WIDE_AGAIN),
    "one block, longer": (difference, (DEEP_LONG, LONG), POINT, None, (DEEP_LONG, THREE_LONG)),
    "one block, gain": (gain, GAIN_BEFORE, POINT, None, GAIN),
    "one block, gain in logits": (gain_in_logits, GAIN_BEFORE, 0.05, None, GAIN),
    "one block, overfitting": (overfitting, (DEEP_LONG, LONG), 0.0, POINT, (DEEP_LONG, THREE_LONG)),
    "first look, longer": (difference, (DEEP_LONG, THREE_LONG), POINT, None, LATER),
    "first look, gain": (gain, GAIN, POINT, None, LATER),
    "first look, gain in logits": (gain_in_logits, GAIN, 0.05, None, LATER),
    "first look, overfitting": (overfitting, (DEEP_LONG, THREE_LONG), 0.0, POINT, LATER),
}
UNTRIED = ("reproduction", "odd in the search", "shallow, run cut off")  # on a GPU: without a record yet


def one_sided(estimate, bound):
    """The p-value of "the truth is at most `bound`": the share of a bootstrap's or a permutation's draws, else read off
    the half of the interval that faces it."""
    value, low, high, _, freedom = estimate
    if np.ndim(freedom):
        return (1 + np.sum(freedom <= bound)) / (1 + len(freedom))
    half = value - low if value > bound else high - value
    return float(stats.t.sf(stats.t.ppf(0.975, freedom) * (value - bound) / half, freedom))


def p_values(estimate, smallest):
    """Twice the one-sided p-values of: above 0, below the smallest effect, above minus the smallest effect."""
    if not estimate[3]:
        return 1.0, 1.0, 1.0
    turned = (-estimate[0], -estimate[2], -estimate[1], estimate[3], -estimate[4]) if np.ndim(estimate[4]) else None
    below = one_sided(turned, -smallest) if turned else 1 - one_sided(estimate, smallest)
    return tuple(min(1.0, 2 * p) for p in (one_sided(estimate, 0), below, one_sided(estimate, -smallest)))


def below_bound(estimate, bound):
    """How far an estimate is below a bound; itself where there is none."""
    value, low, high, n, freedom = estimate
    return estimate if bound is None else (bound - value, bound - high, bound - low, n, freedom)


OF_THE_SEARCH = ("dropout in the search", "block dropout in the search", "optimizer")


def table():
    """Every test by name: its estimate (value, low, high, n), adjusted p-value and verdict."""
    judged = dict.fromkeys(UNTRIED, (PENDING, PENDING, POINT))
    unfinished = set() if _complete("search_classroom") else {*OF_THE_SEARCH}
    for name, (compute, budgets, *rest) in TESTS.items():
        smallest, bound = (rest + [POINT, None][len(rest) :])[:2]
        whole = [places for places in budgets if all(runs(place)[1] for place in places)]
        some = [places for places in budgets if compute(*places)[3]]
        unfinished |= set() if whole else {name}
        estimate = compute(*[*whole, *some, budgets[-1]][0])
        judged[name] = estimate, below_bound(estimate, bound), smallest
    for name in ("dropout", "block_dropout"):
        estimate = more_than_median("search_classroom", name)
        judged[f"{name.replace('_', ' ')} in the search"] = estimate, estimate, POINT
    estimate = sgd_against_adam()
    judged["optimizer"] = estimate, estimate, POINT
    estimate, moved = near("search_sgd_rate" if _complete("search_sgd_rate") else "search_classroom")
    turned = estimate if moved is None else moved
    judged["learning rate"] = estimate, turned, POINT if moved is None else 0.0
    for name, (compute, places, smallest, bound, instead) in BEFORE.items():
        if all(runs(place)[1] for place in instead):
            estimate = compute(*places)
            judged[name] = estimate, below_bound(estimate, bound), smallest
    raw = np.array([p_values(turned, smallest) for _, turned, smallest in judged.values()])
    rows = {}
    for name, (above, below, other) in zip(judged, np.transpose([_holm(p) for p in raw.T]), strict=True):
        said = min(above, below), "not settled" if judged[name][0][3] else "pending"
        said = (below, "does not hold") if below <= 0.05 else said
        said = (above, "holds") if above <= 0.05 else said
        said = (max(below, other), "shows no difference that matters") if max(below, other) <= 0.05 else said
        if name in unfinished and judged[name][0][3]:
            said = said[0], "not settled"  # a look at a part of the declared runs settles nothing
        rows[name] = judged[name][0][:4], float(said[0]), said[1]
    return {name: row for name, row in rows.items() if name not in BEFORE}


def _holm(p):
    return multipletests(p, method="holm")[1]


def _complete(search):
    return len(trials(search)) == declared(search)["search"]["draws"]


def headline():
    """Each final recipe that was opened with several seeds: mean, t interval and n, and the difference from 94.84%."""
    recipes = {}
    for folder in FOLDERS:
        test = json.loads((folder["path"] / "test" / "metrics.json").read_text())
        correct = np.load(folder["path"] / "test" / "logits.npz")["logits"].astype(float).argmax(1)
        assert len(correct) == test["n"]
        low, high = proportion_confint(test["correct"], test["n"], method="wilson")
        assert (round(low, 9), round(high, 9)) == (round(test["low"], 9), round(test["high"], 9))
        if not test["not_choosing"]:
            config = {key: value for key, value in folder["config"]["config"].items() if key != "seed"}
            recipes.setdefault(json.dumps(config, sort_keys=True), []).append(test["correct"] / test["n"])
    several = [values for values in recipes.values() if len(values) > 1]
    spread = sum(len(x) - 1 for x in several)
    variance = sum(np.var(x, ddof=1) * (len(x) - 1) for x in several) / spread  # between seeds, pooled over recipes
    rows = []
    for values in several:
        mean, k = float(np.mean(values)), len(values)
        low, high = stats.t.interval(0.95, k - 1, mean, stats.sem(values))
        seeds, images = variance * (1 / k + 1), (mean * (1 - mean) + 0.9484 * 0.0516) / 10_000
        half = stats.t.ppf(0.975, spread * ((seeds + images) / seeds) ** 2) * math.sqrt(seeds + images)
        rows.append((mean, low, high, k, mean - 0.9484, half))
    return rows


if __name__ == "__main__":
    for name, ((value, low, high, n), p, said) in table().items():
        print(f"{name:32} {value:+8.4f} ({low:+.4f} to {high:+.4f})  n={n:<4} p={p:<10.3g} {said}")
    for mean, low, high, k, gap, half in headline():
        print(f"{100 * mean:.2f}% ({100 * low:.2f} to {100 * high:.2f}), n={k}, {100 * gap:+.2f} +- {100 * half:.2f}")
