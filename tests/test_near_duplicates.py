"""Near-duplicates: copies are found as they come, other images are not, and the accuracy is split by them."""

import pytest
import torch
from statsmodels.stats.proportion import confint_proportions_2indep

from tpsnet_lib.analysis import near_duplicates
from tpsnet_lib.data.datasets import load_test, load_train

TRAINING = load_train("shapes10").images[:400]
LABELS = load_train("shapes10").labels[:400]
TEST = load_test("shapes10").images[:40]


def copies():
    """Test images of which the first six are training images 10 to 15: as it is, brighter, paler in one colour, noisy,
    moved by a pixel, mirrored."""
    images = TRAINING[10:16].float()
    images[1] = 0.8 * images[1] + 30
    images[2, 0] *= 0.7
    images[3] += torch.randn(images[3].shape, generator=torch.Generator().manual_seed(0)) * 8
    images[4, :, :, 1:] = images[4, :, :, :-1].clone()
    images[5] = images[5].flip(2)
    return torch.cat([images.round().clamp(0, 255).byte(), TEST[6:]])


def test_a_copy_is_found_brighter_paler_noisy_moved_or_mirrored(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_BLOCK", 7)
    found = near_duplicates.find_near_duplicates(copies(), TRAINING)
    assert found.close[:6].all()
    assert found.position[:6].tolist() == [10, 11, 12, 13, 14, 15]
    assert found.mirrored[:6].tolist() == [False] * 5 + [True]
    assert found.likeness[0] == pytest.approx(1, abs=1e-5)
    assert found.close[6:].double().mean() < 0.1
    alone = near_duplicates.find_near_duplicates(copies()[5:6], TRAINING)
    assert (alone.position.item(), alone.mirrored.item()) == (15, True)


def test_the_likeness_is_the_correlation_of_shapes_with_the_nearest_by_hand():
    found = near_duplicates.find_near_duplicates(TEST[:3], TRAINING[:4])  # all four are candidates

    def shape(image):
        fine = image.double().reshape(3, 16, 2, 16, 2).mean((2, 4))
        return (fine.reshape(3, 4, 4, 4, 4) - fine.reshape(3, 4, 4, 4, 4).mean((2, 4), keepdim=True)).flatten()

    for row, image in enumerate(TEST[:3]):
        table = [
            torch.cosine_similarity(shape(view), shape(other), dim=0)
            for view in (image, image.flip(2))
            for other in TRAINING[:4]
        ]
        best = int(torch.stack(table).argmax())
        assert found.likeness[row].item() == pytest.approx(table[best].item(), abs=1e-5)
        assert (found.mirrored[row].item(), found.position[row].item()) == (best >= 4, best % 4)


def test_only_images_of_another_label_are_looked_at_if_asked():
    found = near_duplicates.find_near_duplicates(TRAINING[:50], TRAINING, (LABELS[:50], LABELS))
    assert (LABELS[found.position] != LABELS[:50]).all()
    assert near_duplicates.find_near_duplicates(TRAINING[:50], TRAINING).position.tolist() == list(range(50))


def test_plain_images_have_no_shape_and_no_near_duplicate():
    plain = torch.full((2, 3, 32, 32), 90, dtype=torch.uint8)
    assert not near_duplicates.find_near_duplicates(plain, torch.cat([plain, TRAINING[:5]])).close.any()


def test_the_accuracy_is_split_by_near_duplicates():
    close = torch.arange(1000) < 100
    correct = torch.ones(1000, dtype=torch.bool)
    correct[500:700] = False
    seen = near_duplicates.accuracy_by_near_duplicate(correct, close)
    assert (seen.count, seen.with_duplicate.value, seen.everything.value) == (100, 1.0, 0.8)
    assert seen.without.value == pytest.approx(700 / 900)
    theirs = confint_proportions_2indep(100, 100, 700, 900, method="newcomb")
    gap = seen.difference
    assert (gap.value, gap.low, gap.high) == pytest.approx((1 - 700 / 900, *theirs), abs=1e-6)
    assert seen.without.low < 700 / 900 < seen.without.high
    never = near_duplicates.accuracy_by_near_duplicate(correct, torch.zeros(1000, dtype=torch.bool))
    assert (never.count, never.with_duplicate.n, never.difference.has_interval) == (0, 0, False)
