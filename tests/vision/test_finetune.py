"""A run from images to a run folder and back: what is trained, what is written, what is refused."""

import json

import numpy as np
import pytest
import torch

from shared_peft import METHODS
from shared_peft.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    RankError,
    RunError,
    TargetError,
    UnknownNameError,
)
from shared_peft.weights import read_tensors, write_tensors
from vision.adapt import method_names
from vision.backbones import build_backbone
from vision.datasets import draw_shots, open_images
from vision.evaluate import evaluate_run, predict_logits
from vision.finetune import FinetuneConfig, finetune, parse_fields, target_pattern
from vision.trained import load_run, read_description
from vision.transforms import load_pixels, normalise

pytestmark = pytest.mark.filterwarnings("ignore:ranks lowered", "ignore:.* runs beside dense layers only")


def config(run, out, method="lora", **changes) -> FinetuneConfig:
    adapter = ("r=2",) if has_rank(method) else ()
    values = {"shots": 3, "epochs": 4, "batch_size": 8, "augment": "shift", "classes": ("7", "8", "9")}
    values |= {"adapter": adapter, "checkpoint": run, **changes}
    return FinetuneConfig("small_conv", "digits", out, method=method, **values)


def adapter_methods():
    return METHODS.names()


def has_rank(method: str) -> bool:
    return method in METHODS and "r" in METHODS.get(method).config_class.__dataclass_fields__


@pytest.mark.parametrize("method", method_names())
def test_a_run_reads_back_to_the_model_that_was_scored(small_conv_run, tmp_path, method):
    result = finetune(config(small_conv_run, tmp_path / "run", method)).results
    trained = load_run(tmp_path / "run")
    classes, scores, skipped = evaluate_run(tmp_path / "run", "digits")
    assert classes == trained.classes == ("7", "8", "9")
    assert scores.confusion == result["confusion"]
    assert scores.accuracy == result["accuracy"] == trained.scores["accuracy"]
    assert skipped == ()
    assert (trained.input_name, trained.input_shape) == ("image", (1, 8, 8))
    assert trained.model(trained.examples).shape == (8, 3)
    assert trained.details == {"backbone": "small_conv/small_conv", "method": method, "seed": 0, "task": "single-label"}


@pytest.mark.parametrize("method", method_names())
def test_the_unadapted_base_is_the_checkpoint_with_a_trained_head(small_conv_run, tmp_path, method):
    finetune(config(small_conv_run, tmp_path / "run", method))
    before = read_tensors(small_conv_run / "model.safetensors")
    after = read_tensors(tmp_path / "run" / "model.safetensors")
    assert before.keys() == after.keys()
    same = {
        name for name in before if before[name].shape == after[name].shape and torch.equal(before[name], after[name])
    }
    changed = {name for name in before if name not in same}
    if method == "full":
        assert "stem.conv.weight" in changed
        assert "stem.norm.running_mean" in changed
    elif method == "bitfit":
        assert changed == {name for name in before if name.endswith("bias")} | {"fc.weight"}
    else:
        assert changed == {"fc.weight", "fc.bias"}
    assert after["fc.weight"].shape == (3, 48)
    assert after["fc.weight"].abs().max() > 0
    assert (tmp_path / "run" / "adapter").is_dir() == (method in METHODS)


@pytest.mark.parametrize("method", ["full", *adapter_methods()])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(small_conv_run, tmp_path, method):
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        finetune(config(small_conv_run, tmp_path / name, method, seed=seed))
        model = load_run(tmp_path / name).model
        runs[name] = model(load_run(small_conv_run).examples).detach()
    assert torch.equal(runs["a"], runs["b"])
    assert not torch.equal(runs["a"], runs["c"])


@pytest.mark.parametrize("method", ["full", *adapter_methods()])
def test_an_interrupted_run_ends_in_the_weights_of_an_uninterrupted_one(small_conv_run, tmp_path, monkeypatch, method):
    import vision.fit as fit_module
    from vision.tasks import single_label

    changes = {"epochs": 12, "augment": "shift"}
    finetune(config(small_conv_run, tmp_path / "whole", method, **changes))
    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY", 5)
    original = single_label.functional.cross_entropy
    calls = []

    def interrupted(logits, labels, label_smoothing):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(logits, labels, label_smoothing=label_smoothing)

    monkeypatch.setattr(single_label.functional, "cross_entropy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(config(small_conv_run, tmp_path / "cut", method, **changes))
    finetune(config(small_conv_run, tmp_path / "cut", method, resume=True, **changes))
    assert len(calls) == 8 + 12 - 5
    examples = load_run(small_conv_run).examples
    whole, cut = (load_run(tmp_path / name).model(examples) for name in ("whole", "cut"))
    assert torch.equal(whole, cut)


def test_scores_agree_with_scikit_learn(small_conv_run, tmp_path):
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    result = finetune(config(small_conv_run, tmp_path / "run", "probe")).results
    description = read_description(tmp_path / "run")
    pixels = load_pixels(open_images("digits", description.classes).test, description.data)
    model = load_run(tmp_path / "run").model
    predicted = predict_logits(model, pixels.values, description.data).argmax(1).numpy()
    truth = pixels.labels.numpy()
    assert result["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert result["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-6)
    assert result["per_class_f1"] == pytest.approx(f1_score(truth, predicted, average=None).tolist(), abs=1e-6)
    assert result["confusion"] == confusion_matrix(truth, predicted).tolist()
    assert result["count"] == len(truth)


def test_a_probe_answers_like_logistic_regression_on_the_frozen_features(small_conv_run, tmp_path):
    from sklearn.linear_model import LogisticRegression

    changes = {"epochs": 100, "batch_size": 30, "shots": 10, "augment": "none", "weight_decay": 0.0}
    result = finetune(config(small_conv_run, tmp_path / "run", "probe", learning_rate=0.03, **changes)).results
    description = read_description(tmp_path / "run")
    data = open_images("digits", description.classes)
    model = load_run(small_conv_run).model
    model.fc = torch.nn.Identity()
    sides = {}
    for name, images in (("train", data.train.take(draw_shots(data.train, 10, 0))), ("test", data.test)):
        pixels = load_pixels(images, description.data)
        sides[name] = predict_logits(model, pixels.values, description.data).numpy(), pixels.labels.numpy()
    reference = LogisticRegression(C=10.0, max_iter=2_000).fit(*sides["train"]).score(*sides["test"])
    assert result["accuracy"] == pytest.approx(reference, abs=0.06)
    assert result["parameters"]["trainable"] == result["parameters"]["head"] == 48 * 3 + 3


@pytest.mark.parametrize("method", adapter_methods())
def test_a_budget_is_kept_and_used(small_conv_run, tmp_path, method):
    result = finetune(config(small_conv_run, tmp_path / "run", method, adapter=(), budget=2_000, epochs=1)).results
    assert (1_000 if has_rank(method) else 0) < result["parameters"]["body"] <= 2_000


def test_examples_are_real_preprocessed_test_images(small_conv_run, tmp_path):
    finetune(config(small_conv_run, tmp_path / "run", "probe"))
    trained = load_run(tmp_path / "run")
    pixels = load_pixels(open_images("digits", ("7", "8", "9")).test, read_description(tmp_path / "run").data)
    known = {
        tuple(image.flatten().tolist()) for image in normalise(pixels.values, read_description(tmp_path / "run").data)
    }
    assert all(tuple(example.flatten().tolist()) in known for example in trained.examples)
    assert len(np.unique(trained.examples.flatten(1).numpy(), axis=0)) == 8


def test_batch_statistics_move_only_in_full_fine_tuning(small_conv_run, tmp_path):
    for method, moves in (("full", True), ("lora", False)):
        finetune(config(small_conv_run, tmp_path / method, method))
        before = read_tensors(small_conv_run / "model.safetensors")["stem.norm.running_var"]
        after = load_run(tmp_path / method).model.state_dict()
        name = next(name for name in after if name.endswith("stem.norm.running_var"))
        assert torch.equal(before, after[name]) != moves


def test_class_folders_are_learned(small_conv_run, colour_folder, tmp_path):
    changes = {"shots": 5, "classes": (), "epochs": 30, "learning_rate": 0.01}
    asked = config(small_conv_run, tmp_path / "run", "full", **changes)
    result = finetune(FinetuneConfig(**{**asked.__dict__, "data": str(colour_folder)}))
    assert result.results["accuracy"] >= 0.75
    assert load_run(tmp_path / "run").classes == ("blue", "green", "red")


@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/mobilenet_v3_small", "vit_cifar10"])
def test_library_models_go_through_a_run_folder_at_another_size(colour_folder, tmp_path, name):
    start = build_backbone(name, 4, image_size=24)
    write_tensors(tmp_path / "start.safetensors", start.model.state_dict())
    asked = config(tmp_path / "start.safetensors", tmp_path / "run", shots=2, epochs=1, classes=(), image_size=24)
    changes = {"backbone": name, "data": str(colour_folder), "method": "flora", "adapter": ("r=1",)}
    result = finetune(FinetuneConfig(**{**asked.__dict__, **changes})).results
    trained = load_run(tmp_path / "run")
    assert trained.input_shape == (3, 24, 24)
    assert evaluate_run(tmp_path / "run", str(colour_folder))[1].confusion == result["confusion"]
    base = trained.build_base().state_dict()
    assert {key: value.shape for key, value in base.items()} == {
        key: value.shape for key, value in read_tensors(tmp_path / "run" / "model.safetensors").items()
    }


class TestRefusals:
    """What cannot be used is refused before anything is written."""

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"method": "lorra"}, UnknownNameError, "--method: method must be one of full, probe, .*got 'lorra'"),
            ({"adapter": ("rank=3",)}, ConfigError, "key must be one of .*got 'rank'"),
            ({"adapter": ("r",)}, ConfigError, "--adapter: must be key=value, got 'r'"),
            ({"adapter": ("r=4000",)}, RankError, "rank must be in .*got 4000"),
            ({"target_modules": ("nothing",)}, TargetError, "must match at least one layer"),
            ({"shots": 1_000}, DataError, "class '7': must hold at least 1000 readable images"),
            ({"classes": ("7", "x")}, DataError, "got 'x'"),
            ({"checkpoint": None}, ConfigError, "--checkpoint: fine-tuning must start from trained weights"),
            ({"method": "probe", "adapter": (), "budget": 10}, ConfigError, "takes no adapter fields and no budget"),
            ({"budget": 1}, RankError, "must allow rank 1"),
            ({"epochs": 0}, ConfigError, "epochs: must be at least 1, got 0"),
        ],
    )
    def test_wrong_options(self, small_conv_run, tmp_path, changes, error, message):
        with pytest.raises(error, match=message):
            finetune(config(small_conv_run, tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()

    def test_a_checkpoint_of_another_model(self, small_conv_run, tmp_path):
        asked = config(small_conv_run, tmp_path / "run")
        with pytest.raises(CheckpointError, match="missing: .*unexpected: "):
            finetune(FinetuneConfig(**{**asked.__dict__, "backbone": "small_vit"}))

    def test_a_broken_image_unless_skipped(self, small_conv_run, colour_folder, tmp_path):
        (colour_folder / "test" / "red" / "1.png").write_bytes(b"broken")
        (colour_folder / "train" / "red" / "1.png").write_bytes(b"broken")
        asked = {**config(small_conv_run, tmp_path / "run", classes=(), shots=5, epochs=1).__dict__}
        asked["data"] = str(colour_folder)
        with pytest.raises(DataError, match=r"1\.png: must be an image Pillow can read"):
            finetune(FinetuneConfig(**{**asked, "shots": 6}))
        result = finetune(FinetuneConfig(**{**asked, "skip_broken": True})).results
        assert result["train_images"] == 15
        assert result["count"] == 11
        assert "test/red/1.png" in result["skipped_images"][0]

    def test_an_occupied_run_folder(self, small_conv_run, tmp_path):
        finetune(config(small_conv_run, tmp_path / "run", "probe"))
        with pytest.raises(RunError, match="must be a new folder"):
            finetune(config(small_conv_run, tmp_path / "run", "probe"))
        with pytest.raises(RunError, match="must keep its configuration, got changes in epochs"):
            finetune(config(small_conv_run, tmp_path / "run", "probe", epochs=5, resume=True))

    def test_a_folder_without_a_run(self, tmp_path):
        with pytest.raises(RunError, match="must be a run folder"):
            load_run(tmp_path)

    def test_a_run_whose_weights_are_another_models(self, small_conv_run, tmp_path):
        finetune(config(small_conv_run, tmp_path / "run", "probe"))
        described = json.loads((tmp_path / "run" / "model.json").read_text())
        described["spec"]["name"] = "small_vit"
        (tmp_path / "run" / "model.json").write_text(json.dumps(described))
        with pytest.raises(CheckpointError, match="names and shapes must be those of VisionTransformer"):
            load_run(tmp_path / "run")

    def test_a_damaged_description(self, small_conv_run, tmp_path):
        finetune(config(small_conv_run, tmp_path / "run", "probe"))
        (tmp_path / "run" / "model.json").write_text('{"spec": 3}')
        with pytest.raises(ConfigError, match=r"model\.json"):
            load_run(tmp_path / "run")


def test_adapter_fields_are_json_or_text():
    assert parse_fields(("r=8", "use_rslora=true", 'exclude_modules=["a"]', "target_modules=all-conv")) == {
        "r": 8,
        "use_rslora": True,
        "exclude_modules": ["a"],
        "target_modules": "all-conv",
    }


def test_one_plain_name_is_a_suffix_and_a_pattern_stays_a_pattern():
    assert target_pattern(("qkv",)) == ["qkv"]
    assert target_pattern(("attn.qkv", "proj")) == ["attn.qkv", "proj"]
    assert target_pattern((r"blocks\.\d.*qkv",)) == r"blocks\.\d.*qkv"
    assert target_pattern(("all-linear",)) == "all-linear"
