"""MPC_n (Si et al. 2024, arXiv:2407.05417, Sec. IV-B): a nonlinearity between B and A breaks the tie between them.

Equation:
    y = W x + s B h(A x)          h: relu, gelu, silu or tanh

Use:
    To see whether a nonlinearity between the factors helps. It is no change of the weight: it cannot be merged, and an
    exported model has extra nodes. Experimental.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional

from shared_peft.errors import MergeError
from shared_peft.low_rank import LowRankConfig, LowRankMethod
from shared_peft.method import METHODS, AdapterConfig, LayerMaps

Nonlinearity = Literal["relu", "gelu", "silu", "tanh"]
_NONLINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": functional.tanh,
}


@dataclass(frozen=True)
class MpcNConfig(LowRankConfig):
    """Low-rank adaptation with a nonlinearity inside; cannot be merged.

    Args:
        nonlinearity: what is applied to A x. The paper leaves it open; ours is the adapters' "relu".
    """

    _: KW_ONLY
    nonlinearity: Nonlinearity = "relu"


@METHODS.register("mpc_n")
class MpcN(LowRankMethod):
    """Adds s B h(A x) to the layer's output: not a weight change, so it runs and exports beside the layer."""

    config_class: ClassVar[type[AdapterConfig]] = MpcNConfig
    citation = "Si et al. 2024, See Further for Parameter Efficient Fine-tuning (MPC_n), arXiv:2407.05417"
    mergeable = False
    experimental = True
    config: MpcNConfig

    def respond(self, x: Tensor, output: Tensor, maps: LayerMaps) -> Tensor:
        """Return s B h(A x), A run as the layer itself would be."""
        narrow = _NONLINEAR[self.config.nonlinearity](maps.narrow(x, self.lora_A))
        return maps.mix(narrow, self.lora_B * self.scale)

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Refuse: no weight change answers like a nonlinearity.

        Raises:
            MergeError: always.
        """
        raise not_a_weight_change("mpc_n")


def not_a_weight_change(method: str) -> MergeError:
    """Return the error of a method whose answer depends on the input in a way no weight does."""
    fix = "Run and export this adapter unmerged"
    return MergeError(method, "must be a weight change", "a method that is none", fix)
