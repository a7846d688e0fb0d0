"""Explanations find what was planted, follow their formulas, and leave the model alone."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from shared_peft.errors import ConfigError, UnknownNameError
from vision.adapt import adapt
from vision.backbones import BACKBONES, build_backbone
from vision.report.explanations import EXPLANATIONS, choose_explanation
from vision.report.explanations.attention_rollout import roll_out
from vision.report.explanations.occlusion import squares

SIZE = 32
ZERO = torch.zeros(2, dtype=torch.int64)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def share_in_corner(heat: torch.Tensor, side: int) -> float:
    """Share of the heat in the lower right corner of ``side`` pixels."""
    return float((heat[:, -side:, -side:].sum() / heat.sum()).item())


class CornerConv(nn.Module):
    """A ConvNet whose feature map is empty but for the lower right corner."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.second = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(3, 2)
        with torch.no_grad():
            for layer in (self.conv, self.second):
                layer.weight.copy_(torch.eye(3)[:, :, None, None])
            self.fc.weight.copy_(torch.tensor([[1.0] * 3, [-1.0] * 3]))
        mask = torch.zeros(1, 1, SIZE, SIZE)
        mask[..., -8:, -8:] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((self.second(self.conv(x)) * self.mask).mean(dim=(2, 3)))


def corner_transformer() -> nn.Module:
    """A ViT whose class token attends to the lower right patch alone, found by a mark in its position embedding."""
    model = build_backbone("vit_cifar10", 2).model
    with torch.no_grad():
        model.pos_embed.zero_()
        model.pos_embed[0, -1, 0] = 1_000.0
        for block in model.blocks:
            width = block.attn.qkv.weight.shape[1]
            for parameter in block.attn.qkv.parameters():
                parameter.zero_()
            for head in range(4):
                block.attn.qkv.bias[head * width // 4] = 30.0
                block.attn.qkv.weight[width + head * width // 4, 0] = 1.0
    return model


class TestPlanted:
    """A model that looks at one corner only is explained by that corner."""

    def test_grad_cam(self):
        heat = EXPLANATIONS.get("grad_cam").explain(CornerConv().eval(), noise(2, 3, SIZE, SIZE), ZERO)
        assert share_in_corner(heat, 8) == pytest.approx(1.0, abs=1e-6)

    def test_attention_rollout(self):
        heat = EXPLANATIONS.get("attention_rollout").explain(corner_transformer(), noise(2, 3, SIZE, SIZE), ZERO)
        assert share_in_corner(heat, 6) > 0.9

    def test_occlusion(self):
        heat = EXPLANATIONS.get("occlusion").explain(CornerConv().eval(), 9 * noise(2, 3, SIZE, SIZE), ZERO)
        assert share_in_corner(heat, 12) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("family", BACKBONES.names())
@pytest.mark.parametrize("name", EXPLANATIONS.names())
def test_every_explanation_of_every_family_it_suits_is_finite_and_leaves_the_model_alone(family, name):
    backbone = build_backbone(f"{family}/{BACKBONES.get(family).example}", 3, image_size=16)
    images = noise(2, backbone.data.channels, 16, 16)
    explanation = EXPLANATIONS.get(name)
    with torch.no_grad():
        before = backbone.model(images)
    if not explanation.suits(backbone.model, images[:1]):
        with pytest.raises(ConfigError, match="the model must have .*Choose another explanation"):
            explanation.explain(backbone.model, images, ZERO)
        return
    heat = explanation.explain(backbone.model, images, ZERO)
    assert heat.shape == (2, 16, 16)
    assert heat.dtype == torch.float32
    assert bool(heat.isfinite().all())
    assert float(heat.min()) >= 0
    assert torch.equal(heat, explanation.explain(backbone.model, images, ZERO))
    assert all(parameter.grad is None for parameter in backbone.model.parameters())
    with torch.no_grad():
        assert torch.equal(backbone.model(images), before)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet20", "grad_cam"),
        ("torchvision/mobilenet_v3_small", "grad_cam"),
        ("vit_cifar10", "attention_rollout"),
        ("vit_cifar10_postnorm", "attention_rollout"),
    ],
)
def test_the_cheapest_explanation_that_suits_is_chosen(backbone, expected):
    built = build_backbone(backbone, 3, image_size=SIZE)
    assert choose_explanation("auto", built.model, noise(1, 3, SIZE, SIZE)) == expected


def test_anything_else_is_occluded():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    assert choose_explanation("auto", plain, noise(1, 3, SIZE, SIZE)) == "occlusion"


def test_an_unknown_name_is_refused_with_the_names():
    with pytest.raises(UnknownNameError, match="must be one of auto, attention_rollout, grad_cam, occlusion"):
        choose_explanation("gradcam", nn.Identity(), noise(1, 3, SIZE, SIZE))


@pytest.mark.parametrize("adapted", [False, True])
def test_grad_cam_of_a_mean_and_a_linear_head_is_cam(adapted):
    """Selvaraju et al., Section 3.1: there alpha_k is the head's own weight over the size of the map."""
    backbone = build_backbone("small_conv", 4, image_size=16)
    images = noise(3, 1, 16, 16)
    model, head = backbone.model, backbone.model.fc
    with torch.no_grad():
        x = model.reduce((stem := model.stem(images)) + model.stage1(stem))
        maps = (x + model.stage2(x)).numpy()
    weights = head.weight.detach().numpy()
    if adapted:
        model = adapt(backbone, "lora", {"r": 2}).model.eval()
    targets = torch.tensor([0, 3, 1])
    expected = np.stack([(weights[t][:, None, None] * m).sum(0) / 64 for m, t in zip(maps, targets, strict=True)])
    expected = functional.interpolate(torch.from_numpy(expected.clip(0))[:, None], (16, 16), mode="bilinear")[:, 0]
    found = EXPLANATIONS.get("grad_cam").explain(model, images, targets)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_grad_cam_weighs_a_channel_by_its_mean_gradient_over_the_map():
    """A head on every place of the map has a gradient of its own there; what comes after a mean is no map."""
    first, last = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 8)
    model = nn.Sequential(first, nn.Conv2d(3, 3, 1), nn.Tanh(), last, nn.Flatten()).eval()
    images = noise(2, 1, 8, 8)
    with torch.no_grad():
        maps = model[:3](images).numpy()
    expected = np.zeros((2, 8, 8))
    for place, target in enumerate((1, 0)):
        for channel in range(3):
            expected[place] += last.weight[target, channel].mean().item() * maps[place, channel]
    found = EXPLANATIONS.get("grad_cam").explain(model, images, torch.tensor([1, 0]))
    np.testing.assert_allclose(found.numpy(), expected.clip(0), atol=1e-6)


def product(layers: list[np.ndarray]) -> np.ndarray:
    """Abnar and Zuidema, Section 3, one number at a time: attention (heads, tokens, tokens) of each layer."""
    tokens = layers[0].shape[-1]
    flow = np.eye(tokens)
    for layer in layers:
        mixed = np.array(
            [[0.5 * np.mean(layer[:, i, j]) + 0.5 * (i == j) for j in range(tokens)] for i in range(tokens)]
        )
        assert np.allclose(mixed.sum(axis=1), 1, atol=1e-5)
        flow = mixed @ flow
    return flow


def patches_of(flow: np.ndarray) -> torch.Tensor:
    heat = torch.from_numpy(flow[0, 1:].reshape(1, 1, 8, 8)).float()
    return functional.interpolate(heat, (SIZE, SIZE), mode="bilinear")[0, 0]


def test_the_roll_out_of_a_timm_vit_follows_queries_and_keys_by_hand():
    model = build_backbone("vit_cifar10", 3, seed=1).model
    images = noise(2, 3, SIZE, SIZE)
    layers = []
    with torch.no_grad():
        tokens = model._pos_embed(model.patch_embed(images[:1]))  # noqa: SLF001
        for block in model.blocks:
            q, k, _ = block.attn.qkv(block.norm1(tokens))[0].reshape(65, 3, 4, 16).permute(1, 2, 0, 3).numpy()
            scores = np.exp(np.einsum("hid,hjd->hij", q, k) / 4)
            layers.append(scores / scores.sum(axis=-1, keepdims=True))
            tokens = block(tokens)
    found = EXPLANATIONS.get("attention_rollout").explain(model, images, ZERO)
    torch.testing.assert_close(found[0], patches_of(product(layers)), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_fused_and_plain_attention_are_explained_alike(fused):
    model = build_backbone("vit_cifar10", 3).model
    images = noise(2, 3, SIZE, SIZE)
    expected = EXPLANATIONS.get("attention_rollout").explain(model, images, ZERO)
    for block in model.blocks:
        block.attn.fused_attn = fused
    found = EXPLANATIONS.get("attention_rollout").explain(model, images, ZERO)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("adapted", [False, True])
def test_the_roll_out_of_a_post_norm_vit_is_that_of_its_attention_layers_asked_one_by_one(adapted):
    backbone = build_backbone("vit_cifar10_postnorm", 3, seed=1)
    images = noise(2, 3, SIZE, SIZE)
    plain, layers = backbone.model, []
    with torch.no_grad():
        tokens = plain.patch_embed(images[:1])
        tokens = torch.cat([plain.cls_token, tokens], dim=1) + plain.pos_embed
        for layer in plain.transformer.layers:
            asked = layer.self_attn(tokens, tokens, tokens, need_weights=True, average_attn_weights=False)
            layers.append(asked[1][0].numpy())
            tokens = layer(tokens)
    model = adapt(backbone, "lora", {"r": 2}).model.eval() if adapted else plain
    found = EXPLANATIONS.get("attention_rollout").explain(model, images, ZERO)
    torch.testing.assert_close(found[0], patches_of(product(layers)), atol=1e-6, rtol=1e-4)


def test_without_a_class_token_every_token_counts_the_same():
    model = build_backbone("small_vit", 3, image_size=SIZE).model
    heat = EXPLANATIONS.get("attention_rollout").explain(model, noise(2, 1, SIZE, SIZE), ZERO)
    torch.testing.assert_close(heat.mean(dim=(1, 2)), torch.full((2,), 1 / 256), atol=1e-6, rtol=1e-4)


def test_flow_of_the_roll_out_is_shared_out_whole():
    layers = [noise(2, 3, 5, 5, seed=seed).softmax(dim=-1) for seed in range(4)]
    torch.testing.assert_close(roll_out(layers).sum(dim=-1), torch.ones(2, 5))


def test_occlusion_is_the_mean_fall_over_the_squares_that_cover_a_pixel():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8, 3)).eval()
    image = noise(1, 1, 8, 8)
    masks = squares(8, 8)
    assert masks.any(dim=0).all()
    expected = np.zeros((8, 8))
    with torch.no_grad():
        whole = model(image).softmax(dim=1)[0, 2]
        for row, column in np.ndindex(8, 8):
            falls = []
            for mask in masks:
                if mask[row, column]:
                    covered = image.clone()
                    covered[0, 0][mask] = image.mean()
                    falls.append(float(whole - model(covered).softmax(dim=1)[0, 2]))
            expected[row, column] = max(0.0, np.mean(falls))
    found = EXPLANATIONS.get("occlusion").explain(model, image, torch.tensor([2]))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
