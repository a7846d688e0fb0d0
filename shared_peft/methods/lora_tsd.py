"""LoRA-TSD = LoRA-Dash + LoRA-Init on task-specific directions (Si et al. 2024, arXiv:2409.01035v5).

Three points are ours, where the paper is silent or its released code goes astray: the phase follows optimiser steps,
not forward calls; eps is relative to the largest singular value; convolution kernels are read as out x rest matrices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared_peft.errors import ConfigError
from shared_peft.factors import Factors
from shared_peft.low_rank import LowRankConfig, LowRankMethod
from shared_peft.method import METHODS, AdapterConfig, WeightSpec
from shared_peft.spectrum import change_rates, singular_directions

NOT_LAUNCHED = -1


@dataclass(frozen=True)
class LoraTsdConfig(LowRankConfig):
    """Low-rank adaptation that restarts on the directions the task moves most.

    Args:
        n_directions: number of directions whose singular values are trained; clamped to the matrix's own rank.
        warmup_steps: optimiser steps of plain LoRA before the directions are chosen.
    """

    n_directions: int = 8
    warmup_steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_directions", "warmup_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"LoraTsdConfig.{name}", "must be at least 1", getattr(self, name), "Raise it")


@METHODS.register("lora_tsd")
class LoraTsd(LowRankMethod):
    """The change s B A - s B0 A0 + sum over I of dsigma_i u_i v_i^T.

    Before the launch u, v and sigma are 0, so the same formula is plain LoRA. At the launch the directions I with the
    largest change rates are kept, B and A restart at B0 = U_I sqrt(S_I / s) and A0 = sqrt(S_I / s) V_I^T on the first
    min(r, |I|) of them (further ranks restart as plain LoRA), and the change is 0 again. Relative to the frozen weight
    it is a plain LoRA of rank r + |I|.
    """

    config_class: ClassVar[type[AdapterConfig]] = LoraTsdConfig
    citation = "Si et al. 2024, Unleashing the Power of Task-Specific Directions in PEFT, arXiv:2409.01035v5"

    left: Tensor  # u_i, shape (out, directions)
    right: Tensor  # v_i, shape (in / groups * kernel, directions)
    sigma: Tensor  # singular values of the chosen directions
    indices: Tensor  # which singular directions were chosen
    launched_at: Tensor  # optimiser step of the launch, or NOT_LAUNCHED

    def __init__(self, spec: WeightSpec, config: LoraTsdConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, config, generator)
        rows, columns = spec.matrix_shape
        count = min(config.n_directions, rows, columns)
        self.warmup_steps = config.warmup_steps
        self.dsigma = nn.Parameter(torch.zeros(count))
        self.register_buffer("left", torch.zeros(rows, count))
        self.register_buffer("right", torch.zeros(columns, count))
        self.register_buffer("sigma", torch.zeros(count))
        self.register_buffer("indices", torch.full((count,), -1))
        self.register_buffer("launched_at", torch.tensor(NOT_LAUNCHED))

    def factors(self) -> Factors:
        """Return the change as one chain of rank r + |I|: A over V^T, s B beside U (dsigma - sigma on A0's part)."""
        restarted = min(self.lora_A.shape[0], self.dsigma.shape[0])
        start = torch.cat([self.sigma[:restarted], self.sigma.new_zeros(self.dsigma.shape[0] - restarted)])  # s B0 A0
        core = torch.cat([self.lora_A, self.right.mT.reshape(-1, *self.lora_A.shape[1:])])
        return Factors(
            core=core, out_factor=torch.cat([self.lora_B * self.scale, self.left * (self.dsigma - start)], 1)
        )

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return s B A - s B0 A0 + dash, all from the stored directions."""
        return self.factors().compose()

    def update_and_allocate(self, step: int, weight: Tensor) -> Iterator[nn.Parameter]:
        """Choose the directions and restart on them, once, as soon as ``warmup_steps`` steps are done."""
        if step >= self.warmup_steps and int(self.launched_at) == NOT_LAUNCHED:
            self._launch(step, weight)
            yield from (self.lora_A, self.lora_B, self.dsigma)

    @torch.no_grad()
    def _launch(self, step: int, weight: Tensor) -> None:
        left, sigma, right = singular_directions(weight)
        flat_down = self.lora_A.reshape(self.lora_A.shape[0], -1)
        rates = change_rates(left, sigma, right, self.lora_B * self.scale, flat_down)
        chosen = rates.topk(self.dsigma.shape[0]).indices
        self.left.copy_(left[:, chosen])
        self.right.copy_(right[:, chosen])
        self.sigma.copy_(sigma[chosen])
        self.indices.copy_(chosen)
        self.launched_at.fill_(step)
        self._agree_across_processes()
        self._restart()

    def _restart(self) -> None:
        """Put A and B on the chosen directions: s B0 A0 = sum of sigma_i u_i v_i^T."""
        count = min(self.lora_A.shape[0], self.dsigma.shape[0])
        root = (self.sigma[:count] / self.scale).sqrt()
        self.lora_B.zero_()
        self.lora_B[:, :count] = self.left[:, :count] * root
        self.lora_A[:count] = (self.right[:, :count] * root).mT.reshape(count, *self.lora_A.shape[1:])
        self.dsigma.zero_()

    def _agree_across_processes(self) -> None:
        """Give every process the directions of process 0: near-equal rates may sort differently elsewhere."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for tensor in (self.left, self.right, self.sigma, self.indices):
                torch.distributed.broadcast(tensor, src=0)
