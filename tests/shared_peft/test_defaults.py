"""What a field is worth where nobody gives it: a stored adapter that leaves it out, and every script, rely on it."""

import dataclasses

import pytest

from shared_peft import METHODS

EVERY = {"target_modules": "all", "exclude_modules": None, "modules_to_save": None, "qkv_parts": None}
PENALISED = {**EVERY, "mpc": "none", "mpc_weight": 1e-3}
PATTERNS = {"rank_pattern": {}, "alpha_pattern": {}}
LOW_RANK = {**PENALISED, "r": 8, "lora_alpha": 8.0, "lora_dropout": 0.0, "use_rslora": False, **PATTERNS}
DIRECTIONS = {**LOW_RANK, "warmup_steps": 100, "directions": "matrix"}
ADALORA = {
    "init_r": None,
    "target_r": 8,
    "budget_parameters": None,
    "tinit": 100,
    "tfinal": 200,
    "deltaT": 10,
    "total_step": 1000,
    "beta1": 0.85,
    "beta2": 0.85,
    "orth_reg_weight": 0.1,
}
DEFAULTS = {
    "adalora": {**LOW_RANK, "r": 12, **ADALORA},
    "dora": LOW_RANK,
    "flora": {**PENALISED, "r": 8, "kernel_r": 2, "scale": 1.0, "rank_pattern": {}},
    "hira": LOW_RANK,
    "ia3": {**EVERY, "feedforward_modules": None},
    "lora": {**LOW_RANK, "init_lora_weights": "default", "freeze_A": False},
    "lora_dash": {**DIRECTIONS, "n_directions": 8},
    "lora_init": DIRECTIONS,
    "lora_trf": {**LOW_RANK, "filter_r": None, "filter_scale": 1.0},
    "lora_tsd": {**DIRECTIONS, "n_directions": 8},
    "mpc_n": {**LOW_RANK, "nonlinearity": "relu"},
    "ssb": EVERY,
    "ssl": EVERY,
}


@pytest.mark.parametrize("name", METHODS.names())
def test_defaults_are_those_stored_adapters_rely_on(name: str) -> None:
    assert dataclasses.asdict(METHODS.get(name).config_class()) == DEFAULTS[name]
