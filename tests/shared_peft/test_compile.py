"""Adapted models under torch.compile, autocast, gradient checkpointing, deepcopy and pickle."""

import copy
import pickle
import shutil

import pytest
import torch
from torch import Tensor, nn

from shared_peft import METHODS, LoraConfig, PeftModel, get_peft_model
from tests.shared_peft.cases import close, config_for, fill_randomly
from tests.shared_peft.small_models import IMAGES, vit

every_method = pytest.mark.parametrize("method", METHODS.names())
X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)).eval()


def filled(method: str, base: nn.Module | None = None) -> PeftModel:
    model = get_peft_model(base or network(), config_for(method))
    fill_randomly(model)
    model.update_and_allocate(2)
    fill_randomly(model, 4)
    return model


def gradients(model: nn.Module, output: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    output.square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def agree(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float = 1e-4) -> bool:
    scale = max(float(value.abs().max()) for value in second.values())
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], value, rtol=tolerance, atol=tolerance * scale) for name, value in second.items()
    )


@every_method
def test_a_compiled_training_step_and_evaluation_have_one_graph_and_the_eager_answers(method: str) -> None:
    torch.compiler.reset()
    model = filled(method).train()
    expected = model(X)
    grads = gradients(model, expected)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    output = compiled(X)
    assert close(output, expected, 1e-4)
    assert agree(gradients(model, output), grads)
    with torch.no_grad():
        model.eval()
        assert close(compiled(X), model(X), 1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own
def test_inductor_trains_like_eager() -> None:
    assert shutil.which("g++") or shutil.which("clang++"), "inductor needs a C++ compiler"
    torch.compiler.reset()
    model = filled("lora").train()
    expected = model(X)
    grads = gradients(model, expected)
    output = torch.compile(model)(X)
    assert close(output, expected, 1e-4)
    assert agree(gradients(model, output), grads)


def test_choosing_another_adapter_compiles_again_and_going_back_does_not() -> None:
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    model = filled("lora").eval()
    model.add_adapter("other", config_for("lora"))
    model.set_adapter("other")
    fill_randomly(model, 9)
    compiled = torch.compile(model, backend=counter)
    counts = []
    for name in ("default", "other", "default", "other"):
        model.set_adapter(name)
        assert close(compiled(X), model(X), 1e-4)
        counts.append(counter.frame_count)
    assert counts[0] < counts[1] == counts[2] == counts[3]


@every_method
@pytest.mark.parametrize("training", [True, False])
def test_autocast_answers_and_trains_to_bfloat16_rounding(method: str, training: bool) -> None:
    model = filled(method).train(training)
    expected = model(X)
    grads = gradients(model, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(X)
        with torch.no_grad():
            still = model(X)
    scale = float(expected.detach().abs().max())
    assert output.dtype == torch.bfloat16
    for answer in (output, still):
        assert torch.allclose(answer.float(), expected, rtol=0.05, atol=0.05 * scale)
    halved = gradients(model, output.float())
    assert all(grad.dtype == torch.float32 for grad in halved.values())
    assert agree(halved, grads, 0.1)


@every_method
def test_copies_and_pickles_train_alike_and_apart(method: str) -> None:
    model = filled(method).train()
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    grads = gradients(model, model(X))
    for twin in twins:
        assert agree(gradients(twin, twin(X)), grads, 1e-6)
        fill_randomly(twin, 11)
    assert agree(gradients(model, model(X)), grads, 1e-6)


@pytest.mark.parametrize("method", ["lora", "flora", "lora_tsd", "dora"])
def test_gradient_checkpointing_of_a_timm_model_gives_the_same_gradients(method: str) -> None:
    model = filled(method, vit()).train()
    expected = model(IMAGES)
    grads = gradients(model, expected)
    model.set_grad_checkpointing(True)
    output = model(IMAGES)
    assert torch.equal(output, expected)
    assert agree(gradients(model, output), grads, 1e-5)


def test_gradient_checkpointing_redraws_the_same_dropout() -> None:
    model = get_peft_model(vit(), LoraConfig(r=2, lora_dropout=0.3)).train()
    fill_randomly(model)
    results = []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(5)
        results.append(gradients(model, model(IMAGES)))
    assert agree(results[1], results[0], 1e-5)
