"""MPC_o and MPC_d, penalties that keep low-rank factors orthogonal (Si et al. 2024, arXiv:2407.05417)."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from shared_peft.errors import ConfigError
from shared_peft.method import AdapterConfig

Orthogonality = Literal["none", "o", "d"]


@dataclass(frozen=True)
class PenaltyConfig(AdapterConfig):
    """A configuration whose method can keep its channel factors orthogonal while it trains.

    Args:
        mpc: "o" keeps both factors orthonormal, "d" the in-factor orthonormal and the out-factor orthogonal (MPC_o and
            MPC_d of arXiv:2407.05417), "none" leaves them free.
        mpc_weight: factor on the penalty, which is added to the training loss; the default is ours.
    """

    _: KW_ONLY
    mpc: Orthogonality = "none"
    mpc_weight: float = 1e-3

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mpc_weight) and self.mpc_weight > 0):
            fix = "Use mpc='none' to turn the penalty off"
            raise ConfigError(f"{type(self).__name__}.mpc_weight", "must be positive", self.mpc_weight, fix)

    def penalty(self, in_factor: Tensor, out_factor: Tensor) -> Tensor | None:
        """Return the weighted penalty on a change out_factor in_factor, or None where there is none.

        Args:
            in_factor: shape (rank, ...), all modes but the first are flattened.
            out_factor: shape (out, rank).
        """
        if self.mpc == "none":
            return None
        return self.mpc_weight * orthogonality_penalty(in_factor, out_factor, self.mpc)


def orthogonality_penalty(in_factor: Tensor, out_factor: Tensor, kind: Literal["o", "d"]) -> Tensor:
    """Return MPC_o or MPC_d of two factors.

    The paper writes a change as A B for inputs that multiply from the left, so its A, (in, rank), is our in-factor
    transposed and its B, (rank, out), our out-factor transposed:
    MPC_o = ||A^T A - I||_F^2 + ||B B^T - I||_F^2, MPC_d = ||A^T A - I||_F^2 + ||B B^T - diag(B B^T)||_F^2.

    Args:
        in_factor: shape (rank, ...), all modes but the first are flattened.
        out_factor: shape (out, rank).
        kind: "o" or "d".
    """
    rows = in_factor.flatten(1)
    in_gram, out_gram = rows @ rows.mT, out_factor.mT @ out_factor
    wanted = torch.eye(out_gram.shape[0]).to(out_gram) if kind == "o" else torch.diag(out_gram.diagonal())
    return (in_gram - torch.eye(in_gram.shape[0]).to(in_gram)).square().sum() + (out_gram - wanted).square().sum()
