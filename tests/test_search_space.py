"""Random search draws the same networks everywhere, goes on where it stopped, and keeps to its budgets."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forks import run

from tpsnet_lib.errors import ConfigError
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.search_space import Space, load_spaces, parse_space, sample

SMALL: dict[str, Any] = {
    "variables": {
        "layers": {"int": [2, 4]},
        "blocks": {"int": [1, 6]},
        "width": {"int": [8, 24]},
        "kernels": [1, 3],
        "pool": "fits",
        "dropout": {"uniform": [0.0, 0.5]},
        "optimizer": ["sgd", "adam"],
        "lr": {"log": [1.0e-4, 1.0e-1]},
    },
    "each": ["blocks", "kernels"],
    "budget": {"parameters": 200_000, "macs": 40_000_000},
}


@pytest.fixture(scope="module")
def space() -> Space:
    return parse_space("small", SMALL)


def test_the_same_draws_come_again_whatever_else_drew_random_numbers(space: Space) -> None:
    first = sample(space, 0, 10)
    random.seed(12345)
    random.random()
    assert sample(space, 0, 10) == first


def test_another_process_draws_the_same_list(space: Space) -> None:
    code = (
        "from tpsnet_lib.runs.search_space import load_spaces, sample;"
        "print(sample(load_spaces()['original_blocks_width'], 7, 5).values)"
    )
    assert run(code).stdout.strip() == str(sample(load_spaces()["original_blocks_width"], 7, 5).values)


def test_a_longer_search_continues_a_shorter_one(space: Space) -> None:
    short, long = sample(space, 0, 5), sample(space, 0, 12)
    assert long.configs[:5] == short.configs
    assert long.values[:5] == short.values
    assert long.tries > short.tries


def test_seeds_and_names_of_spaces_draw_differently(space: Space) -> None:
    draws = sample(space, 0, 5).values
    assert sample(space, 1, 5).values != draws
    assert sample(replace(space, name="other"), 0, 5).values != draws


def test_a_recipe_that_is_wrong_is_named_and_not_the_budget(space: Space) -> None:
    with pytest.raises(ConfigError, match="precision"):
        sample(space, 0, 1, {"train": {"precision": "fp8"}})


def test_every_draw_is_under_both_budgets_and_the_acceptance_says_what_that_cost(space: Space) -> None:
    draws = sample(space, 3, 25)
    assert all(count_parameters(config.model) <= 200_000 for config in draws.configs)
    assert all(count_macs(config.model) <= 40_000_000 for config in draws.configs)
    assert 0 < draws.acceptance < 1
    assert draws.acceptance == 25 / draws.tries


def test_without_a_tight_budget_every_draw_passes(space: Space) -> None:
    free = sample(replace(space, parameters=10**12, macs=0), 0, 20)
    assert free.tries == 20
    assert free.acceptance == 1


def test_draws_lie_in_their_dimensions_and_those_of_each_layer_are_drawn_anew(space: Space) -> None:
    draws = sample(space, 0, 40)
    for config, values in zip(draws.configs, draws.values, strict=True):
        assert 2 <= values["layers"] == len(config.model.blocks) == len(values["blocks"]) <= 4
        assert 8 <= config.model.stem <= 24
        assert 1e-4 <= config.train.lr <= 1e-1
        assert config.model.last_side % config.model.pool == 0
        assert config.model.channels == tuple(values["width"] * 2 ** (i + 1) for i in range(values["layers"]))
    assert any(len(set(values["blocks"])) > 1 for values in draws.values)


def test_what_is_not_drawn_comes_from_the_base(space: Space) -> None:
    base = {"train": {"epochs": 4, "lr": 0.5}, "data": {"dataset": "shapes10", "train_size": 100}}
    config = sample(space, 0, 1, base).configs[0]
    assert config.train.epochs == 4
    assert config.data.train_size == 100
    assert config.train.lr != 0.5, "what is drawn wins over the base"
    assert config.model == sample(space, 0, 1).configs[0].model, "the base does not change the draw"


def test_a_space_in_which_nothing_fits_is_said_to_be_empty() -> None:
    tree = {"variables": {"blocks": [6], "width": [48]}, "budget": {"parameters": 1000}}
    with pytest.raises(ConfigError, match="no draw of 1000 is under its budget of 1,000 parameters: the smallest"):
        sample(parse_space("empty_space", tree), 0, 1)
    with pytest.raises(ConfigError, match=r"has its default: layers = 3, width = 16, factor = 2$"):
        sample(parse_space("narrow", {"variables": {"blocks": [1]}, "budget": {"macs": 15}}), 0, 1)
    with pytest.raises(ConfigError, match=r"no draw of 1000 can be built: model\.pool is 16"):
        sample(parse_space("even", {"variables": {"pool": [16]}}), 0, 1)
    with pytest.raises(ConfigError, match=r"layers stands under `variables:`"):
        parse_space("bare", {"layers": [2], "blocks": [1]})
    with pytest.raises(ConfigError, match=r"budget\.mac is not a field: did you mean macs"):
        parse_space("bad", {"variables": {"width": [8]}, "budget": {"mac": 15}})


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"depth": [1]}, "space bad: depth is not a variable"),
        ({"width": {"gauss": [0, 1]}}, "space bad: width is"),
        ({"width": {"int": [9, 2]}}, "space bad: width is .* the low end 9 is above the high end 2"),
        ({"block": {"int": [1, 2]}}, "space bad: block is .* did you mean blocks"),
        ({"optimizer": "sgd"}, r"space bad: optimizer is 'sgd': write \[sgd\]"),
        ({"width": {"int": ["1", "9"]}}, "give numbers, without quotes"),
        ({"N": [3]}, "did you mean layers"),
        ({"width": []}, "space bad: width is"),
        ({"width": {"log": [0, 1]}}, "space bad: width is"),
        ({"width": {"int": [1, 1e9]}}, "space bad: width is"),
        ({"blocks": {"int": [0, 8]}}, "space bad: blocks is .* give numbers from 1"),
        ({"blocks": [-3, 2]}, "space bad: blocks is .* give numbers from 1"),
        ({"layers": [10**9]}, "space bad: layers is"),
        ({"layers": ["3"]}, "space bad: layers is"),
        ({"factor": {"uniform": ["1", "2"]}}, "space bad: factor is"),
        ({"optimizer": ["sgd", "adan"]}, "optimizer is 'adan': choose one of"),
    ],
)
def test_a_space_that_cannot_be_drawn_from_names_its_fault(variables: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_space("bad", {"variables": variables})


def test_a_name_that_is_like_none_gets_a_short_list_of_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"known are layers, .* \.\.\.$") as refused:
        parse_space("mine", {"variables": {"__proto__": [1, 2]}})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"lr": {"log": [100, 1000]}}, "mine: lr is 1000: give a value from 0 to 100"),
        ({"batch_size": [0, 50]}, "mine: batch_size is 0: give a value from 1"),
        ({"kernels": [3, 4]}, "mine: kernels is 4: give an odd number"),
        ({"dropout": {"uniform": [0, 1.5]}}, "mine: dropout is 1.5: give a value from 0"),
        ({"learning_rate": {"log": [0.001, 0.1]}}, "learning_rate is not a variable .* did you mean lr"),
        ({"depth": [1, 2]}, "did you mean blocks"),
        ({"channels": [8]}, "did you mean width"),
        ({"width": [2.5, 4]}, "mine: width is .*: give whole numbers"),
        ({"width": {"uniform": [2, 8]}}, "mine: width is .*: give whole numbers: choices, or {'int'"),
        ({"batch_size": {"log": [25, 100]}}, "mine: batch_size is .*: give whole numbers: choices, or {'int'"),
    ],
)
def test_a_value_that_no_config_takes_is_not_dropped_without_a_word(variables: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_space("mine", {"variables": variables})


def test_a_variable_that_no_table_has_is_named() -> None:
    drawn = {"width": [4, 8], "kernels": [1, 3], "lr": [0.1, 0.2]}
    assert parse_space("own", {"variables": {**drawn, "flip": ["none"]}}).not_analysed == ""
    own = parse_space("own", {"variables": {**drawn, "flip": ["none", "random"]}})
    assert own.not_analysed == " Varied too, but in no analysis: flip."


def test_numbers_of_a_space_are_written_as_people_write_them() -> None:
    space = parse_space("mine", {"variables": {"lr": {"log": ["1e-3", "1E-1"]}, "dropout": ["1e-1", 0.2]}})
    assert space.variables == {"lr": {"log": [0.001, 0.1]}, "dropout": [0.1, 0.2]}


def test_the_original_space_reaches_the_originals_table(tmp_path: Path) -> None:
    space = load_spaces()["original_blocks_width"]
    assert space.parameters == 5_000_000
    draws = sample(space, 0, 50)
    assert all(len(set(config.model.blocks)) == 1 and len(config.model.blocks) == 3 for config in draws.configs)


def test_spaces_can_be_read_from_any_file(tmp_path: Path) -> None:
    path = tmp_path / "räume spaces.yaml"
    path.write_text("mine: {variables: {width: {int: [8, 9]}}}", encoding="utf-8")
    assert load_spaces(path)["mine"].variables == {"width": {"int": [8, 9]}}
    with pytest.raises(ConfigError, match=r"nowhere\.yaml is missing"):
        load_spaces(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("n", [0, "six", 2.5, 10**6])
def test_a_number_of_draws_that_is_none_is_named(n: Any) -> None:
    with pytest.raises(ConfigError, match="draws are asked for: give from 1 to 2,000"):
        sample(parse_space("mine", {"variables": {"width": [2, 4]}}), 0, n)
