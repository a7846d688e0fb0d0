"""Fused query-key-value weights in parts: against weights changed by hand, and beside an adapter on the whole."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared_peft import METHODS, LoraConfig, PeftModel, count_parameters, get_peft_model, get_peft_model_state_dict
from shared_peft.errors import ConfigError, TargetError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import close, config_for, fill_randomly

WIDTH, HEADS = 8, 2
ROWS = {"q": slice(0, 8), "k": slice(8, 16), "v": slice(16, 24)}
X = torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Self-attention with one linear layer for queries, keys and values, as in timm."""

    def __init__(self, name: str = "qkv", out: int = 3 * WIDTH, *, head_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name, self.head_first = name, head_first
        setattr(self, name, nn.Linear(WIDTH, out))
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        fused = getattr(self, self.name)(x)
        q, k, v = fused.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Torch(nn.Module):
    """The same by torch's own module."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def changed_by_hand(model: PeftModel, base: nn.Module, weight_name: str, adapter: str = "default") -> nn.Module:
    """A copy of ``base`` whose fused weight has each part's change added to that part's rows."""
    plain = copy.deepcopy(base)
    with torch.no_grad():
        for name, layer in adapter_layers(model.base_model):
            for slot, _ in layer.methods(adapter):
                change = layer.delta_weight(adapter, slot)
                if slot.key in ROWS:
                    plain.get_parameter(weight_name)[ROWS[slot.key]] += change
                else:
                    plain.get_parameter(f"{name}.{slot.parameter}").add_(change)
    return plain


MERGEABLE = [name for name in METHODS.names() if METHODS.get(name).mergeable]


@pytest.mark.parametrize("method", MERGEABLE)
@pytest.mark.parametrize("parts", [["q"], ["v", "q"], ["k"], ["q", "k", "v"]], ids="".join)
def test_each_named_part_changes_its_own_rows_alone(method: str, parts: list[str], tmp_path: Path) -> None:
    config = config_for(method, qkv_parts=parts)
    model = get_peft_model(Attention().eval(), config)
    assert torch.equal(model(X), Attention().eval()(X))
    fill_randomly(model)
    assert {slot.key for slot in model.qkv.slots} == set(parts)
    assert all(model.qkv.delta_weight("default", slot).shape == (WIDTH, WIDTH) for slot in model.qkv.slots)
    expected = changed_by_hand(model, Attention(), "qkv.weight").eval()(X)
    assert not close(expected, Attention().eval()(X), 1e-2)
    for path in ("weight", "activation"):
        for _, layer in adapter_layers(model.base_model):
            layer.path = path  # type: ignore[assignment]
        assert close(model.train()(X), expected), path
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(Attention().eval(), tmp_path)
    assert loaded.peft_config["default"].qkv_parts == parts
    assert close(loaded(X), expected)
    merged = model.merge_and_unload()
    untouched = [rows for part, rows in ROWS.items() if part not in parts]
    assert all(torch.equal(merged.qkv.weight[rows], Attention().qkv.weight[rows]) for rows in untouched)
    assert close(merged(X), expected)


@pytest.mark.parametrize("parts", [["q", "v"], ["k"]], ids="".join)
@pytest.mark.parametrize("name", ["in_proj", "to_qkv", "Wqkv", "c_attn"])
def test_other_names_of_fused_layers_are_known(name: str, parts: list[str]) -> None:
    config = LoraConfig(r=2, target_modules=[name], qkv_parts=parts)  # type: ignore[arg-type]
    model = get_peft_model(Attention(name), config)
    assert {key.rpartition(".")[0] for key in get_peft_model_state_dict(model)} == {f"{name}.{p}" for p in parts}
    assert count_parameters(Attention(name), config) == len(parts) * 2 * 2 * WIDTH


@pytest.mark.parametrize("options", [{}, {"kdim": WIDTH, "vdim": WIDTH, "bias": False}], ids=str)
def test_torchs_attention_adapts_the_named_parts_and_its_output_projection(options: dict[str, Any]) -> None:
    model = get_peft_model(Torch(**options).eval(), LoraConfig(r=2, lora_alpha=3, qkv_parts=["q", "v"]))
    fill_randomly(model)
    assert [slot.key for slot in model.attention.slots] == ["q", "v", "out_proj"]
    expected = changed_by_hand(model, Torch(**options), "attention.in_proj_weight").eval()(X)
    assert close(model(X), expected)
    assert close(model.merge_and_unload()(X), expected)


def test_attention_with_separate_projections_adapts_the_named_ones() -> None:
    attention = nn.ModuleDict({"mha": nn.MultiheadAttention(WIDTH, HEADS, kdim=4, vdim=6)})
    model = get_peft_model(attention, LoraConfig(r=2, qkv_parts=["k"]))
    assert {slot.parameter for slot in model.mha.slots} == {"k_proj_weight", "out_proj.weight"}


def test_adapters_on_the_whole_and_on_parts_share_a_layer() -> None:
    base = Attention().eval()
    model = get_peft_model(Attention().eval(), LoraConfig(r=2), "whole")
    fill_randomly(model, 1)
    model.add_adapter("parts", LoraConfig(r=3, target_modules=["qkv"], qkv_parts=["q", "v"]))
    model.set_adapter("parts")
    fill_randomly(model, 2)
    assert [slot.key for slot in model.qkv.slots] == ["weight", "q", "v"]
    answers = {}
    for name in ("whole", "parts"):
        model.set_adapter(name)
        answers[name] = changed_by_hand(model, base, "qkv.weight", name)
        assert close(model(X), answers[name](X))
    model.set_adapter(["whole", "parts"])
    both = copy.deepcopy(answers["whole"])
    with torch.no_grad():
        both.qkv.weight += answers["parts"].qkv.weight - base.qkv.weight
    assert close(model.train()(X), both(X))
    with torch.no_grad():
        assert close(model.eval()(X), both(X))
    assert {row.name: set(row.weight_shapes) for row in model.get_layer_status()}["qkv"] == {"weight", "q", "v"}
    model.delete_adapter("whole")
    assert [slot.key for slot in model.qkv.slots] == ["q", "v"]
    assert close(model(X), answers["parts"](X))
    assert close(model.merge_and_unload()(X), answers["parts"](X))


def test_layers_that_are_not_fused_stay_whole() -> None:
    model = get_peft_model(Attention(), LoraConfig(r=2, qkv_parts=["v"]))
    assert [slot.key for slot in model.proj.slots] == ["weight"]
    wide = get_peft_model(nn.ModuleDict({"mlp": nn.Linear(8, 24)}), LoraConfig(r=2, qkv_parts=["v"]))
    assert [slot.key for slot in wide.mlp.slots] == ["weight"]


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (Attention(out=2 * WIDTH), r"Linear with weight \(16, 8\)"),
        (Attention(out=4 * WIDTH), r"Linear with weight \(32, 8\)"),
        (nn.ModuleDict({"qkv": nn.Conv2d(4, 12, 1)}), r"Conv2d with weight \(12, 4, 1, 1\)"),
        (Attention(head_first=True), "rows in turn by head"),
    ],
    ids=["keys and values only", "grouped queries", "convolution", "head by head"],
)
def test_weights_that_do_not_stack_three_equal_parts_are_refused_and_left_alone(model: nn.Module, got: str) -> None:
    with pytest.raises(TargetError, match=rf"^qkv: to be cut into q, k and v .* three of equal size, got {got}\."):
        get_peft_model(model, LoraConfig(r=2, qkv_parts=["q"]))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(True for _ in adapter_layers(model))
    get_peft_model(model, LoraConfig(r=2))


@pytest.mark.parametrize("parts", [[], ["q", "q"], ["o"]], ids=str)
def test_parts_that_make_no_sense_are_refused(parts: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"qkv_parts: must name one or more of 'q', 'k', 'v', each once, got \["):
        get_peft_model(Attention(), LoraConfig(r=2, qkv_parts=parts))


def test_a_method_that_cannot_be_merged_is_refused_on_parts() -> None:
    with pytest.raises(TargetError, match="qkv: a method that cannot be merged"):
        get_peft_model(Attention(), config_for("lora_trf", qkv_parts=["q"]))


def test_dropout_acts_on_parts_in_training_only() -> None:
    model = get_peft_model(Attention(), LoraConfig(r=2, lora_dropout=0.5, qkv_parts=["q", "v"]))
    fill_randomly(model)
    expected = changed_by_hand(model, Attention(), "qkv.weight")
    assert close(model.eval()(X), expected.eval()(X))
    ones = torch.ones(4000, WIDTH)
    mean = model.train().qkv(ones).mean(0)
    assert torch.allclose(mean, expected.qkv(ones[0]), atol=0.08)
    assert model.qkv(ones)[:, ROWS["q"]].std(0).min() > 0.02
    assert model.qkv(ones)[:, ROWS["k"]].std(0).max() < 1e-5
