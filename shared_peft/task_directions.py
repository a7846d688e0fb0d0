"""Task-specific directions, what LoRA-Dash, LoRA-Init and LoRA-TSD share (Si et al. 2024, arXiv:2409.01035v5).

Four points are ours, where the paper is silent or its released code goes astray: the phase follows optimiser steps, not
forward calls; eps is relative to the largest singular value; the base is compensated exactly, by s B0 A0; convolution
kernels are read as out x rest matrices or by the entries of their HOSVD core.
"""

from abc import ABC
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared_peft.errors import ConfigError
from shared_peft.factors import Factors
from shared_peft.low_rank import LowRankConfig, LowRankMethod
from shared_peft.method import WeightSpec
from shared_peft.spectrum import Basis, most_changed

NOT_LAUNCHED = -1


@dataclass(frozen=True)
class TaskDirectionsConfig(LowRankConfig):
    """What every method that launches on task-specific directions can be told.

    Args:
        warmup_steps: optimiser steps of plain LoRA before the directions are chosen.
        directions: of convolution kernels, "matrix" (singular directions of the out x rest matrix) or "hosvd" (outer
            products of HOSVD factor columns, one for each core entry); both are ours.
    """

    _: KW_ONLY
    warmup_steps: int = 100
    directions: Basis = "matrix"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_directions", "warmup_steps"):
            if getattr(self, name, 1) < 1:
                where = f"{type(self).__name__}.{name}"
                raise ConfigError(where, "must be at least 1", getattr(self, name), "Raise it")


class TaskDirections(LowRankMethod, ABC):
    """Plain LoRA that chooses the directions I with the largest change rates after ``warmup_steps`` optimiser steps.

    Subclasses say what the launch does. With ``restarts``, B and A restart at B0 = U_I sqrt(S_I / s) and
    A0 = sqrt(S_I / s) V_I^T on the first min(r, |I|) directions (further ranks as plain LoRA) and s B0 A0 is taken off
    the frozen weight. With ``dashes``, the sum over I of dsigma_i u_i v_i^T joins the change, not multiplied by s.
    Before the launch u, v and sigma are 0, so the same formula is plain LoRA.

    Args:
        spec: the weight to adapt.
        config: a TaskDirectionsConfig.
        count: number of directions; clamped to the matrix's own rank.
        generator: source of A's random values.

    Raises:
        ConfigError: a scale that is not positive.
    """

    restarts: ClassVar[bool]
    dashes: ClassVar[bool]

    left: Tensor  # u_i, shape (out, directions)
    right: Tensor  # v_i, shape (in / groups * kernel, directions)
    sigma: Tensor  # the frozen weight's coordinates along the directions
    indices: Tensor  # which singular directions, or entries of the flattened core, were chosen
    launched_at: Tensor  # optimiser step of the launch, or NOT_LAUNCHED

    def __init__(
        self, spec: WeightSpec, config: TaskDirectionsConfig, count: int, generator: torch.Generator | None
    ) -> None:
        super().__init__(spec, config, generator)
        if self.scale <= 0:
            raise ConfigError(spec.name, "lora_alpha must be positive", config.lora_alpha, "Raise it")
        rows, columns = spec.matrix_shape
        count = min(count, rows, columns)
        self.warmup_steps = config.warmup_steps
        self.basis: Basis = config.directions
        if self.dashes:
            self.dsigma = nn.Parameter(torch.zeros(count))
        self.register_buffer("left", torch.zeros(rows, count))
        self.register_buffer("right", torch.zeros(columns, count))
        self.register_buffer("sigma", torch.zeros(count))
        self.register_buffer("indices", torch.full((count,), -1))
        self.register_buffer("launched_at", torch.tensor(NOT_LAUNCHED))

    def factors(self) -> Factors:
        """Return the change as one chain of rank r + |I|: A beside rows that belong to the directions' columns U_I.

        s B A - s B0 A0 is written s (B - B0) A + s B0 (A - A0), which is 0 at the launch to the last bit.
        """
        rows: list[Tensor] = []
        out_factor = self.product().out_factor
        if self.restarts:
            start_down, start_up = self._start_factors()
            count = start_down.shape[0]
            moved = (self.lora_A[:count].flatten(1) - start_down) * (self._root() * self.scale)[:, None]
            rows.append(functional.pad(moved, (0, 0, 0, self.left.shape[1] - count)))
            start_up = functional.pad(start_up, (0, self.lora_B.shape[1] - count))
            out_factor = (self.lora_B - start_up) * self.scale
        if self.dashes:
            rows.append(self.dsigma[:, None] * self.right.mT)
        core = torch.cat([self.lora_A, sum(rows[1:], rows[0]).reshape(-1, *self.lora_A.shape[1:])])
        return Factors(core, torch.cat([out_factor, self.left], dim=1))

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return the change, all from the stored directions."""
        return self.factors().compose()

    def update_and_allocate(self, step: int, weight: Tensor) -> Iterator[nn.Parameter]:
        """Choose the directions, once, as soon as ``warmup_steps`` optimiser steps are done."""
        if step < self.warmup_steps or int(self.launched_at) != NOT_LAUNCHED:
            return
        self._launch(step, weight)
        if self.restarts:
            yield from (self.lora_A, self.lora_B)
        if self.dashes:
            yield self.dsigma

    @torch.no_grad()
    def _launch(self, step: int, weight: Tensor) -> None:
        found = most_changed(weight, self.product(), self.sigma.shape[0], self.basis)
        for name in ("left", "right", "sigma", "indices"):
            getattr(self, name).copy_(getattr(found, name))
        self.launched_at.fill_(step)
        self._agree_across_processes()
        if self.restarts:
            start_down, start_up = self._start_factors()
            count = start_down.shape[0]
            self.lora_A[:count] = start_down.reshape(count, *self.lora_A.shape[1:])
            self.lora_B.zero_()
            self.lora_B[:, :count] = start_up
        if self.dashes:
            self.dsigma.zero_()

    def _root(self) -> Tensor:
        """Return sqrt(sigma / s) of the directions that A and B restart on."""
        return (self.sigma[: self.lora_A.shape[0]] / self.scale).sqrt()

    def _start_factors(self) -> tuple[Tensor, Tensor]:
        """Return A0, shape (min(r, |I|), rest), and B0, shape (out, min(r, |I|)); 0 before the launch."""
        root = self._root()
        count = root.shape[0]
        return (self.right[:, :count] * root).mT, self.left[:, :count] * root

    def _agree_across_processes(self) -> None:
        """Give every process the directions of process 0: near-equal rates may sort differently elsewhere."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for tensor in (self.left, self.right, self.sigma, self.indices):
                torch.distributed.broadcast(tensor, src=0)
