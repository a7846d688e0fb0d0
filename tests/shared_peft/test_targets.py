"""Which layers each notation means, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared_peft import (
    AdapterLayer,
    LoraConfig,
    PeftModel,
    count_parameters,
    get_peft_model,
    get_peft_model_state_dict,
    largest_rank,
)
from shared_peft.errors import RankError, TargetError
from shared_peft.inject import plan
from shared_peft.methods.flora import FloraConfig
from shared_peft.targets import resolve_targets
from tests.shared_peft.cases import close, fill_randomly


def network() -> nn.Module:
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(3, 8, 3),
            "blocks": nn.ModuleList(
                nn.ModuleDict({"qkv": nn.Linear(8, 24), "mix": nn.Conv2d(8, 8, 1), "dw": nn.Conv2d(8, 8, 3, groups=8)})
                for _ in range(2)
            ),
            "words": nn.Embedding(9, 8),
            "mha": nn.MultiheadAttention(8, 2),
            "norm": nn.BatchNorm2d(8),
            "head": nn.Linear(8, 3),
        }
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (["qkv"], ["blocks.0.qkv", "blocks.1.qkv"]),
        (["0.qkv", "head"], ["blocks.0.qkv", "head"]),
        (r"blocks\.\d\.(qkv|mix)", ["blocks.0.qkv", "blocks.0.mix", "blocks.1.qkv", "blocks.1.mix"]),
        ("all-conv", ["stem", "blocks.0.dw", "blocks.1.dw"]),
        ("all-linear", ["blocks.0.qkv", "blocks.0.mix", "blocks.1.qkv", "blocks.1.mix", "mha", "head"]),
        (
            "all",
            [
                "stem",
                *(f"blocks.{i}.{n}" for i in range(2) for n in ("qkv", "mix", "dw")),
                "words",
                "mha",
                "head",
            ],
        ),
    ],
)
def test_patterns_mean_these_layers(pattern: str | list[str], expected: list[str]) -> None:
    assert list(resolve_targets(network(), LoraConfig(target_modules=pattern))) == expected


def test_excluded_and_saved_modules_are_left_out() -> None:
    config = LoraConfig(exclude_modules="all-conv", modules_to_save=["head"])
    assert "head" not in resolve_targets(network(), config)
    assert not any("dw" in name or "stem" in name for name in resolve_targets(network(), config))
    named = LoraConfig(exclude_modules=["qkv", "mha"])
    assert not any("qkv" in name or "mha" in name for name in resolve_targets(network(), named))


@pytest.mark.parametrize("pattern", [["nothing"], "nothing", []])
def test_a_pattern_that_matches_nothing_lists_what_could_be_adapted(pattern: str | list[str]) -> None:
    with pytest.raises(TargetError, match=r"target_modules: must match at least one layer.*Layers.*: stem, blocks"):
        get_peft_model(network(), LoraConfig(target_modules=pattern))


def test_a_module_that_cannot_be_adapted_is_refused_by_name() -> None:
    with pytest.raises(TargetError, match=r"norm: must be a layer that can be adapted, got BatchNorm2d"):
        get_peft_model(network(), LoraConfig(target_modules=["norm"]))


def test_a_broken_regular_expression_is_refused() -> None:
    with pytest.raises(TargetError, match=r"must be a regular expression"):
        get_peft_model(network(), LoraConfig(target_modules="blocks.(qkv"))


def test_a_saved_module_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TargetError, match=r"modules_to_save: must name a module, got 'fc'. Top-level modules: stem"):
        get_peft_model(network(), LoraConfig(r=1, modules_to_save=["fc"]))


def test_tied_weights_are_refused_with_all_their_names() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(9, 8), "out": nn.Linear(8, 9, bias=False)})
    model["out"].weight = model["words"].weight
    with pytest.raises(TargetError, match=r"words: its weight.*shared by words\.weight, out\.weight"):
        get_peft_model(model, LoraConfig(r=2))


class Shared(nn.Module):
    """One linear layer used twice under two names, and a block of two names that holds another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 6)
        self.second = self.first
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.blocks = nn.ModuleList([self.inner, self.inner])

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.blocks[1](self.blocks[0](torch.relu(self.first(x)))))


def test_a_layer_used_under_two_names_is_adapted_once_and_answers_under_both(tmp_path: Path) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    model = get_peft_model(Shared().eval(), LoraConfig(r=2))
    assert model.first is model.second
    assert isinstance(model.first, AdapterLayer)
    assert model.inner[0] is model.blocks[1][0]
    assert model.get_nb_trainable_parameters()[0] == count_parameters(Shared(), LoraConfig(r=2)) == 2 * 2 * 12
    fill_randomly(model)
    oracle = Shared().eval()
    with torch.no_grad():
        for name in ("first", "inner.0"):
            layer = model.get_submodule(f"base_model.{name}")
            oracle.get_submodule(name).weight += layer.delta_weight("default", layer.slots[0])
    expected = oracle(x)
    assert not close(expected, Shared().eval()(x), 1e-2)
    assert close(model(x), expected)
    assert {key.rpartition(".")[0] for key in get_peft_model_state_dict(model)} == {"first.weight", "inner.0.weight"}
    model.save_pretrained(tmp_path)
    assert close(PeftModel.from_pretrained(Shared().eval(), tmp_path)(x), expected)
    plain = model.merge_and_unload()
    assert plain.first is plain.second
    assert type(plain.first) is nn.Linear
    assert close(plain(x), expected)


def test_any_name_of_a_shared_layer_or_module_means_it() -> None:
    assert list(resolve_targets(Shared(), LoraConfig(target_modules=["second"]))) == ["first"]
    assert list(resolve_targets(Shared(), LoraConfig(target_modules=r"blocks\.1\.0"))) == ["inner.0"]
    assert list(resolve_targets(Shared(), LoraConfig(exclude_modules=["blocks.1.0"]))) == ["first"]
    saved = get_peft_model(Shared(), LoraConfig(r=2, target_modules=["inner.0"], modules_to_save=["first"]))
    assert saved.first is saved.second
    assert "first" not in {row.name for row in saved.get_layer_status()}
    plain = saved.unload()
    assert plain.first is plain.second
    assert type(plain.second) is nn.Linear


def test_a_second_adapter_finds_shared_layers_wrapped() -> None:
    model = get_peft_model(Shared(), LoraConfig(r=2), "a")
    model.add_adapter("b", LoraConfig(r=1, target_modules=["second"]))
    assert list(model.first.adapters) == ["a", "b"]
    assert model.first is model.second
    assert type(model.unload().second) is nn.Linear


@pytest.mark.parametrize(
    "norm", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.parametrizations.spectral_norm]
)
def test_a_weight_computed_from_others_is_refused(norm: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.ModuleDict({"fc": norm(nn.Linear(4, 4))})
    with pytest.raises(TargetError, match=r"fc: cannot be adapted: weight is computed from other parameters"):
        get_peft_model(model, LoraConfig(r=2))


def test_a_lazy_layer_is_refused_until_it_has_run() -> None:
    model = nn.ModuleDict({"fc": nn.LazyLinear(4)})
    with pytest.raises(TargetError, match=r"fc: must know its shape, got LazyLinear before its first input\. Run it"):
        get_peft_model(model, LoraConfig(r=2))
    model["fc"](torch.zeros(1, 3))
    assert get_peft_model(model, LoraConfig(r=2)).get_nb_trainable_parameters()[0] == 2 * 7


@pytest.mark.parametrize(
    ("options", "reason"), [({"max_norm": 1.0}, "max_norm rewrites"), ({"sparse": True}, "sparse")]
)
def test_embeddings_that_would_go_wrong_are_refused(options: dict[str, float], reason: str) -> None:
    with pytest.raises(TargetError, match=reason):
        get_peft_model(nn.Sequential(nn.Embedding(9, 8, **options)), LoraConfig(r=2))


def test_rank_and_alpha_patterns_apply_by_suffix_and_expression() -> None:
    config = LoraConfig(
        r=2, lora_alpha=4, target_modules=["qkv", "mix"], rank_pattern={"qkv": 5}, alpha_pattern={r"0\.mix": 8}
    )
    resolved = {planned.layer: planned.config for planned in plan(network(), config)}
    assert {name: c.r for name, c in resolved.items()} == {
        "blocks.0.qkv": 5,
        "blocks.0.mix": 2,
        "blocks.1.qkv": 5,
        "blocks.1.mix": 2,
    }
    assert resolved["blocks.0.mix"].lora_alpha == 8
    assert resolved["blocks.1.mix"].lora_alpha == 4


def test_a_second_adapter_sees_the_layers_inside_the_first() -> None:
    model: PeftModel = get_peft_model(network(), LoraConfig(r=2, target_modules="all-conv"))
    model.add_adapter("b", LoraConfig(r=1, target_modules="all"))
    assert {row.name for row in model.get_layer_status()} == set(resolve_targets(network(), LoraConfig()))


@pytest.mark.parametrize("budget", [300, 1000, 1234])
def test_largest_rank_is_the_largest_that_fits(budget: int) -> None:
    config = LoraConfig(target_modules=["qkv", "mix", "head"])
    chosen = largest_rank(network(), config, budget)
    assert count_parameters(network(), chosen) <= budget
    bigger = LoraConfig(r=chosen.r + 1, target_modules=config.target_modules)
    try:
        assert count_parameters(network(), bigger) > budget
    except RankError:
        assert chosen.r == 3  # the head's smaller side


def test_largest_flora_rank_fits_the_budget_of_lora() -> None:
    model = nn.Sequential(nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3))
    budget = count_parameters(model, LoraConfig(r=4))
    flora = largest_rank(model, FloraConfig(), budget)
    assert flora.r > 4
    assert count_parameters(model, flora) <= budget


def test_a_budget_below_rank_one_is_refused() -> None:
    with pytest.raises(RankError, match=r"budget: must allow rank 1, 22 parameters, got 10"):
        largest_rank(nn.Sequential(nn.Linear(12, 10)), LoraConfig(), 10)


def test_refused_models_are_left_as_they_were() -> None:
    model = network()
    before = {name: (type(m), [p.requires_grad for p in m.parameters()]) for name, m in model.named_modules()}
    for config in (LoraConfig(r=500), LoraConfig(modules_to_save=["x"]), LoraConfig(target_modules=["x"])):
        with pytest.raises((RankError, TargetError)):
            get_peft_model(model, config)
    after = {name: (type(m), [p.requires_grad for p in m.parameters()]) for name, m in model.named_modules()}
    assert before == after
