"""Shots and splits of images that may have several classes: planted labels, counts by hand, scikit-learn beside it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers

from shared_peft.errors import DataError
from vision.datasets import LabelledImages, draw_shots, positives, stratified_folds, stratified_split
from vision.datasets.sampling import set_aside


def planted(rows: int, rates: tuple[float, ...], seed: int = 0) -> LabelledImages:
    """Images whose classes occur with ``rates``, each class at least once."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(rows, len(rates), generator=generator) < torch.tensor(rates)).float()
    labels[torch.arange(len(rates)), torch.arange(len(rates))] = 1
    classes = tuple(f"c{label}" for label in range(len(rates)))
    return LabelledImages(tuple(map(str, range(rows))), labels, classes, lambda row: torch.zeros(1, 2, 2))


class TestShots:
    """k images of every class."""

    @settings(max_examples=40, deadline=None)
    @given(shots=integers(1, 12), seed=integers(0, 1000))
    def test_every_class_gets_its_shots_or_all_it_has(self, shots, seed):
        images = planted(80, (0.02, 0.1, 0.4, 0.7), seed)
        rows = draw_shots(images, shots, seed)
        assert rows.tolist() == sorted(set(rows.tolist()))
        for label in range(4):
            has = images.labels[:, label]
            assert has[rows].sum() >= min(shots, has.sum())
        assert len(rows) <= 4 * shots

    def test_no_image_could_be_left_out_of_a_draw_without_need(self):
        images = planted(200, (0.05, 0.3), 1)
        rows = draw_shots(images, 5, seed=0)
        rare, frequent = images.labels[rows].sum(0).tolist()
        alone = (images.labels[rows] == torch.tensor([0.0, 1.0])).all(1).sum()
        assert rare == 5
        assert frequent == max(5, frequent - alone)  # the frequent class drew only what the rare one had not brought

    def test_the_seed_draws(self):
        images = planted(80, (0.2, 0.5))
        assert torch.equal(draw_shots(images, 4, 1), draw_shots(images, 4, 1))
        assert not torch.equal(draw_shots(images, 4, 1), draw_shots(images, 4, 2))

    def test_unreadable_images_are_replaced(self):
        images = planted(80, (0.2, 0.5))
        usual = draw_shots(images, 4, 1)
        rows = draw_shots(images, 4, 1, readable=lambda row: row != int(usual[0]))
        assert int(usual[0]) not in rows
        assert (images.labels[rows].sum(0) >= 4).all()

    def test_zero_shots_take_everything_with_or_without_a_class(self):
        images = planted(30, (0.2, 0.2))
        assert draw_shots(images, 0, 0).tolist() == list(range(30))

    def test_a_class_without_images_is_refused(self):
        images = planted(30, (0.2, 0.2))
        images.labels[:, 1] = 0
        with pytest.raises(DataError, match="class 'c1': must hold at least 1 readable images to train on, got 0"):
            draw_shots(images, 3, 0)


class TestSplits:
    """Folds and sides."""

    def test_one_class_an_image_is_dealt_as_evenly_as_scikit_learn_does(self):
        from sklearn.model_selection import StratifiedKFold

        single = torch.tensor([0] * 23 + [1] * 11 + [2] * 6)
        marked = torch.nn.functional.one_hot(single).float()
        folds = stratified_folds(marked, 4, seed=0)
        counts = torch.stack([torch.bincount(single[folds == fold], minlength=3) for fold in range(4)])
        sides = StratifiedKFold(4).split(torch.zeros(40, 1), single)
        reference = torch.stack([torch.bincount(single[torch.from_numpy(test)], minlength=3) for _, test in sides])
        assert torch.equal(counts.max(0).values, reference.max(0).values)
        assert torch.equal(counts.min(0).values, reference.min(0).values)

    @settings(max_examples=25, deadline=None)
    @given(seed=integers(0, 1000), folds=integers(2, 6))
    def test_the_rarest_class_is_dealt_evenly_and_sizes_are_even(self, seed, folds):
        images = planted(120, (0.06, 0.2, 0.5), seed)
        fold_of = stratified_folds(images.labels, folds, seed)
        assert torch.equal(fold_of, stratified_folds(images.labels, folds, seed))
        rarest = int(images.labels.sum(0).argmin())
        counts = torch.bincount(fold_of[positives(images.labels, rarest)], minlength=folds)
        assert counts.max() - counts.min() <= 1
        sizes = torch.bincount(fold_of, minlength=folds)
        assert sizes.sum() == 120
        assert sizes.max() - sizes.min() <= 0.15 * 120

    def test_classes_are_kept_closer_to_their_share_than_by_chance(self):
        images = planted(150, (0.03, 0.05, 0.1, 0.3), 3)

        def uneven(fold_of: torch.Tensor) -> float:
            counts = torch.stack([images.labels[fold_of == fold].sum(0) for fold in range(5)])
            return float((counts - counts.mean(0)).abs().mean())

        generator = torch.Generator().manual_seed(0)
        by_chance = [uneven(torch.arange(150)[torch.randperm(150, generator=generator)] % 5) for _ in range(200)]
        assert uneven(stratified_folds(images.labels, 5, 0)) < min(by_chance)

    def test_a_split_keeps_every_class_on_both_sides(self):
        images = planted(100, (0.05, 0.2, 0.5))
        first, second = stratified_split(images.labels, 0.2, seed=0)
        assert sorted([*first.tolist(), *second.tolist()]) == list(range(100))
        share = images.labels[second].sum(0) / images.labels.sum(0)
        assert ((share - 0.2).abs() * images.labels.sum(0) <= 1.5).all()

    def test_a_class_of_one_image_cannot_be_split(self):
        images = planted(30, (0.0, 0.5))
        with pytest.raises(DataError, match="toys, class 'c0': must hold at least 2 images to be split, got 1"):
            set_aside("toys", images)
