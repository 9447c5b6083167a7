"""Near-duplicates: copies are alike however they come, other images are not."""

import pytest
import torch

from tpsnet_lib.analysis.near_duplicates import NEAR_DUPLICATE, detail, thumbnails
from tpsnet_lib.data.datasets import load_train

IMAGES = load_train("shapes10").images[:400]


def copies() -> torch.Tensor:
    """Images 10 to 14 as they are, brighter, paler in one colour, noisy, and moved by a pixel."""
    images = IMAGES[10:15].float()
    images[1] = 0.8 * images[1] + 30
    images[2, 0] *= 0.7
    images[3] += torch.randn(images[3].shape, generator=torch.Generator().manual_seed(0)) * 8
    images[4, :, :, 1:] = images[4, :, :, :-1].clone()
    return images.round().clamp(0, 255).byte()


def test_a_copy_is_found_as_it_is_brighter_paler_noisy_or_moved_by_a_pixel() -> None:
    assert (thumbnails(copies()) @ thumbnails(IMAGES).T).argmax(1).tolist() == [10, 11, 12, 13, 14]
    likeness = (detail(copies()) * detail(IMAGES[10:15])).sum(1)
    assert likeness[0] == pytest.approx(1, abs=1e-5)
    assert (likeness >= NEAR_DUPLICATE).all()


def test_other_images_are_not_near_duplicates() -> None:
    likeness = (detail(IMAGES) @ detail(IMAGES).T).fill_diagonal_(0)
    assert (likeness >= NEAR_DUPLICATE).double().mean() < 0.001


def test_two_skies_with_different_clouds_share_the_thumbnail_and_not_the_shape() -> None:
    sky = torch.linspace(190, 160, 32).view(1, 1, 32, 1).expand(2, 3, 32, 32)
    clouds = torch.randint(-20, 21, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    pair = (sky + clouds).byte()
    assert thumbnails(pair)[0] @ thumbnails(pair)[1] > 0.9
    assert detail(pair)[0] @ detail(pair)[1] < NEAR_DUPLICATE


def test_the_shape_is_what_a_calculation_by_hand_gives() -> None:
    fine = IMAGES[0].double().reshape(3, 16, 2, 16, 2).mean((2, 4))
    parts = fine.reshape(3, 4, 4, 4, 4)
    by_hand = (parts - parts.mean((2, 4), keepdim=True)).flatten()
    assert detail(IMAGES[:1])[0] == pytest.approx(by_hand / by_hand.norm(), abs=1e-5)


def test_plain_images_have_no_shape_and_are_like_none() -> None:
    plain = torch.full((2, 3, 32, 32), 90, dtype=torch.uint8)
    assert detail(plain).abs().max() == 0
