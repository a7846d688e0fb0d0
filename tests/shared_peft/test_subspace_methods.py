"""SSL, SSB, (IA)^3 and HiRA against brute force and against what scaling activations does."""

import pytest
import torch
from torch import nn

from shared_peft import METHODS, HiraConfig, IA3Config, SsbConfig, SslConfig, WeightSpec, get_peft_model
from shared_peft.errors import ConfigError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import close, config_for, fill_randomly

LAYERS = [
    (lambda: nn.Linear(6, 8), (3, 6)),
    (lambda: nn.Conv1d(6, 9, 3, groups=3, padding=1), (3, 6, 7)),
    (lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1, padding_mode="reflect"), (3, 6, 7, 7)),
    (lambda: nn.Conv2d(6, 12, 3, groups=6, dilation=2), (3, 6, 7, 7)),
    (lambda: nn.Conv3d(4, 6, 2, groups=2), (2, 4, 3, 3, 3)),
]
every_layer = pytest.mark.parametrize(("build", "shape"), LAYERS)


def scaled(x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Multiply the channels, dimension 1, by factors."""
    return x * factors.reshape(1, -1, *(1,) * (x.dim() - 2))


@every_layer
@pytest.mark.parametrize("method", ["ssl", "ssb", "ia3", "ia3 feedforward"])
def test_scaling_the_weight_is_scaling_the_layers_input_and_output_channels(method, build, shape) -> None:
    torch.manual_seed(0)
    layer, x = build(), torch.randn(shape)
    fields = {"feedforward_modules": ["0"]} if method.endswith("feedforward") else {}
    model = get_peft_model(nn.Sequential(layer), config_for(method.split()[0], **fields))
    fill_randomly(model)
    ((_, adapted),) = adapter_layers(model)
    ((_, adapter),) = adapted.methods("default")
    values = dict(adapter.named_parameters())
    ones_in, ones_out = torch.ones(shape[1]), torch.ones(layer.weight.shape[0])
    if method.startswith("ia3"):
        in_scale, out_scale = (values["scale"], ones_out) if fields else (ones_in, values["scale"])
    else:
        in_scale, out_scale = values["in_scale"], values.get("out_scale", ones_out)
    bias = layer.bias.detach().reshape(1, -1, *(1,) * (x.dim() - 2))
    expected = scaled(layer(scaled(x, in_scale)) - bias, out_scale) + bias
    assert not close(expected, layer(x), 1e-2)
    assert close(model(x), expected, 1e-4)


@pytest.mark.parametrize(("method", "expected"), [("ssl", 6), ("ssb", 6 + 9), ("ia3", 9)])
@pytest.mark.parametrize("groups", [1, 3])
def test_scaling_trains_one_value_for_each_channel_it_scales(method: str, expected: int, groups: int) -> None:
    built = METHODS.get(method)(WeightSpec("x", (9, 6 // groups, 3), groups), config_for(method))
    assert sum(parameter.numel() for parameter in built.parameters()) == expected


def test_feedforward_modules_take_the_notation_of_target_modules() -> None:
    def scales_input(pattern: list[str] | str | None) -> list[bool]:
        network = nn.ModuleDict({"key": nn.Linear(4, 6), "mlp": nn.ModuleDict({"fc2": nn.Linear(5, 3)})})
        layers = adapter_layers(get_peft_model(network, IA3Config(feedforward_modules=pattern)))
        return [method.scales_input for _, layer in layers for _, method in layer.methods("default")]

    assert scales_input(None) == [False, False]
    assert scales_input(["fc2"]) == [False, True]
    assert scales_input(r".*\.fc\d") == [False, True]
    assert scales_input(".*") == [True, True]
    with pytest.raises(ConfigError, match=r"feedforward_modules: must be a list .*, got 'all'\. Use '\.\*'"):
        IA3Config(feedforward_modules="all")


def test_scaling_both_sides_finds_planted_factors() -> None:
    torch.manual_seed(0)
    layer, left, right = nn.Linear(5, 4, bias=False), torch.rand(4) + 0.5, torch.rand(5) + 0.5
    target = left[:, None] * layer.weight.detach() * right
    model = get_peft_model(nn.Sequential(layer), SsbConfig())
    optimizer = torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad], line_search_fn="strong_wolfe")
    x = torch.eye(5)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (model(x) - x @ target.T).square().sum()
        value.backward()
        return value

    for _ in range(10):
        optimizer.step(loss)
    assert torch.allclose(model.merge_and_unload()[0].weight, target, atol=1e-4)


def test_the_left_subspace_is_the_input_side_as_the_paper_writes_layers() -> None:
    built = METHODS.get("ssl")(WeightSpec("x", (3, 2)), SslConfig())
    with torch.no_grad():
        built.in_scale.copy_(torch.tensor([2.0, -1.0]))
    weight = torch.arange(1.0, 7).reshape(3, 2)
    assert torch.equal(weight + built.delta_weight(weight), torch.tensor([[2.0, -2], [6, -4], [10, -6]]))


def test_hira_multiplies_the_weight_entry_by_entry_and_so_is_not_of_low_rank() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5, 3, 3)
    built = METHODS.get("hira")(WeightSpec("x", (6, 5, 3, 3)), HiraConfig(r=1, lora_alpha=3))
    with torch.no_grad():
        built.lora_B.normal_()
    change = built.delta_weight(weight).detach()
    down, up = built.lora_A.detach(), built.lora_B.detach()
    for index in [(0, 0, 0, 0), (5, 4, 2, 1), (3, 2, 1, 2)]:
        product = up[index[0], 0] * down[0, index[1], index[2], index[3]]
        assert change[index] == pytest.approx(float(weight[index] * 3 * product), rel=1e-5)
    assert torch.linalg.matrix_rank(change.flatten(1)) == 6


def test_hira_is_lieras_exponential_to_first_order() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5, dtype=torch.float64)
    built = METHODS.get("hira")(WeightSpec("x", (6, 5)), HiraConfig(r=2, lora_alpha=2)).double()
    nn.init.normal_(built.lora_B)
    errors = []
    for size in (1e-2, 1e-3):
        built.scale = size
        exact = weight * torch.exp(size * built.lora_B @ built.lora_A)
        errors.append(float((weight + built.delta_weight(weight) - exact).detach().abs().max()))
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.1)
