"""AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): dW = s P diag(E) Q, its ranks shared out among the layers.

Equation:
    W' = W + s P diag(E) Q        s = lora_alpha / r with the rank r of the start
    P: (out, r)   Q: (r, in / groups, *kernel)   E: (r), 0 at the start, entries set to 0 as ranks fall

Use:
    On deep models, where it is not known which layers need the ranks: all start with r, and the least important ones
    are dropped until target_r is left on average. It needs some hundred steps to decide. `update_and_allocate` must be
    called after every step; the trainers of this package do so.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared_peft.allocation import RankedMethod, RankSchedule
from shared_peft.errors import ConfigError
from shared_peft.factors import Factors
from shared_peft.low_rank import LowRankConfig, LowRankMethod
from shared_peft.method import METHODS, AdapterConfig, WeightSpec
from shared_peft.penalties import orthogonality_penalty

_TRAINED = ("lora_A", "lora_B", "lora_E")


@dataclass(frozen=True)
class AdaLoraConfig(LowRankConfig):
    """Low-rank adaptation whose ranks go where the loss needs them; ``r`` is the rank every layer starts with.

    Call `PeftModel.update_and_allocate` after every optimiser step, before the gradients are dropped.

    Args:
        init_r: Hugging Face peft's name for ``r``; where given, it is moved there.
        target_r: rank kept at the end, on average over the adapted weights.
        budget_parameters: trainable values of kept ranks at the end, instead of ``target_r`` (ours): a rank of a wide
            layer costs more than one of a narrow layer, and importance is weighed against that.
        tinit: optimiser steps before ranks start to fall.
        tfinal: optimiser steps trained with the final ranks.
        deltaT: optimiser steps between decisions.
        total_step: optimiser steps of the whole training.
        beta1: smoothing of the sensitivity.
        beta2: smoothing of its uncertainty.
        orth_reg_weight: factor on ||P^T P - I||_F^2 + ||Q Q^T - I||_F^2, which is added to the training loss.
    """

    r: int = 12
    _: KW_ONLY
    init_r: int | None = None
    target_r: int = 8
    budget_parameters: int | None = None
    tinit: int = 100
    tfinal: int = 200
    deltaT: int = 10
    total_step: int = 1000
    beta1: float = 0.85
    beta2: float = 0.85
    orth_reg_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init_r is not None:
            object.__setattr__(self, "r", self.init_r)
            object.__setattr__(self, "init_r", None)
        for name, least in (("target_r", 1), ("budget_parameters", 1), ("tinit", 0), ("tfinal", 0), ("deltaT", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"AdaLoraConfig.{name}", f"must be at least {least}", value, "Raise it")
        if self.tinit >= self.total_step - self.tfinal:
            got, fix = f"{self.tinit}, {self.tfinal}, {self.total_step}", "Set total_step to the length of training"
            raise ConfigError("AdaLoraConfig", "tinit + tfinal must be below total_step", got, fix)
        for name in ("beta1", "beta2"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"AdaLoraConfig.{name}", "must be in (0, 1)", getattr(self, name), "Use 0.85")
        if self.mpc != "none":
            must, fix = "must be 'none': this method has that penalty of its own", "Use orth_reg_weight"
            raise ConfigError("AdaLoraConfig.mpc", must, repr(self.mpc), fix)

    @property
    def schedule(self) -> RankSchedule:
        """When ranks fall, and to what."""
        return RankSchedule(
            self.target_r, self.budget_parameters, self.tinit, self.tfinal, self.deltaT, self.total_step
        )


@METHODS.register("adalora")
class AdaLora(LowRankMethod, RankedMethod):
    """The change s P diag(E) Q, s = lora_alpha / r with the start rank r, E starting at 0.

    ``lora_B`` is P, (out, r), ``lora_A`` is Q, (r, in / groups, *kernel). Beside each of them and of E, two buffers
    hold the smoothed sensitivity and its uncertainty, so that a stored adapter goes on as if it had never stopped.
    """

    config_class: ClassVar[type[AdapterConfig]] = AdaLoraConfig
    citation = "Zhang et al. 2023, Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, arXiv:2303.10512"
    config: AdaLoraConfig

    def __init__(self, spec: WeightSpec, config: AdaLoraConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(spec, config, generator)
        self.schedule = config.schedule
        nn.init.normal_(self.lora_A, std=0.02, generator=generator)
        nn.init.normal_(self.lora_B, std=0.02, generator=generator)
        self.lora_E = nn.Parameter(torch.zeros(config.r))
        self.register_buffer("kept", torch.ones(config.r, dtype=torch.bool))
        self.register_buffer("decided", torch.tensor(False))  # noqa: FBT003  (a tensor's value)
        for name in _TRAINED:
            self.register_buffer(f"{name}_sensitivity", torch.zeros_like(self.get_parameter(name)))
            self.register_buffer(f"{name}_uncertainty", torch.zeros_like(self.get_parameter(name)))

    @property
    def parameters_per_rank(self) -> int:
        """Trainable values of one triple: a column of P, a row of Q, one of E."""
        return self.lora_B.shape[0] + self.lora_A[0].numel() + 1

    def product(self) -> Factors:
        """Return Q as core and s P diag(E) as out-factor, exactly 0 for triples that were pruned for good."""
        return Factors(core=self.lora_A, out_factor=self.lora_B * (self.lora_E * self.kept * self.scale))

    def factors(self) -> Factors:
        """Return the change as a chain."""
        return self.product()

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Return s P diag(E) Q."""
        return self.product().compose()

    def penalty(self) -> Tensor | None:
        """Return the weighted ||P^T P - I||_F^2 + ||Q Q^T - I||_F^2 (Sec. 3.1)."""
        if not self.config.orth_reg_weight:
            return None
        return self.config.orth_reg_weight * orthogonality_penalty(self.lora_A, self.lora_B, "o")

    @torch.no_grad()
    def update_and_allocate(self, step: int, weight: Tensor) -> Iterator[nn.Parameter]:
        """Smooth the sensitivity |w dL/dw| of every trained value and its uncertainty (Sec. 3.2).

        Gradients that are not finite, of a step a loss scaler skipped, are passed over (ours).
        """
        gradients = {name: self.get_parameter(name).grad for name in _TRAINED}
        seen = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        if self.decided or not all(bool(torch.isfinite(gradient).all()) for gradient in seen.values()):
            return iter(())
        for name, gradient in seen.items():
            now = (self.get_parameter(name) * gradient).abs()
            sensitivity = self.get_buffer(f"{name}_sensitivity").lerp_(now, 1 - self.config.beta1)
            self.get_buffer(f"{name}_uncertainty").lerp_((now - sensitivity).abs(), 1 - self.config.beta2)
        return iter(())

    def importance(self) -> Tensor:
        """Return each triple's importance: that of its E, and the means of those of its P and Q (Sec. 3.2)."""
        of_a, of_b, of_e = (
            self.get_buffer(f"{name}_sensitivity") * self.get_buffer(f"{name}_uncertainty") for name in _TRAINED
        )
        return of_e + of_b.mean(0) + of_a.flatten(1).mean(1)

    @torch.no_grad()
    def keep(self, kept: Tensor) -> None:
        """Set E to 0 where ``kept`` is False (Sec. 3.2)."""
        self.lora_E.masked_fill_(~kept, 0)
