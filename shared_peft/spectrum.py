"""Directions of a frozen weight and how far a change moves along them (Si et al. 2024, arXiv:2409.01035).

Decompositions go through the smaller Gram matrix in float64, several times faster than torch's singular value
decomposition in float32 and as accurate: squaring loses sqrt(2e-16) of the largest singular value, float32 6e-8.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shared_peft.factors import Factors

RELATIVE_EPSILON = 1e-3
_WELL_ABOVE_ROUNDING = 1e-4  # of the largest singular value: dividing by it keeps vectors orthogonal to 1e-8
_ALL = slice(None)

Basis = Literal["matrix", "hosvd"]


@dataclass(frozen=True)
class Directions:
    """Some directions of a weight: the weight's part along them is the sum of sigma_i u_i v_i^T.

    Args:
        left: u_i, shape (out, n).
        sigma: the weight's coordinates, shape (n,), never negative.
        right: v_i, shape (in / groups * kernel, n).
        indices: which of the weight's directions they are, shape (n,).
    """

    left: Tensor
    sigma: Tensor
    right: Tensor
    indices: Tensor


def singular_directions(weight: Tensor, part: slice = _ALL) -> tuple[Tensor, Tensor, Tensor]:
    """Return the singular value decomposition of a weight read as a matrix, in float32 whatever its type.

    Args:
        weight: shape (out, ...); all modes but the first are flattened.
        part: which singular triples are wanted, by descending singular value.

    Returns:
        U, shape (out, k), sigma, shape (k,), descending, and V, shape (rest, k), with k = min(out, rest) or fewer.
    """
    matrix = _exact(weight).flatten(1)
    if matrix.shape[0] < matrix.shape[1]:
        right, sigma, left = _tall_triples(matrix.mT, part)
    else:
        left, sigma, right = _tall_triples(matrix, part)
    return left.to(weight.device).float(), sigma.to(weight.device).float(), right.to(weight.device).float()


def hosvd(weight: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the higher-order singular value decomposition of a weight (De Lathauwer et al. 2000, Theorem 2).

    Args:
        weight: any number of modes.

    Returns:
        The core, shape (r_1, ..., r_N), and for each mode the left singular vectors of its unfolding, shape (n_i, r_i),
        with r_i = min(n_i, product of the other sizes); their Tucker product is the weight. Both in float32.
    """
    import tensorly  # noqa: PLC0415  (slow to import, and needed by few)

    exact = _exact(weight)
    with tensorly.backend_context("pytorch", local_threadsafe=True):  # type: ignore[attr-defined]
        factors = [_left_vectors(tensorly.unfold(tensor=exact, mode=mode)) for mode in range(exact.dim())]
        core = tensorly.tenalg.multi_mode_dot(  # type: ignore[attr-defined]
            tensor=exact, matrix_or_vec_list=factors, transpose=True
        )
    return core.to(weight.device).float(), [factor.to(weight.device).float() for factor in factors]


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
    return _relative(projected.sum(dim=1), sigma)


def core_change_rates(core: Tensor, factors: list[Tensor], change: Factors) -> Tensor:
    """Return how far a change moves each entry of a weight's HOSVD core, relative to the entry (ours).

    delta_ij... = |<dW, u1_i o u2_j o ...>| / (|core_ij...| + eps), with eps = 1e-3 max |core|: `change_rates` for
    weights of any number of modes, and the same numbers where there are two.

    Args:
        core: shape (r_1, ..., r_N).
        factors: U1, ..., UN, each (n_i, r_i).
        change: without in-factor.

    Returns:
        Change rates, shape (r_1, ..., r_N), never negative.
    """
    projected = factors[0].mT @ change.out_factor.float()
    inner = change.core.float()
    for mode, factor in enumerate(factors[1:], start=1):
        inner = (inner.movedim(mode, -1) @ factor).movedim(-1, mode)
    return _relative(torch.tensordot(projected, inner, dims=1), core.abs())


def most_changed(weight: Tensor, change: Factors, count: int, basis: Basis = "matrix") -> Directions:
    """Return the ``count`` directions of a weight with the largest change rates: its task-specific directions.

    Args:
        weight: shape (out, in / groups, *kernel).
        change: what training has made of it so far, without in-factor.
        count: number of directions.
        basis: "matrix": singular directions of the weight as a matrix (out, rest); "hosvd": outer products of HOSVD
            factor columns, one for each core entry, where the weight has kernel modes (ours).
    """
    if basis == "hosvd" and math.prod(weight.shape[2:]) > 1:
        core, factors = hosvd(weight)
        chosen = core_change_rates(core, factors, change).flatten().topk(count).indices
        return _core_directions(core, factors, chosen)
    left, sigma, right = singular_directions(weight)
    rates = change_rates(left, sigma, right, change.out_factor, change.core.flatten(1))
    chosen = rates.topk(count).indices
    return Directions(left[:, chosen], sigma[chosen], right[:, chosen], chosen)


def _core_directions(core: Tensor, factors: list[Tensor], chosen: Tensor) -> Directions:
    """Return the outer products that belong to core entries (flat indices), a negative entry's sign in u."""
    entries = core.flatten()[chosen]
    positions = torch.unravel_index(chosen, core.shape)
    out_columns, *columns = (factor[:, position] for factor, position in zip(factors, positions, strict=True))
    right = columns[0]
    for column in columns[1:]:
        right = (right[:, None, :] * column[None, :, :]).flatten(0, 1)
    return Directions(torch.where(entries < 0, -out_columns, out_columns), entries.abs(), right, chosen)


def _relative(projected: Tensor, sigma: Tensor) -> Tensor:
    return projected.abs() / (sigma + RELATIVE_EPSILON * sigma.max().clamp_min(torch.finfo(sigma.dtype).tiny))


def _exact(weight: Tensor) -> Tensor:
    """Return a weight in float64, on the CPU where its device has none."""
    return weight.detach().to("cpu" if weight.is_mps else weight.device).double()


def _tall_triples(matrix: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Return singular triples of a matrix with at least as many rows as columns, by its Gram matrix.

    The right vectors V are the Gram matrix's, and matrix V = U sigma. Where a singular value is too small to divide by,
    a QR decomposition gives the same vectors, and an orthonormal completion where it is 0.
    """
    squares, vectors = torch.linalg.eigh(matrix.mT @ matrix)
    right = vectors.flip(1)[:, part]
    scaled = matrix @ right
    sigma = torch.linalg.vector_norm(scaled, dim=0)
    if sigma.min() > _WELL_ABOVE_ROUNDING * squares[-1].clamp_min(0).sqrt():
        return scaled / sigma, sigma, right
    left, upper = torch.linalg.qr(scaled)
    sigma, order = upper.diagonal().abs().sort(descending=True, stable=True)
    signs = torch.where(upper.diagonal() < 0, -1.0, 1.0).to(left)
    return (left * signs)[:, order], sigma, right[:, order]


def _left_vectors(matrix: Tensor) -> Tensor:
    """Return the left singular vectors of a matrix, by descending singular value."""
    if matrix.shape[0] <= matrix.shape[1]:
        return torch.linalg.eigh(matrix @ matrix.mT).eigenvectors.flip(1)
    return _tall_triples(matrix, _ALL)[0]
