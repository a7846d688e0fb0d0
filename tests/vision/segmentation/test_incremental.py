"""New classes from image-level labels: pooling, seeds, exclusivity, refinement, widening and the step itself."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from vision.backbones.family import BackboneSpec
from vision.segmentation.datasets.shapes import shapes_of
from vision.segmentation.fit import SegmentSettings, start
from vision.segmentation.incremental.fit import StepRules, fit_new_classes
from vision.segmentation.incremental.localizer import BACKGROUND_SCORE, Localizer, localizer_loss, pooled_scores
from vision.segmentation.incremental.pseudo_masks import exclusive, seeds
from vision.segmentation.incremental.refine import DILATIONS, ROUNDS, refine
from vision.segmentation.incremental.widen import widen
from vision.segmentation.masked import load_masked
from vision.segmentation.model import build_segmenter


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_pooled_scores_are_the_formula_written_out():
    scores = torch.randn(2, 3, 4, 5, generator=generator(), dtype=torch.float64)
    found = pooled_scores(scores)
    for image, label in np.ndindex(2, 3):
        weights, total = [], 0.0
        for row, column in np.ndindex(4, 5):
            here = scores[image, :, row, column].exp()
            weights.append(float(here[label] / here.sum()))
            total += weights[-1] * float(scores[image, label, row, column])
        covered = sum(weights) / 20
        expected = total / (1 + sum(weights)) + (1 - covered) ** 12 * math.log(0.01 + covered)
        assert float(found[image, label]) == pytest.approx(expected, abs=1e-9)


def test_the_localiser_learns_new_classes_from_labels_and_old_ones_from_the_old_model():
    old = torch.rand(2, 3, 4, 4, generator=generator())
    scores = torch.randn(2, 5, 4, 4, generator=generator())
    labels = (torch.tensor([[1.0, 0.0]] * 2), torch.ones(2, 2))
    by_label = [localizer_loss(scores, presence, old) for presence in labels]
    pooled = pooled_scores(scores)[:, 4]
    expected = -(torch.nn.functional.logsigmoid(pooled) - torch.nn.functional.logsigmoid(-pooled)).mean() / 2
    assert float(by_label[1] - by_label[0]) == pytest.approx(float(expected), abs=1e-5)
    scores.requires_grad_()
    localizer_loss(scores, labels[0], old).backward()
    with torch.no_grad():
        without = scores.detach().clone().requires_grad_()
    torch.nn.functional.binary_cross_entropy_with_logits(pooled_scores(without)[:, 3:], labels[0]).backward()
    assert scores.grad is not None
    assert without.grad is not None
    expected = (scores.detach()[:, 1:3].sigmoid() - old[:, 1:]) / (2 * 2 * 16)
    assert torch.allclose((scores.grad - without.grad)[:, 1:3], expected, atol=1e-6)
    assert torch.allclose(scores.grad[:, [0, 3, 4]], without.grad[:, [0, 3, 4]], atol=1e-6)


def test_the_localiser_scores_the_background_by_a_constant():
    scores = Localizer(16, 5)(torch.randn(2, 16, 4, 4, generator=generator()))
    assert scores.shape == (2, 5, 4, 4)
    assert (scores[:, 0] == BACKGROUND_SCORE).all()
    assert scores[:, 1:].std() > 0


def test_seeds_are_half_hard_half_soft_and_only_of_classes_the_image_shows():
    maps = torch.tensor([0.1, 0.2, 0.3, 0.4])[None, :, None, None]  # background, one old, two new classes
    assert seeds(maps, torch.tensor([[1.0, 1.0]])).flatten().tolist() == pytest.approx([0.15, 0.7])
    only_first = seeds(maps, torch.tensor([[1.0, 0.0]])).flatten().tolist()
    assert only_first == pytest.approx([0.5 + 0.5 * 0.3 / 0.6, 0.0])
    assert seeds(maps, torch.tensor([[0.0, 0.0]])).abs().max() == 0


def test_old_and_new_classes_exclude_each_other():
    old = torch.tensor([[0.05, 0.9, 0.05], [0.9, 0.06, 0.04], [0.4, 0.5, 0.1]]).T[None, :, None]
    claims = torch.tensor([[0.8, 0.1], [1.0, 0.0], [0.3, 0.2]]).T[None, :, None]
    target = exclusive(old, claims, sure=0.7)[0, :, 0].T
    assert target[0].tolist() == pytest.approx([0.05, 0.9, 0.05, 0.0, 0.0])  # the old model is sure: no new class
    assert target[1].tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0, 0.0])  # the seed is sure: no old class
    assert target[2].tolist() == pytest.approx([0.2, 0.25, 0.05, 0.3, 0.2])  # neither: the claim, and the rest
    sums = exclusive(torch.rand(2, 3, 6, 6).softmax(1), torch.rand(2, 2, 6, 6) / 2, sure=0.4).sum(1)
    assert torch.allclose(sums, torch.ones_like(sums))
    assert exclusive(old, claims, sure=2.0)[0, 3, 0, 0] == pytest.approx(0.8)


def test_refinement_is_the_mean_of_neighbours_that_look_alike():
    maps = torch.rand(1, 2, 6, 7, generator=generator(), dtype=torch.float64).softmax(dim=1)
    image = torch.rand(1, 3, 6, 7, generator=generator(), dtype=torch.float64)
    expected = maps[0].numpy()
    offsets = [
        (far * down, far * across) for far in DILATIONS for down, across in itertools.product((-1, 0, 1), repeat=2)
    ]
    offsets = [offset for offset in offsets if offset != (0, 0)]
    for _ in range(ROUNDS):
        following = np.zeros_like(expected)
        for row, column in np.ndindex(6, 7):
            places = [(np.clip(row + down, 0, 5), np.clip(column + across, 0, 6)) for down, across in offsets]
            around = np.array([image[0, :, r, c].numpy() for r, c in places])
            away = np.abs(around - image[0, :, row, column].numpy()) / (0.1 * around.std(axis=0, ddof=1) + 1e-8)
            weights = np.exp(-away.mean(axis=1))
            weights /= weights.sum()
            following[:, row, column] = sum(w * expected[:, r, c] for w, (r, c) in zip(weights, places, strict=True))
        expected = following
    refined = refine(maps, image)[0]
    assert np.allclose(refined.numpy(), expected, atol=1e-9)
    assert torch.allclose(refined.sum(0), torch.ones(6, 7, dtype=torch.float64))


def test_a_map_grows_to_the_edge_of_what_it_lies_on_and_not_beyond():
    image = torch.zeros(1, 3, 12, 12)
    image[..., 6:] = 1
    maps = torch.zeros(1, 1, 12, 12)
    maps[..., 2:10, 2:4] = 1
    refined = refine(maps, image + 0.01 * torch.rand(image.shape, generator=generator()))
    assert refined[..., 4:8, 5].mean() > 0.05
    assert refined[..., 6:].max() < 0.01


def segmenter(classes: int, name: str = "test_resnet"):
    return build_segmenter(BackboneSpec(name, classes, 32), seed=1)


def test_a_widened_model_keeps_old_probabilities_and_shares_the_background_with_new_classes():
    old = segmenter(4)
    wide = widen(old, 2)
    x = torch.randn(2, 3, 32, 32, generator=generator())
    before, after = old.model(x).softmax(dim=1), wide.model(x).softmax(dim=1)
    assert torch.allclose(after[:, 1:4], before[:, 1:], atol=1e-6)
    for label in (0, 4, 5):
        assert torch.allclose(after[:, label], before[:, 0] / 3, atol=1e-6)
    next(wide.model.parameters()).data.add_(1)
    assert torch.equal(old.model(x).softmax(dim=1), before)


def step(rules: StepRules | None = None, method: str = "full", presence: float | None = None, epochs: int = 6):
    """Return (old model, new model, pixels) after a short step on a few shapes."""
    pixels = load_masked(shapes_of(16, 1, 32, 0).train, 32)
    old = segmenter(3)
    settings = SegmentSettings(method=method, epochs=epochs, batch_size=8)
    wide = widen(old, 2)
    trainee = start(wide, settings, 16)
    labels = pixels.presence(["ring", "star"]) if presence is None else torch.full((16, 2), presence)
    before = copy.deepcopy(old.model)
    fit_new_classes(trainee, before, pixels.values, labels, wide.data, settings, rules=rules)
    assert all(
        torch.equal(a, b) for a, b in zip(old.model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    return old, trainee.model, (pixels.values[:4].float() / 255 - 0.5) / 0.5


def test_without_labels_a_step_changes_old_predictions_less_than_naive_fine_tuning_does():
    moved = {}
    for name, rules in (("kept", StepRules()), ("naive", StepRules(distil=False, sure=2.0))):
        old, model, x = step(rules, "probe", presence=0.0, epochs=20)
        with torch.no_grad():
            before, after = old.model(x).softmax(dim=1), model(x).softmax(dim=1)
        moved[name] = float((after[:, 1:3] - before[:, 1:]).abs().mean())
        assert after[:, 3:].mean() < before[:, 0].mean() / 3  # less than where it began: no image shows a new class
    assert moved["kept"] < moved["naive"] / 2


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.filterwarnings("ignore:ranks lowered")
def test_a_step_is_the_same_for_the_same_seed(method):
    first, again = (step(method=method, epochs=2)[1].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
