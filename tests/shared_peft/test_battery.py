"""What every registered method must do on every layer kind, unasked."""

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import get_args

import pytest
import torch
from torch import nn
from torch.func import functional_call

from shared_peft import METHODS, PeftModel, count_parameters, get_peft_model
from shared_peft.errors import MergeError, RankError, TargetError
from shared_peft.inject import adapter_layers
from shared_peft.paths import Path
from tests.shared_peft.cases import CASES, Case, close, config_for, fill_randomly

RECIPE = {"total_step": 4, "tinit": 1, "tfinal": 2, "deltaT": 1, "target_r": 1}  # phases that end at step 2
PATHS = ("auto", *get_args(Path))
TOLERANCES = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float64: 1e-6}  # of the largest output


def mergeable(method: str) -> bool:
    return METHODS.get(method).mergeable


def is_dense(case: Case) -> bool:
    """Tell whether the case's layer is one linear map without groups, which a method that cannot be merged needs."""
    structured = (nn.MultiheadAttention, nn.RNNBase)
    return not any(isinstance(m, structured) or getattr(m, "groups", 1) > 1 for m in case.layer().modules())


def runs(case: Case, dtype: torch.dtype) -> bool:
    """Tell whether this processor has the layer's operation in this type."""
    if case.entries or dtype is torch.float64:
        return True
    try:
        case.layer().to(dtype)(case.x().to(dtype))
    except NotImplementedError:
        return False
    return True


def pairs(every: int = 1) -> Iterator[tuple[str, Case]]:
    """Every method with every layer it works on; or every n-th pair, so that each method and each layer is met."""
    for row, method in enumerate(METHODS.names()):
        for column, case in enumerate(CASES):
            if (mergeable(method) or is_dense(case)) and (row + column) % every == 0:
                yield method, case


def parametrized(chosen: Iterator[tuple[str, Case]]) -> pytest.MarkDecorator:
    values = [pytest.param(method, case, id=f"{method}-{case.name}") for method, case in chosen]
    return pytest.mark.parametrize(("method", "case"), values)


every_pair = parametrized(pairs())
some_pairs = parametrized(pairs(every=5))
every_mergeable_pair = parametrized(pair for pair in pairs() if mergeable(pair[0]))
every_refused_pair = parametrized((m, c) for m in METHODS.names() for c in CASES if (m, c) not in set(pairs()))


def adapted(method: str, case: Case, layer: nn.Module | None = None, **fields: object) -> PeftModel:
    generator = torch.Generator().manual_seed(3)
    config = config_for(method, **RECIPE | fields)
    return get_peft_model(case.layer() if layer is None else layer, config, generator=generator)


def launched(method: str, case: Case, **fields: object) -> PeftModel:
    """An adapter after a random fill, a step, the phase change of methods that have one, and another fill."""
    model = adapted(method, case, **fields)
    fill_randomly(model)
    model(case.x()).square().sum().backward()
    model.update_and_allocate(2)
    model.zero_grad()
    fill_randomly(model, seed=4)
    return model


def on_path(model: PeftModel, path: str) -> PeftModel:
    for _, layer in adapter_layers(model):
        layer.path = path  # type: ignore[assignment]
    return model


@every_pair
def test_the_start_equals_the_base(method: str, case: Case) -> None:
    base = case.layer()(case.x())
    model = adapted(method, case)
    assert torch.equal(model(case.x()), base)
    assert close(model.train()(case.x()), base)


@every_mergeable_pair
def test_the_change_has_the_weights_shape_and_is_not_zero_after_a_fill(method: str, case: Case) -> None:
    model = launched(method, case, target_r=2)  # no weight may lose all its ranks
    for _, layer in adapter_layers(model):
        for slot in layer.slots:
            change = layer.delta_weight("default", slot)
            assert change.shape == layer.frozen_weight(slot).shape
            assert change.abs().max() > 1e-3


@every_mergeable_pair
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
    for path in PATHS:
        assert close(on_path(model, path).train()(case.x()), expected), path
        with torch.no_grad():
            assert close(model.eval()(case.x()), expected), path


@every_mergeable_pair
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


@every_refused_pair
def test_a_layer_that_a_method_cannot_run_beside_is_refused_by_name(method: str, case: Case) -> None:
    layer = case.layer()
    before = {name: p.clone() for name, p in layer.named_parameters()}
    with pytest.raises(TargetError, match=r"^0.*: a method that cannot be merged needs a dense layer.*Exclude"):
        adapted(method, case, layer)
    assert all(torch.equal(p, before[name]) and p.requires_grad for name, p in layer.named_parameters())
    assert not list(adapter_layers(layer))


@parametrized(pair for pair in pairs() if not mergeable(pair[0]))
def test_a_method_that_cannot_be_merged_changes_the_answer_and_says_so(method: str, case: Case) -> None:
    model = launched(method, case)
    expected = model(case.x())
    assert not close(expected, case.layer()(case.x()), 1e-3)
    assert torch.equal(model.train()(case.x()), expected)
    with pytest.raises(MergeError, match=r"^0: a merged method must be a weight change, got .*\. Run and export"):
        model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(model(case.x()), case.layer()(case.x()))
    assert torch.equal(model.eval()(case.x()), expected)


@every_pair
def test_a_base_of_another_type_keeps_it_beside_a_float32_adapter(method: str, case: Case) -> None:
    dtypes = [dtype for dtype in TOLERANCES if runs(case, dtype)]
    dtype = dtypes[(METHODS.names().index(method) + CASES.index(case)) % len(dtypes)]
    x = case.x() if case.entries else case.x().to(dtype)
    base = case.layer().to(dtype)
    model = adapted(method, case, base)
    for path in PATHS:
        answer = on_path(model, path)(x)
        assert answer.dtype is dtype
        assert torch.equal(answer, case.layer().to(dtype)(x)), path
    fill_randomly(model)
    exact = adapted(method, case, case.layer().to(dtype)).double()
    exact.load_state_dict(model.state_dict())
    expected = exact(x if case.entries else x.double()).detach()
    for path in PATHS:
        answer = on_path(model, path).train()(x)
        assert (answer.double() - expected).abs().max() < TOLERANCES[dtype] * expected.abs().max(), path
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    if mergeable(method):
        before = {name: p.detach().clone() for name, p in base.named_parameters()}
        with torch.no_grad():
            unmerged = on_path(model, "auto").eval()(x)
            model.merge_adapter()
            assert torch.equal(model(x), unmerged)
        model.unmerge_adapter()
        assert all(torch.equal(p, before[name]) for name, p in base.named_parameters())


@every_pair
def test_the_base_gets_no_gradient_and_the_adapter_does(method: str, case: Case) -> None:
    model = launched(method, case).train()
    model(case.x()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (parameter.requires_grad and ".adapters." in name), name


@every_pair
@pytest.mark.parametrize("phase", ["fresh", "launched"])
def test_saved_and_loaded_adapter_answers_identically(method: str, case: Case, phase: str, tmp_path: FilePath) -> None:
    model = adapted(method, case) if phase == "fresh" else launched(method, case)
    fill_randomly(model, seed=5)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(case.layer(), tmp_path)
    assert torch.equal(loaded(case.x()), model(case.x()))
    assert loaded.peft_config["default"] == model.peft_config["default"]


@every_pair
def test_parameters_are_as_many_as_the_budget_says(method: str, case: Case) -> None:
    model = adapted(method, case)
    assert model.get_nb_trainable_parameters()[0] == count_parameters(case.layer(), model.peft_config["default"])


@some_pairs
def test_copies_and_pickles_answer_identically(method: str, case: Case) -> None:
    model = launched(method, case)
    with torch.no_grad():
        expected = model(case.x())
        assert torch.equal(copy.deepcopy(model)(case.x()), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(case.x()), expected)


@pytest.mark.filterwarnings("ignore:The tensor attributes self.*_flat_weights:UserWarning")  # torch's own, of any GRU
@some_pairs
def test_torch_export_keeps_the_answer_for_any_batch(method: str, case: Case) -> None:
    model = launched(method, case)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (case.x(),), dynamic_shapes=(({0: batch},),))
    assert close(program.module()(case.x(7)), model(case.x(7)))


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if hasattr(m.config_class, "r")])
@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_names_the_layer(method: str, rank: int) -> None:
    with pytest.raises(RankError, match=r"^body\.0: .*rank.*, got .*\. (Lower|Raise)"):
        get_peft_model(nn.ModuleDict({"body": nn.Sequential(nn.Linear(4, 3))}), config_for(method, r=rank))


@every_mergeable_pair
def test_direct_readers_of_the_weight_see_the_adapted_one(method: str, case: Case) -> None:
    model = launched(method, case)
    merged = copy.deepcopy(model).merge_and_unload()
    for name, layer in adapter_layers(model.base_model):
        for slot in layer.slots:
            if "." not in slot.parameter:
                assert close(getattr(layer, slot.parameter), merged.get_submodule(name).get_parameter(slot.parameter))
