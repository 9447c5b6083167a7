"""What the figures of the page do not say, from the records."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tpsnet_lib import stats
from tpsnet_lib.analysis.final_runs import Final
from tpsnet_lib.claims import judge
from tpsnet_lib.runs import openings


def items(leading: Sequence[tuple[str, Final]], rows: Sequence[judge.Row]) -> str:
    """A list in HTML: the leading recipes, each with where it ran in words, and the judged tests of the claims."""
    shown = [*_of_accuracy(leading), *_of_claims(rows), _of_openings(leading)]
    return f"<ul>{''.join(f'<li>{item}</li>' for item in shown)}</ul>"


def _of_accuracy(leading: Sequence[tuple[str, Final]]) -> list[str]:
    stamps = {record.stamp for _, final in leading for record in final.counted}
    copies = (stamp for stamp in sorted(stamps) if "(" in stamp)
    found = [f"The images are one copy of the data set: {escape(stamp)}." for stamp in copies]
    found += [
        f"On the {final.opened[0][1].metrics['exact_n']:,} test images with the original pixels, the network {where}"
        f" has {final.accuracy('exact_'):%}."
        for where, final in leading
        if "exact_n" in final.opened[0][1].metrics
    ]
    found += [
        f"The recipe {where} has no run that kept the validation images out, so that no held-out accuracy stands beside"
        " its test accuracy yet; it is the only one of its class that has records."
        for where, final in leading
        if not final.held_out
    ]
    found.append(
        "The original reports one run, and published accuracies are as their authors report them: lengths, recipes and"
        " choices differ, and some kept the best of several readings of the test set. The ranks compare what is"
        " reported, and not architectures."
    )
    return found


def _of_openings(leading: Sequence[tuple[str, Final]]) -> str:
    early = openings.before_the_rule()
    ours = [where for where, final in leading if all(record.id in early for record in final.counted)]
    among = f", those of our network {' and '.join(ours)} among them," if ours else ""
    return (
        f"The test set was opened for recipes that were replaced afterwards, and {len(early)} runs{among} were opened"
        ' before the rule that a run is declared in a clean tree; all are listed <a href="#openings">in order</a>.'
    )


def _of_claims(rows: Sequence[judge.Row]) -> list[str]:
    pending = sum(row.verdict == stats.PENDING for row in rows)
    rates = [len({record.config.train.lr for record in row.records}) for row in rows if row.n]
    return [
        f"Of the {len(rows)} tests of the original's claims, {pending} wait for runs; the others name the size of their"
        " networks and the length of their runs, and say nothing of larger ones.",
        f"In {rates.count(1)} of the {len(rates)} tests that have runs, all networks were trained at one learning rate,"
        " which was not tuned again for each.",
        "What each ingredient brings was measured on a smaller network in short runs, and not on the winner.",
    ]
