"""Property tests: any convolution torch accepts is adapted, merged and restored without error."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from shared_peft import METHODS, get_peft_model
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import close, config_for, fill_randomly

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A convolution with drawn options and the shape of an input it accepts."""
    modes = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    if groups == 1:
        per_group = (per_group[0] + 1, per_group[1] + 1)
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(modes))
    stride = draw(st.integers(1, 2))
    padding: object = draw(st.one_of(st.just("same"), st.just("valid"), st.integers(0, 2)))
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = CONVOLUTIONS[modes](
        groups * per_group[0],
        groups * per_group[1],
        kernel,
        stride=1 if padding == "same" else stride,
        padding=padding,  # type: ignore[arg-type]
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "reflect", "circular", "replicate"])),
    )
    return layer, (2, groups * per_group[0], *(7,) * modes)


@pytest.mark.parametrize("method", METHODS.names())
@given(drawn=convolutions(), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_convolution_adapts_merges_and_restores(
    method: str, drawn: tuple[nn.Module, tuple[int, ...]], dtype: torch.dtype
) -> None:
    layer, shape = drawn
    model = get_peft_model(nn.Sequential(layer).to(dtype), config_for(method, r=1, kernel_r=1))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    base = model(x).detach()
    fill_randomly(model)
    tolerance = 1e-1 if dtype is torch.bfloat16 else 1e-4
    answers = []
    for path in ("weight", "activation"):
        for _, adapted in adapter_layers(model):
            adapted.path = path  # type: ignore[assignment]
        answers.append(model.train()(x))
    assert answers[0].dtype == dtype
    assert close(answers[0].double(), answers[1].double(), tolerance)
    before = layer.weight.detach().clone()
    model.merge_adapter()
    assert torch.equal(model(x), answers[0])
    model.unmerge_adapter()
    assert torch.equal(layer.weight, before)
    with model.disable_adapter():
        assert torch.equal(model(x), base)
