"""LoRA's starts, LoRA-FA, DoRA and the orthogonality penalties against brute force and Hugging Face peft."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared_peft import (
    AdapterMethod,
    DoraConfig,
    FloraConfig,
    LoraConfig,
    LoraTsdConfig,
    PeftModel,
    WeightSpec,
    count_parameters,
    get_peft_model,
)
from shared_peft.errors import ConfigError, RankError
from shared_peft.inject import adapter_layers
from shared_peft.methods.dora import Dora
from shared_peft.methods.flora import Flora
from shared_peft.methods.lora import Lora
from shared_peft.penalties import orthogonality_penalty
from tests.shared_peft.cases import CASES, Case, close, fill_randomly

SHAPES = [(9, 7), (5, 12), (6, 4, 3), (8, 3, 3, 2)]
on_the_weight = pytest.mark.parametrize("start", ["pissa", "milora"])


def only_method(model: PeftModel) -> AdapterMethod:
    ((_, layer),) = adapter_layers(model)
    ((_, method),) = layer.methods("default")
    return method


def started(shape: tuple[int, ...], **fields: object) -> tuple[Lora, Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    method = Lora(WeightSpec("x", shape), LoraConfig(r=2, lora_alpha=6, **fields))
    method.start(weight)
    return method, weight


@on_the_weight
@pytest.mark.parametrize("shape", SHAPES)
def test_pissa_and_milora_start_on_the_outermost_singular_triples(start: str, shape: tuple[int, ...]) -> None:
    method, weight = started(shape, init_lora_weights=start)
    left, sigma, right = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
    part = slice(2) if start == "pissa" else slice(-2, None)
    expected = (left[:, part] * sigma[part] @ right[part]).float()
    assert torch.allclose(method.lora_B @ method.lora_A.flatten(1), expected, atol=1e-5)
    assert torch.allclose(method.lora_B.square().sum(0).double(), sigma[part], rtol=1e-4)  # S^1/2 on either side
    assert torch.allclose(method.lora_A.flatten(1).square().sum(1).double(), sigma[part], rtol=1e-4)


@on_the_weight
@pytest.mark.parametrize("shape", SHAPES)
def test_pissa_and_milora_train_b_a_on_the_residual_weight(start: str, shape: tuple[int, ...]) -> None:
    method, weight = started(shape, init_lora_weights=start)
    assert torch.equal(method.delta_weight(weight), torch.zeros(shape))
    residual = weight.flatten(1) - 3 * method.lora_B.detach() @ method.lora_A.detach().flatten(1)
    with torch.no_grad():
        method.lora_A.add_(torch.randn_like(method.lora_A))
        method.lora_B.add_(torch.randn_like(method.lora_B))
    expected = residual + 3 * method.lora_B @ method.lora_A.flatten(1)
    assert torch.allclose((weight + method.delta_weight(weight)).flatten(1), expected, atol=1e-4)
    assert method.factors().core.shape[0] == 4


@on_the_weight
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_starts_on_the_weight_leave_every_layers_answer_to_the_last_bit_and_survive_a_file(
    start: str, case: Case, tmp_path: Path
) -> None:
    config = LoraConfig(r=2, lora_alpha=3, init_lora_weights=start)
    model = get_peft_model(case.layer(), config)
    assert torch.equal(model(case.x()), case.layer()(case.x()))
    fill_randomly(model)
    assert not close(model(case.x()), case.layer()(case.x()), 1e-3)
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(case.layer(), tmp_path)(case.x()), model(case.x()))


@pytest.mark.parametrize("start", ["default", "gaussian", "pissa", "milora", "orthogonal"])
def test_every_start_leaves_a_half_precision_layer_as_it_was(start: str) -> None:
    layer = nn.Sequential(nn.Conv2d(6, 8, 3)).to(torch.bfloat16)
    x = torch.randn(2, 6, 5, 5).to(torch.bfloat16)
    expected = layer(x).detach()
    model = get_peft_model(layer, LoraConfig(r=4, init_lora_weights=start)).eval()
    with torch.no_grad():
        assert torch.equal(model(x), expected)
    assert close(model.train()(x), expected)


def test_the_orthogonal_start_is_hugging_face_pefts_and_changes_nothing() -> None:
    torch.manual_seed(0)
    torch.empty(4, 9).uniform_()  # the values that our default start draws first
    mixed = torch.linalg.qr(torch.randn(4, 4)).Q  # from here on as peft's LoraLayer.orthogonal_init, release 0.21
    down = torch.randn(9, 2).mm(mixed[0::2, :]).T / 10
    up = torch.randn(2, 7).T.mm(mixed[1::2, :]) / 10
    torch.manual_seed(0)
    method = Lora(WeightSpec("x", (7, 9)), LoraConfig(r=4, init_lora_weights="orthogonal"))
    assert torch.allclose(method.lora_A, down, atol=1e-7)
    assert torch.allclose(method.lora_B, up, atol=1e-7)
    assert method.lora_A.abs().min() > 0
    assert method.lora_B.abs().min() > 0
    terms = method.lora_B.abs() @ method.lora_A.abs()  # cancel to rounding
    assert method.delta_weight(torch.empty(0)).abs().max() < 1e-5 * terms.max()


def test_the_orthogonal_start_needs_an_even_rank() -> None:
    with pytest.raises(RankError, match=r"^0: r must be even for the orthogonal start, got 3\. Choose an even r"):
        get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(r=3, init_lora_weights="orthogonal"))


def test_the_gaussian_start_has_standard_deviation_one_over_r() -> None:
    generator = torch.Generator().manual_seed(0)
    method = Lora(WeightSpec("x", (64, 4000)), LoraConfig(r=5, init_lora_weights="gaussian"), generator)
    assert float(method.lora_A.detach().std()) == pytest.approx(1 / 5, rel=0.02)
    assert torch.equal(method.lora_B, torch.zeros(64, 5))


@pytest.mark.parametrize("start", ["default", "pissa"])
def test_lora_fa_trains_b_alone_whatever_is_switched(start: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=2, freeze_A=True, init_lora_weights=start)
    base = nn.Sequential(nn.Linear(5, 6))
    weights = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    assert count_parameters(base, config) == 12
    model = get_peft_model(base, config).train()
    model.add_adapter("other", LoraConfig(r=2))
    model.set_adapter("other")
    model.set_adapter("default")
    method = only_method(model)
    assert [name for name, _ in method.named_parameters()] == ["lora_B"]
    before = method.lora_A.clone()
    assert before.abs().min() > 0
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        model(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
    assert torch.equal(method.lora_A, before)
    assert method.delta_weight(base[0].weight).abs().max() > 1e-3
    model.save_pretrained(tmp_path, "default")
    fresh = nn.Sequential(nn.Linear(5, 6))
    fresh.load_state_dict(weights)
    x = torch.randn(3, 5)
    assert torch.equal(PeftModel.from_pretrained(fresh, tmp_path)(x), model(x))


def moved_dora(shape: tuple[int, ...]) -> tuple[Dora, Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    method = Dora(WeightSpec("x", shape), DoraConfig(r=2, lora_alpha=6))
    method.start(weight)
    with torch.no_grad():
        method.lora_B.normal_(generator=torch.Generator().manual_seed(1))
        method.magnitude.mul_(torch.linspace(0.5, 2, shape[0]))
    return method, weight


@pytest.mark.parametrize("shape", SHAPES)
def test_dora_is_magnitude_times_direction_of_every_output_channel(shape: tuple[int, ...]) -> None:
    method, weight = moved_dora(shape)
    changed = weight.flatten(1) + 3 * method.lora_B.detach() @ method.lora_A.detach().flatten(1)
    adapted = (weight + method.delta_weight(weight)).detach().flatten(1)
    for channel in range(shape[0]):
        length = sum(float(value) ** 2 for value in changed[channel]) ** 0.5
        expected = float(method.magnitude.detach()[channel]) * changed[channel] / length
        assert torch.allclose(adapted[channel], expected, atol=1e-5)


def test_dora_answers_like_hugging_face_pefts_sum_of_three_layers() -> None:
    method, weight = moved_dora((7, 9))
    x = torch.randn(4, 9)
    lengths = torch.linalg.norm(weight + 3 * (method.lora_B @ method.lora_A), dim=1)
    ratio = (method.magnitude / lengths)[None]
    low_rank = x @ method.lora_A.T @ method.lora_B.T
    expected = x @ weight.T + (ratio - 1) * (x @ weight.T) + ratio * low_rank * 3  # DoraLinearLayer, release 0.21
    assert close(x @ (weight + method.delta_weight(weight)).T, expected)


def test_doras_norm_is_a_constant_in_the_gradient() -> None:
    method, weight = moved_dora((6, 5))
    seen = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    (method.delta_weight(weight) * seen).sum().backward()
    changed = weight + 3 * method.lora_B.detach() @ method.lora_A.detach()
    lengths = changed.norm(dim=1)
    reaching = (method.magnitude.detach() / lengths)[:, None] * seen  # dL / d(W + dW) with the lengths held
    assert torch.allclose(method.lora_B.grad, 3 * reaching @ method.lora_A.detach().T, atol=1e-5)
    assert torch.allclose(method.lora_A.grad, 3 * method.lora_B.detach().T @ reaching, atol=1e-5)
    expected = (changed * seen).sum(1) / lengths
    assert torch.allclose(method.magnitude.grad, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dora_starts_at_zero_for_weights_of_every_type_and_for_dead_filters(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3).to(dtype)
    weight[2] = 0
    method = Dora(WeightSpec("x", (6, 4, 3, 3)), DoraConfig(r=2))
    method.start(weight)
    assert torch.equal(method.delta_weight(weight).detach().double(), torch.zeros(6, 4, 3, 3, dtype=torch.float64))
    with torch.no_grad():
        method.magnitude.add_(1)
    assert torch.isfinite(method.delta_weight(weight)).all()


@pytest.mark.parametrize("kind", ["o", "d"])
def test_penalties_are_the_papers_sums_of_squares(kind: str) -> None:
    torch.manual_seed(0)
    down, up = torch.randn(3, 4, 2), torch.randn(5, 3)  # the paper's A is down transposed, its B up transposed
    expected = 0.0
    for i in range(3):
        for j in range(3):
            expected += (float((down[i] * down[j]).sum()) - (i == j)) ** 2
            out = float((up[:, i] * up[:, j]).sum())
            expected += (out - (i == j)) ** 2 if kind == "o" else (i != j) * out**2
    assert float(orthogonality_penalty(down, up, kind)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["o", "d"])
def test_training_on_a_penalty_alone_makes_the_factors_orthogonal(kind: str) -> None:
    torch.manual_seed(0)
    method = Lora(WeightSpec("x", (8, 9)), LoraConfig(r=3, mpc=kind, mpc_weight=0.5))
    nn.init.normal_(method.lora_B)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.02)
    for _ in range(2000):
        optimizer.zero_grad()
        method.penalty().backward()
        optimizer.step()
    in_gram, out_gram = method.lora_A @ method.lora_A.T, method.lora_B.T @ method.lora_B
    assert torch.allclose(in_gram, torch.eye(3), atol=1e-3)
    assert torch.allclose(out_gram, torch.diag(out_gram.diagonal()), atol=1e-3)
    assert torch.allclose(out_gram.diagonal(), torch.ones(3), atol=1e-3) == (kind == "o")


@pytest.mark.parametrize("config", [LoraConfig, LoraTsdConfig, DoraConfig, FloraConfig])
def test_any_low_rank_method_can_switch_a_penalty_on(config: type) -> None:
    for kind in ("none", "o", "d"):
        method = only_method(get_peft_model(nn.Sequential(nn.Conv2d(6, 5, 3)), config(r=2, mpc=kind, mpc_weight=0.25)))
        penalty = method.penalty()
        if kind == "none":
            assert penalty is None
            continue
        down, up = (
            (method.mode_factors[1].T, method.mode_factors[0])
            if isinstance(method, Flora)
            else (method.lora_A, method.lora_B)
        )
        expected = 0.25 * orthogonality_penalty(down, up, kind)
        assert penalty.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_penaltys_weight_must_be_positive(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"LoraConfig\.mpc_weight: must be positive, got"):
        LoraConfig(mpc="o", mpc_weight=weight)
