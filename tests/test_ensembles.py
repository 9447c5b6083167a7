"""Seeds of one recipe: which are put together, and what their averaged answers score."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tpsnet_lib.analysis import ensembles
from tpsnet_lib.analysis import errors_findings as say
from tpsnet_lib.config import DataConfig, RunConfig, TrainConfig
from tpsnet_lib.files import RecordError
from tpsnet_lib.runs.records import Record

GENERATOR = torch.Generator().manual_seed(0)
PLAIN = TrainConfig(precision="fp32")
LABELS = torch.randint(0, 10, (800,), generator=GENERATOR)
SIGNAL = 3 * torch.nn.functional.one_hot(LABELS, 10)
LOGITS = [SIGNAL + 2 * torch.randn(800, 10, generator=GENERATOR) for _ in range(3)]


def test_the_ensemble_is_the_mean_probability_beside_each_single_network():
    from scipy import stats

    found = ensembles.ensemble(LOGITS, LABELS)
    votes = np.mean([np.exp(one.numpy()) / np.exp(one.numpy()).sum(1, keepdims=True) for one in LOGITS], axis=0)
    assert found.together[0] == pytest.approx((votes.argmax(1) == LABELS.numpy()).mean())
    singles = [(one.argmax(1) == LABELS).double().mean().item() for one in LOGITS]
    assert found.singles == pytest.approx(singles)
    interval = stats.t.interval(0.95, 2, np.mean(singles), stats.sem(singles))
    assert found.mean == pytest.approx((np.mean(singles), *interval), abs=1e-6)
    assert found.gain[0] == pytest.approx(found.together[0] - np.mean(singles))
    assert 0 < found.gain[1] < found.gain[0] < found.gain[2]
    assert "**helps**" in say.say_seeds(found)
    assert "3 seeds" in say.say_seeds(found)


def test_a_network_with_itself_is_no_better_and_a_poor_one_drags_the_other_down():
    same = ensembles.ensemble([LOGITS[0], LOGITS[0]], LABELS)
    assert same.gain == (0.0, 0.0, 0.0)
    assert "**makes no difference" in say.say_seeds(same)
    misled = 20.0 * torch.nn.functional.one_hot((LABELS + 1) % 10, 10)
    assert "**hurts**" in say.say_seeds(ensembles.ensemble([LOGITS[0], misled], LABELS))


def test_only_seeds_of_the_recipe_that_were_opened_alike_stand_together(tmp_path, monkeypatch):
    config = RunConfig(train=PLAIN, data=DataConfig("shapes10"))
    configs = {seed: replace(config, seed=seed) for seed in range(7)}
    configs[9] = RunConfig(train=PLAIN, data=DataConfig("shapes10", train_size=10), seed=9)
    records = {seed: Record(tmp_path, one, {}, {}, ()) for seed, one in configs.items()}
    said = {"fingerprint": {"sha256": "a"}, "not_choosing": False}
    tests = {
        0: said,
        2: {**said, "not_choosing": True},
        3: {**said, "fingerprint": {"sha256": "b"}},
        4: said,
        6: said,
        9: said,
    }

    def find_test(record, store):
        if record.config.seed == 5:
            raise RecordError("altered")
        about, rows = tests.get(record.config.seed), 3 if record.config.seed == 6 else 2
        return about and SimpleNamespace(metrics=about, logits=torch.full((rows, 10), record.config.seed))

    monkeypatch.setattr(ensembles, "find_test", find_test)
    shelf = SimpleNamespace(all=lambda: list(records.values())[::-1])
    found = ensembles.seeds_opened(records[4], shelf, 2)
    assert list(found) == [0, 4]
    assert found[4].unique().item() == 4
    assert list(ensembles.seeds_opened(records[2], shelf, 2)) == [2]
    for without in (1, 5):
        assert ensembles.seeds_opened(records[without], shelf, 2) == {}
