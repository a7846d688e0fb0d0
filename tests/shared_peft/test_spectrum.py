"""Spectra of frozen weights against torch's and tensorly's own decompositions, and brute-force change rates."""

import math
import subprocess
import sys

import pytest
import tensorly
import torch
from tensorly.decomposition import tucker
from tensorly.tucker_tensor import tucker_to_tensor
from torch import Tensor

from shared_peft import Factors
from shared_peft.spectrum import change_rates, core_change_rates, hosvd, most_changed, singular_directions


def with_spectrum(rows: int, columns: int, sigma: Tensor) -> Tensor:
    """A float64 matrix with these singular values."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(rows, len(sigma), generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, len(sigma), generator=generator, dtype=torch.float64)).Q
    return left * sigma @ right.T


SPECTRA = {
    "even": torch.linspace(1, 0.1, 12),
    "falling to nothing": torch.logspace(0, -9, 12),
    "of a network with dead filters": torch.tensor([1.0] * 8 + [1e-8] * 4) * torch.linspace(1.2, 0.8, 12),
    "rank deficient": torch.cat([torch.linspace(1, 0.5, 5), torch.zeros(7)]),
    "all equal": torch.ones(12),
    "equal in pairs": torch.tensor([3.0, 3, 2, 2, 2, 1, 1, 1e-3, 1e-3, 0, 0, 0]),
    "zero": torch.zeros(12),
    "large": 1e4 * torch.linspace(1, 0.1, 12),
    "small": 1e-6 * torch.linspace(1, 0.1, 12),
}
every_spectrum = pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
every_shape = pytest.mark.parametrize(("rows", "columns"), [(12, 12), (40, 12), (12, 40)])


@every_spectrum
@every_shape
def test_singular_directions_are_those_of_torchs_svd(rows: int, columns: int, spectrum: Tensor) -> None:
    weight = with_spectrum(rows, columns, spectrum.double()).float()
    left, sigma, right = singular_directions(weight)
    exact = weight.double()
    _, expected, _ = torch.linalg.svd(exact, full_matrices=False)
    largest = float(expected[0])
    assert torch.allclose(sigma.double(), expected, rtol=1e-6, atol=1e-7 * largest)
    assert torch.all(sigma.diff() <= 1e-7 * largest)
    for vectors in (left, right):
        assert torch.allclose(vectors.T @ vectors, torch.eye(12), atol=1e-5)
    assert torch.allclose((left * sigma @ right.T).double(), exact, rtol=0, atol=2e-6 * largest)


@every_shape
def test_singular_subspaces_between_gaps_are_those_of_torchs_svd(rows: int, columns: int) -> None:
    weight = with_spectrum(rows, columns, torch.tensor([4.0, 4, 2, 1, 1, 1, 1e-2, 1e-2, 1e-4], dtype=torch.float64))
    left, _, right = singular_directions(weight)
    expected_left, _, expected_right = torch.linalg.svd(weight, full_matrices=False)
    for start, stop in ((0, 2), (2, 3), (3, 6), (6, 8), (8, 9)):
        for vectors, expected in ((left, expected_left), (right, expected_right.T)):
            part, wanted = vectors[:, start:stop].double(), expected[:, start:stop]
            assert torch.allclose(part @ part.T, wanted @ wanted.T, atol=1e-5), (start, stop)


@every_spectrum
@every_shape
@pytest.mark.parametrize("part", [slice(3), slice(-3, None)], ids=["largest", "smallest"])
def test_a_part_of_the_triples_is_the_weights_part_along_them(
    rows: int, columns: int, spectrum: Tensor, part: slice
) -> None:
    weight = with_spectrum(rows, columns, spectrum.double()).float()
    left, sigma, right = singular_directions(weight, part)
    expected = torch.linalg.svdvals(weight.double())[part]
    largest = float(torch.linalg.svdvals(weight.double())[0])
    assert torch.allclose(sigma.double(), expected, rtol=1e-6, atol=1e-7 * largest)
    assert torch.allclose(left.T @ left, torch.eye(3), atol=1e-5)
    assert torch.allclose(right.T @ right, torch.eye(3), atol=1e-5)
    assert torch.allclose(weight @ right, left * sigma, atol=1e-6 * largest)
    assert torch.allclose(weight.T @ left, right * sigma, atol=1e-6 * largest)


def test_half_precision_weights_are_decomposed_as_the_numbers_they_are() -> None:
    torch.manual_seed(0)
    weight = torch.randn(9, 4, 3, 3).to(torch.bfloat16)
    left, sigma, right = singular_directions(weight)
    assert {left.dtype, sigma.dtype, right.dtype} == {torch.float32}
    assert torch.allclose((left * sigma @ right.T).reshape(weight.shape), weight.float(), atol=1e-5)


TENSORS = [(8, 6, 3, 3), (12, 1, 3, 3), (30, 2, 3), (4, 3, 2, 3, 2), (9, 7)]


@pytest.mark.parametrize("shape", TENSORS)
def test_hosvd_is_tensorlys(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    core, factors = hosvd(weight)
    ranks = [min(size, math.prod(shape) // size) for size in shape]
    assert core.shape == torch.Size(ranks)
    expected, expected_factors = tucker(tensor=weight.numpy(), rank=ranks, init="svd", n_iter_max=0)
    assert torch.allclose(core.abs(), torch.from_numpy(abs(expected)).float(), atol=1e-5)
    for factor, wanted in zip(factors, expected_factors, strict=True):
        assert torch.allclose(factor.abs(), torch.from_numpy(abs(wanted)).float(), atol=1e-5)
    rebuilt = torch.from_numpy(tucker_to_tensor((core.numpy(), [factor.numpy() for factor in factors])))
    assert torch.allclose(rebuilt, weight.float(), atol=1e-5)


def test_hosvd_leaves_tensorlys_backend_and_the_weights_type_alone() -> None:
    before = tensorly.get_backend()
    core, factors = hosvd(torch.ones(4, 3, 2).to(torch.bfloat16))
    assert tensorly.get_backend() == before
    assert {core.dtype, *(factor.dtype for factor in factors)} == {torch.float32}


def test_tensorly_is_not_imported_until_it_is_needed() -> None:
    program = "import sys, shared_peft; sys.exit('tensorly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def changed(shape: tuple[int, ...], rank: int = 2) -> tuple[Tensor, Factors]:
    torch.manual_seed(1)
    return torch.randn(shape), Factors(core=torch.randn(rank, *shape[1:]), out_factor=torch.randn(shape[0], rank))


@pytest.mark.parametrize("shape", [(5, 4, 3), (4, 3, 2, 2)])
def test_core_change_rates_are_inner_products_with_outer_products(shape: tuple[int, ...]) -> None:
    weight, change = changed(shape)
    core, factors = hosvd(weight)
    rates = core_change_rates(core, factors, change)
    dense = change.compose()
    for entry in torch.cartesian_prod(*(torch.arange(size) for size in core.shape)):
        direction = factors[0][:, entry[0]]
        for factor, position in zip(factors[1:], entry[1:], strict=True):
            direction = torch.tensordot(direction, factor[:, position], dims=0)
        value = core[tuple(entry)]
        assert torch.allclose((weight * direction).sum(), value, atol=1e-4)
        expected = (dense * direction).sum().abs() / (value.abs() + 1e-3 * core.abs().max())
        assert torch.allclose(rates[tuple(entry)], expected, rtol=1e-3)


def test_core_change_rates_of_a_matrix_are_its_change_rates() -> None:
    weight, change = changed((6, 5))
    core, factors = hosvd(weight)
    assert torch.allclose(core, torch.diag(core.diagonal()), atol=1e-5)
    expected = change_rates(*singular_directions(weight), change.out_factor, change.core)
    assert torch.allclose(core_change_rates(core, factors, change).diagonal(), expected, rtol=1e-3)


@pytest.mark.parametrize("basis", ["matrix", "hosvd"])
@pytest.mark.parametrize("shape", [(8, 5), (8, 3, 3), (8, 3, 2, 3), (12, 1, 3, 3)])
def test_most_changed_directions_are_orthonormal_and_carry_the_weights_coordinates(
    shape: tuple[int, ...], basis: str
) -> None:
    weight, change = changed(shape)
    found = most_changed(weight, change, 5, basis)
    dense = torch.einsum("oi,ri->ior", found.left, found.right).flatten(1)
    assert torch.allclose(dense @ dense.T, torch.eye(5), atol=1e-5)
    assert torch.allclose(dense @ weight.flatten(), found.sigma, atol=1e-4)
    assert found.sigma.min() >= 0
    assert len(set(found.indices.tolist())) == 5


@pytest.mark.parametrize("basis", ["matrix", "hosvd"])
def test_dead_filters_never_win(basis: str) -> None:
    """A change is planted along the strongest directions, with rounding's share on every other one."""
    torch.manual_seed(0)
    weight = torch.randn(8, 4, 3, 3)
    weight[4:] *= 1e-9
    strong = most_changed(weight, Factors(weight, torch.eye(8)), 3, basis)
    core = torch.cat([strong.right.T, 1e-6 * torch.randn(8, 36)]).reshape(-1, 4, 3, 3)
    change = Factors(core, torch.cat([strong.left, torch.eye(8)], dim=1))
    found = most_changed(weight, change, 3, basis)
    assert found.left[4:].abs().max() < 1e-5
    assert set(found.indices.tolist()) == set(strong.indices.tolist())
