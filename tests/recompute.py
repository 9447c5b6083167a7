"""The claims' table and the headline, once more from the raw records, by scipy and statsmodels alone.

`python tests/recompute.py` prints every test with its difference, interval, Holm-adjusted p-value and verdict; the test
beside it holds them against what the report prints. An estimate is (value, low, high, n, spread), where the spread is
degrees of freedom, or the draws of a bootstrap or a permutation."""

import json
import math
from pathlib import Path

import numpy as np
import yaml
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

REPORT = Path(__file__).parent.parent / "report"
PARTS = {"blocks": [13, 13, 13], "channels": [32, 64, 128], "stem": 16, "pool": 8, "kernels": [3], "skip_kernels": [1]}
PARTS |= {"dropout": 0.0, "block_dropout": 0.0, "lr": 0.01, "nesterov": False, "schedule": "cosine", "optimizer": "sgd"}
PARTS |= {"label_smoothing": 0.0, "rotation": 5.0}  # what no record repeats: the original's network and recipe


def trials(experiment):
    lines = (REPORT / "records" / f"{experiment}.trials.jsonl").read_text().splitlines()
    return [json.loads(line)["trial"] for line in lines]


ROWS = [row for file in sorted((REPORT / "records").glob("*.trials.jsonl")) for row in trials(file.name.split(".")[0])]


def runs(place):
    """The rows of `experiment/label`, one a declared seed; of `experiment+later/label` those of both."""
    names, label = place.split("/")
    rows = []
    for name in names.split("+"):
        declared = yaml.safe_load((REPORT / "experiments" / f"{name}.yaml").read_text())
        run = next(run for run in declared["runs"] if run["label"] == label)
        wanted = {"model": run["model"], "data": declared["base"].get("data", {})}
        wanted["train"] = {**declared["base"]["train"], **run.get("train", {})}
        wanted = {part: {k: v for k, v in tree.items() if PARTS.get(k) != v} for part, tree in wanted.items()}
        wanted["train"].pop("recipe", None)  # its name; its choices stand in the records
        same = [row for row in ROWS if all(row["config"].get(part, {}) == tree for part, tree in wanted.items())]
        by_seed = {row["config"].get("seed", 0): row for row in same}
        rows += [by_seed[seed] for seed in declared["seeds"]]
    return rows


def accuracies(rows):
    return [row["metrics"]["validation_accuracy"] for row in rows]


def logits(rows):
    return [math.log(p / (1 - p)) for p in accuracies(rows)]


def ahead(rows):
    """Training accuracy minus validation accuracy."""
    return [row["metrics"]["train_accuracy"] - row["metrics"]["validation_accuracy"] for row in rows]


def by_machine(places, *more):
    """The rows at several places, once for each machine that has two or more of each; most in the smallest first."""

    def machine(row):
        return [str(row["provenance"].get(name)) for name in ("hardware", *more)]

    groups = [runs(place) for place in places]
    machines = sorted({tuple(machine(row)) for rows in groups for row in rows})
    parts = [[[row for row in rows if machine(row) == [*one]] for rows in groups] for one in machines]
    return sorted((part for part in parts if min(map(len, part)) > 1), key=lambda part: -min(map(len, part)))


def contrast(groups, weights):
    """A weighted sum of means by Welch and Satterthwaite."""
    parts = [w**2 * np.var(x, ddof=1) / len(x) for w, x in zip(weights, groups, strict=True)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, groups, strict=True))
    value = sum(w * np.mean(x) for w, x in zip(weights, groups, strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    return value, value - half, value + half, min(map(len, groups)), freedom


def within(places, weights=(1, -1), measure=accuracies):
    """A contrast on each machine, averaged with the inverse of its variance if all runs have one spread."""
    strata = [[measure(rows) for rows in groups] for groups in by_machine(places)]
    shares = [1 / sum(w**2 / len(x) for w, x in zip(weights, groups, strict=True)) for groups in strata]
    cells = [values for groups in strata for values in groups]
    value, low, high, _, freedom = contrast(cells, [share / sum(shares) * w for share in shares for w in weights])
    return value, low, high, min(sum(map(len, parts)) for parts in zip(*strata, strict=True)), freedom


def odd(places):
    """The jump between odd and even depths beside a parabola, by least squares."""
    depth = np.arange(1, len(places) + 1)
    return within(places, np.linalg.pinv(np.column_stack([depth**0, depth, depth**2, depth % 2 - 0.5]))[3])


def furthest(places):
    """The largest difference of means, with Tukey's interval."""
    values = [accuracies(rows) for rows in by_machine(places)[0]]
    first, second = (int(choose([np.mean(x) for x in values])) for choose in (np.argmax, np.argmin))
    ends = stats.tukey_hsd(*values).confidence_interval()
    value, freedom = np.mean(values[first]) - np.mean(values[second]), sum(map(len, values)) - len(values)
    return value, ends.low[first][second], ends.high[first][second], min(map(len, values)), freedom


def epoch_time(places):
    """The logarithm of the ratio of fastest epochs, on the machine and threads that most of these runs had."""
    groups = by_machine(places, "threads")[0]
    epochs = [[np.diff([e["seconds"] for e in row["curve"]], prepend=0) for row in rows] for rows in groups]
    return contrast([[math.log(min(seconds)) for seconds in runs] for runs in epochs], (1, -1))


def drawn(row, name):
    """A drawn variable of a trial."""
    return row["config"]["train" if name in ("optimizer", "lr") else "model"].get(name, PARTS[name])


def found(rows):
    """The accuracies of some trials; a failed one is at chance."""
    return np.array([row["metrics"].get("validation_accuracy", 0.1) for row in rows])


def medians(*groups):
    """The median accuracy of some trials minus that of others, with a bootstrap's interval."""

    def statistic(a, b):
        return float(np.median(a) - np.median(b))

    sides, how = [found(rows) for rows in groups], {"method": "percentile", "vectorized": False, "batch": 100, "rng": 0}
    result = stats.bootstrap(sides, statistic, n_resamples=20_000, **how)
    ends = result.confidence_interval
    return statistic(*sides), ends.low, ends.high, min(map(len, sides)), result.bootstrap_distribution


def more_than_median(name):
    """The trials with more than the median of a variable, against the others."""
    border = np.median([drawn(row, name) for row in SEARCH])
    return medians(*([row for row in SEARCH if (drawn(row, name) > border) == side] for side in (True, False)))


def near(rows, x):
    """Trials whose rate is nearest to 10^x against random ones (permutations); what is judged in its place, if the
    rates that winners have leave 10^x out, is how far they are from it."""
    rates, y = np.log10([drawn(row, "lr") for row in rows]), found(rows)
    count = max(2, round(len(rows) / 4))
    random = np.random.default_rng(0).permuted(np.tile(y, (2000, 1)), axis=1)[:, :count]
    random = np.median(random, axis=1)
    low, high = np.quantile(random, [0.025, 0.975], method="inverted_cdf")
    nearest = np.median(y[np.argsort(abs(rates - x), kind="stable")[:count]])
    estimate = nearest - np.median(random), nearest - high, nearest - low, len(rows), nearest - random
    sample = np.random.default_rng(0).integers(0, len(rows), (2000, count))
    winners = rates[sample[np.arange(2000), y[sample].argmax(1)]]
    ends = np.quantile(winners, [0.025, 0.975])
    if ends[0] <= x <= ends[1]:
        return estimate, estimate, POINT
    side = 1 if ends[1] < x else -1
    return estimate, (side * (np.median(winners) - x), *sorted(side * (ends - x)), len(rows), side * (winners - x)), 0.0


SEARCH, SGD = trials("search_classroom"), trials("search_sgd_rate")
POINT, LOGIT, TENTH = 0.01, 0.05, math.log(1.1)  # the smallest effects: of accuracy, of log-odds, of a ratio of times
BLOCKS = ["study_control/B=1", *(f"study_blocks/B={count}" for count in range(2, 7))]
LAYERS = ["study_layers/N=2", "study_layers/N=4"]
ONE, THREE, FIVE = BLOCKS[0], BLOCKS[2], BLOCKS[4]
THREE_AGAIN, FIVE_AGAIN = (f"study_blocks+study_blocks_again/B={count}" for count in (3, 5))
LONG_1, LONG_3, LONG_5 = (f"study_long/B={count}, 48 epochs" for count in (1, 3, 5))
LONG_3_AGAIN, LONG_5_AGAIN = (f"study_long+study_long_again/B={count}, 48 epochs" for count in (3, 5))
WIDE, WIDE_AGAIN = "study_width/B=3, wide", "study_width+study_width_again/B=3, wide"
GAIN, GAIN_1 = (LONG_5, FIVE_AGAIN, LONG_3, THREE_AGAIN), (LONG_5, FIVE, LONG_1, ONE)
GAIN_AGAIN = (LONG_5_AGAIN, FIVE_AGAIN, LONG_3_AGAIN, THREE_AGAIN)
RISE = (1, -1, -1, 1)


def at_most(bound, estimate):
    """What is judged where a claim says "at most": how far an estimate is below a bound."""
    value, low, high, n, freedom = estimate
    return estimate, (bound - value, bound - high, bound - low, n, freedom), 0.0


def at_least(bound, estimate):
    """What is judged where a claim says "at least": how far an estimate is above a bound."""
    value, low, high, n, freedom = estimate
    return estimate, (value - bound, low - bound, high - bound, n, freedom), 0.0


def above(estimate, smallest=POINT):
    """What is judged where a claim says "more"."""
    return estimate, estimate, smallest


def tests():
    """Every test by name, as (estimate, what is judged of it, smallest effect); None: on a GPU, without a record."""
    yield from dict.fromkeys(("reproduction", "odd in the search", "shallow, run cut off")).items()
    yield "three layers against two", above(within((ONE, LAYERS[0])))
    yield "three layers against two, MACs", above(within((ONE, "study_layers_macs/N=2, MACs")))
    yield "three layers against four", above(within((ONE, LAYERS[1])))
    yield "three layers against four, MACs", above(within((ONE, "study_layers_macs/N=4, MACs")))
    yield "odd", above(odd(BLOCKS))
    for name in ("dropout", "block dropout"):
        yield name, above(within((f"study_dropout/B=1, {name} 0.2", ONE)))
        yield f"{name}, longer run", above(within((f"study_dropout_long/B=1, {name} 0.2, 48 epochs", LONG_1)))
    yield "shallow, short run", above(within((THREE_AGAIN, FIVE_AGAIN)))
    yield "deep, longer run", above(within((LONG_5_AGAIN, LONG_3_AGAIN)))
    yield "gain in points", above(within(GAIN_AGAIN, RISE))
    yield "gain in logits", above(within(GAIN_AGAIN, RISE, logits), LOGIT)
    yield "width at one block", above(within(("study_width/B=1, wide", ONE)))
    yield "width at three blocks", above(within((WIDE_AGAIN, THREE_AGAIN)))
    yield "optimizer", above(within((ONE, "study_adam/B=1, Adam family")))
    yield "learning rate", at_least(-POINT, within(("study_sgd_rate/B=1, rate 0.01", ONE)))
    yield "overfitting", at_most(POINT, within((LONG_5_AGAIN, LONG_3_AGAIN), measure=ahead))
    yield "equal size", at_most(POINT, furthest((*BLOCKS, *LAYERS)))
    yield "equal size, three layers", at_most(POINT, furthest(BLOCKS))
    yield "cost", above(epoch_time(("epoch_times/B=5", "epoch_times/B=1")), TENTH)


def looks():
    """What was judged before in the place of a test, and counts in the table as a test of its own."""
    yield from (above(more_than_median(name)) for name in ("dropout", "block_dropout"))
    sgd = [row for row in SGD if drawn(row, "lr") >= 0.01]  # two decades, as the others have
    yield above(medians(sgd, [row for row in SEARCH if drawn(row, "optimizer") != "sgd"]))
    yield near(SGD, -2.0)
    yield above(within((ONE, FIVE)))
    yield above(within((THREE, FIVE)))
    yield above(within((WIDE, THREE)))
    for deep, wide, gain in ((LONG_5, LONG_1, GAIN_1), (LONG_5, LONG_3, GAIN)):
        yield above(within((deep, wide)))
        yield above(within(gain, RISE))
        yield above(within(gain, RISE, logits), LOGIT)
        yield at_most(POINT, within((deep, wide), measure=ahead))


def tail(estimate, bound, side=1):
    """Twice the one-sided p-value of "the truth is at most `bound`" (`side` -1: "at least")."""
    value, low, high, _, spread = estimate
    if np.ndim(spread):
        return min(1.0, 2 * (1 + np.sum(side * (spread - bound) <= 0)) / (1 + len(spread)))
    t = stats.t.ppf(0.975, spread) * side * (value - bound) / ((high - low) / 2)
    return min(1.0, 2 * stats.t.sf(t, spread))


def table():
    """Every test by name: its estimate (value, low, high, n), adjusted p-value and verdict."""
    judged = dict(tests())
    every = [*judged.values(), *looks()]
    p = [(tail(e, 0), tail(e, smallest, -1), tail(e, -smallest)) for _, e, smallest in filter(None, every)]
    p += [(1.0, 1.0, 1.0)] * every.count(None)
    adjusted = iter(np.transpose([multipletests(each, method="holm")[1] for each in np.transpose(p)]).tolist())
    rows = {}
    for name, test in judged.items():
        if test is None:
            rows[name] = (math.nan, math.nan, math.nan, 0), 1.0, "pending"
            continue
        more, less, not_less = next(adjusted)
        said = min(more, less), "not settled"
        said = (less, "does not hold") if less <= 0.05 else said
        said = (more, "holds") if more <= 0.05 else said
        said = (max(less, not_less), "shows no difference that matters") if max(less, not_less) <= 0.05 else said
        rows[name] = test[0][:4], *said
    return rows


def headline():
    """Each final recipe that was opened with several seeds: mean, t interval and n, and the difference from 94.84%."""
    recipes = {}
    for folder in (REPORT / "records").glob("[0-9a-f]*/"):
        test = json.loads((folder / "test" / "metrics.json").read_text())
        correct = np.load(folder / "test" / "logits.npz")["logits"].astype(float).argmax(1)
        assert len(correct) == test["n"]
        interval = proportion_confint(test["correct"], test["n"], method="wilson")
        assert np.allclose(interval, (test["low"], test["high"]), rtol=0, atol=1e-9)
        if not test["not_choosing"]:
            config = json.loads((folder / "config.json").read_text())["config"] | {"seed": None}
            recipes.setdefault(json.dumps(config, sort_keys=True), []).append(test["correct"] / test["n"])
    several = [values for values in recipes.values() if len(values) > 1]
    freedom = sum(len(x) - 1 for x in several)
    variance = sum(np.var(x, ddof=1) * (len(x) - 1) for x in several) / freedom  # between seeds, pooled over recipes
    for values in several:
        mean, k = float(np.mean(values)), len(values)
        low, high = stats.t.interval(0.95, k - 1, mean, stats.sem(values))
        seeds, images = variance * (1 / k + 1), (mean * (1 - mean) + 0.9484 * 0.0516) / 10_000
        half = stats.t.ppf(0.975, freedom * ((seeds + images) / seeds) ** 2) * math.sqrt(seeds + images)
        yield mean, low, high, k, mean - 0.9484, half


if __name__ == "__main__":
    for name, ((value, low, high, n), p, said) in table().items():
        print(f"{name:32} {value:+8.4f} ({low:+.4f} to {high:+.4f})  n={n:<4} p={p:<10.3g} {said}")
    for mean, low, high, k, gap, half in headline():
        print(f"{100 * mean:.2f}% ({100 * low:.2f} to {100 * high:.2f}), n={k}, {100 * gap:+.2f} +- {100 * half:.2f}")
