"""Published weights on real images: the quoted accuracies, on a part of the test images."""

import numpy as np
import pytest
import torch

from vision.backbones import build_backbone
from vision.datasets import open_images, stratified_split
from vision.evaluate import evaluate
from vision.transforms import Pixels, load_pixels

PART = 0.2  # of the 2,000 JPEG test images
ALLOWED = 0.06  # three standard errors of an accuracy on 400 images


@pytest.mark.parametrize(
    ("name", "file", "quoted"),
    [
        ("resnet20", "resnet20_cifar10.th", 0.810),
        ("resnet56", "resnet56_cifar10.th", 0.832),
        ("vit_cifar10", "vit_cifar10_timm.pth", 0.559),
        ("vit_cifar10_postnorm", "vit_cifar10_postnorm.pth", 0.717),
    ],
)
def test_published_weights_reach_their_accuracy(shared_root, name, file, quoted):
    backbone = build_backbone(name, 10, checkpoint=shared_root / "weights" / file)
    assert backbone.new_parameters == ()
    images = open_images(str(shared_root / "data" / "vision" / "cifar10")).test
    part = images.take(stratified_split(images.labels, PART, seed=0)[1])
    model = backbone.model.to(memory_format=torch.channels_last)
    scores = evaluate(model, load_pixels(part, backbone.data), backbone.data, 10)
    assert scores.accuracy == pytest.approx(quoted, abs=ALLOWED)


def test_the_fashion_vit_reaches_its_accuracy_on_one_channel(shared_root):
    file = shared_root / "weights" / "vit_fashion_mnist_timm.pth"
    backbone = build_backbone("vit_fashion_mnist", 10, checkpoint=file)
    with np.load(shared_root / "data" / "vision" / "fashion_mnist_900.npz") as tiles:
        images = torch.from_numpy(tiles["images"]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(tiles["labels"]).long()
    pixels = Pixels(images[::3], labels[::3], ("",) * 300)
    assert evaluate(backbone.model, pixels, backbone.data, 10).accuracy == pytest.approx(0.928, abs=0.04)


def test_shots_of_the_real_target_are_balanced(shared_root):
    from vision.datasets import draw_shots

    images = open_images(str(shared_root / "data" / "vision" / "tiny_imagenet_10")).train
    assert torch.bincount(images.labels[draw_shots(images, 20, 0)]).tolist() == [20] * 10
