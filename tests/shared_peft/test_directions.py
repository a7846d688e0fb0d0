"""LoRA-Dash, LoRA-Init and LoRA-TSD: identities of the launch and planted directions, by matrix and by HOSVD core."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared_peft import METHODS, LoraConfig, PeftModel, WeightSpec, get_peft_model, make_config
from shared_peft.errors import ConfigError
from shared_peft.inject import adapter_layers
from shared_peft.methods.lora import Lora
from shared_peft.spectrum import hosvd, singular_directions
from shared_peft.task_directions import TaskDirections
from tests.shared_peft.cases import CASES, Case, close, config_for, fill_randomly

FAMILY = ("lora_dash", "lora_init", "lora_tsd")
RESTARTING = ("lora_init", "lora_tsd")
every_method = pytest.mark.parametrize("name", FAMILY)
every_restart = pytest.mark.parametrize("name", RESTARTING)
every_basis = pytest.mark.parametrize("basis", ["matrix", "hosvd"])
every_shape = pytest.mark.parametrize("shape", [(8, 7), (8, 5, 3), (6, 4, 3, 3), (12, 1, 3, 3)])


def make(name: str, shape: tuple[int, ...], **fields: object) -> tuple[TaskDirections, Tensor]:
    """A method with scale 3, moved away from its start, and the weight it sits on."""
    torch.manual_seed(0)
    values = {"r": 2, "n_directions": 3, "warmup_steps": 5} | fields
    values["lora_alpha"] = 3.0 * float(str(values["r"]))
    known = METHODS.get(name).config_class.__dataclass_fields__
    config = make_config(name, **{field: value for field, value in values.items() if field in known})
    method = METHODS.get(name)(WeightSpec("x", shape), config)
    assert isinstance(method, TaskDirections)
    shake(method, 1)
    return method, torch.randn(shape)


@torch.no_grad()
def shake(method: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in method.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))


def launched(name: str, shape: tuple[int, ...], **fields: object) -> tuple[TaskDirections, Tensor]:
    method, weight = make(name, shape, **fields)
    list(method.update_and_allocate(5, weight))
    return method, weight


def product(method: TaskDirections) -> Tensor:
    """The product s B A as a matrix, by the definition."""
    return 3.0 * method.lora_B.detach() @ method.lora_A.detach().flatten(1)


@every_restart
@every_basis
@every_shape
def test_the_restart_leaves_the_base_to_the_last_bit(name: str, basis: str, shape: tuple[int, ...]) -> None:
    method, weight = launched(name, shape, directions=basis)
    assert torch.equal(method.delta_weight(weight).detach(), torch.zeros(shape))
    assert product(method).abs().max() > 1e-3


@every_basis
@every_shape
def test_dash_goes_through_the_launch_unchanged(basis: str, shape: tuple[int, ...]) -> None:
    method, weight = make("lora_dash", shape, directions=basis)
    before = method.delta_weight(weight).detach()
    assert torch.allclose(before.flatten(1), product(method), atol=1e-4)
    list(method.update_and_allocate(5, weight))
    assert torch.equal(method.delta_weight(weight).detach(), before)
    assert int(method.launched_at) == 5


@every_restart
@every_basis
@every_shape
def test_the_residual_weight_is_zero_along_the_directions_that_a_and_b_start_on(
    name: str, basis: str, shape: tuple[int, ...]
) -> None:
    method, weight = launched(name, shape, directions=basis)
    residual = weight.flatten(1) - product(method)
    count = min(2, method.sigma.shape[0])
    for i in range(method.sigma.shape[0]):
        coordinate = method.left[:, i] @ residual @ method.right[:, i]
        expected = 0 if i < count else method.sigma[i]
        assert float(coordinate) == pytest.approx(float(expected), abs=1e-4)
        before = method.left[:, i] @ weight.flatten(1) @ method.right[:, i]
        assert float(before) == pytest.approx(float(method.sigma[i]), abs=1e-4)


@every_method
@every_basis
@every_shape
def test_the_change_is_product_less_start_plus_dash(name: str, basis: str, shape: tuple[int, ...]) -> None:
    method, weight = launched(name, shape, directions=basis)
    start = product(method) if method.restarts else torch.zeros_like(product(method))
    shake(method, 2)
    expected = product(method) - start
    if method.dashes:
        for i in range(method.sigma.shape[0]):  # the dash term is not multiplied by s = 3
            expected += float(method.dsigma.detach()[i]) * torch.outer(method.left[:, i], method.right[:, i])
    assert torch.allclose(method.delta_weight(weight).detach().flatten(1), expected, atol=1e-4)


@every_method
@every_basis
@every_shape
def test_it_is_a_plain_lora_of_rank_r_plus_directions(name: str, basis: str, shape: tuple[int, ...]) -> None:
    method, weight = launched(name, shape, directions=basis)
    shake(method, 2)
    factors, rank = method.factors(), 2 + method.sigma.shape[0]
    plain = Lora(WeightSpec("x", shape), LoraConfig(r=rank, lora_alpha=rank))
    with torch.no_grad():
        plain.lora_A.copy_(factors.core)
        plain.lora_B.copy_(factors.out_factor)
    assert torch.allclose(plain.delta_weight(weight), method.delta_weight(weight), atol=1e-5)


@every_method
@pytest.mark.parametrize("planted", [[0, 3], [5, 6], [1, 4]])
@pytest.mark.parametrize("shape", [(8, 7), (7, 2, 2, 2)])
def test_planted_singular_directions_are_found(name: str, planted: list[int], shape: tuple[int, ...]) -> None:
    method, weight = make(name, shape, n_directions=2)
    left, _, right = singular_directions(weight)
    with torch.no_grad():
        method.lora_B.copy_(left[:, planted])
        method.lora_A.copy_(right[:, planted].T.reshape(method.lora_A.shape))
    list(method.update_and_allocate(5, weight))
    assert sorted(method.indices.tolist()) == planted


@every_method
def test_planted_core_entries_are_found(name: str) -> None:
    method, weight = make(name, (6, 4, 3, 2), n_directions=2, directions="hosvd")
    core, factors = hosvd(weight)
    planted = [(1, 2, 0, 1), (4, 0, 2, 0)]
    with torch.no_grad():
        for rank, (out, *position) in enumerate(planted):
            columns = [factor[:, place] for factor, place in zip(factors[1:], position, strict=True)]
            method.lora_B[:, rank] = factors[0][:, out]
            method.lora_A[rank] = torch.einsum("i,j,k->ijk", *columns)
    list(method.update_and_allocate(5, weight))
    found = torch.stack(torch.unravel_index(method.indices, core.shape), 1).tolist()
    assert sorted(found) == [list(entry) for entry in planted]
    values = torch.stack([core[tuple(entry)].abs() for entry in found])
    assert torch.allclose(method.sigma, values)


@every_basis
def test_training_towards_a_planted_kernel_finds_its_directions(basis: str) -> None:
    torch.manual_seed(1)
    base = nn.Conv2d(4, 8, 3, bias=False)
    weight = base.weight.detach().clone()
    if basis == "matrix":
        left, sigma, right = singular_directions(weight)
        planted = [3, 6]
        change = sum(2 * sigma[i] * torch.outer(left[:, i], right[:, i]) for i in planted)
        target = weight + change.reshape(weight.shape)
    else:
        core, factors = hosvd(weight)
        planted = core.abs().flatten().topk(12).indices[[2, 9]].tolist()
        moved = torch.zeros(core.numel())
        moved[planted] = 2 * core.flatten()[planted]
        target = weight + torch.einsum("abcd,oa,ib,hc,wd->oihw", moved.reshape(core.shape), *factors)
    config = config_for("lora_tsd", r=4, lora_alpha=4.0, n_directions=2, warmup_steps=120, directions=basis)
    model = get_peft_model(nn.Sequential(base), config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    for step in range(1, 121):
        x = torch.randn(16, 4, 6, 6)
        nn.functional.mse_loss(model(x), nn.functional.conv2d(x, target)).backward()
        optimizer.step()
        model.update_and_allocate(step, optimizer)
        optimizer.zero_grad()
    ((_, layer),) = adapter_layers(model)
    ((_, method),) = layer.methods("default")
    assert sorted(method.indices.tolist()) == sorted(planted)


@every_method
def test_without_kernel_modes_both_bases_are_the_singular_one(name: str) -> None:
    for shape in ((8, 7), (8, 7, 1, 1)):
        by_matrix, _ = launched(name, shape, directions="matrix")
        by_core, _ = launched(name, shape, directions="hosvd")
        for buffer, other in zip(by_matrix.buffers(), by_core.buffers(), strict=True):
            assert torch.equal(buffer, other)


@every_method
def test_the_phase_follows_optimiser_steps_and_what_restarts_is_told(name: str) -> None:
    method, weight = make(name, (8, 7))
    for _ in range(20):
        method.delta_weight(weight)
    assert list(method.update_and_allocate(4, weight)) == []
    assert int(method.launched_at) == -1
    before = {key: id(parameter) for key, parameter in method.named_parameters()}
    restarted = {id(parameter) for parameter in method.update_and_allocate(5, weight)}
    names = {"lora_dash": ["dsigma"], "lora_init": ["lora_A", "lora_B"], "lora_tsd": ["lora_A", "lora_B", "dsigma"]}
    assert restarted == {before[key] for key in names[name]}
    assert {key: id(parameter) for key, parameter in method.named_parameters()} == before
    assert list(method.update_and_allocate(6, weight)) == []
    assert int(method.launched_at) == 5


def test_the_launch_drops_optimiser_state_of_what_restarts_only() -> None:
    for name in FAMILY:
        torch.manual_seed(0)
        model = get_peft_model(nn.Sequential(nn.Linear(6, 6)), config_for(name))
        parameters = dict(model.named_parameters())
        optimizer = torch.optim.AdamW([p for p in parameters.values() if p.requires_grad], lr=1e-2)
        for step in (1, 2):
            model.train()(torch.randn(4, 6)).square().sum().backward()
            optimizer.step()
            model.update_and_allocate(step, optimizer)
            optimizer.zero_grad()
        kept = {key.rpartition(".")[2] for key, parameter in parameters.items() if parameter in optimizer.state}
        assert kept == ({"lora_A", "lora_B"} if name == "lora_dash" else set())


def test_init_restarts_on_as_many_directions_as_it_has_ranks() -> None:
    method, weight = launched("lora_init", (8, 7), r=4)
    assert method.sigma.shape == (4,)
    assert torch.linalg.matrix_rank(weight - product(method)) == 3


@every_method
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_core_directions_on_every_layer_merge_and_survive_a_file(name: str, case: Case, tmp_path: Path) -> None:
    model = get_peft_model(case.layer(), config_for(name, directions="hosvd"))
    assert torch.equal(model(case.x()), case.layer()(case.x()))
    fill_randomly(model)
    model.update_and_allocate(2)
    fill_randomly(model, seed=4)
    expected = model(case.x())
    assert not close(expected, case.layer()(case.x()), 1e-3)
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(case.layer(), tmp_path)(case.x()), expected)
    assert close(model.merge_and_unload()(case.x()), expected)


@every_method
@pytest.mark.parametrize(("field", "value"), [("warmup_steps", 0), ("lora_dropout", 1.0)])
def test_values_that_make_no_sense_are_refused(name: str, field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{field}.*got {value}"):
        METHODS.get(name).config_class(**{field: value})


@every_method
def test_a_scale_that_has_no_square_root_is_refused_by_layer(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^0: lora_alpha must be positive, got -1\.0\. Raise it"):
        get_peft_model(nn.Sequential(nn.Linear(4, 4)), config_for(name, lora_alpha=-1.0))
