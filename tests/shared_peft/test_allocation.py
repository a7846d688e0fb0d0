"""AdaLoRA: schedule and scores by brute force, the budget to the last rank, planted truths."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from shared_peft import (
    METHODS,
    AdaLoraConfig,
    FloraConfig,
    LoraConfig,
    PeftModel,
    WeightSpec,
    allocated_ranks,
    count_parameters,
    get_peft_model,
)
from shared_peft.allocation import RankSchedule, choose
from shared_peft.errors import ConfigError, TrainingError
from shared_peft.inject import adapter_layers
from shared_peft.method import AdapterMethod
from shared_peft.training import TrainConfig, train
from tests.shared_peft.cases import close

WIDTH = 8


class Parallel(nn.Module):
    """Linear layers side by side, so that a change in one cannot stand for a change in another."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(x) for layer in self.layers], dim=-1)


def noisy(x: torch.Tensor) -> torch.Tensor:
    return x + 0.1 * torch.randn_like(x)


def methods_of(model: PeftModel) -> list[AdapterMethod]:
    return [method for _, layer in adapter_layers(model) for _, method in layer.methods("default")]


def fit(
    model: PeftModel,
    target: nn.Module,
    draw: Callable[[], torch.Tensor],
    steps: int,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """Train as the documentation says: step, allocate, drop the gradients."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    model.train()
    for step in range(1, steps + 1):
        x = draw()
        penalty = model.penalty()
        assert penalty is not None
        (nn.functional.mse_loss(model(x), noisy(target(x).detach())) + penalty).backward()
        optimizer.step()
        model.update_and_allocate(step, optimizer)
        optimizer.zero_grad()
        after(step)


@pytest.mark.parametrize("step", [0, 9, 10, 11, 40, 69, 70, 71, 500])
def test_the_budget_falls_as_a_cubic_between_warm_up_and_the_last_phase(step: int) -> None:
    schedule = RankSchedule(4, None, tinit=10, tfinal=30, interval=1, total_step=100)
    if step < 10:
        expected = 96
    elif step < 100 - 30:
        expected = int(32 + (96 - 32) * (1 - (step - 10) / (100 - 10 - 30)) ** 3)
    else:
        expected = 32
    assert schedule.budget(step, 96, 32) == expected


def test_decisions_come_every_few_steps_of_the_middle_and_once_at_its_end() -> None:
    schedule = RankSchedule(4, None, tinit=10, tfinal=30, interval=20, total_step=105)
    assert [step for step in range(100) if schedule.decides_at(step)][:4] == [20, 40, 60, 75]


def test_the_most_important_ranks_are_kept_whatever_layer_they_are_in() -> None:
    generator = torch.Generator().manual_seed(0)
    importances = [torch.rand(size, generator=generator) for size in (3, 5, 4)]
    for budget in range(13):
        kept = torch.cat(choose(importances, [1, 1, 1], budget))
        values = torch.cat(importances)
        assert int(kept.sum()) == budget
        assert set(values[kept].tolist()) == set(sorted(values.tolist(), reverse=True)[:budget])


def test_equal_importances_go_to_the_earlier_layer() -> None:
    kept = choose([torch.ones(3), torch.ones(3)], [1, 1], 4)
    assert [mask.tolist() for mask in kept] == [[True] * 3, [True, False, False]]


def test_with_prices_a_rank_must_be_worth_its_parameters_and_nothing_that_fits_is_left_out() -> None:
    dear, cheap = torch.tensor([8.0, 3.0]), torch.tensor([2.0, 1.0, 0.1])
    assert [mask.tolist() for mask in choose([dear, cheap], [10, 3], 16)] == [[True, False], [True, True, False]]
    assert [mask.tolist() for mask in choose([dear[1:], cheap[:2]], [10, 3], 10)] == [[False], [True, True]]
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        prices = torch.randint(2, 9, (4,), generator=generator).tolist()
        importances = [torch.rand(4, generator=generator) for _ in prices]
        budget = int(torch.randint(0, 99, (), generator=generator))
        kept = choose(importances, prices, budget)
        left = budget - sum(price * int(mask.sum()) for price, mask in zip(prices, kept, strict=True))
        assert left >= 0
        assert all(price > left for price, mask in zip(prices, kept, strict=True) if not mask.all())


def test_importance_is_smoothed_sensitivity_times_its_uncertainty_summed_over_a_triple() -> None:
    torch.manual_seed(0)
    method = METHODS.get("adalora")(WeightSpec("x", (4, 3, 2)), AdaLoraConfig(r=3, beta1=0.7, beta2=0.6))
    smooth: dict[str, torch.Tensor] = {}
    doubt: dict[str, torch.Tensor] = {}
    for step in range(1, 6):
        for name, parameter in method.named_parameters():
            nn.init.normal_(parameter)
            parameter.grad = torch.randn_like(parameter)
            now = (parameter * parameter.grad).detach().abs()
            smooth[name] = 0.7 * smooth.get(name, torch.zeros(())) + 0.3 * now
            doubt[name] = 0.6 * doubt.get(name, torch.zeros(())) + 0.4 * (now - smooth[name]).abs()
        list(method.update_and_allocate(step, torch.empty(0)))
    expected = torch.zeros(3)
    for i in range(3):
        score = {name: smooth[name] * doubt[name] for name in smooth}
        expected[i] = score["lora_E"][i] + score["lora_B"][:, i].sum() / 4 + score["lora_A"][i].sum() / 6
    assert torch.allclose(method.importance(), expected, rtol=1e-5)


def test_a_gradient_that_is_not_finite_is_passed_over() -> None:
    method = METHODS.get("adalora")(WeightSpec("x", (4, 3)), AdaLoraConfig(r=2))
    seen = []
    for gradient in (1.0, torch.inf, torch.nan):
        for parameter in method.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        list(method.update_and_allocate(1, torch.empty(0)))
        seen.append(method.importance())
    assert seen[0].min() > 0
    assert torch.equal(seen[1], seen[0])
    assert torch.equal(seen[2], seen[0])


def test_the_budget_ends_up_in_the_layers_the_task_changes() -> None:
    base, target = Parallel(6), Parallel(6)
    with torch.no_grad():
        for index in (1, 4):
            target.layers[index].weight.add_(0.5 * torch.randn(WIDTH, 3) @ torch.randn(3, WIDTH))
    config = AdaLoraConfig(init_r=4, target_r=1, lora_alpha=16, tinit=60, tfinal=60, deltaT=5, total_step=300)
    model = get_peft_model(base, config, generator=torch.Generator().manual_seed(0))
    fit(model, target, lambda: torch.randn(64, WIDTH), 300)
    ranks = allocated_ranks(model)
    assert ranks == {f"layers.{index}": 3 if index in (1, 4) else 0 for index in range(6)}


def run(config: AdaLoraConfig, steps: int, after: Callable[[PeftModel, int], None] = lambda m, s: None) -> PeftModel:
    """Train a small mixed network towards a random target."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, groups=3), nn.Flatten(), nn.Linear(6 * 9, 5))
    model = get_peft_model(base, config, generator=torch.Generator().manual_seed(0))
    target = nn.Sequential(nn.Flatten(), nn.Linear(75, 5))
    fit(model, target, lambda: torch.randn(8, 3, 5, 5), steps, lambda step: after(model, step))
    return model


CONFIG = AdaLoraConfig(init_r=4, target_r=2, tinit=2, tfinal=4, deltaT=2, total_step=12)


def test_the_budget_is_held_exactly_at_every_decision() -> None:
    alive: dict[int, int] = {}

    def count(model: PeftModel, step: int) -> None:
        alive[step] = sum(int((method.lora_E != 0).sum()) for method in methods_of(model))

    model = run(CONFIG, 8, count)
    schedule = CONFIG.schedule
    assert {step: alive[step] for step in (4, 6, 8)} == {step: schedule.budget(step, 12, 6) for step in (4, 6, 8)}
    assert alive[3] == alive[5] == 12  # between decisions pruned ranks may grow again
    assert sum(allocated_ranks(model).values()) == 6
    assert list(allocated_ranks(model)) == ["0", "1", "3"]


def test_a_budget_in_parameters_is_used_up_to_less_than_the_cheapest_pruned_rank() -> None:
    config = AdaLoraConfig(init_r=4, budget_parameters=230, tinit=2, tfinal=4, deltaT=2, total_step=12)
    model = run(config, 8)
    prices = [method.parameters_per_rank for method in methods_of(model)]
    plain = LoraConfig(r=1, target_modules="all")
    assert sum(prices) == count_parameters(model.unload(), plain) + 3
    kept = [int(method.kept.sum()) for method in methods_of(run(config, 8))]
    spent = sum(price * rank for price, rank in zip(prices, kept, strict=True))
    assert spent <= 230
    assert 230 - spent < min(price for price, rank in zip(prices, kept, strict=True) if rank < 4)


def test_pruned_ranks_are_exactly_zero_and_stay_so_and_merging_is_exact() -> None:
    changes: list[list[torch.Tensor]] = []

    def remember(model: PeftModel, step: int) -> None:
        if step >= 8:
            changes.append([method.factors().out_factor.detach().clone() for method in methods_of(model)])

    model = run(CONFIG, 12, remember).eval()
    kept = [method.kept for method in methods_of(model)]
    for factors in changes:
        for factor, mask in zip(factors, kept, strict=True):
            assert torch.equal(factor[:, ~mask], torch.zeros_like(factor[:, ~mask]))
            assert bool((factor[:, mask] != 0).all())
    assert any(not torch.equal(a, b) for a, b in zip(changes[0], changes[-1], strict=True))
    for method in methods_of(model):
        assert torch.linalg.matrix_rank(method.delta_weight(torch.empty(0)).detach().flatten(1)) == method.kept.sum()
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(model.merge_and_unload()(x), expected)


def test_the_final_decision_is_the_last() -> None:
    model = run(CONFIG, 8)
    ranks, kept = allocated_ranks(model), [method.kept.clone() for method in methods_of(model)]
    for method in methods_of(model):
        method.lora_E_sensitivity.copy_(torch.rand(4) * 100)
        method.lora_E_uncertainty.fill_(1)
    model.update_and_allocate(9)
    assert allocated_ranks(model) == ranks
    assert all(torch.equal(method.kept, mask) for method, mask in zip(methods_of(model), kept, strict=True))


def test_the_same_gradients_give_the_same_ranks() -> None:
    assert allocated_ranks(run(CONFIG, 12)) == allocated_ranks(run(CONFIG, 12))


def test_the_penalty_is_the_distance_of_both_factors_from_orthonormal() -> None:
    model = get_peft_model(Parallel(2), AdaLoraConfig(r=3, orth_reg_weight=0.3))
    expected = 0.0
    for method in methods_of(model):
        p, q = method.lora_B.detach(), method.lora_A.detach()
        expected += 0.3 * float((p.T @ p - torch.eye(3)).square().sum() + (q @ q.T - torch.eye(3)).square().sum())
    penalty = model.penalty()
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-5)
    assert get_peft_model(Parallel(2), AdaLoraConfig(r=3, orth_reg_weight=0)).penalty() is None
    assert get_peft_model(Parallel(2), FloraConfig(r=2)).penalty() is None


def test_only_active_adapters_are_penalised() -> None:
    model = get_peft_model(Parallel(2), AdaLoraConfig(r=3), "a")
    model.add_adapter("b", LoraConfig(r=2))
    assert model.penalty() is not None
    model.set_adapter("b")
    assert model.penalty() is None


def test_the_training_loop_adds_the_penalty_and_its_gradient() -> None:
    model = get_peft_model(Parallel(1), AdaLoraConfig(r=3, orth_reg_weight=0.3))
    penalty = model.penalty()
    assert penalty is not None
    (wanted,) = torch.autograd.grad(penalty, methods_of(model)[0].lora_A)
    seen = []

    def after(step: int, optimizer: torch.optim.Optimizer) -> None:
        seen.append(methods_of(model)[0].lora_A.grad.clone())

    def objective(net: nn.Module, batch: object, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return 0 * net(torch.zeros(1, WIDTH)).sum() + 1, {}

    config = TrainConfig(steps=1, learning_rate=1e-9, clip_norm=0)
    result = train(model, objective, lambda index: [torch.zeros(1)], config, after_step=after)
    assert close(seen[0], wanted)
    assert result.loss == pytest.approx(1 + float(penalty.detach()), rel=1e-5)


def test_deciding_without_gradients_says_when_to_call() -> None:
    model = get_peft_model(Parallel(2), AdaLoraConfig(r=3, tinit=1, tfinal=1, deltaT=1, total_step=9))
    model.update_and_allocate(1)
    with pytest.raises(
        TrainingError, match=r"gradients must still be in place, got none\. Call it after optimizer.step"
    ):
        model.update_and_allocate(2)


def test_a_stored_adapter_goes_on_where_it_stopped(tmp_path) -> None:
    model = run(CONFIG, 6)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(model.unload(), tmp_path)
    for method, other in zip(methods_of(run(CONFIG, 6)), methods_of(loaded), strict=True):
        assert torch.equal(method.importance(), other.importance())
    loaded.update_and_allocate(8)
    assert sum(allocated_ranks(loaded).values()) == 6
    assert all(bool(method.decided) for method in methods_of(loaded))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_r": 0}, r"AdaLoraConfig\.target_r: must be at least 1, got 0"),
        ({"budget_parameters": 0}, r"AdaLoraConfig\.budget_parameters: must be at least 1"),
        ({"deltaT": 0}, r"AdaLoraConfig\.deltaT"),
        ({"total_step": 300}, r"tinit \+ tfinal must be below total_step, got 100, 200, 300\. Set total_step to"),
        ({"beta1": -0.5}, r"AdaLoraConfig\.beta1: must be in \(0, 1\), got -0\.5"),
        ({"beta2": 0.0}, r"AdaLoraConfig\.beta2: must be in \(0, 1\), got 0\.0"),
        ({"beta1": 1.0}, r"AdaLoraConfig\.beta1: must be in \(0, 1\), got 1\.0"),
        ({"mpc": "o"}, r"AdaLoraConfig\.mpc: must be 'none'.*Use orth_reg_weight"),
    ],
)
def test_values_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdaLoraConfig(**fields)  # type: ignore[arg-type]


def test_peft_users_may_call_the_start_rank_init_r() -> None:
    assert AdaLoraConfig(init_r=5) == AdaLoraConfig(r=5)
