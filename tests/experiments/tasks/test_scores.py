"""Frechet distances with known answers, and confusion matrices counted by hand."""

import doctest
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tasks import scores
from experiments.tasks.scores import (
    confusion_matrix,
    frechet_distance,
    frechet_distance_of_moments,
    iou_per_class,
    mean_iou,
    moments,
    pixel_accuracy,
)


def samples(mean, factor, count, seed=0):
    """(count, d) features whose mean and covariance (factor factor') are exact."""
    mean, factor = np.asarray(mean, float), np.asarray(factor, float)
    columns = np.random.default_rng(seed).normal(size=(count, 1 + len(mean)))
    columns[:, 0] = 1
    q, _ = np.linalg.qr(columns)  # Columns 1, 2, ... are orthonormal and of mean zero.
    return mean + math.sqrt(count - 1) * q[:, 1:] @ factor.T


def exact_moments(x):
    x = np.asarray(x, np.float64)
    return len(x), x.sum(axis=0), x.T @ x


# Both ways of computing it must give every known answer.
WAYS = {
    "features": frechet_distance,
    "moments": lambda x, y: frechet_distance_of_moments(exact_moments(x), exact_moments(y)),
}


@pytest.fixture(params=list(WAYS))
def distance(request):
    return WAYS[request.param]


def test_identical_sets_are_at_distance_zero(distance):
    x = np.random.default_rng(0).normal(2, 3, size=(50, 8))
    assert distance(x, x[::-1]) == pytest.approx(0, abs=1e-10)
    assert distance(x, x) >= 0


def test_equal_covariances_leave_the_distance_of_the_means(distance):
    factor = np.random.default_rng(1).normal(size=(3, 3))
    x = samples([0, 0, 0], factor, 20, seed=1)
    y = samples([1, -2, 3], factor, 35, seed=2)
    assert distance(x, y) == pytest.approx(1 + 4 + 9, rel=1e-9)


def test_diagonal_covariances_have_a_closed_form(distance):
    a, b = np.array([1.0, 4.0, 9.0]), np.array([16.0, 0.25, 9.0])
    x = samples(np.zeros(3), np.diag(np.sqrt(a)), 12, seed=1)
    y = samples(np.zeros(3), np.diag(np.sqrt(b)), 30, seed=2)
    expected = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)  # 3^2 + 1.5^2
    assert distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_scaling_by_c_multiplies_by_c_squared(distance):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 6)), rng.normal(1, 2, size=(30, 6))
    assert distance(7 * x, 7 * y) == pytest.approx(49 * distance(x, y), rel=1e-9)


def test_rotating_shifting_and_swapping_change_nothing(distance):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(40, 6)), rng.normal(1, 2, size=(30, 6))
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    value = distance(x, y)
    assert distance(x @ rotation, y @ rotation) == pytest.approx(value, rel=1e-9)
    assert distance(x + 5, y + 5) == pytest.approx(value, rel=1e-9)
    assert distance(y, x) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("count", [5, 64])
def test_fewer_examples_than_features_are_exact(distance, count):
    # The definition: Tr (S1 S2)^(1/2) is the sum of the roots of the eigenvalues of S1 S2. Its
    # nonzero ones are those of A1 A2' A2 A1', which is N x N and has no zeros but one of centring.
    rng = np.random.default_rng(5)
    x, y = (
        rng.normal(size=(count, 100)),
        1 + rng.normal(size=(count + 3, 100)) @ np.diag(np.linspace(0.1, 3, 100)),
    )
    a, b = ((z - z.mean(axis=0)) / math.sqrt(len(z) - 1) for z in (x, y))
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(a @ b.T @ b @ a.T), 0))[1:]
    mean = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    expected = mean + np.sum(a**2) + np.sum(b**2) - 2 * roots.sum()
    assert distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert distance(x, x) == pytest.approx(0, abs=1e-9 * np.sum(a**2))


def test_a_constant_feature_is_no_trouble(distance):
    x, y = (np.random.default_rng(s).normal(size=(9, 3)) * [1, 0, 2] for s in (0, 1))
    assert distance(x, y) == pytest.approx(distance(x[:, [0, 2]], y[:, [0, 2]]), rel=1e-9)
    assert distance(np.zeros((2, 3)), np.ones((4, 3))) == pytest.approx(3, rel=1e-12)


def test_moments_of_batches_add_up_and_leave_out_padding():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(20, 4)).astype(np.float32), rng.normal(1, 2, size=(15, 4))
    padded = np.concatenate([x[12:], np.full((4, 4), np.nan, np.float32)])
    mask = np.arange(12) < 8
    summed = jax.tree.map(operator.add, moments(x[:12]), jax.jit(moments)(padded, mask))
    assert summed.count == 20
    np.testing.assert_allclose(summed.total, x.sum(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(summed.outer, x.T @ x, rtol=1e-5, atol=1e-5)
    value = frechet_distance_of_moments(summed, exact_moments(y))
    assert value == pytest.approx(frechet_distance(x, y), rel=1e-4)
    assert moments(jnp.ones((2, 3), jnp.bfloat16)).outer.dtype == jnp.float32
    with jax.enable_x64(True):
        assert moments(np.ones((2, 3))).outer.dtype == jnp.float64


@pytest.mark.parametrize(
    "x, y, message",
    [
        (np.ones(3), np.ones((3, 2)), r"x: got shape \(3,\); accepted: \(N, d\)"),
        (np.ones((3, 2)), np.ones((1, 2)), r"y: got shape \(1, 2\); accepted: \(N, d\)"),
        (np.ones((3, 2)), np.ones((3, 4)), "y: got 4 features; accepted: 2, as x has"),
        (np.ones((3, 2)), np.full((3, 2), np.nan), "y: got NaN or infinity; accepted: finite"),
    ],
)
def test_features_that_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(x, y)


@pytest.mark.parametrize(
    "y, message",
    [
        ((1, np.ones(2), np.ones((2, 2))), "y: got 1 examples; accepted: 2 or more"),
        ((3, np.ones(2), np.ones((2, 3))), r"y: got shapes \(\), \(2,\), \(2, 3\); accepted"),
        ((3, np.ones(3), np.ones((3, 3))), "y: got 3 features; accepted: 2, as x has"),
        ((3, np.ones(2), np.full((2, 2), np.inf)), "y: got NaN or infinity; accepted: finite"),
    ],
)
def test_moments_that_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance_of_moments((3, np.ones(2), 2 * np.eye(2)), y)


LABELS = np.array([[0, 0, 1], [2, 255, 1]])
PREDICTIONS = np.array([[0, 1, 1], [0, 2, 1]])
COUNTS = [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_confusion_counts_truth_in_rows_and_leaves_out_void(dtype):
    labels, predictions = LABELS.astype(dtype), PREDICTIONS.astype(dtype)
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 4), COUNTS)
    inside = jax.jit(confusion_matrix, static_argnums=2)(labels, predictions, 4)
    np.testing.assert_array_equal(inside, COUNTS)


def test_confusion_of_many_classes_does_not_wrap_in_uint8():
    labels = np.arange(200, dtype=np.uint8)
    np.testing.assert_array_equal(confusion_matrix(labels, labels, 200), np.eye(200))


def test_confusion_with_another_void_value():
    got = confusion_matrix(np.array([-1, 0]), np.array([1, 1]), 2, ignore=-1)
    np.testing.assert_array_equal(got, [[0, 1], [0, 0]])


def test_values_that_are_no_class_are_refused_or_not_counted():
    one, stray = np.array([1, 1]), np.array([1, 7])
    with pytest.raises(ValueError, match="labels: got 7; accepted: 0 to 3 or 255"):
        confusion_matrix(stray, one, 4)
    with pytest.raises(ValueError, match="predictions: got 7; accepted: 0 to 3$"):
        confusion_matrix(one, stray, 4)
    counted = jax.jit(confusion_matrix, static_argnums=2)
    assert counted(stray, one, 4).sum() == counted(one, stray, 4).sum() == 1
    with pytest.raises(ValueError, match=r"predictions: got shape \(3,\); accepted: \(2,\)"):
        confusion_matrix(one, np.zeros(3, int), 4)
    with pytest.raises(ValueError, match="predictions: got float32; accepted: integers"):
        confusion_matrix(one, np.zeros(2, np.float32), 4)


def test_iou_by_hand_with_a_class_that_does_not_occur():
    # Class 0: 1 / (2 + 2 - 1). Class 1: 2 / (2 + 3 - 2). Class 2: true once, never predicted.
    np.testing.assert_allclose(iou_per_class(COUNTS), [1 / 3, 2 / 3, 0, np.nan])
    assert mean_iou(COUNTS) == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
    assert pixel_accuracy(COUNTS) == pytest.approx(3 / 5)


def test_a_class_that_is_only_predicted_counts_as_zero():
    assert mean_iou([[2, 2], [0, 0]]) == pytest.approx((0.5 + 0) / 2)


def test_iou_of_the_sum_is_not_the_mean_over_pictures():
    first, second = np.array([[4, 0], [0, 0]]), np.array([[0, 2], [0, 2]])
    assert mean_iou(first + second) == pytest.approx((4 / 6 + 2 / 4) / 2)


def test_nothing_counted_has_no_score_and_counts_beyond_float32_are_exact():
    assert math.isnan(mean_iou(np.zeros((3, 3)))) and math.isnan(pixel_accuracy(np.zeros((3, 3))))
    large = np.array([[2**24 + 1, 0], [0, 1]], np.int64)
    assert pixel_accuracy(large + [[0, 1], [0, 0]]) == (2**24 + 2) / (2**24 + 3)
    with pytest.raises(ValueError, match=r"confusion: got shape \(2, 3\); accepted: \(C, C\)"):
        mean_iou(np.zeros((2, 3)))


def test_examples_of_the_docstrings_run():
    result = doctest.testmod(scores)
    assert result.attempted > 8 and result.failed == 0
