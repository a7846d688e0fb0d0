"""Error rates equal a count by hand, the EER equals scikit-learn's curve and the analytic one of two Gaussians."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import roc_curve

from imu_saga.evaluation.verification import (
    equal_error_rate,
    error_rates,
    open_set,
    template_claims,
    verification_picture,
    verify,
)
from shared_peft.errors import DataError
from shared_peft.picture import new_figure

scores = st.lists(st.integers(0, 12).map(lambda value: value / 4), min_size=1, max_size=25).map(np.asarray)


@settings(max_examples=100, deadline=None)
@given(genuine=scores, impostor=scores)
def test_error_rates_equal_a_count_at_every_threshold(genuine, impostor):
    rates = error_rates(genuine, impostor)
    assert rates.thresholds.tolist() == [*sorted({*genuine.tolist(), *impostor.tolist()}), np.inf]
    for threshold, far, frr in zip(rates.thresholds, rates.far, rates.frr, strict=True):
        assert far == pytest.approx(sum(score >= threshold for score in impostor) / len(impostor))
        assert frr == pytest.approx(sum(score < threshold for score in genuine) / len(genuine))


@settings(max_examples=100, deadline=None)
@given(genuine=scores, impostor=scores)
def test_the_eer_is_where_scikit_learns_curve_crosses(genuine, impostor):
    truth = np.concatenate([np.ones(len(genuine)), np.zeros(len(impostor))])
    far, hit, _ = roc_curve(truth, np.concatenate([genuine, impostor]), drop_intermediate=False)
    # along the curve, because its upright parts are no function of FAR
    gap = lambda place: np.interp(place, np.arange(len(far)), 1 - hit - far)  # noqa: E731
    place = brentq(gap, 0, len(far) - 1)
    expected = np.interp(np.asarray(place), np.arange(len(far)), far)
    assert equal_error_rate(error_rates(genuine, impostor)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_two_gaussians_have_their_analytic_error_rates(distance):
    rng = np.random.default_rng(3)
    found = verify(rng.normal(distance, 1, 200_000), rng.normal(0, 1, 200_000))
    assert found.eer == pytest.approx(norm.cdf(-distance / 2), abs=2e-3)
    assert found.threshold == pytest.approx(distance / 2, abs=0.02)
    for far, frr in found.frr_at_far.items():
        assert frr == pytest.approx(norm.cdf(norm.isf(float(far)) - distance), abs=0.012)
    curve = found.curve
    assert len(curve["threshold"]) == 101
    np.testing.assert_allclose(curve["far"], norm.sf(curve["threshold"]), atol=0.005)
    np.testing.assert_allclose(curve["frr"], norm.cdf(np.asarray(curve["threshold"]) - distance), atol=0.005)


def test_scores_apart_have_no_error_and_equal_scores_are_chance():
    apart = verify(np.array([0.8, 0.9]), np.array([0.1, 0.2, 0.3]))
    assert apart.eer == 0
    assert apart.frr_at_far == {"0.01": 0.0, "0.001": 0.0}
    assert verify(np.ones(4), np.ones(9)).eer == pytest.approx(0.5)
    assert verify(np.zeros(4), np.ones(4)).eer == 1


def test_unseen_people_claim_every_identity_and_enrolled_ones_every_other():
    claims = np.array([[0.9, 0.1, 0.3], [0.2, 0.7, 0.4]])
    attacks = np.array([[0.5, 0.6, 0.8]])
    found = open_set(claims, np.array([0, 1]), attacks)
    expected = {"unseen": verify(np.array([0.9, 0.7]), attacks.ravel())}
    expected["enrolled"] = verify(np.array([0.9, 0.7]), np.array([0.1, 0.3, 0.2, 0.4]))
    assert found == expected
    assert (found["unseen"].impostor, found["enrolled"].impostor) == (3, 4)


def test_templates_are_mean_directions_and_scores_are_cosines():
    rng = np.random.default_rng(0)
    enrolled, users, claims = rng.normal(size=(30, 5)), np.arange(30) % 3, rng.normal(size=(4, 5))
    found = template_claims(enrolled, users, claims, 3)
    for row, claim in enumerate(claims):
        for user in range(3):
            template = sum(one / np.linalg.norm(one) for one in enrolled[users == user])
            cosine = claim @ template / np.linalg.norm(claim) / np.linalg.norm(template)
            assert found[row, user] == pytest.approx(cosine)
    np.testing.assert_allclose(template_claims(7 * enrolled, users, 3 * claims, 3), found)


@pytest.mark.parametrize("bad", [np.zeros(0), np.array([0.1, np.nan])])
def test_scores_that_are_no_numbers_are_refused(bad):
    with pytest.raises(DataError, match="impostor scores: must be finite numbers"):
        verify(np.ones(2), bad)


def test_the_picture_shows_both_errors_of_every_way(tmp_path):
    found = vars(verify(np.array([0.8, 0.4]), np.array([0.5, 0.2])))
    figure = new_figure("test")
    verification_picture({"one way": found, "another": found}, figure)
    assert [axis.get_title() for axis in figure.axes] == ["one way\nEER 50.0%", "another\nEER 50.0%"]
    far, frr = figure.axes[0].get_lines()[:2]
    assert far.get_ydata() == pytest.approx(found["curve"]["far"])
    assert frr.get_ydata() == pytest.approx(found["curve"]["frr"])
