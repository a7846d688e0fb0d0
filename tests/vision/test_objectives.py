"""Pretraining objectives: what a masked ViT is asked, what it may see, what comes of it."""

import numpy as np
import pytest
import torch

from shared_peft.errors import ConfigError, UnknownNameError
from shared_peft.weights import read_tensors
from vision.backbones import build_backbone
from vision.finetune import FinetuneConfig, finetune
from vision.objectives import OBJECTIVES
from vision.objectives.masked import HIDDEN_SHARE, MaskedImages, draw_hidden, errors_on, freeze_unreached, hidden_error
from vision.pretrain import PretrainConfig, pretrain

VITS = ["small_vit", "vit_cifar10", "vit_cifar10_postnorm", "timm/test_vit"]


def masked_model(name: str, seed: int = 0) -> tuple[MaskedImages, torch.Tensor]:
    backbone = build_backbone(name, 3, image_size=None if name == "small_vit" else 32)
    torch.manual_seed(seed)
    size, channels = backbone.data.size, backbone.data.channels
    return MaskedImages(backbone.model, channels).eval(), torch.randn(3, channels, size, size)


@pytest.mark.parametrize("name", VITS)
def test_guesses_never_depend_on_hidden_pixels(name):
    masked, images = masked_model(name)
    patches = masked.patches(images)
    hidden = draw_hidden(3, patches.shape[1], torch.Generator().manual_seed(1))
    other = torch.where(hidden[..., None], torch.randn_like(patches), patches).transpose(1, 2)
    changed = torch.nn.functional.fold(other, images.shape[-1], masked.side, stride=masked.side)
    with torch.no_grad():
        assert not torch.equal(changed, images)
        assert torch.equal(masked(changed, hidden), masked(images, hidden))
        shown = torch.where(hidden[..., None], patches, torch.randn_like(patches)).transpose(1, 2)
        seen = torch.nn.functional.fold(shown, images.shape[-1], masked.side, stride=masked.side)
        assert not torch.allclose(masked(seen, hidden), masked(images, hidden))


def test_patches_are_squares_of_the_image_in_the_order_of_the_tokens():
    masked, images = masked_model("vit_cifar10")
    patches, side = masked.patches(images), masked.side
    for index in (0, 1, 8, 63):
        row, column = divmod(index, 8)
        square = images[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert torch.equal(patches[:, index], square.flatten(1))
    tokens = masked.model.patch_embed(images)
    with torch.no_grad():
        embedded = patches @ masked.model.patch_embed.proj.weight.flatten(1).T + masked.model.patch_embed.proj.bias
    torch.testing.assert_close(tokens, embedded, atol=1e-5, rtol=1e-4)


def test_the_error_is_the_mean_over_hidden_pixels_alone():
    generator = np.random.default_rng(0)
    guesses, patches = generator.normal(size=(2, 3, 5, 4))
    hidden = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 0]], dtype=bool)
    expected = np.abs(guesses - patches)[hidden].mean()
    found = hidden_error(torch.tensor(guesses), torch.tensor(patches), torch.tensor(hidden))
    assert float(found) == pytest.approx(expected)


def test_every_image_hides_the_same_number_of_patches_and_every_patch_can_be_hidden():
    hidden = draw_hidden(400, 16, torch.Generator().manual_seed(0))
    assert hidden.sum(1).unique().tolist() == [round(HIDDEN_SHARE * 16)]
    share = hidden.float().mean(0)
    assert (share - 10 / 16).abs().max() < 0.1


def test_what_no_guess_depends_on_is_frozen():
    masked, images = masked_model("vit_cifar10_postnorm")
    freeze_unreached(masked, images)
    frozen = {name for name, parameter in masked.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"model.mlp_head.{part}" for part in ("0.weight", "0.bias", "1.weight", "1.bias")}
    assert all(parameter.grad is None for parameter in masked.parameters())


def test_a_blank_guess_is_each_images_mean_colour():
    masked, images = masked_model("vit_cifar10")
    hidden = draw_hidden(3, 64, torch.Generator().manual_seed(0))
    blank = images.mean(dim=(2, 3))[:, :, None, None].expand_as(images)
    pixels = hidden.reshape(3, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3).expand_as(images)
    expected = (images - blank).abs()[pixels]
    assert errors_on(masked, images)[1] == pytest.approx(float(expected.mean()), rel=1e-5)


def test_masked_pretraining_beats_a_blank_guess_resumes_and_starts_a_fine_tuning(tmp_path, monkeypatch):
    import vision.fit as fit_module
    from vision.objectives import masked as masked_module

    asked = {"epochs": 6, "classes": tuple("0123"), "objective": "masked", "learning_rate": 4e-3}
    results = pretrain(PretrainConfig("small_vit", "digits", tmp_path / "whole", **asked)).results
    assert results["relative_error"] < 0.75
    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY", 5)
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return hidden_error(*arguments)

    monkeypatch.setattr(masked_module, "hidden_error", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(PretrainConfig("small_vit", "digits", tmp_path / "cut", **asked))
    pretrain(PretrainConfig("small_vit", "digits", tmp_path / "cut", resume=True, **asked))
    whole, cut = (read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    tuned = FinetuneConfig("small_vit", "digits", tmp_path / "run", checkpoint=tmp_path / "whole", epochs=1)
    assert finetune(FinetuneConfig(**{**tuned.__dict__, "method": "probe"})).results["count"] > 0


def test_a_backbone_that_is_no_vit_and_an_unknown_objective_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="--objective masked: needs a ViT, got small_conv/small_conv"):
        pretrain(PretrainConfig("small_conv", "digits", tmp_path / "run", objective="masked"))
    with pytest.raises(UnknownNameError, match="name must be one of masked, supervised, got 'mased'"):
        pretrain(PretrainConfig("small_vit", "digits", tmp_path / "run", objective="mased"))
    assert not (tmp_path / "run").exists()
    assert all(objective.summary for _, objective in OBJECTIVES.items())
