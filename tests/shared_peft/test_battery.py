"""What every registered method must do on every layer kind, unasked."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call

from shared_peft import METHODS, PeftModel, count_parameters, get_peft_model
from shared_peft.errors import RankError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import CASES, Case, close, config_for, fill_randomly

every_method = pytest.mark.parametrize("method", METHODS.names())
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def adapted(method: str, case: Case, **fields: object) -> PeftModel:
    generator = torch.Generator().manual_seed(3)
    return get_peft_model(case.layer(), config_for(method, **fields), generator=generator)


def launched(method: str, case: Case) -> PeftModel:
    """An adapter after a random fill, the phase change of methods that have one, and another fill."""
    model = adapted(method, case)
    fill_randomly(model)
    model.update_and_allocate(2)
    fill_randomly(model, seed=4)
    return model


@every_method
@every_case
def test_the_start_equals_the_base(method: str, case: Case) -> None:
    base = case.layer()(case.x())
    assert torch.equal(adapted(method, case)(case.x()), base)
    assert close(adapted(method, case).train()(case.x()), base)


@every_method
@every_case
def test_the_change_has_the_weights_shape_and_is_not_zero_after_a_fill(method: str, case: Case) -> None:
    model = launched(method, case)
    for _, layer in adapter_layers(model):
        for slot in layer.slots:
            change = layer.delta_weight("default", slot)
            assert change.shape == layer.frozen_weight(slot).shape
            assert change.abs().max() > 1e-3


@every_method
@every_case
def test_both_paths_answer_like_the_layer_with_its_weight_replaced(method: str, case: Case) -> None:
    model = launched(method, case)
    oracle = case.layer()
    replaced = {name: parameter.detach().clone() for name, parameter in oracle.named_parameters()}
    for name, layer in adapter_layers(model.base_model):
        for slot in layer.slots:
            change = slot.stored(layer.delta_weight("default", slot)).detach()
            rows = slice(*slot.rows) if slot.rows else slice(None)
            replaced[f"{name}.{slot.parameter}"][rows] += change
    expected = functional_call(oracle, replaced, (case.x(),))
    assert not close(expected, case.layer()(case.x()), 1e-3)
    for path in ("auto", "weight", "activation"):
        for _, layer in adapter_layers(model):
            layer.path = path  # type: ignore[assignment]
        assert close(model.train()(case.x()), expected), path
        with torch.no_grad():
            assert close(model.eval()(case.x()), expected), path


@every_method
@every_case
def test_merged_model_answers_like_the_adapted_one_and_unmerging_restores_every_bit(method: str, case: Case) -> None:
    model = launched(method, case)
    expected = model(case.x())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.merge_adapter(safe_merge=True)
    assert close(model(case.x()), expected)
    with torch.no_grad():
        merged = model(case.x())
    model.unmerge_adapter()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with torch.no_grad():
        assert torch.equal(model(case.x()), merged)
        plain = model.merge_and_unload()
        assert torch.equal(plain(case.x()), merged)
    assert [type(m) for m in plain.modules()] == [type(m) for m in case.layer().modules()]


@every_method
@every_case
def test_the_base_gets_no_gradient_and_the_adapter_does(method: str, case: Case) -> None:
    model = launched(method, case).train()
    model(case.x()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".adapters." in name), name


@every_method
@every_case
@pytest.mark.parametrize("phase", ["fresh", "launched"])
def test_saved_and_loaded_adapter_answers_identically(method: str, case: Case, phase: str, tmp_path: Path) -> None:
    model = adapted(method, case) if phase == "fresh" else launched(method, case)
    fill_randomly(model, seed=5)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(case.layer(), tmp_path)
    assert torch.equal(loaded(case.x()), model(case.x()))
    assert loaded.peft_config["default"] == model.peft_config["default"]


@every_method
@every_case
def test_parameters_are_as_many_as_the_budget_says(method: str, case: Case) -> None:
    model = adapted(method, case)
    assert model.get_nb_trainable_parameters()[0] == count_parameters(case.layer(), config_for(method))


@every_method
@every_case
def test_copies_and_pickles_answer_identically(method: str, case: Case) -> None:
    model = launched(method, case)
    with torch.no_grad():
        expected = model(case.x())
        assert torch.equal(copy.deepcopy(model)(case.x()), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(case.x()), expected)


@pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights:UserWarning")  # torch's own, of any GRU
@every_method
@every_case
def test_torch_export_keeps_the_answer_for_any_batch(method: str, case: Case) -> None:
    model = launched(method, case)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (case.x(),), dynamic_shapes=(({0: batch},),))
    assert close(program.module()(case.x(7)), model(case.x(7)))


@every_method
@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_names_the_layer(method: str, rank: int) -> None:
    with pytest.raises(RankError, match=r"^body\.0: .*rank.*, got .*\. (Lower|Raise)"):
        get_peft_model(nn.ModuleDict({"body": nn.Sequential(nn.Linear(4, 3))}), config_for(method, r=rank))


@every_method
@every_case
def test_direct_readers_of_the_weight_see_the_adapted_one(method: str, case: Case) -> None:
    model = launched(method, case)
    merged = copy.deepcopy(model).merge_and_unload()
    for name, layer in adapter_layers(model.base_model):
        for slot in layer.slots:
            if "." not in slot.parameter:
                assert close(getattr(layer, slot.parameter), merged.get_submodule(name).get_parameter(slot.parameter))
