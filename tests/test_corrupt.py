"""Corruptions and shifted views: seeded, the same in any batch, and doing what their names say."""

import pytest
import torch

from tpsnet_lib import metrics
from tpsnet_lib.config import DataConfig, ModelConfig
from tpsnet_lib.data import ImageSet, fit_and_validation
from tpsnet_lib.model import build
from tpsnet_lib.study import corrupt

IMAGES = fit_and_validation(DataConfig("shapes10", train_size=10, validation_size=10))[0].images[:5]
SMOOTH = (torch.arange(32).view(1, 1, 1, 32) * 4 + 60).expand(5, 3, 32, 32).to(torch.uint8)
INDICES = torch.tensor([11, 2, 4096, 9999, 0])


@pytest.mark.parametrize("name", corrupt.CORRUPTIONS)
def test_a_corruption_is_the_same_in_any_batch_and_grows_with_severity(name):
    far = []
    for severity in corrupt.SEVERITIES:
        damaged = corrupt.corrupt(IMAGES, INDICES, name, severity)
        assert damaged.shape == IMAGES.shape
        assert damaged.dtype == torch.uint8
        alone = torch.cat([corrupt.corrupt(IMAGES[i : i + 1], INDICES[i : i + 1], name, severity) for i in range(5)])
        assert (damaged.int() - alone.int()).abs().max() <= 1  # rounding of sums taken in another order
        far.append((damaged.float() - IMAGES).square().mean().item())
    assert far == sorted(far)
    assert far[0] > 0


def test_noise_has_the_deviation_that_it_says():
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    noise = corrupt.gaussian_noise(grey, torch.arange(20), 0.1).float() - 128
    assert noise.std().item() / 255 == pytest.approx(0.1, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.3)
    assert not torch.equal(noise[0], noise[1])


def test_blur_agrees_with_torchvision():
    from torchvision.transforms.v2 import functional

    theirs = functional.gaussian_blur(IMAGES, [7, 7], [1.0, 1.0])
    assert (corrupt.gaussian_blur(IMAGES, 1.0).int() - theirs.int()).abs().max() <= 1


def test_contrast_keeps_the_mean_colour_and_pixelate_makes_blocks():
    assert torch.equal(corrupt.contrast(SMOOTH, 1.0), SMOOTH)
    assert corrupt.contrast(SMOOTH, 0.0).unique().tolist() == [SMOOTH.float().mean().round().item()]
    blocks = corrupt.pixelate(IMAGES, 0.5)
    assert torch.equal(blocks[..., ::2, ::2], blocks[..., 1::2, 1::2])


def test_fog_lightens_hides_about_what_it_says_and_drifts_smoothly():
    black = torch.zeros(50, 3, 32, 32, dtype=torch.uint8)
    veiled = corrupt.fog(black, torch.arange(50), 0.4).float() / 225
    assert veiled.mean().item() == pytest.approx(0.4, abs=0.02)
    assert veiled.min() >= 0.2 - 0.01
    assert veiled.max() <= 0.6 + 0.01
    assert veiled.diff(dim=3).abs().max() < 0.06  # of 31 steps between the sides of five patches
    assert veiled[0].std() > 0.05
    assert not torch.equal(veiled[0], veiled[1])
    assert not torch.equal(corrupt.fog(black, torch.arange(50), 0.4, seed=1), corrupt.fog(black, torch.arange(50), 0.4))
    seen = corrupt.fog(IMAGES, INDICES, 0.4).float()
    assert seen.std((1, 2, 3)).lt(IMAGES.float().std((1, 2, 3))).all()
    assert torch.equal(corrupt.fog(IMAGES, INDICES, 0.0), IMAGES)


def test_a_shift_moves_the_image_and_mirrors_the_edge():
    moved = corrupt.shift(IMAGES, 1, -2)
    assert torch.equal(moved[..., 1:, :-2], IMAGES[..., :-1, 2:])
    assert torch.equal(corrupt.shift(IMAGES, 0, 0), IMAGES)


def test_six_views_are_the_mean_log_probability_of_three_shifts_and_their_mirrors():
    torch.manual_seed(0)
    model = build(ModelConfig(blocks=(1,), channels=(4,), stem=4, pool=8))
    shifted = [corrupt.shift(IMAGES, *by) for by in ((0, 0), (-1, -1), (1, 1))]
    views = [metrics.predict(model, view).log_softmax(1) for image in shifted for view in (image, image.flip(3))]
    torch.testing.assert_close(corrupt.predict_views(model, IMAGES), torch.stack(views).mean(0))


def test_hits_are_counted_by_corruption_and_severity():
    model = build(ModelConfig(blocks=(1,), channels=(4,), stem=4, pool=8))
    hits = corrupt.corruption_hits(model, ImageSet(IMAGES, torch.zeros(5, dtype=torch.int64), INDICES, "made up"))
    assert list(hits) == list(corrupt.CORRUPTIONS)
    assert all(len(counts) == 5 and 0 <= min(counts) <= max(counts) <= 5 for counts in hits.values())
