"""The words of a recipe: what each ingredient of a network's training is, in one plain line with its source.

They stand in `recipe_glossary.csv`, beside this file."""

import csv
import re
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from tpsnet_lib.config import RunConfig, TrainConfig


@dataclass(frozen=True)
class Word:
    """A word of the glossary: its meaning, where it comes from in Markdown, and its setting in a run.

    `when`: the conditions that a run meets which uses the ingredient, each about a field of its config: `train.crop`
    (neither zero nor empty), `train.optimizer=sgd` or `model.logit_scale!=1`. `form`: the setting, in fields of the
    config."""

    name: str
    meaning: str
    source: str
    when: str
    form: str

    def setting(self, run: RunConfig) -> str:
        """The ingredient's setting in a run, empty if it is not used."""
        if not all(_is_met(condition, run) for condition in self.when.split()):
            return ""
        form = self.form.format(train=run.train, model=run.model) or _FORMS[self.name](run.train)
        return re.sub(r"^1 (\w+)s$", r"1 \1", form)


def _is_met(condition: str, run: RunConfig) -> bool:
    name, comparison, wanted = re.split(r"(!?=|$)", condition, maxsplit=1)
    value = attrgetter(name)(run)
    if not comparison:
        return bool(value)
    return (str(value).removesuffix(".0") == wanted) == (comparison == "=")


def _mixing(recipe: TrainConfig, alpha: float) -> str:
    """The setting of mixup or CutMix."""
    parts = [
        f"alpha {alpha:g}",
        *([f"one of the two for each {recipe.mix_per}"] if recipe.mixup and recipe.cutmix else []),
        *([f"{recipe.mix_probability:.0%} of the {recipe.mix_per}s"] if recipe.mix_probability < 1 else []),
        *([f"off for the last {recipe.mix_off_epochs:g} epochs"] if recipe.mix_off_epochs else []),
    ]
    return ", ".join(parts)


_FORMS = {  # the settings that are more than fields
    "mixup": lambda recipe: _mixing(recipe, recipe.mixup),
    "CutMix": lambda recipe: _mixing(recipe, recipe.cutmix),
    "distillation": lambda recipe: f"{recipe.teacher_share:.0%} from records {', '.join(recipe.teacher)}",
}


def _word(row: dict[str, str]) -> Word:
    source = f"[{row['source']}]({row['address']})" if row["address"] else row["source"]
    return Word(row["name"], row["meaning"], source, row["when"], row["setting"])


_LINES = Path(__file__).with_suffix(".csv").read_text("utf-8").splitlines()
WORDS = tuple(map(_word, csv.DictReader(_LINES, strict=True)))


def as_markdown(run: RunConfig) -> str:
    """The rows of `in_words` as a Markdown table, whose sources are links."""
    rows = in_words(run)
    lines = [" | ".join(row.values()) for row in rows]
    return "\n".join(f"| {line} |" for line in [" | ".join(rows[0]), " | ".join(["---"] * 4), *lines])


def in_words(run: RunConfig) -> list[dict[str, str]]:
    """The recipe of a run as the rows of a table, a row for each ingredient that the run uses."""
    return [
        {"ingredient": word.name, "setting": setting, "what it does": word.meaning, "source": word.source}
        for word in WORDS
        if (setting := word.setting(run))
    ]


def left_out(whole: RunConfig, changed: RunConfig) -> list[str]:
    """The ingredients that a run uses and a changed one does not; if there is none, those whose setting is another."""
    used = [word for word in WORDS if word.setting(whole)]
    missing = [word.name for word in used if not word.setting(changed)]
    return missing or [word.name for word in used if word.setting(whole) != word.setting(changed)]
