"""The ways of training that a recipe may add to the loop: each does what its paper says, small, on the CPU."""

from dataclasses import replace

import pytest
import torch
from conftest import QUIET, tiny
from torch import nn

from tpsnet_lib import train
from tpsnet_lib.asam import ETA, Asam
from tpsnet_lib.config import MEMBERS, PARAMETER_BUDGET, RECIPES, RunConfig
from tpsnet_lib.data.batches import COPY, batches
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.distillation import Teacher
from tpsnet_lib.errors import RecordError, TrainingError
from tpsnet_lib.model import build
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.train import TrainOptions
from tpsnet_lib.train_state import TrainState

CPU = torch.device("cpu")


def fit(config: RunConfig, **changes: object) -> TrainState:
    options = TrainOptions(device=CPU, progress="none", **changes)  # type: ignore[arg-type]
    return train.fit(config, *fit_and_validation(config.data), options)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("card") or name == "stacked"])
def test_a_recipe_for_the_card_lowers_the_loss(name: str) -> None:
    recipe = replace(RECIPES[name].with_epochs(3), batch_size=20, lr=0.1, precision="fp32")
    config = replace(tiny(data__train_size=200, data__validation_size=20), train=recipe)
    history = fit(config).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_the_members_for_the_card_are_wide_where_maps_are_large_and_within_the_budget() -> None:
    counts = {name: (count_parameters(MEMBERS[name]), count_macs(MEMBERS[name])) for name in ("broad", "resnet20x4")}
    assert counts == {"broad": (4_974_282, 1_256_119_088), "resnet20x4": (4_327_754, 647_694_848)}
    assert max(parameters for parameters, _ in counts.values()) <= PARAMETER_BUDGET


# Copies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [False, True])
def test_copies_show_each_image_of_a_step_with_draws_of_its_own(ahead: bool) -> None:
    config = tiny()
    fit_set, _ = fit_and_validation(config.data)
    one, three = (replace(config.train, trivial=True, copies=copies) for copies in (1, 3))
    plain = list(batches(fit_set, one, 0, 0, 8, epoch_ahead=ahead))
    copied = list(batches(fit_set, three, 0, 0, 8, epoch_ahead=ahead))
    assert len(plain) == len(copied) == 8
    for single, triple in zip(plain, copied, strict=True):
        assert len(triple.images) == 3 * len(single.images)
        assert torch.equal(triple.images[:50], single.images)  # the first copy is that of a recipe without copies
        assert torch.equal(triple.labels, single.labels.repeat(3))
        assert torch.equal(triple.indices % COPY, single.indices.repeat(3))
        parts = triple.images.split(50)
        assert all((parts[a] != parts[b]).flatten(1).any(1).float().mean() > 0.9 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_figures_of_a_run_with_copies_count_what_was_shown() -> None:
    state = fit(tiny(train__copies=3, train__epochs=4))
    assert state.steps == 16
    assert state.shown == 150
    assert 0.1 < state.history[-1]["train_accuracy"] <= 1
    assert state.images_per_second == pytest.approx(16 * 150 / state.seconds)


# ASAM -----------------------------------------------------------------------------------------------------------------


def reference_ascent(model: nn.Module, rho: float) -> dict[str, torch.Tensor]:
    """The weights after the ascent step of the authors' code (SamsungLabs/ASAM), tensor by tensor."""
    scales = {n: p.detach().abs() + ETA if "weight" in n else torch.ones_like(p) for n, p in model.named_parameters()}
    scaled = {n: p.grad * scales[n] for n, p in model.named_parameters() if p.grad is not None}
    norm = sum(float(g.double().pow(2).sum()) for g in scaled.values()) ** 0.5
    named = dict(model.named_parameters())
    return {n: named[n].detach() + rho / norm * scaled[n] * scales[n] for n in scaled}


def test_asam_moves_the_weights_as_the_authors_do_and_puts_them_back() -> None:
    torch.manual_seed(0)
    model = build(tiny().model).train()
    model.stem.requires_grad_(False)
    inputs, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
    nn.functional.cross_entropy(model(inputs), labels).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    expected = reference_ascent(model, 0.5)
    asam = Asam(model, 0.5)
    asam.perturb()
    named = dict(model.named_parameters())
    assert all(torch.allclose(named[name], value, atol=1e-6) for name, value in expected.items())
    assert all(p.grad is None for p in model.parameters())
    nn.functional.cross_entropy(model(inputs), labels).backward()
    asam.restore()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # statistics too
    assert any(not torch.equal(named[name].grad, gradient) for name, gradient in first.items())  # type: ignore[arg-type]


def test_a_run_with_asam_ends_elsewhere_and_at_rho_near_0_where_sgd_does() -> None:
    model = {"model__block_dropout": 0.0}
    plain, near, far = (fit(tiny(train__asam=rho, **model)) for rho in (0.0, 1e-6, 1.0))
    weight, close, other = (state.model.head.weight.detach() for state in (plain, near, far))
    assert torch.allclose(weight, close, atol=1e-4)
    assert not torch.allclose(weight, other, atol=1e-3)
    statistics = [state.model.state_dict()["stem.1.num_batches_tracked"] for state in (plain, far)]
    assert statistics[0] == statistics[1] == 8


# Distillation ---------------------------------------------------------------------------------------------------------


def test_a_teachers_share_of_the_targets_is_the_mean_of_its_logits() -> None:
    torch.manual_seed(0)
    recipe = replace(tiny().train, teacher=("0" * 12, "1" * 12), teacher_share=0.25)
    networks = [build(tiny().model).eval() for _ in range(2)]
    teacher = Teacher(recipe, networks, CPU)
    inputs, labels = torch.randn(6, 3, 32, 32), torch.eye(10)[:6]
    with torch.no_grad():
        soft = torch.stack([network(inputs) for network in networks]).mean(0).softmax(1)
    targets = teacher.targets(inputs, labels)
    assert torch.allclose(targets, 0.75 * labels + 0.25 * soft, atol=1e-6)
    assert not targets.requires_grad
    with pytest.raises(TrainingError, match="learns from records 000000000000, 111111111111"):
        Teacher(recipe, networks[:1], CPU)


def test_a_network_learns_from_recorded_networks_and_its_record_names_their_weights(
    tiny_record: Record, tiny_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store(tmp_path_factory.mktemp("students"), *tiny_store.folders)
    config = tiny(train__teacher=[tiny_record.id], train__teacher_share=1.0, seed=3)
    record = load_or_run(config, QUIET, store=store)
    assert record.config.train.teacher == (tiny_record.id,)
    assert list(record.provenance["teachers"]) == [tiny_record.id]
    missing = replace(config, train=replace(config.train, teacher=("f" * 12,)))
    with pytest.raises(RecordError, match="no record ffffffffffff"):
        load_or_run(missing, QUIET, store=store)
