"""Masks and what is done to them: data sets, augmentation, losses, scores, pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from shared_peft.errors import DataError, UnknownNameError
from vision.segmentation.augment import PAIR_AUGMENTATIONS, augment_pair
from vision.segmentation.datasets import open_masked
from vision.segmentation.datasets.folder import read_mask
from vision.segmentation.datasets.shapes import CLASSES, draw_shapes, shapes_of
from vision.segmentation.losses import dice_loss, mask_loss
from vision.segmentation.masked import keep_classes, load_masked
from vision.segmentation.overlay import overlay, palette, write_mask
from vision.segmentation.scores import score_masks


def write_pairs(root, sides=("train", "test"), count=3, size=(20, 16)):
    """Write images and palette masks of three classes and ignored pixels; return the masks of the first side."""
    generator, kept = np.random.default_rng(0), []
    for side in sides:
        for index in range(count):
            mask = generator.choice(np.array([0, 1, 2, 255], np.uint8), size)
            for folder, pixels in (
                ("images", generator.integers(0, 256, (*size, 3)).astype(np.uint8)),
                ("masks", mask),
            ):
                path = root / side / folder / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if folder == "masks":
                    write_mask(path, torch.from_numpy(pixels))
                else:
                    Image.fromarray(pixels).save(path)
            kept.append(mask)
    return kept[:count]


def read_both_sides(root):
    data = open_masked(str(root))
    return load_masked(data.train, 16), load_masked(data.test, 16)


def test_shapes_come_from_their_seed_and_masks_say_where_they_are():
    first, again = (draw_shapes(64, np.random.default_rng(5)) for _ in range(2))
    other = draw_shapes(64, np.random.default_rng(6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    data = shapes_of(40, 5, 64, 0)
    found = set()
    for row in range(40):
        found |= set(data.train.read(row)[1].unique().tolist())
    assert found == set(range(len(CLASSES)))
    assert not torch.equal(data.train.read(0)[0], data.test.read(0)[0])


def test_a_pixel_of_a_shape_has_the_colour_of_its_class_more_than_of_any_other():
    hues = {label: [] for label in range(1, len(CLASSES))}
    for seed in range(60):
        image, mask = draw_shapes(48, np.random.default_rng(seed))
        for label in np.unique(mask[mask > 0]):
            red, green, blue = image[:, mask == label].mean(axis=1)
            hues[label].append(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi) % 1)
    for label, values in hues.items():
        away = np.abs((np.array(values) - (label - 1) / 6 + 0.5) % 1 - 0.5)
        assert np.median(away) < 1 / 12
        assert away.max() > 1 / 12  # neighbours overlap


def test_a_folder_of_palette_masks_reads_back_to_the_indices_written(tmp_path):
    masks = write_pairs(tmp_path / "pairs")
    data = open_masked(str(tmp_path / "pairs"))
    assert data.classes == ("background", "class_1", "class_2")
    assert (len(data.train), len(data.test)) == (3, 3)
    for row, mask in enumerate(masks):
        image, read = data.train.read(row)
        assert np.array_equal(read.numpy(), mask)
        assert image.shape == (3, 20, 16)
    (tmp_path / "pairs" / "classes.txt").write_text("nothing\ncat\ndog\n")
    assert open_masked(str(tmp_path / "pairs")).classes == ("nothing", "cat", "dog")


def test_kept_classes_are_renumbered_and_the_others_become_background(tmp_path):
    masks = write_pairs(tmp_path / "pairs")
    kept = open_masked(str(tmp_path / "pairs"), ("class_2",))
    expected = np.select([masks[0] == 2, masks[0] == 255], [1, 255], 0)
    assert np.array_equal(kept.train.read(0)[1].numpy(), expected)
    assert kept.classes == ("background", "class_2")
    pixels = load_masked(kept.train, 16)
    assert torch.equal(pixels.presence(["class_2"])[:, 0], (pixels.masks == 1).flatten(1).any(1).float())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "train" / "masks" / "1.png").unlink(), "must have a mask 1.png"),
        (lambda root: (root / "train" / "masks" / "0.png").write_bytes(b"no"), "must be a mask Pillow can read"),
        (lambda root: Image.new("RGB", (16, 20)).save(root / "train" / "masks" / "0.png"), "one index a pixel"),
        (lambda root: Image.new("L", (9, 9)).save(root / "test" / "masks" / "0.png"), "height and width of its image"),
        (lambda root: Image.new("L", (16, 20), 3).save(root / "test" / "masks" / "0.png"), "must be below 3"),
        (lambda root: (root / "classes.txt").write_text("a\na\n"), "different names"),
    ],
)
def test_broken_pairs_are_named(tmp_path, spoil, message):
    write_pairs(tmp_path / "pairs")
    spoil(tmp_path / "pairs")
    with pytest.raises(DataError, match=message):
        read_both_sides(tmp_path / "pairs")


def test_a_missing_folder_and_an_unknown_class_are_named(tmp_path):
    with pytest.raises(DataError, match="must be a folder with train/images"):
        open_masked(str(tmp_path))
    with pytest.raises(DataError, match="different ones of circle, square"):
        keep_classes(shapes_of(1, 1, 16, 0), ["circle", "heart"])
    with pytest.raises(DataError, match="no such file"):
        read_mask(tmp_path / "x.png", 3)


@pytest.mark.parametrize("preset", PAIR_AUGMENTATIONS.names())
def test_image_and_mask_move_together_pixel_by_pixel(preset):
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 256, (16, 24, 24), generator=generator, dtype=torch.uint8)
    images = torch.stack([masks, 255 - masks, masks // 2], dim=1)
    moved, taken = augment_pair(images, masks, preset, generator)
    assert torch.equal(moved, torch.stack([taken, 255 - taken, taken // 2], dim=1))
    changed = [not torch.equal(a, b) for a, b in zip(masks, taken, strict=True)]
    assert any(changed) == (preset != "none")
    if preset == "flip":
        assert 0 < sum(changed) < 16
        assert all(torch.equal(b, a.flip(1)) for a, b, flag in zip(masks, taken, changed, strict=True) if flag)


def test_crops_stay_inside_and_reach_every_border():
    generator = torch.Generator().manual_seed(0)
    rows, columns = PAIR_AUGMENTATIONS.get("crop")(4_000, 20, generator)
    for places in (rows, columns):
        spans = places.amax(1) - places.amin(1) + 1
        assert (places.min(), places.max()) == (0, 19)
        assert (spans.min(), spans.max()) == (12, 20)
    assert torch.equal(rows.sort(1).values, rows)


def test_an_unknown_augmentation_is_named():
    with pytest.raises(UnknownNameError, match="one of crop, flip, none, got 'cutmix'"):
        augment_pair(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4), "cutmix", torch.Generator())


def test_scores_agree_with_scikit_learn_and_leave_ignored_pixels_out():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 4, (3, 9, 9), generator=generator)  # class 4 occurs in neither
    answer = torch.randint(0, 4, (3, 9, 9), generator=generator)
    ignored = torch.rand(3, 9, 9, generator=generator) < 0.2
    scores = score_masks(answer, truth.masked_fill(ignored, 255), 5)
    flat_truth, flat_answer = truth[~ignored].numpy(), answer[~ignored].numpy()
    expected = jaccard_score(flat_truth, flat_answer, average=None, labels=range(4))
    assert scores.per_class_iou[:4] == pytest.approx(expected.tolist(), abs=1e-12)
    assert scores.per_class_iou[4] is None
    assert scores.miou == pytest.approx(expected.mean(), abs=1e-12)
    assert scores.mean_of(range(1, 3)) == pytest.approx(expected[1:3].mean(), abs=1e-12)
    assert scores.confusion == confusion_matrix(flat_truth, flat_answer, labels=range(5)).tolist()
    assert scores.pixel_accuracy == (flat_truth == flat_answer).mean()
    with pytest.raises(DataError, match="a pixel with a known class"):
        score_masks(truth, torch.full_like(truth, 255), 5)


def test_the_loss_is_the_brute_force_formula_over_known_pixels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64)
    masks = torch.randint(0, 2, (2, 5, 5), generator=generator)
    masks[0, :2] = 255
    entropy, overlap, sizes, count = 0.0, [0.0] * 3, [0.0] * 3, 0
    for image, row, column in np.ndindex(2, 5, 5):
        label = int(masks[image, row, column])
        if label == 255:
            continue
        share = logits[image, :, row, column].exp() / logits[image, :, row, column].exp().sum()
        entropy, count = entropy - float(share[label].log()), count + 1
        for index in range(3):
            truth = float(index == label)
            overlap[index] += 2 * truth * float(share[index])
            sizes[index] += truth + float(share[index]) ** 2
    dice = 1 - sum(overlap[index] / sizes[index] for index in range(2)) / 2  # class 2 is in no mask
    assert float(dice_loss(logits, masks)) == pytest.approx(dice, abs=1e-9)
    assert float(mask_loss(logits, masks, 0.7)) == pytest.approx(entropy / count + 0.7 * dice, abs=1e-9)


def test_a_batch_that_says_nothing_has_a_loss_without_gradient_instead_of_nan():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = mask_loss(logits, torch.full((1, 4, 4), 255), 0.5)
    loss.backward()
    assert loss.item() == 0.5  # no class is there, so nothing overlaps
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_the_palette_is_that_of_pascal_voc_and_the_overlay_leaves_the_background_alone():
    assert palette(22)[[1, 5, 15, 20, 21]].tolist() == [
        [128, 0, 0],
        [128, 0, 128],
        [192, 128, 128],
        [0, 64, 128],
        [128, 64, 128],
    ]
    image = torch.tensor([50, 100, 150], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    mixed = overlay(image, torch.tensor([[0, 1], [0, 0]], dtype=torch.uint8))
    assert mixed[0, 0].tolist() == [50, 100, 150]
    assert mixed[0, 1].tolist() == [120, 30, 30]  # 0.3 * the grey of 100 + 0.7 * (128, 0, 0)
