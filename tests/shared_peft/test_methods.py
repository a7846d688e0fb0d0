"""Each method against an independent reference: tensorly, brute force, planted truths."""

import pytest
import torch
from tensorly.tucker_tensor import tucker_to_tensor
from torch import nn

from shared_peft import FloraConfig, LoraConfig, LoraTsdConfig, WeightSpec, get_peft_model
from shared_peft.errors import ConfigError, RankError
from shared_peft.inject import adapter_layers
from shared_peft.methods.flora import Flora, feasible_ranks
from shared_peft.methods.lora import Lora
from shared_peft.methods.lora_tsd import LoraTsd
from shared_peft.spectrum import change_rates, singular_directions


def randomise(module: nn.Module, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def test_lora_is_alpha_over_r_times_b_a() -> None:
    method = Lora(WeightSpec("x", (5, 4, 3, 3)), LoraConfig(r=3, lora_alpha=7))
    randomise(method)
    expected = torch.zeros(5, 4, 3, 3)
    for o in range(5):
        for rank in range(3):
            expected[o] += 7 / 3 * method.lora_B[o, rank] * method.lora_A[rank]
    assert torch.allclose(method.delta_weight(torch.empty(0)), expected, atol=1e-6)


def test_rslora_scales_by_the_square_root_of_the_rank() -> None:
    spec = WeightSpec("x", (8, 8))
    assert Lora(spec, LoraConfig(r=4, lora_alpha=6, use_rslora=True)).scale == pytest.approx(3.0)
    assert Lora(spec, LoraConfig(r=4, lora_alpha=6)).scale == pytest.approx(1.5)


def test_lora_refuses_a_rank_the_matrix_cannot_have() -> None:
    model = nn.ModuleDict({"blocks": nn.Sequential(nn.Conv2d(64, 64, 1))})
    with pytest.raises(
        RankError, match=r"blocks\.0: rank must be in \[1, 64\], got 96\. Lower r or exclude the layer\."
    ):
        get_peft_model(model, LoraConfig(r=96))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert isinstance(model["blocks"][0], nn.Conv2d)


@pytest.mark.parametrize("shape", [(9, 7), (6, 5, 3), (8, 6, 3, 3), (4, 3, 2, 3, 2)])
def test_flora_is_the_tucker_product_tensorly_computes(shape: tuple[int, ...]) -> None:
    method = Flora(WeightSpec("x", shape), FloraConfig(r=(3, 2), kernel_r=2, scale=0.6))
    randomise(method)
    factors = [factor.detach().numpy() for factor in method.mode_factors]
    expected = 0.6 * tucker_to_tensor((method.core.detach().numpy(), factors))
    assert torch.allclose(method.delta_weight(torch.empty(0)), torch.from_numpy(expected), atol=1e-4)


def test_flora_has_the_papers_parameter_count() -> None:
    method = Flora(WeightSpec("x", (256, 256, 3, 3)), FloraConfig(r=16))
    assert sum(parameter.numel() for parameter in method.parameters()) == 9228


def test_flora_ranks_are_lowered_to_what_a_tensor_can_have() -> None:
    assert feasible_ranks((64, 1, 3, 3), (8, 8, 2, 2)) == (4, 1, 2, 2)
    assert feasible_ranks((64, 64, 1, 1), (8, 16, 2, 2)) == (8, 8, 1, 1)
    assert feasible_ranks((256, 256, 3, 3), (16, 16, 2, 2)) == (16, 16, 2, 2)


def test_flora_warns_once_and_names_the_layers_it_lowered() -> None:
    model = nn.ModuleDict({"a": nn.Conv2d(8, 8, 3, groups=8), "b": nn.Conv2d(4, 4, 3), "c": nn.Linear(99, 99)})
    with pytest.warns(UserWarning, match=r"1 layers: a \[16, 16, 2, 2\] -> \[4, 1, 2, 2\]$") as record:
        get_peft_model(model, FloraConfig(r=16))
    assert len(record) == 1


def test_flora_asks_for_one_kernel_rank_per_mode() -> None:
    with pytest.raises(RankError, match=r"0: kernel_r must have 2 ranks, got \(1, 1, 1\)"):
        get_peft_model(nn.Sequential(nn.Conv2d(4, 4, 3)), FloraConfig(r=2, kernel_r=(1, 1, 1)))


def test_change_rates_are_the_brute_force_ones_even_where_singular_values_vanish() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 9)
    weight[3:] *= 1e-9
    out_factor, in_factor = torch.randn(6, 2), torch.randn(2, 9)
    left, sigma, right = torch.linalg.svd(weight, full_matrices=False)
    projected = left.T @ (out_factor @ in_factor) @ right.T
    expected = torch.tensor([abs(projected[i, i]) / (sigma[i] + 1e-3 * sigma[0]) for i in range(6)])
    u, s, v = singular_directions(weight)
    rates = change_rates(u, s, v, out_factor, in_factor)
    assert torch.allclose(rates[:3], expected[:3], rtol=1e-4)
    assert torch.allclose(rates[3:], expected[3:], rtol=2e-2)
    assert rates.max() < 1e4


def tsd(r: int = 2, directions: int = 3, shape: tuple[int, ...] = (8, 7)) -> tuple[LoraTsd, torch.Tensor]:
    torch.manual_seed(0)
    config = LoraTsdConfig(r=r, lora_alpha=3 * r, n_directions=directions, warmup_steps=5)
    return LoraTsd(WeightSpec("x", shape), config), torch.randn(shape)


@pytest.mark.parametrize("planted", [[0, 3], [5, 6], [1, 4]])
def test_tsd_selects_the_planted_directions(planted: list[int]) -> None:
    method, weight = tsd(r=2, directions=2)
    left, _, right = singular_directions(weight)
    with torch.no_grad():
        method.lora_B.copy_(left[:, planted])
        method.lora_A.copy_(right[:, planted].T)
    assert list(method.update_and_allocate(5, weight)) == [method.lora_A, method.lora_B, method.dsigma]
    assert sorted(method.indices.tolist()) == sorted(planted)


def test_tsd_training_towards_a_planted_change_finds_its_directions() -> None:
    torch.manual_seed(1)
    base = nn.Linear(12, 10, bias=False)
    left, sigma, right = singular_directions(base.weight)
    target = base.weight.detach() + sum(2.0 * sigma[i] * torch.outer(left[:, i], right[:, i]) for i in (4, 7))
    config = LoraTsdConfig(r=4, lora_alpha=4, n_directions=2, warmup_steps=60)
    model = get_peft_model(nn.Sequential(base), config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    for step in range(1, 61):
        x = torch.randn(64, 12)
        nn.functional.mse_loss(model(x), x @ target.T).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.update_and_allocate(step, optimizer)
    ((_, layer),) = adapter_layers(model)
    ((_, method),) = layer.methods("default")
    assert sorted(method.indices.tolist()) == [4, 7]


def test_tsd_launch_leaves_the_function_at_the_base_and_restarts_on_the_directions() -> None:
    method, weight = tsd(r=2, directions=3)
    randomise(method)
    list(method.update_and_allocate(5, weight))
    assert method.delta_weight(weight).abs().max() < 1e-5
    scaled = method.scale * method.lora_B @ method.lora_A
    expected = sum(method.sigma[i] * torch.outer(method.left[:, i], method.right[:, i]) for i in range(2))
    assert torch.allclose(scaled, expected, atol=1e-5)


def test_tsd_with_more_ranks_than_directions_restarts_the_rest_as_plain_lora() -> None:
    method, weight = tsd(r=5, directions=2)
    randomise(method)
    list(method.update_and_allocate(5, weight))
    assert torch.equal(method.lora_B[:, 2:], torch.zeros(8, 3))
    assert method.lora_A[2:].abs().min() > 0
    assert method.delta_weight(weight).abs().max() < 1e-5


def test_tsd_change_is_w_res_plus_lora_plus_dash() -> None:
    method, weight = tsd(r=2, directions=3)
    randomise(method)
    list(method.update_and_allocate(5, weight))
    b0, a0 = method.lora_B.detach().clone(), method.lora_A.detach().clone()
    randomise(method, 0.5)
    dash = sum(method.dsigma[i] * torch.outer(method.left[:, i], method.right[:, i]) for i in range(3))
    residual = weight - method.scale * b0 @ a0
    expected = residual + method.scale * method.lora_B @ method.lora_A + dash
    assert torch.allclose(weight + method.delta_weight(weight), expected, atol=1e-5)
    assert torch.linalg.matrix_rank(method.delta_weight(weight).detach(), atol=1e-4) == 5


def test_tsd_moves_on_by_optimiser_steps_only_and_once() -> None:
    method, weight = tsd()
    randomise(method)
    for _ in range(20):
        method.delta_weight(weight)
    assert int(method.launched_at) == -1
    assert list(method.update_and_allocate(4, weight)) == []
    assert len(list(method.update_and_allocate(5, weight))) == 3
    assert list(method.update_and_allocate(6, weight)) == []
    assert int(method.launched_at) == 5


def test_tsd_identification_works_in_half_precision_and_on_kernels() -> None:
    torch.manual_seed(0)
    model = get_peft_model(
        nn.Sequential(nn.Conv2d(6, 8, 3).to(torch.bfloat16)), LoraTsdConfig(r=2, n_directions=4, warmup_steps=1)
    )
    model.update_and_allocate(1)
    ((_, layer),) = adapter_layers(model)
    ((_, method),) = layer.methods("default")
    assert method.left.dtype == torch.float32
    assert torch.allclose(method.left.T @ method.left, torch.eye(4), atol=1e-5)
    assert torch.allclose(method.right.T @ method.right, torch.eye(4), atol=1e-5)


def test_phase_change_drops_the_optimiser_state_of_restarted_parameters_and_keeps_the_objects() -> None:
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(6, 6)), LoraTsdConfig(r=2, warmup_steps=3))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for step in range(1, 4):
        model.train()(torch.randn(4, 6)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert len(optimizer.state) == 3
        model.update_and_allocate(step, optimizer)
    assert len(optimizer.state) == 0
    assert all(p is q for p, q in zip(parameters, [p for p in model.parameters() if p.requires_grad], strict=True))


@pytest.mark.parametrize(("field", "value"), [("n_directions", 0), ("warmup_steps", 0), ("lora_dropout", 1.0)])
def test_tsd_refuses_values_that_make_no_sense(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{field}.*got {value}"):
        LoraTsdConfig(**{field: value})  # type: ignore[arg-type]
