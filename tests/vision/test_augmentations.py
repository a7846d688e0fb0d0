"""The battery every augmentation passes, and what each one keeps: pixels, edges, classes by what is shown."""

import numpy as np
import pytest
import torch
from scipy import stats

import vision.augmentations  # noqa: F401  (registers them)
from shared_peft.errors import ConfigError, UnknownNameError
from vision.augmentation import AUGMENTATIONS, TrainingBatch, find_augmentation
from vision.augmentations.cutmix import Cutmix
from vision.augmentations.draws import draw_partners, draw_shares
from vision.augmentations.mixup import Mixup
from vision.augmentations.randaugment import RandAugment
from vision.backbones import DataConfig
from vision.transforms import Pixels, make_batches, normalise

EVERY = (*AUGMENTATIONS.names(), "light+mixup", "randaugment+cutmix")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def batch(values: torch.Tensor, classes: int = 5) -> TrainingBatch:
    return TrainingBatch(values, torch.arange(len(values)) % classes, classes)


def apply(preset: str, values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return find_augmentation(preset).apply(batch(values), seeded(seed)).values


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", EVERY)
def test_every_augmentation_keeps_form_and_books_and_depends_on_its_generator_alone(preset, channels):
    values = noise(12, channels, 16, 16)
    before, several = values.clone(), (noise(12, 5, seed=3) > 128).float()
    for targets in (torch.arange(12) % 5, several):
        given, augmentation = TrainingBatch(values, targets, 5), find_augmentation(preset)
        first = augmentation.apply(given, seeded(1))
        torch.manual_seed(99)
        global_state = torch.random.get_rng_state()
        again, other = augmentation.apply(given, seeded(1)), augmentation.apply(given, seeded(2))
        assert torch.equal(torch.random.get_rng_state(), global_state)
        assert torch.equal(values, before)
        assert torch.equal(first.values, again.values)
        assert torch.equal(first.targets, again.targets)
        assert (first.values.shape, first.values.dtype) == (values.shape, torch.uint8)
        assert torch.equal(first.values, other.values) == (preset == "none")
        shares = first.shares()
        assert (shares.shape, shares.dtype) == ((12, 5), torch.float32)
        assert shares.min() >= 0
        assert shares.max() <= 1
        if targets.dim() == 1:
            torch.testing.assert_close(shares.sum(1), torch.ones(12))


@pytest.mark.parametrize("preset", ["none", "shift", "mirror", "light", "randaugment"])
def test_what_mixes_no_images_leaves_the_labels_alone(preset):
    given = batch(noise(9, 3, 8, 8))
    assert find_augmentation(preset).apply(given, seeded()).targets is given.targets


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("preset", EVERY)
def test_tiny_images_and_single_ones_pass(preset, size):
    assert apply(preset, noise(1, 3, size, size)).shape == (1, 3, size, size)


def test_none_changes_nothing():
    values = noise(4, 3, 8, 8)
    assert torch.equal(apply("none", values), values)


def test_a_shift_moves_each_image_by_at_most_an_eighth():
    values = noise(64, 1, 16, 16)
    offsets = set()
    for before, after in zip(values[:, 0], apply("shift", values, 2)[:, 0], strict=True):
        padded = np.pad(before.numpy(), 2, mode="reflect")
        fits = [(y, x) for y in range(5) for x in range(5) if np.array_equal(after, padded[y : y + 16, x : x + 16])]
        assert len(fits) == 1
        offsets.update(fits)
    assert len(offsets) > 15


def test_mirror_turns_about_half_of_the_images_and_no_other_way():
    values = noise(400, 3, 6, 6)
    moved = apply("mirror", values)
    same = (moved == values).flatten(1).all(1)
    flipped = (moved == values.flip(3)).flatten(1).all(1)
    assert (same ^ flipped).all()
    assert stats.binomtest(int(flipped.sum()), 400).pvalue > 0.001


def test_light_is_shift_and_mirror_by_the_same_draws():
    values = noise(32, 3, 16, 16)
    assert torch.equal(apply("light", values, 5), apply("shift+mirror", values, 5))


class TestRandAugment:
    """Against torchvision's own transform, image by image."""

    def test_each_image_is_torchvisions_own_under_the_drawn_seed(self):
        from torchvision.transforms import v2

        values = noise(20, 3, 24, 24)
        found = apply("randaugment", values, 7)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=seeded(7))))
            expected = [v2.RandAugment(num_ops=2, magnitude=9)(image) for image in values]
        assert torch.equal(found, torch.stack(expected))

    def test_no_changes_change_nothing(self):
        values = noise(6, 3, 8, 8)
        assert torch.equal(RandAugment(changes=0).apply(batch(values), seeded()).values, values)


class TestMixing:
    """Images planted so that the share of each can be read off the pixels."""

    def test_mixup_shows_each_image_by_the_share_its_class_has(self):
        values = torch.zeros(8, 8, 4, 4, dtype=torch.uint8)
        values[torch.arange(8), torch.arange(8)] = 200  # image i is bright in channel i alone, and of class i
        mixed = Mixup(alpha=1.0).apply(TrainingBatch(values, torch.arange(8), 8), seeded(3))
        shown = mixed.values.double().mean((2, 3)) / 200
        assert (shown - mixed.targets).abs().max() <= 0.5 / 200 + 1e-6
        assert ((mixed.targets > 0).sum(1) == 2).all()

    def test_cutmix_shows_each_image_by_the_area_its_class_has(self):
        values = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 3, 16, 16).contiguous()
        mixed = Cutmix().apply(TrainingBatch(values, torch.arange(8), 8), seeded(3))
        shown = torch.stack([(mixed.values[:, 0] == label).double().mean((1, 2)) for label in range(8)], 1)
        torch.testing.assert_close(mixed.targets.double(), shown)
        for image, label in zip(mixed.values, range(8), strict=True):
            foreign = image[0] != label
            rows, columns = foreign.any(1), foreign.any(0)
            assert torch.equal(foreign, rows[:, None] & columns[None])  # one box
            assert all(
                int(edge.diff(prepend=torch.zeros(1)).clamp_min(0).sum()) <= 1 for edge in (rows.int(), columns.int())
            )

    def test_several_labels_are_mixed_like_single_ones(self):
        labels = (noise(10, 4) > 128).float()
        marked = TrainingBatch(noise(10, 4, 8, 8), labels, 4)
        for augmentation in (Mixup(), Cutmix()):
            mixed = augmentation.apply(marked, seeded(4)).targets
            single = augmentation.apply(TrainingBatch(marked.values, torch.arange(10), 10), seeded(4)).targets
            torch.testing.assert_close(mixed, single @ labels)

    def test_the_mean_image_of_a_batch_stays_where_all_shares_are_equal(self):
        values = noise(16, 3, 8, 8)
        blended = Mixup(alpha=1e6).apply(batch(values), seeded()).values  # Beta(1e6, 1e6) is 1/2 within 0.002
        assert (blended.double().mean(0) - values.double().mean(0)).abs().max() < 1.0

    def test_nobody_is_mixed_with_himself_and_everybody_once(self):
        for count in (2, 3, 10, 33):
            partners = draw_partners(count, seeded(count))
            assert sorted(partners.tolist()) == list(range(count))
            assert not (partners == torch.arange(count)).any()

    @pytest.mark.parametrize("alpha", [0.2, 1.0])
    def test_shares_follow_their_beta_distribution(self, alpha):
        drawn = draw_shares(4000, alpha, seeded(1)).numpy()
        assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01

    def test_boxes_have_their_share_of_the_area_where_they_lie_inside(self):
        from vision.augmentations.cutmix import _boxes

        own = torch.full((2000,), 0.75)  # a box of half the side
        area = _boxes(own, 32, seeded()).double().sum((1, 2))
        inside = [min(c + 8, 32) - max(c - 8, 0) for c in range(32)]  # along one side, by the box's centre
        assert set(area.int().tolist()) <= {a * b for a in inside for b in inside}
        assert area.max() == 256
        expected = np.mean(inside) ** 2
        assert abs(float(area.mean()) - expected) < 4 * float(area.std()) / 2000**0.5


class TestBatches:
    """Augmentations inside the batches a model is trained on."""

    def pixels(self, labels: torch.Tensor, classes: int = 0) -> Pixels:
        return Pixels(noise(len(labels), 3, 8, 8), labels, tuple(map(str, range(len(labels)))), classes=classes)

    def test_targets_are_labels_unless_images_are_mixed(self):
        data = DataConfig(8, (0.0,) * 3, (1.0,) * 3)
        pixels = self.pixels(torch.arange(12) % 3, classes=4)
        plain, mixed = (make_batches(pixels, data, 6, preset, 0)(1) for preset in ("light", "light+mixup"))
        assert (plain[1].dtype, plain[1].shape) == (torch.int64, (6,))
        assert (mixed[1].dtype, mixed[1].shape) == (torch.float32, (6, 4))
        assert not mixed[1][:, 3].any()

    def test_several_labels_come_as_they_are(self):
        data = DataConfig(8, (0.0,) * 3, (1.0,) * 3)
        pixels = self.pixels((noise(12, 3) > 128).float())
        inputs, targets = make_batches(pixels, data, 12, "none", 0)(0)
        given = {
            tuple(v): tuple(t)
            for v, t in zip(normalise(pixels.values, data).flatten(1).tolist(), pixels.labels.tolist(), strict=True)
        }
        assert {tuple(v): tuple(t) for v, t in zip(inputs.flatten(1).tolist(), targets.tolist(), strict=True)} == given

    def test_the_number_of_classes_is_the_data_sets_or_what_the_labels_show(self):
        assert self.pixels(torch.tensor([0, 2])).n_classes == 3
        assert self.pixels(torch.tensor([0, 2]), classes=7).n_classes == 7
        assert self.pixels(torch.zeros(2, 4)).n_classes == 4
        taken = self.pixels(torch.tensor([0, 2, 1]), classes=7).take(torch.tensor([2, 0]))
        assert (taken.labels.tolist(), taken.names, taken.n_classes) == ([1, 0], ("2", "0"), 7)
        assert torch.equal(taken.values, noise(3, 3, 8, 8)[[2, 0]])


def test_wrong_names_are_refused_with_the_right_ones():
    names = ", ".join(AUGMENTATIONS.names())
    with pytest.raises(UnknownNameError, match=f"augmentation: name must be one of {names}, got 'heavy'"):
        find_augmentation("light+heavy")
    with pytest.raises(ConfigError, match="--augment: must name each augmentation once, got 'mixup.mixup'"):
        find_augmentation("mixup+mixup")
