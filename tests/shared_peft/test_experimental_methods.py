"""MPC_n and LoRATRF, which no weight change can stand for: their formulas, position by position."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from shared_peft import METHODS, LoraTrfConfig, MpcNConfig, PeftModel, get_peft_model
from shared_peft.errors import MergeError, RankError, TargetError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import close, fill_randomly

EXPERIMENTAL = [name for name, method in METHODS.items() if method.experimental]


def adapted(layer: nn.Module, config: MpcNConfig | LoraTrfConfig) -> tuple[PeftModel, dict[str, Tensor]]:
    model = get_peft_model(nn.Sequential(layer), config, generator=torch.Generator().manual_seed(0))
    fill_randomly(model)
    ((_, holder),) = adapter_layers(model)
    ((_, method),) = holder.methods("default")
    return model, {name: value.detach() for name, value in method.named_parameters()}


def narrow_maps() -> list[tuple[nn.Module, Tensor, object]]:
    """Layers, inputs, and what A does to the input, written out."""
    torch.manual_seed(0)
    linear, conv = nn.Linear(6, 8), nn.Conv2d(6, 8, 3, stride=2, padding=1, padding_mode="circular")
    padded = {"pad": (1, 1, 1, 1), "mode": "circular"}
    return [
        (linear, torch.randn(4, 5, 6), lambda x, a: x @ a.T),
        (conv, torch.randn(2, 6, 8, 8), lambda x, a: functional.conv2d(functional.pad(x, **padded), a, stride=2)),
        (nn.Embedding(20, 8), torch.randint(20, (3, 4)), lambda x, a: functional.one_hot(x, 20).float() @ a.T),
    ]


def mixed(x: Tensor, matrix: Tensor, dimension: int) -> Tensor:
    return (x.movedim(dimension, -1) @ matrix.T).movedim(-1, dimension)


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize(
    ("name", "function"),
    [("relu", lambda x: x.clamp(min=0)), ("silu", lambda x: x * x.sigmoid()), ("tanh", torch.tanh)],
)
def test_mpc_n_adds_a_nonlinear_bottleneck(index: int, name: str, function) -> None:
    layer, x, narrow = narrow_maps()[index]
    base = layer(x)
    model, values = adapted(layer, MpcNConfig(r=2, lora_alpha=3, nonlinearity=name))  # type: ignore[arg-type]
    dimension = 1 if isinstance(layer, nn.Conv2d) else -1
    expected = base + mixed(function(narrow(x, values["lora_A"])), 1.5 * values["lora_B"], dimension)
    assert not close(expected, base, 1e-2)
    assert close(model(x), expected, 1e-4)


@pytest.mark.parametrize("index", range(3))
def test_lora_trf_is_lora_and_a_branch_on_the_output_that_points_to_the_task(index: int) -> None:
    layer, x, narrow = narrow_maps()[index]
    base = layer(x)
    model, values = adapted(layer, LoraTrfConfig(r=2, lora_alpha=3, filter_r=3, filter_scale=0.7))
    dimension = 1 if isinstance(layer, nn.Conv2d) else -1
    rows, task = base.movedim(dimension, -1).reshape(-1, 8), values["task"]
    likeness = torch.stack([torch.dot(row, task) / (row.norm() * task.norm()) for row in rows])
    assert likeness.min() < 0 < likeness.max()
    filtered = (rows * likeness.clamp(min=0)[:, None]).reshape(base.movedim(dimension, -1).shape)
    branch = 0.7 * (filtered @ values["filter_A"].T @ values["filter_B"].T).movedim(-1, dimension)
    low_rank = mixed(narrow(x, values["lora_A"]), 1.5 * values["lora_B"], dimension)
    assert close(model(x), base + low_rank + branch, 1e-4)


def test_the_filtered_branch_of_lora_trf_starts_as_a_linear_layer_does_and_adds_nothing() -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(5, 100)), LoraTrfConfig(r=2, filter_r=90))
    ((_, holder),) = adapter_layers(model)
    ((_, method),) = holder.methods("default")
    values = dict(method.named_parameters())
    assert float(values["filter_A"].detach().abs().max()) == pytest.approx(100**-0.5, rel=1e-2)
    assert float(values["filter_A"].detach().std()) == pytest.approx((3 * 100) ** -0.5, rel=2e-2)
    assert not values["filter_B"].any()


def test_lora_trf_turns_its_task_vector_to_what_the_target_selects() -> None:
    torch.manual_seed(0)
    layer, chosen = nn.Linear(8, 8), torch.tensor([1.0, -1, 0, 0, 2, 0, 0, 0])
    nn.init.orthogonal_(layer.weight)
    model = get_peft_model(nn.Sequential(layer), LoraTrfConfig(r=1, filter_r=8)).train()
    ((_, holder),) = adapter_layers(model)
    ((_, method),) = holder.methods("default")
    with torch.no_grad():
        method.filter_A.copy_(torch.eye(8))
        method.filter_B.copy_(3 * torch.eye(8))
    optimizer = torch.optim.Adam([method.task], lr=3e-2)
    for _ in range(200):
        x = torch.randn(64, 8)
        base = layer(x).detach()
        likeness = functional.cosine_similarity(base, chosen[None]).clamp(0, 1)[:, None]
        optimizer.zero_grad()
        functional.mse_loss(model(x), base + 3 * base * likeness).backward()
        optimizer.step()
    assert functional.cosine_similarity(method.task.detach(), chosen, dim=0) > 0.99


def test_the_filtered_branch_must_have_a_rank_its_output_can_have() -> None:
    with pytest.raises(RankError, match=r"^0: rank of the filtered branch must be in \[1, 4\], got 5\. Lower filter_r"):
        get_peft_model(nn.Sequential(nn.Linear(6, 4)), LoraTrfConfig(r=2, filter_r=5))


@pytest.mark.parametrize("method", EXPERIMENTAL)
def test_what_cannot_be_merged_says_so_and_leaves_the_model_as_it_was(method: str) -> None:
    model, _ = adapted(nn.Linear(6, 4), METHODS.get(method).config_class(r=2))  # type: ignore[arg-type, call-arg]
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    before = model(x)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(MergeError, match=r"^0: a merged method must be a weight change, got .*\. Run and export"):
            merge()
    ((_, layer),) = adapter_layers(model)
    with pytest.raises(MergeError, match=rf"^{method}: must be a weight change"):
        layer.delta_weight("default", layer.slots[0])
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("method", EXPERIMENTAL)
@pytest.mark.parametrize("layer", [nn.Conv2d(6, 6, 3, groups=2), nn.MultiheadAttention(8, 2)], ids=["grouped", "mha"])
def test_layers_without_an_activation_path_are_refused_by_name(method: str, layer: nn.Module) -> None:
    network = nn.ModuleDict({"body": layer})
    with pytest.raises(TargetError, match=r"^body: a method that cannot be merged needs a dense layer.*Exclude"):
        get_peft_model(network, METHODS.get(method).config_class(r=2))  # type: ignore[call-arg]
    assert network["body"] is layer
