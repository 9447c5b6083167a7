"""A run is known by an id that stays, and a bad config is refused in one line that says what to give."""

import dataclasses
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpsnet_lib.config import MEMBERS, RECIPES, DataConfig, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.config_fields import Checked, checked, option
from tpsnet_lib.config_parsing import assignment, merged, parse
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.plain_yaml import plain_yaml, read_yaml
from tpsnet_lib.runs.experiments import ExperimentFile, load_experiment

FP32 = RunConfig(train=TrainConfig(precision="fp32"))
SPRINT = RunConfig(model=MEMBERS["sprint"], train=RECIPES["sprint"]).with_precision("bf16")


def values_of(spec: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    """Allowed values of a field, from the type of its default and the limits in its metadata."""
    low, high = spec.metadata["low"], spec.metadata["high"]
    if spec.default == ():
        return st.lists(st.from_regex(r"[0-9a-f]{12}", fullmatch=True), max_size=3)
    if isinstance(spec.default, bool):
        return st.booleans()
    if isinstance(spec.default, str):
        return st.sampled_from([choice for choice in spec.metadata["choices"] if choice != "auto"])
    if isinstance(spec.default, int):
        return st.integers(int(low), int(high))
    return st.floats(low, high) | st.integers(int(low) + 1, int(high)) if high >= 1 else st.floats(low, high)


def some_fields(kind: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={spec.name: values_of(spec) for spec in dataclasses.fields(kind)})


@st.composite
def runs(draw: st.DrawFn) -> RunConfig:
    train = {"precision": "fp32", **draw(some_fields(TrainConfig))}
    model = ModelConfig(
        blocks=draw(st.lists(st.integers(1, 128), min_size=3, max_size=3)),
        channels=draw(st.lists(st.integers(1, 4096), min_size=3, max_size=3)),
        kernels=draw(st.sampled_from([3, (3, 5, 3), [1]])),
        pool=draw(st.integers(1, 8)),
        block=draw(st.sampled_from(["basic", "preact"])),
        dropout=draw(st.floats(0, 0.9)),
    )
    data = DataConfig(**draw(some_fields(DataConfig)))
    if data.colours != 3:
        train["trivial"] = False  # which is for colours
    return RunConfig(model, TrainConfig(**train), data, draw(st.integers(0, 2**31 - 1)))


quickly = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def test_ids_do_not_change_between_versions() -> None:
    """Every record is filed under such an id: if this fails, records are orphaned, so do not update the literals."""
    assert FP32.id == "bbb6465e35d3"
    assert SPRINT.id == "658c92b32a2f"


def test_a_new_field_with_an_old_default_changes_no_id() -> None:
    @dataclass(frozen=True)
    class Later(TrainConfig):
        invented: float = option(0.5, 0, 1)

    then = {spec.name: getattr(SPRINT.train, spec.name) for spec in dataclasses.fields(SPRINT.train)}
    assert replace(SPRINT, train=Later(**then)).id == SPRINT.id
    assert replace(SPRINT, train=Later(**then, invented=0.6)).id != SPRINT.id


@quickly
@given(runs())
def test_a_runs_dict_leaves_defaults_out_and_parses_back_to_the_same_run(run: RunConfig) -> None:
    tree = run.to_dict()
    for section, kind in (("model", ModelConfig), ("train", TrainConfig), ("data", DataConfig)):
        defaults = dataclasses.asdict(kind())
        assert all(value != defaults[name] for name, value in tree.get(section, {}).items())
        assert tree.get(section) != {}
    again = parse(json.loads(json.dumps(tree)))
    assert again == run
    assert again.id == run.id


@quickly
@given(runs(), st.integers(0, 2**31 - 1))
def test_a_group_is_the_runs_that_differ_in_their_seed_alone(run: RunConfig, seed: int) -> None:
    other = run.with_seed(seed)
    assert other.group_id == run.group_id
    assert (other.id == run.id) == (seed == run.seed)
    assert replace(run, train=replace(run.train, batch_size=run.train.batch_size % 8192 + 1)).group_id != run.group_id


def test_an_id_needs_a_resolved_precision() -> None:
    run = RunConfig()
    for name in ("id", "group_id"):
        with pytest.raises(ConfigError, match=r"train\.precision is 'auto'"):
            getattr(run, name)
    assert run.with_precision("bf16").id != run.with_precision("fp32").id
    assert run.with_precision("bf16").with_precision("fp32").train.precision == "bf16"


def test_two_ways_to_write_a_network_are_one_network() -> None:
    one, spelt = ModelConfig(kernels=(3,), skip_kernels=(1,)), ModelConfig(kernels=(3, 3, 3), skip_kernels=(1, 1, 1))
    assert one == spelt
    assert replace(FP32, model=spelt).id == FP32.id
    assert ModelConfig(kernels=5) == ModelConfig(kernels=[5, 5, 5])  # type: ignore[arg-type]
    assert replace(FP32, model=ModelConfig(kernels=(3, 5, 3))).id != FP32.id
    assert TrainConfig(lr=1) == TrainConfig(lr=1.0)
    assert [ModelConfig(kernels=(3, 5, 7)).kernel(layer) for layer in range(3)] == [3, 5, 7]
    assert [ModelConfig().kernel(layer) for layer in range(3)] == [3, 3, 3]


BAD = [
    ({"model": {"blcks": [3]}}, "model.blcks is not a field: did you mean blocks or block?"),
    ({"model": {"block": [3]}}, "model.block is [3], but takes one value: did you mean blocks?"),
    (
        {"model": {8: [3]}},
        "model has the key 8, a value and no name: in Python a field's name stands in quotes",
    ),
    ({"modle": {}}, "modle is not a field: did you mean model?"),
    ({"train": {"zzz": 1}}, "train.zzz is not a field: known are epochs, schedule_epochs"),
    ({"model": {"blocks": [3, 0, 3]}}, "model.blocks is 0: give a value from 1 to 128"),
    ({"model": {"blocks": [3, 2.5, 3]}}, "model.blocks is 2.5: give a whole number"),
    ({"model": {"blocks": []}}, "model.blocks is empty: give one value a layer, such as [13, 13, 13]"),
    ({"model": {"blocks": [1] * 6, "channels": [8] * 6}}, "model.blocks has 6 layers: give 1 to 5"),
    (
        {"model": {"blocks": [3, 3]}},
        "model.blocks is [3, 3], model.channels is [32, 64, 128]: give two lists",
    ),
    ({"model": {"kernels": [3, 3]}}, "model.kernels has 2 values for 3 layers: give one, or one a layer"),
    ({"model": {"skip_kernels": 2}}, "model.skip_kernels is 2: give an odd number"),
    ({"model": {"pool": 9}}, "model.pool is 9: the last feature map is 8 x 8, give at most 8"),
    ({"model": {"stem_kind": "whiten"}}, "model.stem is 16: a whitened stem has 24 channels"),
    ({"model": {"block": "fancy"}}, "model.block is 'fancy': choose one of basic, preact"),
    ({"model": {"residual": 1}}, "model.residual is 1: give true or false"),
    ({"model": {"member": "tpsnt"}}, "model.member is 'tpsnt': choose one of tpsnet, model1"),
    ({"model": 3}, 'model is 3: give fields, such as {"blocks": ...}, or a name'),
    ({"train": "marathon"}, "train.recipe is 'marathon': choose one of original, sprint"),
    ({"train": {"lr": -1}}, "train.lr is -1: give a value from 0 to 100"),
    ({"train": {"lr": float("nan")}}, "train.lr is nan: give a value from 0 to 100"),
    ({"train": {"lr": "fast"}}, "train.lr is 'fast': give a number"),
    ({"train": {"lr": None}}, "train.lr is None: give a number"),
    ({"train": {"batch_size": True}}, "train.batch_size is True: give a whole number"),
    ({"train": {"batch_size": float("inf")}}, "train.batch_size is inf: give a whole number"),
    ({"train": {"teacher": ["best"]}}, "train.teacher is 'best': give ids of records, in quotes"),
    ({"train": {"teacher": [123456789012]}}, "train.teacher is 123456789012: give ids of records, in quotes"),
    ({"train": {"teacher": 5}}, "train.teacher is 5: give ids of records, in quotes"),
    ({"data": "imagenet"}, "data.dataset is 'imagenet': choose one of cifar10, shapes10"),
    ({"data": {"train_size": 60_000}}, "data.train_size is 60000: give a value from 0 to 50000"),
    ({"seed": -1}, "seed is -1: give a value from 0 to"),
    ({"seed": "one"}, "seed is 'one': give a whole number"),
]


@pytest.mark.parametrize(("tree", "message"), BAD, ids=[message.split(":")[0] for _, message in BAD])
def test_a_bad_field_is_named_with_its_value_and_what_is_allowed(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tree)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_feature_map_cannot_be_pooled_away() -> None:
    four = {"blocks": [1] * 4, "channels": [8] * 4}
    with pytest.raises(ConfigError, match=r"model\.pool is 8: the last feature map is 4 x 4"):
        parse({"model": four})
    assert parse({"model": {**four, "pool": 4}}).model.last_side == 4
    for side, fields in ((8, {}), (4, {"downsample": "pool"}), (3, {"downsample": "pool", "stem_kind": "whiten"})):
        config = ModelConfig(stem=24, pool=side, **fields)  # type: ignore[arg-type]
        assert config.last_side == side


def test_members_and_recipes_are_taken_by_name_and_changed_by_field() -> None:
    assert parse({"model": "model1", "train": "sprint", "data": "shapes10"}) == RunConfig(
        MEMBERS["model1"], RECIPES["sprint"], DataConfig("shapes10")
    )
    run = parse({"model": {"member": "model1", "dropout": 0.1}, "train": {"recipe": "sprint", "epochs": 2}})
    assert run.model == replace(MEMBERS["model1"], dropout=0.1)
    assert run.train == replace(RECIPES["sprint"], epochs=2.0)
    assert parse({}) == RunConfig()
    assert parse({"model": None, "seed": 4}).seed == 4


def test_the_order_of_teachers_makes_no_other_run() -> None:
    one, other = "0b25b88ff21a", "64a91c03c6e5"
    runs = [parse({"train": {"teacher": ids, "precision": "fp32"}}) for ids in ([one, other], [other, one, other])]
    assert runs[0] == runs[1]
    assert parse({"train": {"teacher": one}}).train.teacher == (one,)


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig, DataConfig, RunConfig, ExperimentFile])
def test_a_default_is_within_its_own_limits(kind: type[Checked]) -> None:
    """A value that is the default is not looked at again."""
    for spec in dataclasses.fields(kind):
        if spec.metadata:
            default = spec.default_factory() if callable(spec.default_factory) else spec.default
            assert checked(spec.name, default, default, spec.metadata) == default


def test_minus_nought_is_nought() -> None:
    """It compares equal to the default, and would be written in another way, under another id."""
    assert (
        RunConfig(train=TrainConfig(precision="fp32", momentum=-0.0)).to_dict()
        == RunConfig(train=TrainConfig(precision="fp32", momentum=0.0)).to_dict()
    )
    assert str(TrainConfig(label_smoothing=-0.0).label_smoothing) == "0.0"


def test_members_stay_under_the_limits_of_their_own_fields() -> None:
    for name, member in MEMBERS.items():
        assert parse({"model": name}).model == member


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", '"1e-3"'])
def test_a_number_in_yaml_may_be_written_as_people_write_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run with space é.yaml"
    path.write_text(f"train:\n  lr: {text}\n", "utf-8")
    assert parse(read_yaml(path)).train.lr == 0.001
    assert parse(merged(dict([assignment(f"train.lr={text}")]))).train.lr == 0.001


def test_yaml_that_builds_objects_is_refused_and_builds_none(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.yaml", tmp_path / "trace"
    path.write_text(f"model: !!python/object/apply:os.mkdir ['{trace}']\n")
    with pytest.raises(ConfigError, match=r"evil\.yaml is not plain YAML") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="the value is not plain YAML"):
        assignment(f"train.lr=!!python/object/apply:os.mkdir ['{trace}']")
    assert not trace.exists()


def test_a_fault_of_yaml_is_told_by_its_line() -> None:
    with pytest.raises(ValueError, match=r"^line 2, character 2: expected ',' or '\]', but got ':'$"):
        plain_yaml("a: [1, 2\nb: 3")


def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml is missing"):
        read_yaml(tmp_path / "none.yaml")
    for name, content in (("list", b"- 1\n"), ("empty", b""), ("torn", b"model: [3, 3"), ("bytes", b"\xff\xfe\xfa")):
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"{name}\.yaml (holds|is not plain YAML|is not text)"):
            read_yaml(path)


BOMB = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefghij", "bcdefghijk", strict=True))


@pytest.mark.parametrize(
    "text",
    [BOMB + "seed: *k", "[" * 2000, "a: !!int x", "a: !!bool x", "a: !!timestamp x", "a: " + "9" * 5000, "#" * 2**19],
    ids=["aliases", "depth", "int", "bool", "timestamp", "digits", "size"],
)
def test_yaml_without_bounds_is_one_short_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_pipe_is_no_config_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml is no ordinary file"):
        read_yaml(tmp_path / "pipe.yaml")


@pytest.mark.parametrize("value", [10**5000, "x" * 10**6, [[0] * 1000] * 1000, 0xF << 20000], ids=type)
def test_a_message_quotes_little_of_a_large_value(value: Any) -> None:
    with pytest.raises(ConfigError, match="seed is") as caught:
        parse({"seed": value})
    assert len(str(caught.value)) < 300


def test_an_assignment_is_a_dotted_name_and_a_yaml_value() -> None:
    assert assignment("model.blocks=[3,3,3]") == ("model.blocks", [3, 3, 3])
    assert assignment("data.dataset=shapes10") == ("data.dataset", "shapes10")
    assert assignment("model.residual=false") == ("model.residual", False)
    for text in ("train.lr", "=3"):
        with pytest.raises(ConfigError, match=r"give it as section\.field=value"):
            assignment(text)


def test_later_layers_win_field_by_field() -> None:
    profile, file = {"train": {"epochs": 2, "lr": 0.1}}, {"train": {"epochs": 5}, "seed": 1}
    command_line = {"train.epochs": 7, "model.blocks": [3, 3, 3]}
    expected = {"train": {"epochs": 7, "lr": 0.1}, "seed": 1, "model": {"blocks": [3, 3, 3]}}
    assert merged(profile, file, command_line) == expected
    assert profile == {"train": {"epochs": 2, "lr": 0.1}}  # its arguments stay as they were
    assert merged(file, profile)["train"]["epochs"] == 2
    assert merged() == {}


def test_a_name_in_a_lower_layer_is_a_base_and_in_a_higher_one_a_new_start() -> None:
    below = {"model": "model1", "train": {"recipe": "sprint", "lr": 0.1}}
    run = parse(merged(below, {"model.dropout": 0.2, "train.epochs": 1}))
    assert run.model == replace(MEMBERS["model1"], dropout=0.2)
    assert run.train == replace(RECIPES["sprint"], lr=0.1, epochs=1.0)
    run = parse(merged(below, {"model": "tpsnet", "train": {"recipe": "original"}}))
    assert run.model == MEMBERS["tpsnet"]
    assert run.train == RECIPES["original"]
    run = parse(merged({"data": {"train_size": 100}}, {"data": "shapes10"}))
    assert (run.data.dataset, run.data.train_size) == ("shapes10", 100)


def test_an_old_name_still_works_and_names_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse({"model": "laptop", "train": {"recipe": "laptop"}}) == parse(
        {"model": "two_cores", "train": "two_cores"}
    )
    assert "tpsnet: laptop is called two_cores now" in capsys.readouterr().err
    assert load_experiment("laptop_choices").name == "two_cores_choices"
    with pytest.raises(ConfigError, match="no experiment laptops"):
        load_experiment("laptops")
