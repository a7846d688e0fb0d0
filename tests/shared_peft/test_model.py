"""PeftModel: named adapters, switching, merging, attributes, batch norms, modules trained in full."""

import copy

import pytest
import torch
from torch import Tensor, nn

from shared_peft import (
    FloraConfig,
    LoraConfig,
    LoraTsdConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from shared_peft.errors import AdapterError, CheckpointError, MergeError, TargetError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import close, fill_randomly


class Network(nn.Module):
    """A convolution, a batch norm, a linear layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.middle = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)
        self.num_classes = 4

    def forward_features(self, x: Tensor) -> Tensor:
        return self.middle(self.norm(self.stem(x)).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x))


X = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def two_adapters() -> tuple[PeftModel, dict[str, Tensor]]:
    """A model with adapters a and b, and the answers of base, a, b and both."""
    base = Network().eval()(X).detach()
    model = get_peft_model(Network().eval(), LoraConfig(r=2, lora_alpha=3), "a")
    fill_randomly(model, 1)
    model.add_adapter("b", FloraConfig(r=2, target_modules=["stem", "middle"]))
    model.set_adapter("b")
    fill_randomly(model, 2)
    answers = {"base": base, "b": model(X).detach()}
    for name, adapters in {"a": "a", "both": ["a", "b"]}.items():
        model.set_adapter(adapters)
        answers[name] = model(X).detach()
    return model, answers


def test_adapters_switch_add_up_and_can_be_disabled() -> None:
    model, answers = two_adapters()
    values = list(answers.values())
    assert all(not close(p, q, 1e-3) for i, p in enumerate(values) for q in values[:i])
    for name, adapters in {"a": "a", "b": "b", "both": ["b", "a"]}.items():
        model.set_adapter(adapters)
        assert close(model(X), answers[name])
        assert model.active_adapters == ([adapters] if isinstance(adapters, str) else adapters)
    with model.disable_adapter():
        assert torch.equal(model(X), answers["base"])
    assert close(model(X), answers["both"])


def test_two_adapters_change_the_weight_by_the_sum_of_their_changes() -> None:
    model, answers = two_adapters()
    oracle = Network().eval()
    model.set_adapter(["a", "b"])
    with torch.no_grad():
        for name, layer in adapter_layers(model.base_model):
            for adapter in layer.adapters:
                oracle.get_submodule(name).weight += layer.delta_weight(adapter, layer.slots[0])
    assert close(oracle(X), answers["both"])


def test_only_active_adapters_are_trained() -> None:
    model, _ = two_adapters()
    model.set_adapter("b")
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (".adapters.b." in name), name


def test_deleting_the_active_adapter_falls_back_to_another() -> None:
    model, answers = two_adapters()
    model.set_adapter("b")
    model.delete_adapter("b")
    assert model.active_adapters == ["a"]
    assert close(model(X), answers["a"])
    with pytest.raises(AdapterError, match=r"must leave at least one adapter, got 'a'"):
        model.delete_adapter("a")


def test_merging_both_then_unloading_gives_the_plain_class_back() -> None:
    model, answers = two_adapters()
    model.set_adapter(["a", "b"])
    merged = model.merge_and_unload(safe_merge=True)
    assert type(merged) is Network
    assert close(merged(X), answers["both"])
    assert merged.state_dict().keys() == Network().state_dict().keys()


def test_unload_gives_the_base_back() -> None:
    model, answers = two_adapters()
    model.merge_adapter(["a"])
    assert torch.equal(model.unload()(X), answers["base"])


def test_disabling_a_merged_model_answers_like_the_base_and_merges_again() -> None:
    model, answers = two_adapters()
    model.set_adapter("a")
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(model(X), answers["base"])
    assert close(model(X), answers["a"])
    with pytest.raises(AdapterError, match="set_adapter: needs an unmerged model"):
        model.set_adapter("b")
    with pytest.raises(MergeError, match="must not be merged already, got merged a"):
        model.merge_adapter()


def test_safe_merge_refuses_weights_that_are_not_finite_and_leaves_the_model_alone() -> None:
    model, answers = two_adapters()
    model.set_adapter("a")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        model.base_model.middle.adapters["a"]["weight"].lora_B[0, 0] = float("nan")
    with pytest.raises(MergeError, match=r"middle\.weight: the merged weight must be finite, got NaN or inf"):
        model.merge_adapter(safe_merge=True)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if "base_layer" in n)
    assert not any(layer.merged for _, layer in adapter_layers(model))


def test_attributes_and_methods_of_the_model_stay_reachable() -> None:
    model, answers = two_adapters()
    assert model.num_classes == 4
    model.set_adapter("a")
    assert close(model.head(model.forward_features(X)), answers["a"])
    assert model.stem.kernel_size == (3, 3)
    assert model.middle.in_features == 6
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = model.nothing


def test_frozen_batch_norms_do_not_drift_and_trained_ones_are_stored() -> None:
    frozen = get_peft_model(Network(), LoraConfig(r=2)).train()
    before = frozen.norm.running_mean.clone()
    frozen(X)
    assert torch.equal(frozen.norm.running_mean, before)
    trained = get_peft_model(Network(), LoraConfig(r=2, modules_to_save=["norm"])).train()
    trained(X)
    assert not torch.equal(trained.norm.running_mean, before)
    stored = get_peft_model_state_dict(trained)
    assert torch.equal(stored["modules_to_save.norm.running_mean"], trained.norm.running_mean)


def test_modules_to_save_are_trained_per_adapter_and_kept_on_unload() -> None:
    model = get_peft_model(Network().eval(), LoraConfig(r=2, modules_to_save=["head"]), "a")
    model.add_adapter("b", LoraConfig(r=1, modules_to_save=["head"]))
    original = Network().head.weight
    with torch.no_grad():
        model.base_model.head.copies["a"].weight.add_(1.0)
    assert torch.allclose(model.head.weight, original + 1)
    model.set_adapter("b")
    assert torch.equal(model.head.weight, original)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "head" in name}
    assert trained == {"base_model.head.copies.b.weight", "base_model.head.copies.b.bias"}
    with model.disable_adapter():
        assert torch.equal(model.head.weight, original)
    model.set_adapter("a")
    plain = model.merge_and_unload()
    assert isinstance(plain.head, nn.Linear)
    assert torch.allclose(plain.head.weight, original + 1)


def test_kept_weights_are_rebuilt_after_every_change() -> None:
    model, _ = two_adapters()
    model.set_adapter("a")
    with torch.no_grad():
        first = model(X)
        assert torch.equal(model(X), first)
        model.base_model.middle.adapters["a"]["weight"].lora_B.mul_(2)
        second = model(X)
        model.base_model.middle.base_layer.weight.mul_(2)
        third = model(X)
    model.merge_adapter()
    assert not close(first, second)
    assert not close(second, third)
    assert torch.equal(model(X), third)


def test_evaluation_builds_the_merged_weight_once() -> None:
    model, _ = two_adapters()
    model.set_adapter("a")
    calls = []
    method = model.base_model.middle.adapters["a"]["weight"]
    build = method.delta_weight
    method.delta_weight = lambda weight: calls.append(1) or build(weight)
    with torch.no_grad():
        for _ in range(5):
            model(X)
    assert len(calls) == 1


def test_encoder_layers_fused_kernel_does_not_pass_the_adapters_by() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    ).eval()
    base = copy.deepcopy(encoder)
    x = torch.randn(2, 5, 8)
    model = get_peft_model(encoder, LoraConfig(r=2, target_modules="all"))
    fill_randomly(model)
    with torch.no_grad():
        fast = model(x)
    slow = model(x)
    assert not close(slow, base(x), 1e-2)
    assert close(fast, slow)
    assert close(model.merge_and_unload()(x), slow)


def test_targeting_the_output_projection_alone_reaches_what_attention_reads() -> None:
    torch.manual_seed(0)
    attention = nn.ModuleDict({"mha": nn.MultiheadAttention(8, 2, batch_first=True)}).eval()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["out_proj"]), attention)
    x = torch.randn(2, 5, 8)
    base = attention["mha"](x, x, x)[0]
    with torch.no_grad():
        attention["mha"].out_proj.adapters["default"]["weight"].lora_B.normal_()
    changed = attention["mha"](x, x, x)[0]
    assert not close(changed, base, 1e-3)
    attention["mha"].out_proj.merge(("default",), safe=True)
    assert close(attention["mha"](x, x, x)[0], changed)


def test_dropout_acts_on_the_change_only_and_in_training_only() -> None:
    torch.manual_seed(0)
    model = get_peft_model(Network().eval(), LoraConfig(r=2, lora_dropout=0.5))
    assert close(model.train()(X), Network().eval()(X))
    fill_randomly(model)
    assert not close(model.train()(X), model(X), 1e-3)
    model.eval()
    assert close(model(X), model(X), 0)
    mean = torch.stack([model.train().middle(torch.ones(1, 6)) for _ in range(4000)]).mean(0)
    assert torch.allclose(mean, model.eval().middle(torch.ones(1, 6)), atol=0.05)


def test_an_argument_a_layer_does_not_know_is_refused_as_without_an_adapter() -> None:
    layer = get_peft_model(nn.Sequential(nn.Linear(3, 2)), LoraConfig(r=1)).base_model[0]
    with pytest.raises(TypeError, match="unexpected keyword argument 'scale'"):
        layer(torch.zeros(1, 3), scale=2.0)


def test_dropout_leaves_indices_of_an_embedding_alone() -> None:
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Embedding(9, 4)), LoraConfig(r=2, lora_dropout=0.5))
    fill_randomly(model)
    x = torch.arange(9)
    assert close(model.train()(x), model.eval()(x))


def test_dropout_on_a_grouped_convolution_keeps_the_bias_once() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, 3, groups=2, padding=1, padding_mode="circular")
    model = get_peft_model(nn.Sequential(layer), LoraConfig(r=2, lora_dropout=1e-9))
    fill_randomly(model)
    x = torch.randn(2, 4, 5, 5)
    assert close(model.train()(x), model.eval()(x))


def test_dropout_is_refused_where_the_output_is_not_linear_in_the_weight() -> None:
    network = nn.ModuleDict({"mha": nn.MultiheadAttention(8, 2)})
    with pytest.raises(TargetError, match=r"mha: dropout needs a layer.*got 0.1 on MultiheadAttention"):
        get_peft_model(network, LoraConfig(r=2, lora_dropout=0.1))
    assert isinstance(network["mha"], nn.MultiheadAttention)


def test_state_dict_round_trip_and_refusals() -> None:
    model, answers = two_adapters()
    stored = get_peft_model_state_dict(model, "a")
    other = get_peft_model(Network().eval(), LoraConfig(r=2, lora_alpha=3))
    set_peft_model_state_dict(other, stored)
    assert close(other(X), answers["a"])
    with pytest.raises(CheckpointError, match=r"1 missing: stem\.weight\.lora_A; 1 unexpected: x"):
        set_peft_model_state_dict(other, {("x" if k == "stem.weight.lora_A" else k): v for k, v in stored.items()})
    assert close(other(X), answers["a"])
    with pytest.raises(AdapterError, match="must be one of a, b, got 'c'"):
        get_peft_model_state_dict(model, "c")


@pytest.mark.parametrize("name", ["a.b", "", "keys", "update"])
def test_unusable_adapter_names_are_refused(name: str) -> None:
    with pytest.raises(AdapterError, match="adapter name must be letters"):
        get_peft_model(Network(), LoraConfig(r=2), name)


def test_taken_adapter_name_is_refused() -> None:
    model, _ = two_adapters()
    with pytest.raises(AdapterError, match="must be new in this model, got 'a'"):
        model.add_adapter("a", LoraConfig())


def test_layer_status_tells_what_each_layer_holds() -> None:
    model, _ = two_adapters()
    model.set_adapter("b")
    rows = {row.name: row for row in model.get_layer_status()}
    assert set(rows) == {"stem", "middle", "head"}
    assert rows["stem"].available_adapters == ["a", "b"]
    assert rows["stem"].active_adapters == ["b"]
    assert rows["head"].active_adapters == []
    assert rows["stem"].weight_shapes == {"weight": (6, 3, 3, 3)}
    assert rows["middle"].parameters == {"a": 24, "b": 28}
    model.train()(torch.randn(2, 3, 8, 8))
    explained = {row.name: row.reason for row in model.get_layer_status()}
    assert explained["stem"].startswith(("weight: cheapest of weight ", "factored: cheapest of weight "))


def test_trainable_parameters_are_printed_in_the_known_words(capsys: pytest.CaptureFixture[str]) -> None:
    get_peft_model(Network(), LoraConfig(r=2, target_modules=["middle"])).print_trainable_parameters()
    assert capsys.readouterr().out == "trainable params: 24 || all params: 274 || trainable%: 8.7591\n"


def test_phase_change_reaches_every_layer() -> None:
    model = get_peft_model(Network(), LoraTsdConfig(r=2, warmup_steps=3))
    model.update_and_allocate(2)
    assert [int(m.launched_at) for _, layer in adapter_layers(model) for _, m in layer.methods("default")] == [-1] * 3
    model.update_and_allocate(3)
    assert [int(m.launched_at) for _, layer in adapter_layers(model) for _, m in layer.methods("default")] == [3] * 3


def test_half_precision_base_takes_a_float32_adapter() -> None:
    model = get_peft_model(Network().eval().to(torch.bfloat16), LoraConfig(r=2))
    fill_randomly(model)
    output = model.train()(X.to(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert model.base_model.middle.adapters["default"]["weight"].lora_A.grad.dtype == torch.float32


def test_autocast_matches_full_precision_to_bfloat16_rounding() -> None:
    model, answers = two_adapters()
    model.set_adapter("both" if "both" in model.peft_config else ["a", "b"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for mode in (True, False):
            assert torch.allclose(model.train(mode)(X).float(), answers["both"], rtol=0.05, atol=0.15)


def test_a_model_in_training_mode_keeps_its_frozen_batch_norms_still_from_the_start() -> None:
    network = Network().train()
    model = get_peft_model(network, LoraConfig(r=2))
    before = model.norm.running_mean.clone()
    model(X)
    assert model.training
    assert model.stem.training
    assert torch.equal(model.norm.running_mean, before)


def test_a_merged_model_takes_no_further_adapter_and_stays_as_it_is() -> None:
    model, answers = two_adapters()
    model.set_adapter("a")
    model.merge_adapter()
    with pytest.raises(AdapterError, match="add_adapter: needs an unmerged model, got merged weights"):
        model.add_adapter("c", LoraConfig(r=1))
    assert close(model(X), answers["a"])
    assert set(model.peft_config) == {"a", "b"}
