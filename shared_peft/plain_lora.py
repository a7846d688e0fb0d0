"""What it takes to write any low-rank change as plain LoRA: exact targets, exact ranks, no rank above the weight's."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from shared_peft.factors import Factors
from shared_peft.targets import matches

V = TypeVar("V")


def narrowed(factors: Factors) -> Factors:
    """Return the same change as B A with a rank no larger than the weight, read as a matrix, can have.

    Ours: where the chain is wider than the smaller side, the change itself is one factor and the identity the other.

    Args:
        factors: a chain for a weight (out, in / groups, *kernel).
    """
    factors = factors.without_in_factor()
    (rank, *rest), out = factors.core.shape, factors.out_factor.shape[0]
    width = factors.core[0].numel()
    if rank <= min(out, width):
        return factors
    change = factors.compose()
    if out <= width:
        return Factors(change, torch.eye(out, dtype=change.dtype, device=change.device))
    identity = torch.eye(width, dtype=change.dtype, device=change.device)
    return Factors(identity.reshape(width, *rest), change.reshape(out, width))


def exact_targets(model: nn.Module, names: Iterable[str]) -> list[str] | str:
    """Return ``target_modules`` that mean these layers and no other: their names, or a regular expression of them."""
    wanted = list(names)
    meant = {name for name, _ in model.named_modules() if name and matches(name, wanted)}
    return wanted if meant == set(wanted) else "|".join(re.escape(name) for name in wanted)


def exact_pattern(values: Mapping[str, V]) -> dict[str, V]:
    """Return a rank or alpha pattern that gives each layer its own value.

    The first pattern that fits a name counts, and a pattern fits every longer name that ends with it: long names first.

    Args:
        values: a value for each adapted layer by its full name, none left out.
    """
    return {re.escape(name): values[name] for name in sorted(values, key=len, reverse=True)}


def exact_ranks(ranks: Mapping[str, int]) -> dict[str, Any]:
    """Return the fields r, lora_alpha, rank_pattern and alpha_pattern of a LoRA with these ranks and scale 1.

    Args:
        ranks: rank of each layer by its full name.
    """
    most = max(ranks.values())
    same = all(rank == most for rank in ranks.values())
    patterns = {} if same else exact_pattern(ranks)
    alphas = {pattern: float(rank) for pattern, rank in patterns.items()}
    return {"r": most, "lora_alpha": float(most), "rank_pattern": patterns, "alpha_pattern": alphas}
