"""Singular directions of a frozen weight and how much a change moves along them (Si et al. 2024, arXiv:2409.01035)."""

import torch
from torch import Tensor

RELATIVE_EPSILON = 1e-3


def singular_directions(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the singular value decomposition of a weight read as a matrix, in float32 whatever its type.

    Args:
        weight: shape (out, ...); all modes but the first are flattened.

    Returns:
        U, shape (out, k), sigma, shape (k,), descending, and V, shape (rest, k), with k = min(out, rest).
    """
    matrix = weight.detach().reshape(weight.shape[0], -1).float()
    left, sigma, right = torch.linalg.svd(matrix, full_matrices=False)
    return left, sigma, right.mT


def change_rates(left: Tensor, sigma: Tensor, right: Tensor, out_factor: Tensor, in_factor: Tensor) -> Tensor:
    """Return how far the change out_factor in_factor moves each singular direction, relative to its value.

    delta_i = |u_i^T dW v_i| / (sigma_i + eps), with eps = 1e-3 sigma_1 so that directions of a dead filter
    (sigma near 0) do not always win. Only the diagonal is formed, never U^T dW V (arXiv:2409.01035, Eq. 4).

    Args:
        left: U, shape (out, k).
        sigma: shape (k,), descending.
        right: V, shape (rest, k).
        out_factor: shape (out, r).
        in_factor: shape (r, rest).

    Returns:
        Change rates, shape (k,), never negative.
    """
    projected = (left.mT @ out_factor.float()) * (in_factor.float() @ right).mT
    return projected.sum(dim=1).abs() / (sigma + RELATIVE_EPSILON * sigma[0].clamp_min(torch.finfo(sigma.dtype).tiny))
