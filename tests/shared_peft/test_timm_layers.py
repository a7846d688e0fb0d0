"""timm's own layer classes: adapted by what their forward really computes, or refused by name."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from shared_peft import LoraConfig, PeftModel, get_peft_model
from shared_peft.errors import TargetError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import close, config_for, fill_randomly
from vision.torchvision_ops import declare_missing_operators

declare_missing_operators()
import timm  # noqa: E402
from timm import layers  # noqa: E402

IMAGE = torch.randn(3, 8, 7, 7, generator=torch.Generator().manual_seed(0))
SQUARE = torch.randn(3, 16, 6, 6, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))


def attention_pool(cls: type[nn.Module], **options: object) -> nn.Module:
    return cls(16, feat_size=6, num_heads=2, **options)


class Conditional(nn.Module):
    """A convolution whose kernel is mixed for each image from experts by a linear router."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 3)
        self.conv = layers.CondConv2d(8, 6, 3, num_experts=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, torch.sigmoid(self.router(x.mean((2, 3)))))


CASES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "Conv2dSame": (lambda: layers.Conv2dSame(8, 6, 3, stride=2), IMAGE),
    "Conv2dSame depthwise": (lambda: layers.create_conv2d(8, 8, 3, stride=2, padding="same", depthwise=True), IMAGE),
    "create_conv2d grouped": (lambda: layers.create_conv2d(8, 12, 3, padding="", groups=4), IMAGE),
    "create_conv2d mixed": (lambda: layers.create_conv2d(8, 8, [3, 5], depthwise=True), IMAGE),
    "StdConv2d": (lambda: layers.StdConv2d(8, 6, 3, padding=1, bias=True), IMAGE),
    "StdConv2dSame": (lambda: layers.StdConv2dSame(8, 6, 3, stride=2), IMAGE),
    "ScaledStdConv2d": (lambda: layers.ScaledStdConv2d(8, 6, 3, groups=2), IMAGE),
    "ScaledStdConv2dSame": (lambda: layers.ScaledStdConv2dSame(8, 6, 3, padding="same"), IMAGE),
    "LayerNorm2d": (lambda: nn.Sequential(nn.Conv2d(8, 6, 1), layers.LayerNorm2d(6), nn.Conv2d(6, 6, 3)), IMAGE),
    "GroupNormAct": (lambda: nn.Sequential(nn.Conv2d(8, 6, 1), layers.GroupNormAct(6, 3), nn.Conv2d(6, 6, 3)), IMAGE),
    "BatchNormAct2d": (
        lambda: nn.Sequential(nn.Conv2d(8, 6, 1), layers.BatchNormAct2d(6), nn.Conv2d(6, 6, 3)),
        IMAGE,
    ),
    "ConvNormAct": (lambda: layers.ConvNormAct(8, 6, 3, stride=2), IMAGE),
    "SeparableConvNormAct": (lambda: layers.SeparableConvNormAct(8, 6, 3), IMAGE),
    "SqueezeExcite": (lambda: layers.SqueezeExcite(8, rd_channels=4), IMAGE + 1),
    "CondConv2d": (Conditional, IMAGE),
    "Linear": (lambda: layers.Linear(16, 6), TOKENS),
    "Mlp": (lambda: layers.Mlp(16, 8), TOKENS),
    "SwiGLU": (lambda: layers.SwiGLU(16, 8), TOKENS),
    "Attention": (
        lambda: layers.Attention(16, num_heads=2, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm),
        TOKENS,
    ),
    "AttentionPoolLatent": (lambda: layers.AttentionPoolLatent(16, num_heads=2, pos_embed="abs", feat_size=5), TOKENS),
    "AttentionPool2d": (lambda: attention_pool(layers.AttentionPool2d), SQUARE),
    "AttentionPool2d separate": (lambda: attention_pool(layers.AttentionPool2d, qkv_separate=True), SQUARE),
    "RotAttentionPool2d": (lambda: layers.RotAttentionPool2d(16, ref_feat_size=6, num_heads=2), SQUARE),
}
every_case = pytest.mark.parametrize("name", CASES)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(CASES[name][0]()).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for key, tensor in module.state_dict().items():  # statistics and gains as after training, not their start
        if "running_" in key or key.endswith("gain"):
            tensor.add_(torch.rand(tensor.shape, generator=generator))
    return module


@every_case
@pytest.mark.parametrize("method", ["lora", "flora", "lora_tsd"])
@pytest.mark.filterwarnings("ignore:ranks lowered:UserWarning")
def test_the_layer_answers_as_if_its_weights_were_others_and_merges_to_that(name: str, method: str) -> None:
    x, plain = CASES[name][1], build(name)
    model = get_peft_model(build(name), config_for(method, r=1))
    with torch.no_grad():
        assert torch.equal(model(x), plain(x))
    fill_randomly(model)
    replaced = {key: parameter.clone() for key, parameter in plain.named_parameters()}
    for where, layer in adapter_layers(model.base_model):
        for slot in layer.slots:
            replaced[f"{where}.{slot.parameter}"] += slot.stored(layer.delta_weight("default", slot)).detach()
    expected = functional_call(plain, replaced, (x,))
    assert not close(expected, plain(x), 1e-4)
    for mode in (True, False):
        model.train(mode)
        assert close(model(x), expected, 1e-4), mode
    kept = {key: tensor.clone() for key, tensor in plain.named_buffers()}
    merged = model.merge_and_unload()
    assert close(merged(x), expected, 1e-4)
    assert all(torch.equal(tensor, kept[key]) for key, tensor in merged.named_buffers())
    assert [type(module) for module in merged.modules()] == [type(module) for module in plain.modules()]


@every_case
def test_every_weight_matrix_and_kernel_is_adapted(name: str) -> None:
    model: PeftModel = get_peft_model(build(name), LoraConfig(r=1))
    adapted = {f"{where}.{slot.parameter}" for where, layer in adapter_layers(model.base_model) for slot in layer.slots}
    weights = {f"{n}.weight" for n, m in build(name).named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert adapted == weights


@pytest.mark.parametrize(
    ("module", "pattern"),
    [
        (Conditional(), ["conv"]),
        (nn.ModuleDict({"conv": layers.MixedConv2d(8, 8, [3, 5])}), ["conv"]),
        (nn.ModuleDict({"conv": layers.LayerNorm2d(8)}), ["conv"]),
    ],
    ids=["CondConv2d", "MixedConv2d", "LayerNorm2d"],
)
def test_what_cannot_be_adapted_is_refused_by_name(module: nn.Module, pattern: list[str]) -> None:
    got = type(module.get_submodule("conv")).__name__
    with pytest.raises(TargetError, match=rf"^conv: must be a layer that can be adapted, got {got}\. Exclude it, or"):
        get_peft_model(module, LoraConfig(r=1, target_modules=pattern))


@pytest.mark.parametrize("name", ["AttentionPoolLatent", "Attention", "AttentionPool2d"])
def test_attention_takes_parts_of_its_fused_weight(name: str) -> None:
    parts = [] if name == "AttentionPoolLatent" else ["q", "v"]  # the pool's keys and values are fused without queries
    model = get_peft_model(build(name), LoraConfig(r=1, qkv_parts=["q", "v"]))
    cut = [slot.key for _, layer in adapter_layers(model.base_model) for slot in layer.slots if slot.rows]
    assert cut == parts


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_vit", {"img_size": 64}),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8)},
        ),
        ("beit_base_patch16_224", {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 3}),
    ],
)
def test_queries_change_nothing_where_all_keys_are_equal_and_values_do(name: str, options: dict[str, object]) -> None:
    """With keys of 0 every position is attended alike, whatever the queries: proves which rows are which."""
    torch.manual_seed(0)
    base = timm.create_model(name, num_classes=4, **options).eval()
    with torch.no_grad():
        for where, module in base.named_modules():
            if where.endswith("qkv"):
                width = module.in_features
                module.weight[width : 2 * width] = 0
                if module.bias is not None:
                    module.bias[width : 2 * width] = 0
        for parameter in base.parameters():  # layer scales that start at almost nothing
            if parameter.abs().max() < 1e-3 and parameter.dim() == 1:
                parameter.add_(0.1 if parameter.min() > 0 else 0.0)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected, moved = base(x), {}
    for part in ("q", "v"):
        config = LoraConfig(r=2, target_modules=["qkv"], qkv_parts=[part])  # type: ignore[list-item]
        model = get_peft_model(copy.deepcopy(base), config)
        fill_randomly(model)
        moved[part] = float((model(x) - expected).detach().abs().max() / expected.detach().abs().max())
    assert moved["q"] < 1e-5
    assert moved["v"] > 1e-2


def test_the_max_vit_familys_head_by_head_weight_is_refused_in_parts() -> None:
    model = timm.create_model("test_byobnet")
    attention = timm.models.maxxvit.AttentionCl(16, dim_head=8)
    with pytest.raises(TargetError, match=r"attn\.qkv: to be cut into q, k and v .* got rows in turn by head"):
        get_peft_model(nn.ModuleDict({"attn": attention, "rest": model}), LoraConfig(r=1, qkv_parts=["q"]))


def test_a_frozen_norm_with_running_statistics_of_its_own_does_not_drift() -> None:
    norm = layers.EvoNorm2dB0(6)
    model = get_peft_model(nn.Sequential(nn.Conv2d(3, 6, 3), norm), LoraConfig(r=2)).train()
    before = norm.running_var.clone()
    model(torch.randn(4, 3, 8, 8))
    assert torch.equal(norm.running_var, before)
