"""Features are what the head sees: putting them through the head gives the model's own logits."""

import numpy as np
import pytest
import torch

from shared_peft.command import run_commands
from vision.backbones import build_backbone
from vision.commands import COMMANDS
from vision.datasets import read_image
from vision.evaluate import predict_logits
from vision.trained import load_model, read_description
from vision.transforms import fit_image


def call(*words: object) -> int:
    return run_commands("vision", COMMANDS, [str(word) for word in words])


def read(path) -> tuple[torch.Tensor, list[str]]:
    with np.load(path, allow_pickle=False) as content:
        return torch.from_numpy(content["features"]), content["paths"].tolist()


def pixels_of(paths: list[str], data) -> torch.Tensor:
    return torch.stack([fit_image(read_image(path), data) for path in paths])


def test_features_of_a_run_through_its_head_are_its_logits(small_conv_run, colour_folder, tmp_path):
    out = tmp_path / "f.npz"
    assert call("features", colour_folder / "test", "--run", small_conv_run, "--out", out) == 0
    features, paths = read(out)
    described = read_description(small_conv_run)
    model = load_model(small_conv_run, described)
    head = model.get_submodule(described.head[0])
    with torch.inference_mode():
        logits = head(features)
    torch.testing.assert_close(logits, predict_logits(model, pixels_of(paths, described.data), described.data))


@pytest.mark.parametrize("name", ["resnet20", "vit_cifar10", "vit_cifar10_postnorm"])
def test_features_of_a_pretrained_backbone_through_its_head_are_its_logits(name, shared_root, colour_folder, tmp_path):
    file = {"resnet20": "resnet20_cifar10.th", "vit_cifar10": "vit_cifar10_timm.pth"}.get(name, f"{name}.pth")
    weights, out = shared_root / "weights" / file, tmp_path / "f.npz"
    assert call("features", colour_folder / "test", "--backbone", name, "--checkpoint", weights, "--out", out) == 0
    features, paths = read(out)
    backbone = build_backbone(name, 10, checkpoint=weights)
    with torch.inference_mode():
        logits = backbone.model.get_submodule(backbone.head[0])(features)
    torch.testing.assert_close(logits, predict_logits(backbone.model, pixels_of(paths, backbone.data), backbone.data))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "exactly one must be given"),
        (["--backbone", "resnet20"], "trained weights"),
        (["--run", "RUN", "--backbone", "resnet20"], "exactly one must be given"),
        (["--run", "RUN", "--out", "f.csv"], "must be a .npz file"),
    ],
)
def test_what_cannot_be_done_is_told(words, message, small_conv_run, colour_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [small_conv_run if word == "RUN" else word for word in words]
    before = set(tmp_path.rglob("*"))
    assert call("features", colour_folder / "test", *words) != 0
    assert message in capsys.readouterr().err
    assert set(tmp_path.rglob("*")) == before
