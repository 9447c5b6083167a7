"""Corruptions and shifted views: seeded, the same in any batch, and doing what their names say."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from tpsnet_lib import metrics
from tpsnet_lib.analysis import corruptions
from tpsnet_lib.analysis import errors_findings as say
from tpsnet_lib.config import DataConfig, ModelConfig
from tpsnet_lib.data.datasets import ImageSet, fit_and_validation
from tpsnet_lib.model import build
from tpsnet_lib.plots import errors as plots
from tpsnet_lib.plots import style

IMAGES = fit_and_validation(DataConfig("shapes10", train_size=10, validation_size=10))[0].images[:5]
SMOOTH = (torch.arange(32).view(1, 1, 1, 32) * 4 + 60).expand(5, 3, 32, 32).to(torch.uint8)
INDICES = torch.tensor([11, 2, 4096, 9999, 0])


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_a_corruption_is_the_same_in_any_batch_and_grows_with_severity(name):
    far = []
    for severity in corruptions.SEVERITIES:
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
    assert not torch.equal(
        corruptions.fog(black, torch.arange(50), 0.4, seed=1), corruptions.fog(black, torch.arange(50), 0.4)
    )
    seen = corruptions.fog(IMAGES, INDICES, 0.4).float()
    assert seen.std((1, 2, 3)).lt(IMAGES.float().std((1, 2, 3))).all()
    assert torch.equal(corruptions.fog(IMAGES, INDICES, 0.0), IMAGES)


def test_a_shift_moves_the_image_and_mirrors_the_edge():
    moved = corruptions.shift(IMAGES, 1, -2)
    assert torch.equal(moved[..., 1:, :-2], IMAGES[..., :-1, 2:])
    assert torch.equal(corruptions.shift(IMAGES, 0, 0), IMAGES)


def test_six_views_are_the_mean_log_probability_of_three_shifts_and_their_mirrors():
    torch.manual_seed(0)
    model = build(ModelConfig(blocks=(1,), channels=(4,), stem=4, pool=8))
    shifted = [corruptions.shift(IMAGES, *by) for by in ((0, 0), (-1, -1), (1, 1))]
    views = [metrics.predict(model, view).log_softmax(1) for image in shifted for view in (image, image.flip(3))]
    torch.testing.assert_close(corruptions.predict_views(model, IMAGES), torch.stack(views).mean(0))


def small(seed):
    torch.manual_seed(seed)
    return build(ModelConfig(blocks=(1,), channels=(4,), stem=4, pool=8))


def test_answers_are_those_of_each_network_on_the_same_damaged_images():
    models, labels = [small(0), small(1)], torch.arange(5)
    found = corruptions.answers(models, ImageSet(IMAGES, labels, INDICES, "made up"))
    for model, answers in zip(models, found, strict=True):
        assert torch.equal(answers.clean, metrics.predict(model, IMAGES).argmax(1) == labels)
        assert list(answers.damaged) == list(corruptions.CORRUPTIONS)
        for name, right in answers.damaged.items():
            seen = [corruptions.corrupt(IMAGES, INDICES, name, severity) for severity in corruptions.SEVERITIES]
            expected = torch.stack([metrics.predict(model, images).argmax(1) == labels for images in seen])
            assert torch.equal(right, expected)
        assert answers.hits == {name: right.sum(1).tolist() for name, right in answers.damaged.items()}


# Relative errors


def made_up(clean, seed, **error):
    """Answers on 400 images that are wrong so often: clean, and by corruption at severity 1 to 5."""
    draw = torch.Generator().manual_seed(seed)

    def right(wrong):
        return torch.rand(400, generator=draw) >= wrong

    return corruptions.Answers(
        right(clean), {name: torch.stack([right(one) for one in all]) for name, all in error.items()}
    )


OURS = made_up(0.1, 1, fog=(0.1, 0.15, 0.2, 0.3, 0.4), blur=(0.1, 0.1, 0.2, 0.2, 0.3))
THEIRS = made_up(0.2, 2, fog=(0.3, 0.4, 0.5, 0.5, 0.6), blur=(0.25, 0.3, 0.4, 0.5, 0.5))


def by_hand(ours, theirs, relative):
    """Sums over severities of counted errors, one divided by the other, and the mean of these."""
    ratios = {}
    for name in ours.damaged:
        above, below = (
            sum(400 - right.sum().item() - relative * (400 - one.clean.sum().item()) for right in one.damaged[name])
            for one in (ours, theirs)
        )
        ratios[name] = above / below
    return ratios, sum(ratios.values()) / len(ratios)


@pytest.mark.parametrize("relative", [False, True])
def test_corruption_errors_are_those_counted_by_hand_with_a_bootstrap_of_the_images(relative):
    found = corruptions.corruption_errors(OURS, THEIRS, relative)
    each, mean = by_hand(OURS, THEIRS, relative)
    assert {name: value[0] for name, value in found.by_name.items()} == pytest.approx(each, abs=1e-12)
    assert found.mean[0] == pytest.approx(mean, abs=1e-12)

    def of(chosen):
        def drawn(answers):
            return corruptions.Answers(answers.clean[chosen], {n: r[:, chosen] for n, r in answers.damaged.items()})

        return by_hand(drawn(OURS), drawn(THEIRS), relative)

    draw = np.random.default_rng(0)
    draws = [of(torch.from_numpy(draw.integers(0, 400, 400))) for _ in range(1000)]
    ends = np.quantile([one[1] for one in draws], [0.025, 0.975])
    assert found.mean[1:] == pytest.approx(ends, abs=1e-9)
    for name, (_, low, high) in found.by_name.items():
        ends = np.quantile([one[0][name] for one in draws], [0.025, 0.975])
        assert (low, high) == pytest.approx(ends, abs=1e-9)


def test_a_network_beside_itself_has_ratios_of_one():
    for relative in (False, True):
        found = corruptions.corruption_errors(OURS, OURS, relative)
        assert found.mean == (1.0, 1.0, 1.0)
        assert set(found.by_name.values()) == {(1.0, 1.0, 1.0)}


def test_a_baseline_that_loses_nothing_has_no_ratio_and_no_number_is_made_up():
    firm = made_up(0.2, 3, fog=(0.3,) * 5, blur=(0.2,) * 5)
    firm.damaged["blur"][:] = firm.clean
    found = corruptions.corruption_errors(OURS, firm, relative=True)
    assert np.isnan(found.by_name["blur"]).all()
    assert np.isfinite(found.by_name["fog"]).all()
    assert np.isnan(found.mean).all()
    plain = corruptions.corruption_errors(OURS, firm)
    assert "too little for a ratio" in say.say_relative(plain, found, "that one", 400)
    perfect = corruptions.Answers(firm.clean | True, {name: right | True for name, right in firm.damaged.items()})
    nothing = corruptions.corruption_errors(OURS, perfect)
    assert "too few" in say.say_relative(nothing, found, "that one", 400)
    figure = plots.corruption_ratios(nothing, found)
    assert len(style.svg(figure)) > 1000
    pyplot.close(figure)


def test_the_sentence_on_relative_errors_turns_with_them():
    less = corruptions.corruption_errors(OURS, THEIRS), corruptions.corruption_errors(OURS, THEIRS, relative=True)
    text = say.say_relative(*less, "the small one", 400)
    assert f"**{100 * less[0].mean[0]:.1f}% (" in text
    assert "of that of the small one on the same 400 images" in text
    assert "**loses less**" in text
    more = corruptions.corruption_errors(THEIRS, OURS), corruptions.corruption_errors(THEIRS, OURS, relative=True)
    assert "**loses more**" in say.say_relative(*more, "the large one", 400)
    same = corruptions.corruption_errors(OURS, OURS), corruptions.corruption_errors(OURS, OURS, relative=True)
    assert "**not told apart**" in say.say_relative(*same, "itself", 400)
    worst = max(less[1].by_name, key=lambda name: less[1].by_name[name][0])
    assert f"Weakest beside it is {worst}" in text
