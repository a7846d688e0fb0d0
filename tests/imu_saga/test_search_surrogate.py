"""The surrogate and its suggestions, against scikit-learn, the written formula, and planted truths."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from imu_saga.search.suggestion import REPEATS, initial_design, suggest
from imu_saga.search.surrogate import LEVEL_CENTRE, LEVEL_DEVIATION, OFFSET_DEVIATION, Scales, Surrogate
from imu_saga.search.verdict import NO_GAIN, Gain
from imu_saga.simplex import to_cube, to_simplex
from tests.imu_saga.searched import PEAK, planted

LEVELS = tuple(PEAK)


def truth(weights) -> np.ndarray:
    return np.array([planted(dict(zip(LEVELS, row, strict=True))) for row in np.atleast_2d(weights)])


def test_cube_and_simplex_are_inverse_and_uniform():
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(4000, 3))
    weights = np.array([to_simplex(point) for point in points])
    assert weights.min() >= 0
    assert weights.sum(1) == pytest.approx(np.ones(4000))
    assert np.array([to_cube(row) for row in weights]) == pytest.approx(points, abs=1e-6)
    exact = rng.dirichlet(np.ones(4), 4000)
    for column in range(4):  # every weight has the flat simplex's mean 1/4 and variance 3/80
        assert weights[:, column].mean() == pytest.approx(0.25, abs=0.015)
        assert weights[:, column].var() == pytest.approx(exact[:, column].var(), abs=0.004)
    for corner in np.eye(4):
        assert to_simplex(to_cube(corner)) == pytest.approx(corner)


def test_with_one_source_the_belief_is_scikit_learns_gaussian_process():
    rng = np.random.default_rng(0)
    tried, asked = rng.dirichlet(np.ones(4), 12), rng.dirichlet(np.ones(4), 5)
    scores = truth(tried) + rng.normal(0, 0.02, 12)
    scales = Scales(0.08, 0.7, np.array([0.02]), np.array([0.0]))
    kernel = ConstantKernel(LEVEL_DEVIATION**2) + ConstantKernel(0.08**2) * Matern(0.7, nu=2.5)
    reference = GaussianProcessRegressor(kernel, alpha=0.02**2, optimizer=None).fit(tried, scores - LEVEL_CENTRE)
    mean, covariance = reference.predict(asked, return_cov=True)
    ours = Surrogate(tried, scores, scales=scales)
    assert ours.joint(asked)[0] == pytest.approx(mean + LEVEL_CENTRE, abs=1e-9)
    assert ours.joint(asked)[1] == pytest.approx(covariance, abs=1e-9)
    assert ours.predict(asked)[1] == pytest.approx(np.sqrt(np.diag(covariance)), abs=1e-7)
    gain = ours.gain(asked[0], asked[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert gain == pytest.approx((mean[0] - mean[1], np.sqrt(variance)), abs=1e-7)


def test_sources_enter_as_the_formula_is_written():
    rng = np.random.default_rng(1)
    tried, scores, sources = rng.dirichlet(np.ones(3), 9), rng.uniform(0.5, 0.8, 9), np.array([0, 1, 2] * 3)
    scales = Scales(0.1, 0.5, np.array([0.02, 0.05, 0.01]), np.array([0.0, 0.03, 0.04]))

    def near(first, second):
        distance = np.sqrt(5) * np.linalg.norm(first - second) / 0.5
        return (1 + distance + distance**2 / 3) * np.exp(-distance)

    known = np.empty((9, 9))
    for i in range(9):
        for j in range(9):
            value = LEVEL_DEVIATION**2 + 0.1**2 * near(tried[i], tried[j])
            if sources[i] == sources[j] != 0:
                value += OFFSET_DEVIATION**2 + scales.difference[sources[i]] ** 2 * near(tried[i], tried[j])
            known[i, j] = value + (i == j) * scales.noise[sources[i]] ** 2
    asked = np.array([0.2, 0.3, 0.5])
    cross = np.array([LEVEL_DEVIATION**2 + 0.1**2 * near(asked, point) for point in tried])
    mean = LEVEL_CENTRE + cross @ np.linalg.solve(known, scores - LEVEL_CENTRE)
    variance = LEVEL_DEVIATION**2 + 0.1**2 - cross @ np.linalg.solve(known, cross)
    found = Surrogate(tried, scores, sources, scales).predict([asked])
    assert found[0][0] == pytest.approx(mean, abs=1e-9)
    assert found[1][0] == pytest.approx(np.sqrt(variance), abs=1e-7)


def test_belief_takes_noise_away_and_knows_its_size():
    noise, left, sizes = [], [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        tried = rng.dirichlet(np.ones(4), 40)
        scores = truth(tried) + rng.normal(0, 0.03, 40)
        belief = Surrogate(tried, scores)
        noise.append(np.abs(scores - truth(tried)).mean())
        left.append(np.abs(belief.predict(tried)[0] - truth(tried)).mean())
        sizes.append(belief.noise)
    assert np.mean(left) < 0.6 * np.mean(noise)
    assert np.mean(sizes) == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize(
    "true", [truth, lambda weights: np.full(len(np.atleast_2d(weights)), 0.7)], ids=["peak", "flat"]
)
def test_nine_in_ten_true_gains_lie_in_their_interval(true):
    inside, claims, equal = 0, [], [0.25] * 4
    for seed in range(40):
        rng = np.random.default_rng(seed)
        tried = [*initial_design(4), *rng.dirichlet(np.ones(4), 9)]
        belief = Surrogate(tried, true(tried) + rng.normal(0, 0.02, len(tried)))
        best = tried[int(belief.predict(tried)[0].argmax())]
        gain, there = Gain(*belief.gain(best, equal)), float(true(best)[0] - true(equal)[0])
        inside += gain.low <= there <= gain.high
        claims.append(gain.certain and there <= 0)
    assert inside >= 36
    assert sum(claims) <= 2, "a gain where there is none"


def test_trials_known_from_elsewhere_help_up_to_their_offset():
    rng = np.random.default_rng(2)
    tried, far = initial_design(4, corners=False), rng.dirichlet(np.ones(4), 14)
    scores = truth(tried) + rng.normal(0, 0.01, len(tried))
    elsewhere = truth(far) - 0.2 + rng.normal(0, 0.01, 14)
    weights, sources = [*tried, *far.tolist()], [0] * len(tried) + [1] * 14
    asked = rng.dirichlet(np.ones(4), 50)
    errors = {
        name: np.abs(belief.predict(asked)[0] - truth(asked)).mean()
        for name, belief in (
            ("cold", Surrogate(tried, scores)),
            ("warm", Surrogate(weights, np.append(scores, elsewhere), sources)),
            ("taken for our own", Surrogate(weights, np.append(scores, elsewhere))),
        )
    }
    assert errors["warm"] < 0.7 * errors["cold"]
    assert errors["warm"] < 0.4 * errors["taken for our own"]


def test_a_suggestion_has_the_largest_expected_improvement_there_is():
    rng = np.random.default_rng(3)
    tried = initial_design(4)
    belief = Surrogate(tried, truth(tried) + rng.normal(0, 0.01, len(tried)))
    weights, gain = suggest(belief, 0)

    def improvement(points):
        mean, deviation = belief.predict(points)
        above = mean - belief.predict(tried)[0].max()
        return above * norm.cdf(above / deviation) + deviation * norm.pdf(above / deviation)

    assert gain == pytest.approx(improvement([weights])[0], rel=1e-6)
    assert gain >= improvement(rng.dirichlet(np.ones(4), 20000)).max() * 0.999
    assert suggest(belief, 0) == (weights, gain)


def test_what_is_under_way_is_not_suggested_again():
    belief = Surrogate(tried := initial_design(4), truth(tried))
    first, gain = suggest(belief, 0)
    second, less = suggest(belief, 0, [first])
    assert np.linalg.norm(np.subtract(first, second)) > 0.1
    assert less < gain
    kept = belief.believing([first])
    asked = np.random.default_rng(0).dirichlet(np.ones(4), 9)
    assert kept.predict(asked)[0] == pytest.approx(belief.predict(asked)[0], abs=1e-8), "an expectation is no news"
    assert (kept.predict(asked)[1] <= belief.predict(asked)[1] + 1e-9).all()


def test_suggestions_beat_random_draws():
    tried, scores = [], []
    for weights in initial_design(4):
        tried.append(weights)
        scores.append(float(truth(weights)[0]))
    assert [list(weights) for weights in tried] == [*np.eye(4).tolist(), *[[0.25] * 4] * (1 + REPEATS)]
    for number in range(9):
        tried.append(tuple(suggest(Surrogate(tried, scores), number)[0]))
        scores.append(float(truth(tried[-1])[0]))
    random = np.random.default_rng(0).dirichlet(np.ones(4), (500, 9))
    assert max(scores[-9:]) > np.quantile([truth(draw).max() for draw in random], 0.9)


def test_a_gain_within_noise_is_called_none():
    assert str(Gain(0.02, 0.02)).endswith(NO_GAIN)
    assert NO_GAIN not in str(Gain(0.05, 0.02))
    assert (Gain(0.02, 0.02).low, Gain(0.02, 0.02).high) == pytest.approx(norm.interval(0.95, 0.02, 0.02), abs=1e-6)
    assert Gain(0.02, 0.02).probability == pytest.approx(norm.cdf(1))
