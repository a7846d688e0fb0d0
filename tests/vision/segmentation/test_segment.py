"""A segmenter from data to a run folder and back: what is trained, written, resumed, exported and refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from shared_peft.command import run_commands
from shared_peft.errors import CheckpointError, ConfigError, RunError, UnknownNameError
from shared_peft.weights import read_tensors, write_tensors
from vision.backbones.family import BackboneSpec
from vision.commands import COMMANDS
from vision.segmentation import fit as fit_module
from vision.segmentation.config import SegmentConfig
from vision.segmentation.datasets import shapes
from vision.segmentation.masked import SEGMENTATION_DATASETS
from vision.segmentation.model import build_segmenter
from vision.segmentation.predict import evaluate_masks, mask_of
from vision.segmentation.segment import segment
from vision.segmentation.trained import load_segment_run, plain_segmenter, read_segmenter

pytestmark = pytest.mark.filterwarnings("ignore:ranks lowered", "ignore:.* runs beside dense layers only")
BACKBONES = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit")


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch):
    """The built-in shapes, in small numbers."""
    monkeypatch.setattr(shapes, "TRAIN_IMAGES", 16)
    monkeypatch.setattr(shapes, "TEST_IMAGES", 6)


@pytest.fixture(scope="module")
def base_run(tmp_path_factory):
    """A segmenter trained for a moment on two shapes."""
    out = tmp_path_factory.mktemp("runs") / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "TRAIN_IMAGES", 16)
        patch.setattr(shapes, "TEST_IMAGES", 6)
        segment(config(out, classes=("circle", "square"), epochs=3))
    return out


def config(out, **changes) -> SegmentConfig:
    return SegmentConfig("shapes", out, **{"image_size": 32, "epochs": 2, "batch_size": 8, **changes})


def call(*words: object) -> int:
    return run_commands("vision", COMMANDS, [str(word) for word in words])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_logits_have_the_size_of_the_image_and_export_answers_like_eager(name):
    backbone = build_segmenter(BackboneSpec(f"timm/{name}", 5, 64))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        eager = backbone.model(x)
        exported = torch.export.export(backbone.model, (x,)).module()(x)
    assert eager.shape == (2, 5, 64, 64)
    assert torch.allclose(eager, exported, atol=1e-5)
    assert backbone.data.size == 64


@pytest.mark.parametrize("name", BACKBONES)
def test_the_backbone_takes_the_weights_of_timms_classifier_by_whatever_names(name, tmp_path):
    import timm

    sized = {"img_size": 64} if name == "test_vit" else {}
    torch.manual_seed(3)
    classifier = timm.create_model(name, num_classes=7, **sized).eval()
    write_tensors(tmp_path / "weights.safetensors", classifier.state_dict())
    features: torch.nn.Module = build_segmenter(
        BackboneSpec(name, 5, 64), checkpoint=tmp_path / "weights.safetensors"
    ).model.features  # type: ignore[assignment]
    reference = timm.create_model(name, features_only=True, **sized).eval()
    flat = {key.replace(".", "_"): value for key, value in classifier.state_dict().items()}
    names = {key: key.removeprefix("model.").replace(".", "_") for key in reference.state_dict()}
    reference.load_state_dict({key: flat[value] for key, value in names.items()})
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(features(x), reference(x), strict=True))


@pytest.mark.parametrize("method", ["full", "flora"])
def test_a_run_reads_back_to_the_model_that_was_scored(base_run, tmp_path, method):
    result = segment(config(tmp_path / "run", method=method, checkpoint=base_run, epochs=1)).results
    trained = load_segment_run(tmp_path / "run")
    classes, scores = evaluate_masks(tmp_path / "run", "shapes")
    assert scores.confusion == result["confusion"]
    assert scores.miou == result["miou"] == trained.scores["miou"]
    assert classes == trained.classes == shapes.CLASSES
    assert trained.model(trained.examples).shape == (6, 7, 32, 32)
    assert trained.input_shape == (3, 32, 32)
    before, after = (read_tensors(path / "model.safetensors") for path in (base_run, tmp_path / "run"))
    same = all(torch.equal(before[key], after[key]) for key in before if key.startswith("features."))
    assert same == (method != "full")
    assert not torch.equal(before["neck.fuse.2.weight"], after["neck.fuse.2.weight"])
    assert (tmp_path / "run" / "adapter").is_dir() == (method == "flora")
    with Image.open(tmp_path / "run" / "examples.png") as sheet:
        assert sheet.size[0] > sheet.size[1] > 300
    model = plain_segmenter(tmp_path / "run")[1].model
    assert torch.allclose(model(trained.examples), trained.model(trained.examples), atol=1e-4)


@pytest.mark.parametrize("incremental", [False, True])
def test_an_interrupted_run_ends_in_the_weights_of_an_uninterrupted_one(base_run, tmp_path, monkeypatch, incremental):
    changes = {"incremental": base_run, "classes": ("star",)} if incremental else {}
    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY", 2)
    segment(config(tmp_path / "whole", epochs=3, **changes))
    original, calls = torch.optim.AdamW.step, []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        segment(config(tmp_path / "cut", epochs=3, **changes))
    segment(config(tmp_path / "cut", epochs=3, resume=True, **changes))
    assert len(calls) == 4 + 6 - 2
    whole, cut = (read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_another_seed_gives_other_weights(tmp_path):
    for seed in (0, 1):
        segment(config(tmp_path / str(seed), epochs=1, seed=seed))
    first, second = (read_tensors(tmp_path / name / "model.safetensors") for name in ("0", "1"))
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])


def test_an_incremental_run_knows_old_and_new_classes(base_run, tmp_path):
    out = tmp_path / "step"
    result = segment(config(out, incremental=base_run, classes=("star", "ring"), method="lora", adapter=("r=2",)))
    assert result.classes == ("background", "circle", "square", "star", "ring")
    scores = result.results
    assert scores["old_classes"] == 3
    for name, span in (("old_miou", slice(1, 3)), ("new_miou", slice(3, 5))):
        assert scores[name] == pytest.approx(
            np.mean([value for value in scores["per_class_iou"][span] if value is not None])
        )
    _, backbone = read_segmenter(out)
    assert backbone.model(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 32, 32)


def test_only_the_presence_of_new_classes_is_taken_from_the_masks(base_run, tmp_path, monkeypatch):
    """Masks whose pixels are elsewhere, but of the same classes, must not change the weights."""
    segment(config(tmp_path / "a", incremental=base_run, classes=("star",), epochs=1))
    original = shapes.draw_shapes

    def moved(size, generator):
        image, mask = original(size, generator)
        return image, np.ascontiguousarray(mask[::-1, ::-1])

    monkeypatch.setattr(shapes, "draw_shapes", moved)
    segment(config(tmp_path / "b", incremental=base_run, classes=("star",), epochs=1))
    first, second = (read_tensors(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_predict_writes_masks_of_the_images_own_size(base_run, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "a.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "in" / "grey.png")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no")
    out = tmp_path / "out"
    assert call("segment", "predict", base_run, tmp_path / "in", "--out", out) == 2
    assert "broken.jpg: must be an image" in capsys.readouterr().err
    assert call("segment", "predict", base_run, tmp_path / "in", "--out", out, "--skip-broken") == 0
    assert "2 masks in" in capsys.readouterr().out
    _, backbone = read_segmenter(base_run)
    expected = mask_of(backbone.model, torch.from_numpy(pixels).movedim(-1, 0), backbone.data)
    with Image.open(out / "a.png") as mask, Image.open(out / "a_overlay.png") as picture:
        assert mask.mode == "P"
        assert np.array_equal(np.array(mask), expected.numpy())
        assert picture.size == (50, 40)


def test_evaluate_writes_the_scores_it_prints(base_run, tmp_path, capsys):
    assert call("segment", "evaluate", base_run, "--data", "shapes", "--out", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert f"mIoU {100 * scores['miou']:.1f} %" in capsys.readouterr().out
    assert scores["confusion"] == json.loads((base_run / "results.json").read_text())["confusion"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "lora"}, ConfigError, "lora must start from trained weights"),
        ({"method": "lorra"}, UnknownNameError, "method must be one of"),
        ({"backbone": "test_resnte"}, UnknownNameError, "must be the name of a timm model"),
        ({"augment": "mixup"}, UnknownNameError, "one of crop, flip, none"),
        ({"dice": -1.0}, ConfigError, "must not be negative"),
        ({"incremental": "nowhere", "classes": ("star",)}, RunError, "must be a run folder"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_written(tmp_path, changes, error, message):
    if "incremental" in changes:
        changes = {**changes, "incremental": tmp_path / changes["incremental"]}
    with pytest.raises(error, match=message):
        segment(config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_known_classes_and_foreign_weights_are_refused_by_an_incremental_step(base_run, tmp_path):
    with pytest.raises(ConfigError, match="it knows circle, square, got none"):
        segment(config(tmp_path / "run", incremental=base_run))
    with pytest.raises(ConfigError, match="got circle"):
        segment(config(tmp_path / "run", incremental=base_run, classes=("circle",)))
    with pytest.raises(ConfigError, match="the run's own weights"):
        segment(config(tmp_path / "run", incremental=base_run, classes=("star",), checkpoint=base_run))
    with pytest.raises(CheckpointError, match="names and shapes must be those of"):
        segment(config(tmp_path / "run", backbone="test_vit", checkpoint=base_run))


def test_every_data_set_but_the_folder_takes_no_path(tmp_path):
    from shared_peft.errors import DataError

    for name, opener in SEGMENTATION_DATASETS.items():
        with pytest.raises(DataError, match="must be a folder" if name == "folder" else "takes no path"):
            opener(tmp_path)
