"""What a user can rely on: torchvision's results image by image, and draws that only seed, epoch and image decide."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operation_counter import OperationCounter
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from tpsnet_lib.config import TrainConfig
from tpsnet_lib.data import augment as ours
from tpsnet_lib.data import random_draws, trivial_augment
from tpsnet_lib.data.datasets import MEAN
from tpsnet_lib.data.random_draws import Draw
from tpsnet_lib.data.warp import rotate

PLAIN = TrainConfig(crop=0, flip="none", rotation=0.0)
EVERYTHING = TrainConfig(crop=4, crop_padding="reflect", flip="alternate", rotation=20.0, cutout=8, trivial=True)


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """Images with smooth areas, noise, and (every fourth) one flat channel, as autocontrast and equalize care."""
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.interpolate(torch.rand(count, 3, 5, 5, generator=generator), 32, mode="bilinear")
    images = (smooth * 220 + 20 * torch.rand(count, 3, 32, 32, generator=generator)).to(torch.uint8)
    images[::4, 1] = 77
    return images


def one_hot(count: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.arange(count) % 10, 10).float()


# Draws --------------------------------------------------------------------------------------------------------------


def splitmix(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
    return word ^ (word >> 31)


@given(st.integers(0, 2**31 - 1), st.integers(0, 10_000), st.integers(0, 10**6), st.integers(0, 40))
def test_a_draw_is_the_published_hash_of_seed_epoch_image_and_number(seed: int, epoch: int, index: int, draw: int):
    golden = 0x9E3779B97F4A7C15
    key = splitmix((splitmix((seed + golden) % 2**64) + epoch) % 2**64)
    word = splitmix((splitmix((key + draw * golden) % 2**64) + index * golden) % 2**64)
    expected = (word >> 40) / 2**24
    assert random_draws.uniform(seed, epoch, torch.tensor([index]), draw).item() == expected


def test_draws_of_earlier_versions_stay_as_they_were():
    drawn = (random_draws.uniform(0, 0, torch.arange(3), 0) * 2**24).to(torch.int64).tolist()
    assert drawn == [1660839, 2942985, 7939244]
    assert random_draws.permutation(1, 2, 50_000)[:5].tolist() == [31931, 9415, 43062, 14737, 40303]


@pytest.mark.parametrize(("seed", "epoch", "draw"), [(0, 0, 0), (1, 0, 3), (0, 299, 7), (2**31 - 1, 5, 13)])
def test_draws_are_uniform(seed: int, epoch: int, draw: int):
    drawn = random_draws.uniform(seed, epoch, torch.arange(50_000), draw)
    assert drawn.dtype == torch.float32
    assert 0 <= drawn.min() < drawn.max() < 1
    assert abs(drawn.mean() - 1 / 2) < 0.006  # 4.6 standard errors
    assert abs(drawn.var() - 1 / 12) < 0.002
    counts = torch.histc(drawn, 100, 0, 1)
    assert ((counts - 500) ** 2 / 500).sum() < 170  # chi-square of 99 degrees of freedom: p < 1e-5 above
    assert abs(torch.corrcoef(torch.stack((drawn[1:], drawn[:-1])))[0, 1]) < 0.02


def test_draws_of_other_seeds_epochs_and_numbers_are_unrelated():
    indices = torch.arange(20_000)
    keys = [(seed, epoch, draw) for seed in (0, 1, 2) for epoch in (0, 1, 2) for draw in (0, 1, 2)]
    related = torch.corrcoef(
        torch.stack([random_draws.uniform(seed, epoch, indices, draw) for seed, epoch, draw in keys])
    )
    assert (related - torch.eye(len(keys))).abs().max() < 0.035  # 5 standard errors


def test_an_epochs_order_holds_every_image_once_and_is_new_each_epoch():
    orders = [random_draws.permutation(seed, epoch, 1000) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(1000))
        assert (order == torch.arange(1000)).sum() < 10
    assert (orders[0] == orders[1]).sum() < 10
    assert (orders[0] == orders[2]).sum() < 10
    assert torch.equal(orders[0], random_draws.permutation(0, 0, 1000))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 39), min_size=1, max_size=40), st.integers(0, 1000), st.integers(0, 5))
def test_an_image_is_augmented_the_same_in_any_batch_and_order(chosen: list[int], seed: int, epoch: int):
    images, indices = pictures(40), torch.arange(40) * 7
    whole = ours.augment(images, indices, EVERYTHING, seed, epoch)
    part = ours.augment(images[chosen], indices[chosen], EVERYTHING, seed, epoch)
    assert torch.equal(part, whole[chosen])


# Steps against torchvision, image by image --------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 16), st.sampled_from(["zero", "reflect"]), st.integers(0, 100))
def test_crop_is_torchvisions(padding: int, mode: str, seed: int):
    images = pictures(6, seed)
    generator = torch.Generator().manual_seed(seed)
    top, left = torch.randint(0, 2 * padding + 1, (2, 6), generator=generator)
    kind = "constant" if mode == "zero" else mode
    for image, y, x, result in zip(
        images, top.tolist(), left.tolist(), ours.crop(images, top, left, padding, mode), strict=True
    ):
        padded = reference.pad(image, [padding] * 4, padding_mode=kind)
        assert torch.equal(result, reference.crop(padded, y, x, 32, 32))


def test_crop_takes_images_of_any_memory_layout():
    images, offsets = pictures(5), torch.tensor([0, 2, 4, 6, 8])
    expected = ours.crop(images, offsets, offsets, 4)
    assert torch.equal(ours.crop(images.contiguous(memory_format=torch.channels_last), offsets, offsets, 4), expected)
    assert torch.equal(
        ours.crop(images.repeat(2, 1, 1, 1)[::2], offsets, offsets, 4),
        ours.crop(images[[0, 2, 4, 1, 3]], offsets, offsets, 4),
    )


def test_flip_mirrors_the_chosen_images_only():
    images, chosen = pictures(8), torch.arange(8) % 3 == 0
    for image, is_chosen, result in zip(images, chosen, ours.flip(images, chosen), strict=True):
        assert torch.equal(result, reference.horizontal_flip(image) if is_chosen else image)


def test_rotation_is_torchvisions():
    images = pictures(200)
    degrees = torch.cat((torch.linspace(-5, 5, 101), torch.linspace(-179, 179, 99)))
    results = rotate(images, degrees)
    different = sum(
        (result != reference.rotate(image, angle)).sum().item()
        for image, angle, result in zip(images, degrees.tolist(), results, strict=True)
    )
    assert different <= 1e-4 * images.numel()  # a pixel now and then lies half-way between two


def test_rotation_is_that_of_pil_images_but_for_a_few_pixels():
    images, degrees = pictures(50), torch.linspace(-5, 5, 50)
    same = []
    for image, angle, result in zip(images, degrees.tolist(), rotate(images, degrees), strict=True):
        rotated = reference.rotate(Image.fromarray(image.permute(1, 2, 0).numpy()), angle)
        same.append((result.permute(1, 2, 0).numpy() == np.asarray(rotated)).mean())
    assert np.mean(same) > 0.98


def torchvisions_trivial(image: torch.Tensor, op: str, strength: float) -> torch.Tensor:
    from torchvision.transforms.v2 import TrivialAugmentWide

    return TrivialAugmentWide()._apply_image_or_video_transform(
        image, op, strength, reference.InterpolationMode.NEAREST, {}
    )


@pytest.mark.parametrize("op", trivial_augment.OPS)
def test_every_trivial_op_is_torchvisions_at_every_strength(op: str):
    from torchvision.transforms.v2 import TrivialAugmentWide

    strengths, signed = TrivialAugmentWide._AUGMENTATION_SPACE[op]
    values = strengths(31, 32, 32)
    level, negative = torch.arange(31).repeat(2), torch.arange(62) >= 31
    images = pictures(62)
    results = trivial_augment.trivial(images, torch.full((62,), list(trivial_augment.OPS).index(op)), level, negative)
    for image, at, minus, result in zip(images, level.tolist(), negative.tolist(), results, strict=True):
        strength = 0.0 if values is None else float(values[at]) * (-1 if signed and minus else 1)
        expected = torchvisions_trivial(image, op, strength)
        different = (result != expected).sum().item()
        if op == "Rotate" and strength % 90 == 45:  # the diagonals lie half-way between two pixels
            assert different <= 0.05 * image.numel()
        elif op in ("Brightness", "Color", "Contrast"):  # rounding just below a whole number
            assert different <= 0.02 * image.numel()
            assert (result.int() - expected.int()).abs().max() <= 1
        else:
            assert different == 0


def test_the_standard_strengths_are_the_authors():
    strongest = {
        "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 10, "TranslateY": 10, "Rotate": 30, "Posterize": 4, "Solarize": 0,
        "Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9,
    }  # fmt: skip
    standard = trivial_augment.SPACES["standard"]
    assert {name: last for name, (_, last, _, _) in standard.items() if name in strongest} == strongest
    assert list(standard) == list(trivial_augment.OPS)
    images, level = pictures(31), torch.arange(31)
    turned = trivial_augment.trivial(
        images, torch.full((31,), list(standard).index("Rotate")), level, level < 0, "standard"
    )
    assert torch.equal(turned, rotate(images, level.float()))  # a degree a level


def test_standard_strengths_are_drawn_where_the_recipe_asks_for_them():
    images, indices = pictures(200), torch.arange(200)
    op, level, sign = (
        random_draws.uniform(0, 0, indices, draw) for draw in (Draw.TRIVIAL_OP, Draw.TRIVIAL_LEVEL, Draw.TRIVIAL_SIGN)
    )
    drawn = (op * 14).long(), (level * 31).long(), sign < 0.5
    results = ours.augment(images, indices, replace(PLAIN, trivial=True, trivial_space="standard"), 0, 0)
    assert torch.equal(results, trivial_augment.trivial(images, *drawn, "standard"))
    assert not torch.equal(results, trivial_augment.trivial(images, *drawn))


def test_trivial_ops_are_torchvisions_and_drawn_equally_often():
    from torchvision.transforms.v2 import TrivialAugmentWide

    assert list(trivial_augment.OPS) == list(TrivialAugmentWide._AUGMENTATION_SPACE)
    images = pictures(1).expand(14_000, -1, -1, -1)
    results = ours.augment(images, torch.arange(14_000), replace(PLAIN, trivial=True), 0, 0)
    untouched = (results == images).all((1, 2, 3)).sum()
    assert 1000 < untouched < 2500  # Identity is one of 14; others do nothing at strength 0


def test_trivial_on_a_gpu_gives_the_same_images_and_asks_it_nothing():
    images, (op, level) = pictures(90), torch.randint(0, 14, (2, 90), generator=torch.Generator().manual_seed(0))
    strengths = trivial_augment._strengths("wide", images.device)[op, level]
    on_a_gpu, here = trivial_augment._masked(images, op, strengths), trivial_augment._sorted(images, op, strengths)
    assert torch.equal(on_a_gpu, here)
    assert not torch.equal(here, images)
    with OperationCounter() as counter:
        trivial_augment._masked(images, op, strengths)
    assert not counter.waits


# The recipe ---------------------------------------------------------------------------------------------------------


def test_a_recipe_without_augmentation_gives_the_images_back():
    images = pictures(5)
    assert torch.equal(ours.augment(images, torch.arange(5), PLAIN, 0, 0), images)


def test_crop_offsets_are_all_drawn_equally_often():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, 16, 16] = 255  # one point shows where the window was
    results = ours.augment(image.expand(8100, -1, -1, -1), torch.arange(8100), replace(PLAIN, crop=4), 0, 0)
    row, column = results[:, 0].nonzero()[:, 1:].T
    counts = torch.bincount((row - 12) * 9 + column - 12, minlength=81)
    assert len(counts) == 81
    assert ((counts - 100) ** 2 / 100).sum() < 145  # chi-square of 80 degrees of freedom: p < 1e-5 above


def test_random_flips_are_half_of_all_and_new_each_epoch():
    images, indices, recipe = pictures(2000), torch.arange(2000), replace(PLAIN, flip="random")
    flipped = [(ours.augment(images, indices, recipe, 0, epoch) != images).any((1, 2, 3)) for epoch in (0, 1)]
    for chosen in flipped:
        assert 900 < chosen.sum() < 1100
    assert 900 < (flipped[0] ^ flipped[1]).sum() < 1100


def test_alternating_flips_mirror_every_image_every_other_epoch():
    images, indices, recipe = pictures(2000), torch.arange(2000), replace(PLAIN, flip="alternate")
    epochs = [ours.augment(images, indices, recipe, 0, epoch) for epoch in range(4)]
    assert torch.equal(epochs[1], epochs[0].flip(3))
    assert torch.equal(epochs[2], epochs[0])
    assert torch.equal(epochs[3], epochs[1])
    assert 900 < (epochs[0] != images).any((1, 2, 3)).sum() < 1100


def test_rotation_stays_within_the_recipes_degrees():
    drawn = random_draws.uniform(0, 0, torch.arange(300), Draw.ROTATION)
    images = pictures(300)
    results = ours.augment(images, torch.arange(300), replace(PLAIN, rotation=5.0), 0, 0)
    assert torch.equal(results, rotate(images, drawn * 10 - 5))


def test_cutout_fills_a_square_clipped_at_the_border_with_the_mean_colour():
    images = torch.zeros(400, 3, 32, 32, dtype=torch.uint8)
    results = ours.augment(images, torch.arange(400), replace(PLAIN, cutout=8), 0, 0)
    filled = results[:, 0] > 0
    assert results.amax((0, 2, 3)).tolist() == [round(255 * value) for value in MEAN]
    rows, columns = filled.any(2).sum(1), filled.any(1).sum(1)
    assert torch.equal(filled.sum((1, 2)), rows * columns)  # a rectangle
    assert rows.min() == columns.min() == 4  # the centre is in the image
    assert rows.max() == columns.max() == 8
    assert 0.4 < (rows * columns == 64).float().mean() < 0.75  # (25 / 32)^2 = 0.61 of the centres leave it whole


@given(st.integers(0, 31), st.integers(0, 31), st.integers(1, 32))
def test_cutout_covers_what_the_original_covers(y: int, x: int, side: int):
    result = ours.cutout(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([y]), torch.tensor([x]), side)
    expected = np.zeros((32, 32), bool)
    expected[max(y - side // 2, 0) : y - side // 2 + side, max(x - side // 2, 0) : x - side // 2 + side] = True
    assert np.array_equal(result[0, 0].numpy() > 0, expected)


def test_erasing_fills_rectangles_of_torchvisions_areas_and_shapes():
    images = torch.zeros(4000, 3, 32, 32, dtype=torch.uint8)
    results = ours.augment(images, torch.arange(4000), replace(PLAIN, erasing=0.5), 0, 0)
    filled = results[:, 0] > 0
    erased = filled.any((1, 2))
    assert 0.47 < erased.float().mean() < 0.53
    assert results.amax((0, 2, 3)).tolist() == [round(255 * value) for value in MEAN]
    height, width = filled.any(2).sum(1)[erased].float(), filled.any(1).sum(1)[erased].float()
    assert torch.equal(filled.sum((1, 2))[erased], (height * width).long())  # wholly inside, no holes
    share, ratio = height * width / 1024, height / width
    assert share.min() > 0.015
    assert share.max() < 0.35
    assert abs(share.mean() - 0.175) < 0.01  # 2 to 33%
    assert ratio.min() > 0.25
    assert ratio.max() < 4
    assert abs(ratio.log().mean()) < 0.05
    rows = filled.any(2)[erased].float().mean(0)
    assert 0.5 < rows[0] / rows[-1] < 2  # as often at the top as at the bottom


def test_a_side_that_would_not_fit_is_cut():
    ends = torch.tensor([0.0, 1 - 2**-24])
    area, ratio, y, x = torch.cartesian_prod(ends, ends, ends, ends).unbind(1)
    images = torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
    filled = ours.erase(images, torch.ones(16).bool(), area, ratio, y, x)[:, 0] > 0
    sides = torch.stack((filled.any(2).sum(1), filled.any(1).sum(1)))
    assert sides.min() == 2
    assert sides.max() == 31


# Mixing -------------------------------------------------------------------------------------------------------------


def test_without_mixing_images_and_targets_are_given_back_as_they_are():
    images, targets = torch.rand(4, 3, 32, 32), one_hot(4)
    mixed = ours.mix(images, targets, torch.arange(4), PLAIN, 0, 0)
    assert mixed[0] is images
    assert mixed[1] is targets


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.5])
def test_mixing_fractions_are_beta_distributed(alpha: float):
    first, second = (
        random_draws.uniform(0, 0, torch.arange(40_000), draw) for draw in (Draw.MIX_RADIUS, Draw.MIX_ANGLE)
    )
    drawn = ours._beta(torch.full((40_000,), alpha), first, second).double().numpy()
    expected = np.random.default_rng(0).beta(alpha, alpha, 40_000)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert abs(drawn.mean() - 0.5) < 0.01
    assert abs(drawn.var() - 1 / (4 * (2 * alpha + 1))) < 0.003
    levels = np.linspace(0.01, 0.99, 99)
    assert np.abs((drawn[:, None] < np.quantile(expected, levels)).mean(0) - levels).max() < 0.02


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 10.0])
def test_mixing_fractions_are_numbers_at_the_ends_of_the_range(alpha: float):
    corners = torch.tensor([0.0, 2**-24, 0.5, 1 - 2**-24])
    drawn = ours._beta(torch.full((16,), alpha), corners.repeat(4), corners.repeat_interleave(4))
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_cutmix_targets_have_the_fraction_of_the_pixels():
    images = torch.arange(64.0).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)  # each image is its own number
    targets = torch.eye(64)
    mixed, shares = ours.mix(images, targets, torch.arange(64), replace(PLAIN, cutmix=1.0), 3, 1)
    for number in range(64):
        own = (mixed[number] == number).all(0)
        assert ((mixed[number] == (number - 1) % 64).all(0) | own).all()
        assert shares[number, number].item() == own.float().mean().item()
        other = ~own  # a rectangle of the neighbour
        assert other.sum() == other.any(0).sum() * other.any(1).sum()
    assert torch.allclose(shares.sum(1), torch.ones(64))
    assert 0.5 < shares.diag().mean() < 0.8  # more than half: boxes are clipped at the border


def test_mixup_blends_images_and_targets_by_the_same_fraction():
    images, targets = torch.rand(64, 3, 32, 32), torch.eye(64)
    mixed, shares = ours.mix(images, targets, torch.arange(64), replace(PLAIN, mixup=0.8), 0, 0)
    own = shares.diag().view(-1, 1, 1, 1)
    assert torch.allclose(mixed, own * images + (1 - own) * images.roll(1, 0), atol=1e-6)
    assert torch.allclose(shares.sum(1), torch.ones(64))


def test_with_both_set_each_image_draws_mixup_or_cutmix():
    images = torch.arange(400.0).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    mixed, _ = ours.mix(images, one_hot(400), torch.arange(400), replace(PLAIN, mixup=1.0, cutmix=1.0), 0, 0)
    own, other = mixed == images, mixed == images.roll(1, 0)
    cut = (own | other).all((1, 2, 3))
    assert 140 < cut.sum() < 260
    assert (mixed[~cut].amax((1, 2, 3)) - mixed[~cut].amin((1, 2, 3))).max() == 0  # mixup treats all pixels alike


def test_mixing_keeps_type_and_memory_layout_and_a_batch_of_one():
    images = torch.rand(6, 3, 32, 32).to(torch.bfloat16, memory_format=torch.channels_last)
    recipe = replace(PLAIN, mixup=0.5, cutmix=1.0)
    mixed, targets = ours.mix(images, one_hot(6), torch.arange(6), recipe, 0, 0)
    assert mixed.dtype == torch.bfloat16
    assert targets.dtype == torch.float32
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    alone, target = ours.mix(images[:1].float(), one_hot(1), torch.arange(1), recipe, 0, 0)
    assert torch.allclose(alone, images[:1].float())
    assert torch.equal(target, one_hot(1))


def test_a_batch_that_draws_once_has_one_kind_one_fraction_and_one_box():
    images, targets = torch.rand(32, 3, 32, 32), torch.eye(32)
    recipe, kinds = replace(PLAIN, mixup=0.5, cutmix=1.0, mix_per="batch"), set()
    for first in range(24):
        mixed, shares = ours.mix(images, targets, torch.arange(first, first + 32), recipe, 0, 0)
        assert shares.diag().max() == shares.diag().min()
        own = shares[0, 0]
        cut = bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
        kinds.add(cut)
        if cut:
            boxes = (mixed != images).any(1)
            assert torch.equal(boxes, boxes[:1].expand_as(boxes))
            assert (1 - boxes[0].float().mean() - own).abs() < 1e-6
        else:
            assert torch.allclose(mixed, own * images + (1 - own) * images.roll(1, 0), atol=1e-6)
    assert kinds == {True, False}


@pytest.mark.parametrize("per", ["image", "batch"])
def test_the_share_that_is_mixed_is_the_recipes(per: str):
    images, targets = torch.rand(100, 3, 8, 8).repeat(1, 1, 4, 4), torch.eye(100)
    recipe, mixed = replace(PLAIN, mixup=1.0, mix_per=per, mix_probability=0.3), []
    for first in range(100):
        blended, shares = ours.mix(images, targets, 100 * first + torch.arange(100), recipe, 0, 0)
        same = (blended == images).all((1, 2, 3))
        assert torch.equal(same, shares.diag() == 1)
        mixed.append(1 - same.float().mean())
    assert abs(torch.stack(mixed).mean() - 0.3) < (0.02 if per == "image" else 0.15)
    assert all(share in (0, 1) for share in mixed) == (per == "batch")
