"""Weighted adapters: exact sums for every mergeable method, and stock peft's own results where it has them."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared_peft import METHODS, LoraConfig, PeftModel, get_peft_model, make_config
from shared_peft.errors import AdapterError, RankError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import CASES, Case, close, config_for, fill_randomly
from tests.shared_peft.small_models import IMAGES, vit  # before peft, which imports torchvision

import peft  # isort: skip

MERGEABLE = [name for name, method in METHODS.items() if method.mergeable]
WEIGHTS = {"a": 0.3, "b": -1.7}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def two(case: Case, first: str, second: str, **fields: object) -> PeftModel:
    """Adapters a and b of two methods, both away from their start."""
    model = get_peft_model(case.layer(), config_for(first), "a")
    fill_randomly(model, 1)
    model.add_adapter("b", config_for(second, **fields))
    model.set_adapter("b")
    fill_randomly(model, 2)
    return model.eval()


def changes(model: PeftModel, weights: dict[str, float]) -> dict[str, Tensor]:
    """The weighted sum of the changes of every stored parameter, added one by one."""
    total: dict[str, Tensor] = {}
    for name, layer in adapter_layers(model.base_model):
        for adapter, weight in weights.items():
            for slot, _ in layer.methods(adapter):
                parameter = layer.base_layer.get_parameter(slot.parameter)
                rows = slice(*slot.rows) if slot.rows else slice(None)
                key = f"{name}.{slot.parameter}"
                total.setdefault(key, torch.zeros_like(parameter))
                total[key][rows] += weight * slot.stored(layer.delta_weight(adapter, slot)).detach()
    return total


@pytest.mark.parametrize("method", MERGEABLE)
@every_case
def test_weights_multiply_each_adapters_change(method: str, case: Case) -> None:
    model = two(case, "lora", method)
    summed = changes(model, WEIGHTS)
    oracle = case.layer()
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            parameter.add_(summed.get(name, torch.zeros_like(parameter)))
    model.set_adapter(["a", "b"], weights=[0.3, -1.7])
    expected = oracle(case.x())
    assert close(model.train()(case.x()), expected)
    with torch.no_grad():
        assert close(model.eval()(case.x()), expected)
    model.merge_adapter()
    assert close(model(case.x()), expected)
    model.unmerge_adapter()
    model.set_adapter(["b"])
    assert not close(model(case.x()), expected, 1e-3)


def test_weights_are_not_part_of_the_file_and_survive_new_adapters(tmp_path: Path) -> None:
    case = CASES[0]
    model = two(case, "lora", "flora")
    model.set_adapter("a")
    whole = model(case.x())
    model.set_adapter(["a"], weights=[0.25])
    quarter = model(case.x())
    model.save_pretrained(tmp_path)
    assert close(PeftModel.from_pretrained(case.layer(), tmp_path)(case.x()), whole)
    model.add_adapter("c", LoraConfig(r=1))
    assert torch.equal(model(case.x()), quarter)
    model.set_adapter(["a", "b"], weights=[0.25, 3.0])
    model.delete_adapter("b")
    assert model.active_adapters == ["a"]
    assert close(model(case.x()), quarter)
    assert close(quarter - case.layer()(case.x()), 0.25 * (whole - case.layer()(case.x())))


def test_inference_mode_trains_nothing() -> None:
    model = two(CASES[0], "lora", "flora")
    model.set_adapter("a", inference_mode=True)
    assert model.get_nb_trainable_parameters()[0] == 0
    model.add_adapter("c", LoraConfig(r=1))
    assert model.get_nb_trainable_parameters()[0] == 0
    model.set_adapter("a")
    assert model.get_nb_trainable_parameters()[0] > 0


@pytest.mark.parametrize("second", ["lora", "flora", "lora_tsd"])
@every_case
def test_cat_is_the_exact_sum_and_survives_storage(second: str, case: Case, tmp_path: Path) -> None:
    model = two(case, "lora", second)
    model.set_adapter(["a", "b"], weights=list(WEIGHTS.values()))
    expected = model(case.x())
    if second == "lora_tsd" and case.name.startswith(("gru", "lstm")):  # one rank for weights of several sizes
        with pytest.raises(RankError, match=r"0\.layer\.weight_.*: rank must be in"):
            model.add_weighted_adapter(["a", "b"], list(WEIGHTS.values()), "sum", "cat")
        assert set(model.peft_config) == {"a", "b"}
        return
    model.add_weighted_adapter(["a", "b"], list(WEIGHTS.values()), "sum", "cat")
    assert model.active_adapters == ["a", "b"]
    assert torch.equal(model(case.x()), expected)
    model.set_adapter("sum")
    assert close(model(case.x()), expected)
    model.save_pretrained(tmp_path)
    assert close(PeftModel.from_pretrained(case.layer(), tmp_path)(case.x()), expected)


@pytest.mark.parametrize("method", MERGEABLE)
@every_case
def test_svd_is_the_best_sum_of_its_rank_for_every_mergeable_method(method: str, case: Case) -> None:
    model = two(case, "lora", method)
    expected = changes(model, WEIGHTS)
    model.add_weighted_adapter(["a", "b"], list(WEIGHTS.values()), "sum", "svd", svd_rank=2)
    for name, layer in adapter_layers(model.base_model):
        for slot, _ in layer.methods("sum"):
            rows = slice(*slot.rows) if slot.rows else slice(None)
            whole = (
                slot.read(expected[f"{name}.{slot.parameter}"][rows])
                if slot.rows is None
                else (expected[f"{name}.{slot.parameter}"][rows])
            )
            lost = (whole - layer.delta_weight("sum", slot)).flatten(1)
            sigma = torch.linalg.svdvals(whole.flatten(1))
            assert torch.allclose(lost.norm(), sigma[2:].norm(), atol=1e-4)


def test_svd_rank_is_the_widest_chain_unless_given() -> None:
    model = two(CASES[0], "lora", "lora", r=4)
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "sum", "svd")
    assert model.peft_config["sum"].r == 4
    model.add_adapter("c", config_for("hira"))
    with pytest.raises(AdapterError, match=r"0: svd_rank must be given for methods without a rank, got Lora.*svd_rank"):
        model.add_weighted_adapter(["a", "c"], [1.0, 1.0], "other", "svd")
    assert "other" not in model.peft_config


@pytest.mark.parametrize("kind", ["linear", "cat", "svd"])
@pytest.mark.parametrize("weights", [[0.4, 0.9], [0.4, -0.9]])
def test_combinations_are_those_of_stock_peft(kind: str, weights: list[float], tmp_path: Path) -> None:
    ours = get_peft_model(vit(), LoraConfig(r=3, lora_alpha=5.0, target_modules=["qkv", "fc1"]), "a")
    fill_randomly(ours, 1)
    ours.add_adapter("b", LoraConfig(r=3, lora_alpha=2.0, target_modules=["qkv", "fc1"]))
    ours.set_adapter("b")
    fill_randomly(ours, 2)
    for name in "ab":
        ours.save_pretrained(tmp_path / name, name, stock=True)
    theirs = peft.PeftModel.from_pretrained(vit(), tmp_path / "a", adapter_name="a").eval()
    theirs.load_adapter(tmp_path / "b", "b")
    theirs.add_weighted_adapter(["a", "b"], weights, "sum", combination_type=kind, svd_rank=None)
    ours.add_weighted_adapter(["a", "b"], weights, "sum", kind)
    theirs.set_adapter("sum")
    ours.eval().set_adapter("sum")
    assert not close(ours(IMAGES), vit()(IMAGES), 1e-2)
    if kind != "linear":  # the scale folded into B is no part of peft's linear combination
        assert close(ours(IMAGES), theirs(IMAGES), 1e-4)
        return
    for layer in (ours.base_model.blocks[0].attn.qkv, ours.base_model.blocks[1].mlp.fc1):
        change = layer.delta_weight("sum", layer.slots[0])
        a, b = (layer.adapters[name]["weight"] for name in "ab")
        factors = [weight * method.scale for weight, method in zip(weights, (a, b), strict=True)]
        down = sum(abs(f) ** 0.5 * (1 if f > 0 else -1) * m.lora_A for f, m in zip(factors, (a, b), strict=True))
        up = sum(abs(f) ** 0.5 * m.lora_B for f, m in zip(factors, (a, b), strict=True))
        assert close(change, up @ down)


def test_linear_on_files_of_scale_one_answers_like_stock_peft(tmp_path: Path) -> None:
    for seed, name in enumerate(("first", "second")):
        theirs = peft.get_peft_model(vit(), peft.LoraConfig(r=3, lora_alpha=6, target_modules=["qkv"]), name)
        torch.manual_seed(seed)
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.2)
        theirs.save_pretrained(tmp_path)
    theirs = peft.PeftModel.from_pretrained(vit(), tmp_path / "first", adapter_name="first").eval()
    theirs.load_adapter(tmp_path / "second", "second")
    theirs.add_weighted_adapter(["first", "second"], [0.6, -0.8], "sum", combination_type="linear")
    theirs.set_adapter("sum")
    ours = PeftModel.from_pretrained(vit(), tmp_path / "first", "first")
    ours.load_adapter(tmp_path / "second", "second")
    ours.add_weighted_adapter(["first", "second"], [0.6, -0.8], "sum", "linear")
    ours.eval().set_adapter("sum")
    assert not close(ours(IMAGES), vit()(IMAGES), 1e-2)
    assert close(ours(IMAGES), theirs(IMAGES))


def test_slices_and_whole_of_a_fused_weight_add_up() -> None:
    model = get_peft_model(vit(), LoraConfig(r=2, target_modules=["qkv"], qkv_parts=["q", "v"]), "a")
    fill_randomly(model, 1)
    model.add_adapter("b", LoraConfig(r=3, target_modules=["qkv", "fc1"]))
    model.set_adapter("b")
    fill_randomly(model, 2)
    model.eval().set_adapter(["a", "b"], weights=[0.5, 2.0])
    expected = model(IMAGES)
    for kind, rank in (("cat", None), ("svd", 24)):
        model.add_weighted_adapter(["a", "b"], [0.5, 2.0], kind, kind, svd_rank=rank)
        model.set_adapter(kind)
        assert close(model(IMAGES), expected, 1e-4), kind
    model.add_weighted_adapter(["a"], [1.0], "parts", "cat")
    assert model.peft_config["parts"].qkv_parts == ["q", "v"]


def test_a_module_trained_by_one_adapter_comes_along_and_by_two_is_refused() -> None:
    model = get_peft_model(vit(), LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["head"]), "a")
    fill_randomly(model, 1)
    model.add_adapter("b", LoraConfig(r=2, target_modules=["qkv"]))
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "sum", "cat")
    assert torch.equal(model.base_model.head.copies["sum"].weight, model.base_model.head.copies["a"].weight)
    with pytest.raises(AdapterError, match=r"head: must be trained in full by one of the adapters, got a, sum"):
        model.add_weighted_adapter(["a", "sum"], [1.0, 1.0], "again", "cat")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"weights": [1.0]}, r"weights: must be one for each adapter.*got 1 weights for a, b"),
        ({"weights": [1.0, float("nan")]}, r"weights: must be finite, got \[1.0, nan\]"),
        ({"adapters": ["a", "x"]}, r"must be one of a, b, c, d, got 'x'"),
        ({"adapters": ["a", "a"]}, r"each named once"),
        ({"adapter_name": "b"}, r"must be new in this model, got 'b'"),
        ({"adapters": ["a", "c"], "combination_type": "cat"}, r"0: 'cat' needs methods that are low-rank chains"),
        ({"adapters": ["a", "c"], "combination_type": "linear"}, r"0: 'linear' needs plain LoRA, got Hira"),
        ({"adapters": ["a", "d"], "combination_type": "linear"}, r"0: 'linear' needs plain LoRA, got LoraTrf"),
        ({"combination_type": "linear"}, r"0: 'linear' needs adapters of one rank, got ranks \[2, 4\]"),
    ],
)
def test_what_cannot_be_combined_is_refused_and_nothing_is_added(call: dict[str, object], message: str) -> None:
    model = two(CASES[0], "lora", "lora", r=4)
    model.add_adapter("c", config_for("hira"))
    model.add_adapter("d", config_for("lora_trf"))
    before = copy.deepcopy(model.state_dict())
    options = {"adapters": ["a", "b"], "weights": [1.0, 1.0], "adapter_name": "sum", "combination_type": "cat"} | call
    with pytest.raises(AdapterError, match=message):
        model.add_weighted_adapter(**options)
    assert model.state_dict().keys() == before.keys()
    assert set(model.peft_config) == {"a", "b", "c", "d"}


def test_make_config_is_what_a_combination_holds() -> None:
    model = two(CASES[0], "lora", "lora", r=4)
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "sum", "cat")
    assert model.peft_config["sum"] == make_config("lora", r=6, lora_alpha=6.0, target_modules=["0"])
