"""FLoRA, a Tucker adapter for weights of any dimension (Si et al. 2024, arXiv:2405.14739, Eq. 4).

Equation:
    W' = W + scale * G x_1 A(1) x_2 A(2) ... x_N A(N)
    G:    (r_out, r_in, *kernel_r)  the core, 0 at the start
    A(n): (size of mode n, rank of mode n), one for output, input and each kernel mode

Use:
    On ConvNets. A kernel stays a kernel: its height and width have factors of their own and are not flattened into
    the input channels, so a rank costs less than LoRA's. On linear layers it spans what LoRA spans, with a core in
    between.
"""

import math
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared_peft.errors import ConfigError, RankError
from shared_peft.factors import Factors
from shared_peft.method import METHODS, AdapterConfig, AdapterMethod, WeightSpec, pattern_field
from shared_peft.penalties import PenaltyConfig


@dataclass(frozen=True)
class FloraConfig(PenaltyConfig):
    """Low-rank adaptation in the weight's own dimensions.

    Args:
        r: rank of the output and input modes, or one for each (out, in).
        kernel_r: rank of the kernel modes, one for each, or None for the full kernel size.
        scale: factor on the change.
        rank_pattern: ranks ``r`` by layer-name suffix or regular expression.
    """

    r: int | tuple[int, int] = 8
    kernel_r: int | tuple[int, ...] | None = 2
    scale: float = 1.0
    rank_pattern: dict[str, int | tuple[int, int]] = pattern_field()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ConfigError("FloraConfig.scale", "must be finite and not 0", self.scale, "Use 1")


@METHODS.register("flora")
class Flora(AdapterMethod):
    """The change s * G x_1 A(1) x_2 A(2) ... x_N A(N): a core and one factor for every mode, kernel modes too."""

    config_class: ClassVar[type[AdapterConfig]] = FloraConfig
    citation = "Si et al. 2024, FLoRA: Low-Rank Core Space for N-dimension, arXiv:2405.14739"

    def __init__(self, spec: WeightSpec, config: FloraConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        wanted = requested_ranks(spec, config)
        ranks = feasible_ranks(spec.shape, wanted)
        if any(rank < min(asked, size) for rank, asked, size in zip(ranks, wanted, spec.shape, strict=True)):
            self.clamped = f"{spec.name} {list(wanted)} -> {list(ranks)}"
        self.scale = config.scale
        self.config = config
        self.core = nn.Parameter(torch.zeros(ranks))  # G
        self.mode_factors = nn.ParameterList()  # A(1), A(2), ..., A(N): out, in, kernel
        for size, rank in zip(spec.shape, ranks, strict=True):
            factor = nn.Parameter(torch.empty(size, rank))
            nn.init.kaiming_normal_(factor, a=math.sqrt(3), generator=generator)
            self.mode_factors.append(factor)

    def factors(self) -> Factors:
        """Return the kernel modes contracted into the core, between the two channel factors."""
        out_factor, in_factor, *kernel_factors = self.mode_factors
        core = self.core
        if kernel_factors:
            taps = reduce(torch.kron, kernel_factors)  # (kernel size, product of kernel ranks)
            sizes = [factor.shape[0] for factor in kernel_factors]
            core = (core.flatten(2) @ taps.mT).unflatten(2, sizes)
        return Factors(core=core, out_factor=out_factor * self.scale, in_factor=in_factor.mT)

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return the Tucker product, kernel modes contracted first."""
        return self.factors().compose()

    def penalty(self) -> Tensor | None:
        """Return the orthogonality penalty of the channel factors, where the configuration asks for one (ours)."""
        out_factor, in_factor = self.mode_factors[0], self.mode_factors[1]
        return self.config.penalty(in_factor.T, out_factor)


def requested_ranks(spec: WeightSpec, config: FloraConfig) -> tuple[int, ...]:
    """Return the ranks a configuration asks for, one for each mode.

    Raises:
        RankError: a rank below 1, or another number of kernel ranks than the kernel has modes.
    """
    kernel = spec.shape[2:]
    channel_ranks = (config.r, config.r) if isinstance(config.r, int) else config.r
    if config.kernel_r is None:
        kernel_ranks = kernel
    elif isinstance(config.kernel_r, int):
        kernel_ranks = (config.kernel_r,) * len(kernel)
    elif kernel and len(config.kernel_r) != len(kernel):
        must = f"kernel_r must have {len(kernel)} ranks"
        raise RankError(spec.name, must, config.kernel_r, "Give one per kernel mode, or a single number")
    else:
        kernel_ranks = config.kernel_r if kernel else ()
    ranks = (*channel_ranks, *kernel_ranks)
    if min(ranks) < 1:
        raise RankError(spec.name, "every rank must be at least 1", list(ranks), "Raise r or kernel_r")
    return ranks


def feasible_ranks(shape: tuple[int, ...], ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``ranks`` lowered until each is at most its mode's size and the product of the other ranks."""
    lowered = [min(rank, size) for rank, size in zip(ranks, shape, strict=True)]
    changed = True
    while changed:
        changed = False
        for mode, rank in enumerate(lowered):
            largest = math.prod(lowered[:mode] + lowered[mode + 1 :])
            if rank > largest:
                lowered[mode], changed = largest, True
    return tuple(lowered)
