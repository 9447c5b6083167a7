"""The original's claims, as `report/claims.yaml` has them: which runs answer which claim, by which test.

`answers` judges them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpsnet_lib.analysis import original_results
from tpsnet_lib.analysis.architecture import Key
from tpsnet_lib.analysis.search import VARIABLES
from tpsnet_lib.config import MEMBERS, read_yaml
from tpsnet_lib.files import ConfigError, project_root
from tpsnet_lib.runs.experiments import experiments_folder

_FIELDS = {  # of an answer, by its test
    "paired": {"factor", "pairs", "gap"},
    "odd": {"factor"},
    "gain": {"label", "of", "less"},
    "trials": {"experiment", "variable", "better", "among"},
    "range": {"experiment", "variable", "value", "among"},
    "figure": {"experiment", "figure"},
}
_OPTIONAL = {"factor", "gap", "among"}


@dataclass(frozen=True)
class Case:
    """A sentence that is judged by itself, and the answers to it, one a budget; `claim` is a letter, or empty."""

    name: str
    claim: str
    says: str
    answers: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Original:
    """A claim of the original: what it says, its figures as (network, epochs), and where they stand."""

    text: str
    figures: tuple[tuple[str, int], ...]
    source: str

    @property
    def said(self) -> str:
        """Its figures and their place, in words."""
        accuracies = [
            (name, epochs, original_results.TABLE_1[name][0 if epochs == 30 else 1]) for name, epochs in self.figures
        ]
        told = [
            f"blocks {list(MEMBERS[name].blocks)} {100 * value:.2f}% after {epochs} epochs"
            for name, epochs, value in accuracies
            if value is not None
        ]
        return f"{', '.join(told) or 'no figure'} ({self.source})"


@dataclass(frozen=True)
class Book:
    """What `claims.yaml` says: factors (level -> where its runs are declared), claims by letter, cases by name."""

    factors: dict[str, dict[str, Key]]
    claims: dict[str, Original]
    cases: dict[str, Case]

    def key(self, level: str, factor: str = "") -> Key:
        """Where the runs of a level are declared; `level` may name its factor before a slash."""
        before, slash, after = level.rpartition("/")
        known = self.factors.get(before if slash else factor, {})
        if after not in known:
            raise ConfigError(f"claims.yaml: {level} is not a level of {before or factor or 'a factor that is named'}")
        return known[after]

    def keys(self, answer: Mapping[str, Any]) -> list[Key]:
        """The groups of runs that an answer compares; none for one that looks at a whole search."""
        if answer["test"] == "odd":
            return list(self.factors[answer["factor"]].values())
        levels = [
            *answer.get("of", ()),
            *answer.get("less", ()),
            *(n for pair in answer.get("pairs", ()) for n in pair),
        ]
        return list(dict.fromkeys(self.key(level, answer.get("factor", "")) for level in levels))

    def experiments(self, letters: Iterable[str] = "") -> list[str]:
        """The experiments that the cases of some claims look at, by name; of all cases and factors if none is named."""
        wanted = [case for case in self.cases.values() if not letters or case.claim in letters]
        found = {name for case in wanted for answer in case.answers for name in self._experiments(answer)}
        if not letters:
            found |= {name for factor in self.factors.values() for name, _ in factor.values()}
        return sorted(found)

    def _experiments(self, answer: Mapping[str, Any]) -> set[str]:
        return {answer["experiment"]} if "experiment" in answer else {name for name, _ in self.keys(answer)}


def load(path: Path | None = None) -> Book:
    """The claims as `report/claims.yaml` has them; a field, test, level or experiment that is not known is a
    `ConfigError`."""
    path = path or project_root() / "report" / "claims.yaml"
    tree = read_yaml(path)
    try:
        factors = {name: {level: _key(at) for level, at in levels.items()} for name, levels in tree["factors"].items()}
        claims = {
            letter: Original(given["text"], tuple((n, e) for n, e in given.get("figures", ())), given["source"])
            for letter, given in tree["claims"].items()
        }
        given = [
            (letter, name, case) for letter, claim in tree["claims"].items() for name, case in claim["cases"].items()
        ]
        given += [("", name, case) for name, case in tree.get("others", {}).items()]
        cases = {name: Case(name, letter, case["says"], tuple(case["answers"])) for letter, name, case in given}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: not in the form of claims.yaml ({type(error).__name__}: {error})") from error
    book = Book(factors, claims, cases)
    if len(cases) < len(given):
        raise ConfigError(f"{path}: two cases have one name")
    for case in cases.values():
        for answer in case.answers:
            _check(path, book, case, answer)
    known = {file.stem for file in experiments_folder().glob("*.yaml")}
    if unknown := [name for name in book.experiments() if name not in known]:
        raise ConfigError(f"{path}: no experiment {unknown[0]}: known are {', '.join(sorted(known))}")
    return book


def _key(at: Sequence[str]) -> Key:
    experiment, label = at
    return experiment, label


def _check(path: Path, book: Book, case: Case, answer: Mapping[str, Any]) -> None:
    test = answer.get("test")
    if test not in _FIELDS:
        raise ConfigError(f"{path}: case {case.name}: no test {test!r}: known are {', '.join(_FIELDS)}")
    fields = answer.keys() - {"test"}
    if (fields ^ _FIELDS[test]) - (_OPTIONAL - fields):
        raise ConfigError(f"{path}: case {case.name}: test {test} has the fields {', '.join(sorted(_FIELDS[test]))}")
    if "factor" in answer and answer["factor"] not in book.factors:
        raise ConfigError(f"{path}: case {case.name}: no factor {answer['factor']!r}")
    for variable in [answer.get("variable", "lr"), *answer.get("among", {})]:
        if variable not in VARIABLES:
            raise ConfigError(f"{path}: case {case.name}: no variable {variable!r}")
    book.keys(answer)
