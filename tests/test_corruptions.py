"""Corruptions: seeded, the same in any batch, and doing what their names say."""

import pytest
import torch

from tpsnet_lib.analysis import corruptions
from tpsnet_lib.config import DataConfig
from tpsnet_lib.data.datasets import fit_and_validation

IMAGES = fit_and_validation(DataConfig("shapes10", train_size=10, validation_size=10))[0].images[:5]
SMOOTH = (torch.arange(32).view(1, 1, 1, 32) * 4 + 60).expand(5, 3, 32, 32).to(torch.uint8)
INDICES = torch.tensor([11, 2, 4096, 9999, 0])


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_a_corruption_is_the_same_in_any_batch_and_grows_with_severity(name):
    far = []
    assert torch.equal(corruptions.corrupt(IMAGES, INDICES, name, 0), IMAGES)
    for severity in range(1, 6):
        damaged = corruptions.corrupt(IMAGES, INDICES, name, severity)
        assert damaged.shape == IMAGES.shape
        assert damaged.dtype == torch.uint8
        alone = torch.cat(
            [corruptions.corrupt(IMAGES[i : i + 1], INDICES[i : i + 1], name, severity) for i in range(5)]
        )
        assert (damaged.int() - alone.int()).abs().max() <= 1  # rounding of sums taken in another order
        far.append((damaged.float() - IMAGES).square().mean().item())
    assert far == sorted(far)
    assert far[0] > 0


def test_noise_has_the_deviation_that_it_says():
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    noise = corruptions.gaussian_noise(grey, torch.arange(20), 0.1).float() - 128
    assert noise.std().item() / 255 == pytest.approx(0.1, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.3)
    assert not torch.equal(noise[0], noise[1])


def test_blur_agrees_with_torchvision():
    from torchvision.transforms.v2 import functional

    theirs = functional.gaussian_blur(IMAGES, [7, 7], [1.0, 1.0])
    assert (corruptions.gaussian_blur(IMAGES, 1.0).int() - theirs.int()).abs().max() <= 1


def test_contrast_keeps_the_mean_colour_and_pixelate_makes_blocks():
    assert torch.equal(corruptions.contrast(SMOOTH, 1.0), SMOOTH)
    assert corruptions.contrast(SMOOTH, 0.0).unique().tolist() == [SMOOTH.float().mean().round().item()]
    blocks = corruptions.pixelate(IMAGES, 0.5)
    assert torch.equal(blocks[..., ::2, ::2], blocks[..., 1::2, 1::2])


def test_fog_lightens_hides_about_what_it_says_and_drifts_smoothly():
    black = torch.zeros(50, 3, 32, 32, dtype=torch.uint8)
    veiled = corruptions.fog(black, torch.arange(50), 0.4).float() / 225
    assert veiled.mean().item() == pytest.approx(0.4, abs=0.02)
    assert veiled.min() >= 0.2 - 0.01
    assert veiled.max() <= 0.6 + 0.01
    assert veiled.diff(dim=3).abs().max() < 0.06  # of 31 steps between the sides of five patches
    assert veiled[0].std() > 0.05
    assert not torch.equal(veiled[0], veiled[1])
    seen = corruptions.fog(IMAGES, INDICES, 0.4).float()
    assert seen.std((1, 2, 3)).lt(IMAGES.float().std((1, 2, 3))).all()
    assert torch.equal(corruptions.fog(IMAGES, INDICES, 0.0), IMAGES)
