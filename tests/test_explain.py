"""Looking inside a network: the pictures and numbers are those that their definitions give."""

from dataclasses import replace

import pytest
import torch

from tpsnet_lib.analysis import explain
from tpsnet_lib.config import MEMBERS, ModelConfig
from tpsnet_lib.data.datasets import normalise
from tpsnet_lib.files import ConfigError
from tpsnet_lib.model import Block, build

SMALL = ModelConfig(blocks=(1, 2), channels=(4, 8), stem=4, pool=4)
IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network(config=SMALL):
    torch.manual_seed(0)
    model = build(config)
    for module in model.modules():  # running statistics that are not those of a fresh norm
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    return model.eval()


def test_on_the_last_map_grad_cam_is_the_classifiers_own_weighing():
    """With a mean pool and a linear head, Grad-CAM is CAM (Zhou et al. 2016): the head's weights over the channels."""
    model = network(replace(SMALL, pool=16))
    with torch.no_grad():
        maps = model.feature_maps(normalise(IMAGES))
    classes = torch.tensor([0, 1, 2, 3, 4, 5])
    cam = torch.einsum("nc,nchw->nhw", model.head.weight[classes], maps).relu().detach()
    cam = torch.nn.functional.interpolate(cam[:, None], (32, 32), mode="bilinear")[:, 0]
    cam = cam / cam.amax((1, 2), keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(explain.grad_cam(model, IMAGES, classes), cam, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("block", ["basic", "preact"])
@pytest.mark.parametrize("layer", [None, "stem", "layers.0", "layers.1.1", "layers.1.0.conv2"])
def test_grad_cam_works_on_any_layer_and_stays_within_0_and_1(block, layer):
    heat = explain.grad_cam(network(replace(SMALL, block=block)), IMAGES, layer=layer)
    assert heat.shape == (6, 32, 32)
    assert not heat.requires_grad
    assert heat.min() >= 0
    assert heat.max() <= 1


@pytest.mark.parametrize("layer", ["layers.9", "nothing", "head"])
def test_a_layer_that_is_not_there_or_gives_no_maps_is_named(layer):
    with pytest.raises(ConfigError, match=layer):
        explain.grad_cam(network(), IMAGES, layer=layer)


def test_features_are_the_models_own_in_any_batch(monkeypatch):
    model = network()
    with torch.no_grad():
        expected = model.features(normalise(IMAGES))
    monkeypatch.setattr(explain, "BATCH", 4)
    torch.testing.assert_close(explain.features(model, IMAGES), expected, atol=1e-5, rtol=1e-5)


def test_no_image_is_no_picture_and_no_point():
    model = network()
    assert explain.features(model, IMAGES[:0]).shape == (0, 8)
    assert explain.grad_cam(model, IMAGES[:0]).shape == (0, 32, 32)


def test_looking_leaves_the_network_as_it_was():
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explain.grad_cam(model, IMAGES)
    explain.features(model, IMAGES)
    explain.block_norms(model, IMAGES)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pca_agrees_with_scikit_learn():
    from sklearn.decomposition import PCA

    points = torch.randn(40, 7, generator=torch.Generator().manual_seed(1)).double() * torch.arange(1, 8)
    placed, shares = explain.pca(points, 3)
    theirs = PCA(3).fit(points.numpy())
    torch.testing.assert_close(shares, torch.from_numpy(theirs.explained_variance_ratio_).float())
    torch.testing.assert_close(placed.abs(), torch.from_numpy(theirs.transform(points.numpy())).abs().float())


def test_tsne_gives_the_same_picture_twice_and_keeps_groups_apart():
    groups = torch.arange(60) % 3
    points = torch.randn(60, 12, generator=torch.Generator().manual_seed(2)) + 20 * groups[:, None]
    placed = explain.tsne(points)
    assert placed.shape == (60, 2)
    torch.testing.assert_close(placed, explain.tsne(points))
    assert explain.neighbour_agreement(points + torch.randn(60, 12), torch.zeros(60, dtype=torch.int64)) == 1.0


def test_neighbours_agree_fully_in_clusters_and_not_at_all_in_opposites():
    points = torch.eye(4).repeat_interleave(5, 0) + 0.01 * torch.rand(20, 4)
    labels = torch.arange(4).repeat_interleave(5)
    assert explain.neighbour_agreement(points, labels, k=4) == 1.0
    assert explain.neighbour_agreement(points, torch.arange(20), k=4) == 0.0


def test_nearest_finds_an_image_itself_first():
    bank = torch.randn(30, 5, generator=torch.Generator().manual_seed(3))
    cosine, positions = explain.nearest(3 * bank[[4, 9]], bank, k=3)
    assert positions[:, 0].tolist() == [4, 9]
    torch.testing.assert_close(cosine[:, 0], torch.ones(2))
    assert (cosine.diff(dim=1) <= 0).all()
    assert explain.nearest(bank[:2], bank[:2], k=4)[1].shape == (2, 2)


@pytest.mark.parametrize("block", ["basic", "preact"])
def test_what_the_skip_and_the_branch_carry_sums_to_what_the_block_gives(block):
    """On one image at a time: the norms are those of the two summands, taken from the block's own modules."""
    model = network(replace(SMALL, block=block, blocks=(1, 1)))
    norms = explain.block_norms(model, IMAGES)
    assert [(norm.name, norm.layer, norm.position, norm.projects) for norm in norms] == [
        ("layers.0.0", 1, 1, False),
        ("layers.1.0", 2, 1, True),
    ]
    first = model.layers[0][0]
    assert isinstance(first, Block)
    with torch.no_grad():
        x = model.stem(normalise(IMAGES))
        torch.testing.assert_close(norms[0].skip, x.square().mean((1, 2, 3)).sqrt(), atol=1e-5, rtol=1e-4)
        if block == "preact":
            torch.testing.assert_close(norms[0].branch, (first(x) - x).square().mean((1, 2, 3)).sqrt())
    assert all(((norm.share > 0) & (norm.share < 1)).all() for norm in norms)


def test_a_plain_network_carries_nothing_on_skips():
    norms = explain.block_norms(network(replace(SMALL, residual=False)), IMAGES)
    assert all(norm.skip.isnan().all() and not norm.branch.isnan().any() for norm in norms)


@pytest.mark.parametrize("member", ["classroom", "sprint"])
def test_first_filters_are_pictures(member):
    config = MEMBERS[member]
    kernels = explain.first_filters(network(config))
    assert kernels.shape[:2] == (config.stem, 3)
    assert kernels.min() >= 0
    assert kernels.max() <= 1


def test_affordable_never_asks_for_more_than_wanted_or_there_and_never_for_less_than_100():
    model, many = network(), IMAGES.repeat(50, 1, 1, 1)
    assert explain.affordable(model, many, 200, 10, seconds=0, precision="fp32") == 200
    assert explain.affordable(model, many, 200, 10, seconds=1e6, precision="fp32") == 200
    assert explain.affordable(model, many, 200, 10, seconds=1e-9, precision="fp32") == 100
    assert explain.affordable(model, IMAGES, 200, 10, seconds=0, precision="fp32") == 6
