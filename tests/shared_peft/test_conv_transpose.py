"""Transposed convolutions against loops over positions, and every option torch has for them."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from shared_peft import LAYER_KINDS, AdapterConfig, FloraConfig, LoraConfig, MpcNConfig, get_peft_model
from shared_peft.errors import TargetError
from shared_peft.factors import Factors
from shared_peft.inject import adapter_layers
from shared_peft.layer_kind import WeightSlot
from tests.shared_peft.cases import close, fill_randomly

LAYERS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def by_loops(layer: nn.ConvTranspose2d, weight: Tensor, x: Tensor) -> Tensor:
    """Scatter every input pixel through a weight (out, in / groups, kh, kw), as methods see it."""
    (stride_h, stride_w), (dilate_h, dilate_w), (pad_h, pad_w) = layer.stride, layer.dilation, layer.padding
    out_group, in_group = layer.out_channels // layer.groups, layer.in_channels // layer.groups
    sizes = layer(x).shape
    room = torch.zeros(*sizes[:2], sizes[2] + 2 * pad_h, sizes[3] + 2 * pad_w)
    for i, j, k, m in itertools.product(range(x.shape[2]), range(x.shape[3]), *map(range, weight.shape[2:])):
        row, column = i * stride_h + k * dilate_h, j * stride_w + m * dilate_w
        if row >= room.shape[2] or column >= room.shape[3]:
            continue
        for o in range(layer.out_channels):
            first = (o // out_group) * in_group
            room[:, o, row, column] += x[:, first : first + in_group, i, j] @ weight[o, :, k, m]
    return room[:, :, pad_h : pad_h + sizes[2], pad_w : pad_w + sizes[3]] + layer.bias[:, None, None]


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_the_weight_that_methods_see_is_out_in_per_group_and_kernel(groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(
        2 * groups, 3 * groups, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), groups=groups
    )
    model = get_peft_model(nn.Sequential(layer), LoraConfig(r=2, lora_alpha=3))
    fill_randomly(model)
    ((_, adapted),) = adapter_layers(model)
    (slot,) = adapted.slots
    changed = adapted.frozen_weight(slot) + adapted.delta_weight("default", slot)
    assert changed.shape == (3 * groups, 2, 3, 2)
    x = torch.randn(2, 2 * groups, 3, 4)
    assert close(model(x), by_loops(layer, changed, x))
    assert not close(model(x), layer(x), 1e-2)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_exchanging_the_channel_dimensions_twice_restores_every_entry(groups: int) -> None:
    weight = torch.arange(8 * 3 * 5.0).reshape(8, 3, 5)
    slot = WeightSlot("weight", "weight", transposed=True, groups=groups)
    seen = slot.read(weight)
    assert seen.shape == (3 * groups, 8 // groups, 5)
    assert torch.equal(slot.stored(seen), weight)


@pytest.mark.parametrize("modes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 1},
        {"stride": 3, "padding": 1},
        {"stride": 2, "output_padding": 1},
        {"stride": 2, "dilation": 2, "padding": 2, "bias": False},
    ],
    ids=str,
)
def test_both_paths_and_the_merged_layer_agree(modes: int, groups: int, options: dict[str, int]) -> None:
    torch.manual_seed(1)
    layer = LAYERS[modes](4, 6, 3, groups=groups, **options)  # type: ignore[arg-type]
    x = torch.randn(2, 4, *(4,) * modes)
    base = layer(x).detach()
    model = get_peft_model(nn.Sequential(layer), FloraConfig(r=2, kernel_r=2, scale=0.7))
    assert torch.equal(model.eval()(x), base)
    fill_randomly(model)
    answers = {}
    ((_, adapted),) = adapter_layers(model)
    for path in ("weight", "activation"):
        adapted.path = path
        answers[path] = model.train()(x)
    assert not close(answers["weight"], base, 1e-2)
    assert close(answers["weight"], answers["activation"])
    assert close(model.merge_and_unload()(x), answers["weight"])


@pytest.mark.parametrize("path", ["auto", "weight", "activation"])
def test_a_requested_output_size_is_honoured(path: str) -> None:
    torch.manual_seed(2)
    layer = nn.ConvTranspose2d(4, 4, 3, stride=3)
    model = get_peft_model(nn.ModuleDict({"up": layer}), LoraConfig(r=2)).train()
    fill_randomly(model)
    model.up.path = path
    x = torch.randn(2, 4, 3, 3)
    small, large = model.up(x), model.up(x, output_size=[11, 10])
    assert small.shape[2:] == (9, 9)
    merged = model.merge_and_unload()
    assert close(large, merged["up"](x, [11, 10]))


def test_an_input_without_a_batch_takes_the_chain_too() -> None:
    torch.manual_seed(3)
    model = get_peft_model(nn.Sequential(nn.ConvTranspose1d(4, 6, 3, stride=2)), FloraConfig(r=2)).train()
    fill_randomly(model)
    ((_, adapted),) = adapter_layers(model)
    x = torch.randn(5, 4, 7)
    adapted.path = "weight"
    expected = model(x)
    adapted.path = "activation"
    assert close(torch.stack([model(sample) for sample in x]), expected)


@pytest.mark.parametrize(("rank", "chosen"), [(4, "activation"), (100, "weight")])
def test_training_chooses_the_chain_for_small_ranks_and_the_weight_for_large_ones(rank: int, chosen: str) -> None:
    model = get_peft_model(nn.Sequential(nn.ConvTranspose2d(128, 128, 3)), LoraConfig(r=rank)).train()
    ((_, adapted),) = adapter_layers(model)
    model(torch.zeros(2, 128, 16, 16))
    assert adapted.costs is not None
    assert adapted.costs.cheapest == chosen


@pytest.mark.parametrize("config", [LoraConfig(r=2, lora_dropout=0.5), MpcNConfig(r=2)])
def test_a_change_that_needs_the_input_alone_refuses_a_requested_size(config: AdapterConfig) -> None:
    model = get_peft_model(nn.ModuleDict({"up": nn.ConvTranspose2d(4, 4, 3, stride=3)}), config).train()
    with pytest.raises(
        TargetError, match=r"^up: with dropout.* called with its input alone, got 1 arguments, output_size"
    ):
        model.up(torch.randn(2, 4, 3, 3), output_size=[11, 10])


@pytest.mark.parametrize(("rank_in", "expected"), [(0, (55_620, 82_800)), (2, (55_620, 56_400))])
def test_costs_are_those_worked_out_by_hand(rank_in: int, expected: tuple[int, int]) -> None:
    layer, x = nn.ConvTranspose2d(5, 6, 3, stride=2), torch.zeros(2, 5, 10, 10)  # 200 positions, 270 weights
    in_factor = torch.zeros(rank_in, 5) if rank_in else None
    factors = Factors(torch.zeros(2, rank_in or 5, 3, 3), torch.zeros(6, 2), in_factor)
    costs = LAYER_KINDS.get("conv_transpose").training_costs(layer, x, factors)
    assert (costs.weight, costs.activation) == expected
