"""Property tests: any convolution torch accepts is adapted, trained, merged, stored and exported without error."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shared_peft import METHODS, PeftModel, get_peft_model
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import close, config_for, fill_randomly

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MERGEABLE = [name for name, method in METHODS.items() if method.mergeable]
TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
RECIPE: dict[str, Any] = {"r": 1, "kernel_r": 1, "total_step": 4, "tinit": 1, "tfinal": 2, "deltaT": 1, "target_r": 1}

Drawn = tuple[nn.Module, Tensor]
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch's own


@st.composite
def convolutions(draw: st.DrawFn) -> Drawn:
    """A convolution, transposed or not, with drawn options, and an input it accepts."""
    modes, groups, dilation = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 2))
    smallest = 2 if groups == 1 else 1
    channels = [groups * draw(st.integers(smallest, smallest + 2)) for _ in range(2)]
    options: dict[str, Any] = {"dilation": dilation, "groups": groups, "bias": draw(st.booleans())}
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(modes))
    torch.manual_seed(draw(st.integers(0, 99)))
    if draw(st.integers(0, 3)) == 0:
        stride = draw(st.integers(1, 3))
        extra = draw(st.integers(0, max(stride, dilation) - 1))
        layer = TRANSPOSED[modes](*channels, kernel, stride=stride, output_padding=extra, **options)
    else:
        padding: Any = draw(st.one_of(st.just("same"), st.just("valid"), st.integers(0, 2)))
        stride = 1 if padding == "same" else draw(st.integers(1, 3))
        mode = draw(st.sampled_from(["zeros", "reflect", "circular", "replicate"]))
        layer = CONVOLUTIONS[modes](*channels, kernel, stride=stride, padding=padding, padding_mode=mode, **options)
    return layer, torch.randn(2, channels[0], *(7,) * modes)


def examples(count: int) -> Any:
    return settings(
        max_examples=count, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
    )


def launched(method: str, layer: nn.Module, x: Tensor) -> PeftModel:
    """An adapter after a random fill, a step, the phase change of methods that have one, and another fill."""
    model = get_peft_model(nn.Sequential(layer), config_for(method, **RECIPE))
    fill_randomly(model)
    model(x).double().square().sum().backward()
    model.update_and_allocate(2)
    model.zero_grad()
    fill_randomly(model, seed=4)
    return model


@pytest.mark.parametrize("method", MERGEABLE)
@given(drawn=convolutions(), dtype=st.sampled_from(list(TOLERANCES)))
@examples(30)
def test_any_convolution_adapts_trains_merges_and_restores(method: str, drawn: Drawn, dtype: torch.dtype) -> None:
    layer, x = drawn[0].to(dtype), drawn[1].to(dtype)
    base, before = layer(x).detach(), layer.weight.detach().clone()
    assert torch.equal(get_peft_model(nn.Sequential(layer), config_for(method, **RECIPE))(x), base)
    model = launched(method, layer, x)
    answers = []
    for path in ("weight", "activation"):
        for _, adapted in adapter_layers(model):
            adapted.path = path  # type: ignore[assignment]
        answers.append(model.train()(x))
    assert answers[0].dtype == dtype
    difference = (answers[0].double() - answers[1].double()).abs().max()
    assert difference <= TOLERANCES[dtype] * answers[0].double().abs().max()
    answers[1].double().square().sum().backward()
    assert all(p.requires_grad == (p.grad is not None) for p in model.parameters() if p.numel())
    assert layer.weight.grad is None
    model.merge_adapter()
    assert torch.equal(model(x), answers[0])
    model.unmerge_adapter()
    assert torch.equal(layer.weight, before)
    with model.disable_adapter():
        assert torch.equal(model(x), base)


@given(drawn=convolutions(), method=st.sampled_from(METHODS.names()), fresh=st.booleans())
@examples(100)
def test_any_adapter_comes_back_from_its_file(drawn: Drawn, method: str, fresh: bool) -> None:
    layer, x = drawn
    if not METHODS.get(method).mergeable and layer.groups > 1:
        method = "lora"
    if fresh:
        model = get_peft_model(nn.Sequential(layer), config_for(method, **RECIPE))
        fill_randomly(model)
    else:
        model = launched(method, layer, x)
    answer = model(x)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = PeftModel.from_pretrained(nn.Sequential(layer), Path(folder))
    assert torch.equal(loaded(x), answer)


@given(drawn=convolutions(), method=st.sampled_from(METHODS.names()))
@examples(15)
def test_any_adapted_convolution_exports(drawn: Drawn, method: str) -> None:
    layer, x = drawn
    if not METHODS.get(method).mergeable and layer.groups > 1:
        method = "lora"
    model = launched(method, layer, x).eval()
    assert close(torch.export.export(model, (x,)).module()(x), model(x), 1e-4)
