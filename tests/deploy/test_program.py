"""Merging works on a copy and refuses what it cannot merge."""

import pytest
import torch

from deploy.program import MAX_BATCH, export_program, merged_copy
from shared_peft import AdapterLayer, LoraConfig, inject_adapter_in_model
from shared_peft.errors import MergeError
from tests.deploy.conftest import adapted_toy
from tests.deploy.toys import ConvNet


def test_merged_copy_answers_like_the_adapted_model_and_holds_no_adapter():
    trained = adapted_toy("sequence", "lora_tsd")
    merged = merged_copy(trained.model)
    with torch.no_grad():
        assert torch.allclose(merged(trained.examples), trained.model(trained.examples), atol=1e-5)
    assert not any(isinstance(module, AdapterLayer) for module in merged.modules())
    assert any(isinstance(module, AdapterLayer) for module in trained.model.modules())


def test_adapter_outside_a_peft_model_is_refused():
    model = inject_adapter_in_model(LoraConfig(r=1, target_modules=["head"]), ConvNet())
    with pytest.raises(MergeError, match="ConvNet: its adapters must be merged before export, got adapters at head"):
        merged_copy(model)


def test_weights_that_are_not_finite_are_refused():
    trained = adapted_toy("conv", "lora")
    with torch.no_grad():
        next(p for p in trained.model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(MergeError, match="finite"):
        merged_copy(trained.model)


def test_program_takes_any_batch_from_one():
    torch.manual_seed(0)
    program = export_program(ConvNet().eval(), (3, 12, 12))
    ranges = [(bounds.lower, bounds.upper) for bounds in program.range_constraints.values()]
    assert ranges == [(1, MAX_BATCH)]
    assert program.module()(torch.zeros(1, 3, 12, 12)).shape == (1, 5)
