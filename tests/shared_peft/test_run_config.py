"""What a training run asks of a method's configuration."""

import math

import pytest
import torch
from torch import nn

from shared_peft import count_parameters, get_peft_model, make_config
from shared_peft.errors import ConfigError, RankError
from shared_peft.inject import adapter_layers
from shared_peft.run_config import config_for_run


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 40, 300, 5_000])
def test_phases_fit_any_length_of_run(steps: int) -> None:
    ranks = config_for_run(nn.Sequential(nn.Linear(20, 20)), "adalora", {}, steps=steps)
    schedule = ranks.schedule
    assert ranks.total_step == steps
    assert schedule.tinit == steps // 10 < schedule.final_step == steps - steps // 5
    assert any(schedule.decides_at(step) for step in range(1, steps + 1))
    warm = config_for_run(nn.Sequential(nn.Linear(20, 20)), "lora_tsd", {}, steps=steps)
    assert warm.warmup_steps == max(1, min(100, steps // 4))


def test_what_was_given_stays_as_it_was_given() -> None:
    model = nn.Sequential(nn.Linear(20, 20))
    given = {"total_step": 500, "tinit": 3, "tfinal": 4, "deltaT": 7, "target_r": 2, "r": 6}
    config = config_for_run(model, "adalora", given, steps=40)
    assert {name: getattr(config, name) for name in given} == given
    assert config_for_run(model, "adalora", {"r": 6}, steps=40).target_r == 4
    assert config_for_run(model, "adalora", {"init_r": 9}, steps=40).target_r == 6
    assert config_for_run(model, "lora_dash", {"warmup_steps": 30}, steps=40).warmup_steps == 30
    with pytest.raises(ConfigError, match=r"ssl config: key must be one of .*got 'r'"):
        config_for_run(model, "ssl", {"r": 3}, steps=40)


def test_ranks_fall_in_a_run_to_two_thirds_of_the_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    peft = get_peft_model(model, config_for_run(model, "adalora", {"r": 3}, steps=10))
    optimizer = torch.optim.SGD([p for p in peft.parameters() if p.requires_grad], lr=1e-2)
    for step in range(1, 11):
        optimizer.zero_grad()
        peft(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
        peft.update_and_allocate(step)
    kept = [int(method.kept.sum()) for _, layer in adapter_layers(peft) for _, method in layer.methods("default")]
    assert sum(kept) == 2 * 2


def test_a_default_rank_is_lowered_where_a_weight_is_smaller_and_a_given_one_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 24, 3), nn.Conv2d(24, 24, 3))
    with pytest.warns(UserWarning, match="ranks lowered to what the weight allows in 1 layers: 0 12 -> 9"):
        config = config_for_run(model, "adalora", {}, steps=20)
    peft = get_peft_model(model, config)
    ranks = [method.lora_B.shape[1] for _, layer in adapter_layers(peft) for _, method in layer.methods("default")]
    assert ranks == [9, 12]
    with pytest.raises(RankError, match=r"0: rank must be in \[1, 9\], got 12"):
        get_peft_model(nn.Sequential(nn.Conv2d(1, 24, 3)), config_for_run(model, "adalora", {"r": 12}, steps=20))


def test_a_method_that_cannot_be_merged_leaves_out_what_it_cannot_run_beside() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.ModuleList([nn.Linear(8, 4)]))
    with pytest.warns(UserWarning, match="mpc_n runs beside dense layers only and leaves out 1 layers: 1$"):
        config = config_for_run(model, "mpc_n", {"r": 2}, steps=20)
    assert [row.name for row in get_peft_model(model, config).get_layer_status()] == ["0", "2.0"]
    named = config_for_run(model, "mpc_n", {"r": 2, "target_modules": ["1"]}, steps=20)
    assert named.target_modules == ["1"]
    assert config_for_run(model, "lora", {"r": 2}, steps=20).target_modules == "all"


def test_a_budget_sets_the_rank_or_must_fit_a_method_without_one() -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Linear(20, 8))
    config = config_for_run(model, "adalora", {}, steps=20, budget=400)
    assert count_parameters(model, config) <= 400
    assert config.target_r == max(1, math.floor(2 * config.r / 3))
    assert config_for_run(model, "ssl", {}, steps=20, budget=400) == make_config("ssl")
    with pytest.raises(RankError, match=r"budget: must allow ssl, which has \d+ parameters here and no rank, got 3"):
        config_for_run(model, "ssl", {}, steps=20, budget=3)
