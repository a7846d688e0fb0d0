"""LoRA (Hu et al. 2021, arXiv:2106.09685): dW = (alpha / r) B A, convolutions as in Sec. 4.1's matrix form.

Equation:
    W' = W + s B A                s = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora
    A: (r, in / groups, *kernel)  kaiming-uniform at the start
    B: (out, r)                   0 at the start

Use:
    First. It is the plainest, trains fast, and is the one other libraries read. `init_lora_weights="pissa"` starts it
    on the weight's largest directions instead of at 0. `freeze_A=True` trains and stores B alone.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from shared_peft.errors import RankError
from shared_peft.factors import Factors
from shared_peft.low_rank import LowRankConfig, LowRankMethod
from shared_peft.method import METHODS, AdapterConfig, WeightSpec
from shared_peft.spectrum import singular_directions

Start = Literal["default", "gaussian", "pissa", "milora", "orthogonal"]
_ON_THE_WEIGHT = ("pissa", "milora")


@dataclass(frozen=True)
class LoraConfig(LowRankConfig):
    """Low-rank adaptation.

    Args:
        init_lora_weights: "default": A kaiming-uniform (a = sqrt 5), B is 0. "gaussian": A normal (std 1 / r), B is 0.
            "pissa", "milora": A and B on the r largest or smallest singular directions of the weight, which loses what
            they hold (arXiv:2404.02948, arXiv:2406.09044). "orthogonal": A and B random with B A = 0, as in Hugging
            Face peft; r must be even.
        freeze_A: LoRA-FA (Zhang et al. 2023, arXiv:2308.03303): A keeps its start values and only B is trained.
            Hugging Face peft has it as the optimiser ``create_lorafa_optimizer``.
    """

    lora_dropout: float = 0.0  # again, to be positional here
    use_rslora: bool = False
    init_lora_weights: Start = "default"
    freeze_A: bool = False


@METHODS.register("lora")
class Lora(LowRankMethod):
    """The change s B A, or s (B A - B0 A0) where A and B start on the weight's own directions.

    The frozen weight is shared between adapters, so what PiSSA and MiLoRA write into it, W - s B0 A0, is part of the
    change here; B0 and A0 are stored with it.
    """

    config_class: ClassVar[type[AdapterConfig]] = LoraConfig
    citation = "Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685"

    start_A: Tensor  # A0, shape of A
    start_B: Tensor  # B0, shape of B

    def __init__(self, spec: WeightSpec, config: LoraConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, config, generator)
        self.start_on = config.init_lora_weights
        if self.start_on == "gaussian":
            nn.init.normal_(self.lora_A, std=1 / config.r, generator=generator)
        elif self.start_on == "orthogonal":
            self._start_orthogonal(spec, generator)
        elif self.start_on in _ON_THE_WEIGHT:
            self.register_buffer("start_A", torch.zeros_like(self.lora_A))
            self.register_buffer("start_B", torch.zeros_like(self.lora_B))
        if config.freeze_A:
            values = self.lora_A.detach()
            del self.lora_A
            self.register_buffer("lora_A", values)

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Put A and B on the largest (PiSSA) or smallest (MiLoRA) directions: B0 = U sqrt(S), A0 = sqrt(S) V^T."""
        if self.start_on not in _ON_THE_WEIGHT:
            return
        rank = self.lora_A.shape[0]
        part = slice(rank) if self.start_on == "pissa" else slice(-rank, None)
        left, sigma, right = singular_directions(weight, part)
        root = sigma.sqrt()
        for down, up in ((self.lora_A, self.lora_B), (self.start_A, self.start_B)):
            down.copy_((right * root).mT.reshape(down.shape))
            up.copy_(left * root)

    def factors(self) -> Factors:
        """Return A as core and s B as out-factor, with s B0 A0 taken off in the same chain.

        s (B A - B0 A0) is written s (B - B0) A + s B0 (A - A0), which is 0 at the start to the last bit.
        """
        if self.start_on not in _ON_THE_WEIGHT:
            return self.product()
        core = torch.cat([self.lora_A, self.lora_A - self.start_A])
        return Factors(core, torch.cat([self.lora_B - self.start_B, self.start_B], dim=1) * self.scale)

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return s B A, or s (B A - B0 A0)."""
        return self.factors().compose()

    @torch.no_grad()
    def _start_orthogonal(self, spec: WeightSpec, generator: torch.Generator | None) -> None:
        """Draw B = X Q_even / 10 and A = (Y Q_odd)^T / 10 from one orthogonal Q, so that B A = 0."""
        rank, (rows, columns) = self.lora_A.shape[0], spec.matrix_shape
        if rank % 2:
            must = "r must be even for the orthogonal start"
            raise RankError(spec.name, must, rank, "Choose an even r, or another start")
        mixed = torch.linalg.qr(torch.randn(rank, rank, generator=generator)).Q
        down = torch.randn(columns, rank // 2, generator=generator) @ mixed[0::2] / 10
        self.lora_A.copy_(down.mT.reshape(self.lora_A.shape))
        self.lora_B.copy_(torch.randn(rank // 2, rows, generator=generator).mT @ mixed[1::2] / 10)
