"""Every method of learning from candidate labels against its formula, and planted ambiguity resolved."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional

from imu_saga.partial_labels import PARTIAL_LABEL_METHODS
from imu_saga.partial_labels.belief import mean_by_row, projected, uniform, within
from imu_saga.partial_labels.pl_cl import ALPHA, BETA
from imu_saga.partial_labels.plcp import BLUR, COLLABORATION, MOMENTUM
from imu_saga.partial_labels.training import listed_classes
from shared_peft.errors import DataError

CLASSES = 5
EVERY_METHOD = pytest.mark.parametrize("name", PARTIAL_LABEL_METHODS.names())


def drawn(seed: int, rows: int = 12, width: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return random features, logits and candidate sets of one to all classes."""
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.rand(rows, CLASSES, generator=generator) < 0.4
    candidates[torch.arange(rows), torch.randint(CLASSES, (rows,), generator=generator)] = True
    features, logits = (torch.randn(rows, size, generator=generator) for size in (width, CLASSES))
    return features, logits, candidates


def gradient_of(method: Any, features: torch.Tensor, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    features, logits = features.clone().requires_grad_(), logits.clone().requires_grad_()
    method(features, logits, rows).backward()
    assert features.grad is None, "the second classifier must not bend the features"
    assert logits.grad is not None
    return logits.grad


def stepped(method: Any, features: torch.Tensor, logits: torch.Tensor, visits: int) -> None:
    """Let a method see all windows several times, its second classifier learning."""
    given = logits.clone().requires_grad_()
    optimizer = torch.optim.SGD([given, *method.parameters()], lr=0.5)
    for _ in range(visits):
        given.data.copy_(logits)
        optimizer.zero_grad()
        method(features, given, torch.arange(len(logits))).backward()
        optimizer.step()


def test_the_nearest_distribution_is_the_solution_of_the_quadratic_program():
    _, values, candidates = drawn(0)
    found = projected(3 * values, candidates)
    assert (found[~candidates] == 0).all()
    for row, wanted, allowed in zip(found.double().numpy(), 3 * values.double().numpy(), candidates, strict=True):
        solved = minimize(
            lambda p, wanted=wanted: ((p - wanted) ** 2).sum(),
            uniform(allowed[None])[0].double().numpy(),
            jac=lambda p, wanted=wanted: 2 * (p - wanted),
            bounds=[(0, float(one)) for one in allowed],
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": np.ones_like},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(row, solved.x, atol=1e-5)


def test_shares_within_the_candidates_are_the_softmax_renormalised():
    _, logits, candidates = drawn(1)
    kept = logits.softmax(1) * candidates
    torch.testing.assert_close(within(logits, candidates), kept / kept.sum(1, keepdim=True))


def test_answers_for_one_window_are_averaged():
    rows, values = torch.tensor([7, 2, 7, 7]), torch.tensor([[1.0, 0], [5, 5], [2, 1], [3, 2]])
    places, means = mean_by_row(rows, values)
    assert places.tolist() == [2, 7]
    torch.testing.assert_close(means, torch.tensor([[5.0, 5], [2, 1]]))


@EVERY_METHOD
def test_one_candidate_a_window_gives_the_gradients_of_plain_training(name):
    features, logits, _ = drawn(2)
    labels = torch.arange(12) % CLASSES
    method = PARTIAL_LABEL_METHODS.get(name)(functional.one_hot(labels, CLASSES).bool(), 4, label_smoothing=0.1)
    plain = logits.clone().requires_grad_()
    functional.cross_entropy(plain, labels, label_smoothing=0.1).backward()
    for _ in range(3):
        torch.testing.assert_close(gradient_of(method, features, logits, torch.arange(12)), plain.grad)
        stepped(method, features, logits, 3)


@EVERY_METHOD
def test_windows_that_may_be_anything_teach_nothing_to_a_network_without_an_opinion(name):
    features, _, _ = drawn(3)
    method = PARTIAL_LABEL_METHODS.get(name)(torch.ones(12, CLASSES, dtype=torch.bool), 4)
    for _ in range(4):
        gradient = gradient_of(method, features, torch.zeros(12, CLASSES), torch.arange(12))
        torch.testing.assert_close(gradient, torch.zeros(12, CLASSES), rtol=0, atol=1e-7)
        stepped(method, features, torch.zeros(12, CLASSES), 1)


@EVERY_METHOD
def test_beliefs_are_distributions_over_the_candidates_and_follow_the_names_of_the_classes(name):
    features, logits, candidates = drawn(4)
    order = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(0))
    one = PARTIAL_LABEL_METHODS.get(name)(candidates, 4)
    other = PARTIAL_LABEL_METHODS.get(name)(candidates[:, order], 4)
    stepped(one, features, logits, 3)
    stepped(other, features, logits[:, order], 3)
    torch.testing.assert_close(one.confidence[:, order], other.confidence)
    torch.testing.assert_close(one.confidence.sum(1), torch.ones(12))
    assert (one.confidence[~candidates] == 0).all()
    assert (one.confidence >= 0).all()


def test_the_average_loss_has_the_gradient_of_the_mean_over_candidates():
    features, logits, candidates = drawn(5)
    method = PARTIAL_LABEL_METHODS.get("average")(candidates, 4)
    stepped(method, features, logits, 2)
    wanted = torch.zeros_like(logits)
    for row in range(12):
        of = candidates[row].nonzero().squeeze(1).tolist()
        for true in of:  # of -log softmax
            wanted[row] += (logits[row].softmax(0) - functional.one_hot(torch.tensor(true), CLASSES)) / len(of) / 12
    torch.testing.assert_close(gradient_of(method, features, logits, torch.arange(12)), wanted)


def test_proden_weighs_candidates_by_the_last_answer_so_that_repeating_it_changes_nothing_among_them():
    features, logits, candidates = drawn(6)
    method = PARTIAL_LABEL_METHODS.get("proden")(candidates, 4)
    first = gradient_of(method, features, logits, torch.arange(12))
    shares = logits.softmax(1)
    torch.testing.assert_close(first, (shares - uniform(candidates)) / 12)
    total = (shares * candidates).sum(1, keepdim=True)
    second = gradient_of(method, features, logits, torch.arange(12))
    torch.testing.assert_close(second, (shares - candidates * shares / total) / 12)
    anything = candidates.all(1)
    assert (second[anything].abs() < 1e-7).all()


def test_pl_cl_solves_its_objective_for_either_belief():
    features, logits, candidates = drawn(7)
    method: Any = PARTIAL_LABEL_METHODS.get("pl_cl")(candidates, 4)
    stepped(method, features, logits, 4)
    before = method.confidence.double().numpy().copy()
    against = method.complementary(features).sigmoid().detach().double().numpy()
    ordinary, allowed = logits.softmax(1).double().numpy(), candidates.numpy()

    def objective(p: np.ndarray, q: np.ndarray, row: int) -> float:
        fits = ((ordinary[row] - p) ** 2).sum() + ALPHA * ((against[row] - q) ** 2).sum()
        return fits + BETA * ((1 - p - q) ** 2).sum()

    loss = method(features, logits, torch.arange(12))
    fitted = 0.0
    for row in range(12):
        exact = {"method": "SLSQP", "options": {"ftol": 1e-13}}
        lower = 1 - allowed[row].astype(float)
        q = minimize(
            lambda q, row=row: objective(before[row], q, row), lower, bounds=[(low, 1) for low in lower], **exact
        ).x
        p = minimize(
            lambda p, q=q, row=row: objective(p, q, row),
            before[row],
            bounds=[(0, 1 - low) for low in lower],
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            **exact,
        ).x
        np.testing.assert_allclose(method.confidence[row].numpy(), p, atol=1e-4)
        fitted -= (q * np.log(against[row]) + (1 - q) * np.log(1 - against[row])).sum() / 12 / CLASSES
    own = functional.cross_entropy(logits, torch.from_numpy(before).float())
    assert float(loss.detach() - own) == pytest.approx(fitted, abs=1e-4)


def test_plcp_takes_both_turns_as_written():
    features, logits, candidates = drawn(8)
    method: Any = PARTIAL_LABEL_METHODS.get("plcp")(candidates, 4)
    stepped(method, features, logits, 4)
    said, denied, target = (getattr(method, name).double().numpy().copy() for name in ("said", "denied", "confidence"))
    against = method.partner(features).sigmoid().detach().double().numpy()
    answer, allowed = logits.softmax(1).double().numpy(), candidates.numpy().astype(float)
    method.zero_grad()
    loss = method(features, logits, torch.arange(12))
    loss.backward()
    fitted, pull = 0.0, np.zeros(CLASSES)
    for row in range(12):
        said[row] = np.clip(MOMENTUM * said[row] + (1 - MOMENTUM) * answer[row], 0, allowed[row])
        denied[row] = np.clip(MOMENTUM * denied[row] + (1 - MOMENTUM) * against[row], 1 - allowed[row], 1)
        blurred, prior = (np.exp(BLUR * belief) * allowed[row] for belief in (said[row], 1 - denied[row]))
        blurred, weights = blurred / blurred.sum(), prior * answer[row]
        q = minimize(
            lambda q, row=row, blurred=blurred: ((q - against[row]) ** 2).sum() + COLLABORATION * (blurred * q).sum(),
            1 - uniform(candidates[row : row + 1])[0].numpy(),
            bounds=[(1 - one, 1) for one in allowed[row]],
            constraints={"type": "eq", "fun": lambda q: q.sum() - (CLASSES - 1)},
            method="SLSQP",
            options={"ftol": 1e-13},
        ).x
        fitted -= (q * np.log(against[row]) + (1 - q) * np.log(1 - against[row])).sum() / 12 / CLASSES
        pull += (against[row] - q) / 12 / CLASSES
        np.testing.assert_allclose(method.confidence[row].numpy(), weights / weights.sum(), atol=1e-5)
    np.testing.assert_allclose(method.partner.bias.grad.numpy(), pull, atol=1e-5)
    np.testing.assert_allclose(method.said.numpy(), said, atol=1e-6)
    np.testing.assert_allclose(method.denied.numpy(), denied, atol=1e-6)
    own = functional.cross_entropy(logits, torch.from_numpy(target).float())
    assert float(loss.detach() - own) == pytest.approx(fitted, abs=1e-4)


def disambiguated(name: str, seed: int) -> tuple[float, float]:
    """Train a linear network on six clouds, half of all wrong labels candidates; return accuracy on them and on new."""
    generator = torch.Generator().manual_seed(seed)
    centres = 0.8 * torch.randn(6, 20, generator=generator)
    labels, fresh = (torch.randint(6, (count,), generator=generator) for count in (120, 2000))
    x, new = (centres[each] + torch.randn(len(each), 20, generator=generator) for each in (labels, fresh))
    candidates = torch.rand(120, 6, generator=generator) < 0.5
    candidates[torch.arange(120), labels] = True
    method, network = PARTIAL_LABEL_METHODS.get(name)(candidates, 20), nn.Linear(20, 6)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    optimizer = torch.optim.Adam([*network.parameters(), *method.parameters()], lr=2e-2)
    for _ in range(200):
        rows = torch.randint(120, (32,), generator=generator)
        optimizer.zero_grad()
        method(x[rows], network(x[rows]), rows).backward()
        optimizer.step()
    chosen = within(network(x), candidates).argmax(1)
    return float((chosen == labels).float().mean()), float((network(new).argmax(1) == fresh).float().mean())


def test_every_method_finds_more_true_labels_than_the_average_loss():
    found = {
        name: np.mean([disambiguated(name, seed) for seed in range(3)], axis=0)
        for name in PARTIAL_LABEL_METHODS.names()
    }
    for name in set(found) - {"average"}:
        assert (found[name] > found["average"] + 0.08).all(), (name, found)


def test_a_window_without_a_candidate_is_refused():
    with pytest.raises(DataError, match="every window must have one or more, got 2 without"):
        PARTIAL_LABEL_METHODS.get("average")(torch.eye(4, dtype=torch.bool)[[0, 1]] & torch.tensor(False), 3)


def test_in_every_batch_a_window_stands_for_one_of_its_candidates_evenly():
    candidates = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
    listed = listed_classes(candidates, seed=3)
    draws = torch.stack([listed(index) for index in range(1500)])
    assert torch.equal(draws, torch.stack([listed_classes(candidates, seed=3)(index) for index in range(1500)]))
    shares = torch.stack([(draws == label).float().mean(0) for label in range(3)], dim=1)
    torch.testing.assert_close(shares, uniform(candidates), rtol=0, atol=0.05)
    assert (shares[~candidates] == 0).all()
