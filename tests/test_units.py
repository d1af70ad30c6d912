"""Another unit of X, of y or of the sample weights gives the same model in that unit; data without squares is refused.

For c > 0, with the default constructor: X -> c X multiplies alpha by c^2 and leaves predictions; y -> c y multiplies
predictions where the loss is homogeneous; weights -> c weights multiply alpha by c where the loss is a sum over rows,
and leave it where it is a weighted mean.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import (
    GammaRegressor,
    HuberRegressor,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC, LinearSVR

from skhyper import (
    HyperTrainedLogisticRegression,
    HyperTrainedRidge,
    HyperTrainedRidgeClassifier,
    HyperTrainingSearchCV,
)
from skhyper.core.decays import Decays, Hyper
from skhyper.core.selection import choose, confidence

SCALES = (1e-12, 1e-6, 1e6, 1e12)
# The default granularity takes three times as long as one alpha: the ends of the range are enough.
EXTREMES = (SCALES[0], SCALES[-1])
settings = pytest.mark.parametrize(
    ("granularity", "c"), [*(("global", c) for c in SCALES), *(("auto", c) for c in EXTREMES)]
)


class Case(NamedTuple):
    """An estimator, which of the targets it reads, and how its alpha counts the weights of rows."""

    estimator: object
    target: str
    sums: bool = True


CASES = {
    "Ridge": Case(Ridge(), "real"),
    "RidgeClassifier": Case(RidgeClassifier(), "two"),
    "LogisticRegression": Case(LogisticRegression(), "two"),
    "LogisticRegression, three classes": Case(LogisticRegression(), "three"),
    "LinearSVC": Case(LinearSVC(), "two"),
    "LinearSVR": Case(LinearSVR(loss="squared_epsilon_insensitive"), "real"),
    "PoissonRegressor": Case(PoissonRegressor(), "count", False),
    "GammaRegressor": Case(GammaRegressor(), "positive", False),
    "TweedieRegressor": Case(TweedieRegressor(power=1.5), "positive", False),
    "TweedieRegressor, normal": Case(TweedieRegressor(power=0), "real", False),
    "HuberRegressor": Case(HuberRegressor(), "real"),
    "SGDRegressor": Case(SGDRegressor(), "real"),
    "SGDRegressor, huber": Case(SGDRegressor(loss="huber", epsilon=0.5), "real"),
    "SGDRegressor, insensitive": Case(SGDRegressor(loss="squared_epsilon_insensitive"), "real"),
    "SGDClassifier, log_loss": Case(SGDClassifier(loss="log_loss"), "two"),
    "SGDClassifier, modified_huber": Case(SGDClassifier(loss="modified_huber"), "two"),
    "SGDClassifier, squared_hinge": Case(SGDClassifier(loss="squared_hinge"), "three"),
}
# What multiplies alpha where y is multiplied by c, and settings in y's unit.
HOMOGENEOUS = {
    "Ridge": (0, None),
    "LinearSVR": (0, None),
    "TweedieRegressor, normal": (0, None),
    "HuberRegressor": (-1, None),
    "GammaRegressor": (0, None),
    "SGDRegressor": (0, None),
    "SGDRegressor, insensitive": (0, "epsilon"),
}


@cache
def data():
    """Rows, the targets by name, and weights."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5))
    f = x @ [1.0, -0.7, 0.4, 0.0, 0.0] + 0.2
    targets = {
        "real": f + 0.8 * rng.standard_normal(60),
        "two": (f + rng.logistic(size=60) > 0).astype(int),
        "three": np.digitize(f + rng.logistic(size=60), [-0.7, 1.0]),
        "count": rng.poisson(np.exp(f / 2)).astype(float),
        "positive": rng.gamma(0.7, np.exp(f / 3) / 0.7),
    }
    return x, targets, rng.exponential(size=60)


def predictions(model, x):
    """What the model says of x in its finest form."""
    return model.decision_function(x) if hasattr(model, "decision_function") else model.predict(x)


def alpha_of(search):
    """alpha, where the estimator has C its reciprocal."""
    ((name, value),) = search.best_params_.items()
    return 1 / value if name == "C" else value


def fitted(estimator, granularity, x, y, s):
    """A search with the default settings, but for three folds."""
    return HyperTrainingSearchCV(estimator, granularity=granularity, cv=3).fit(x, y, sample_weight=s)


@cache
def base(name, granularity):
    """The search in the units of `data`: its alpha, exponent, predictions."""
    x, targets, s = data()
    search = fitted(CASES[name].estimator, granularity, x, targets[CASES[name].target], s)
    return alpha_of(search), search.exponent_, predictions(search, x)


def assert_same(found, expected):
    """Predictions to 1e-6 of the largest."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@settings
@pytest.mark.parametrize("name", CASES)
def test_another_unit_of_x_leaves_predictions_and_multiplies_alpha_by_its_square(name, granularity, c):
    x, targets, s = data()
    case, (alpha, exponent, expected) = CASES[name], base(name, granularity)
    estimator = clone(case.estimator)
    if "intercept_scaling" in estimator.get_params() and name.startswith("LinearSV"):
        estimator.set_params(intercept_scaling=c)  # of the column that stands for the penalised intercept
    search = fitted(estimator, granularity, c * x, targets[case.target], s)
    assert search.exponent_ == exponent
    assert alpha_of(search) == pytest.approx(c**2 * alpha, rel=1e-5, abs=0)
    assert_same(predictions(search, c * x), expected)


@settings
@pytest.mark.parametrize("name", CASES)
def test_another_unit_of_weights_leaves_predictions_and_multiplies_alpha_where_the_loss_is_a_sum(name, granularity, c):
    x, targets, s = data()
    case, (alpha, exponent, expected) = CASES[name], base(name, granularity)
    search = fitted(case.estimator, granularity, x, targets[case.target], c * s)
    assert search.exponent_ == exponent
    assert alpha_of(search) == pytest.approx(alpha * (c if case.sums else 1), rel=1e-5, abs=0)
    assert_same(predictions(search, x), expected)


@settings
@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_another_unit_of_y_multiplies_predictions(name, granularity, c):
    x, targets, s = data()
    case, (alpha, exponent, expected) = CASES[name], base(name, granularity)
    power, setting = HOMOGENEOUS[name]
    estimator = clone(case.estimator)
    if setting is not None:
        estimator.set_params(**{setting: c * getattr(estimator, setting)})
    search = fitted(estimator, granularity, x, c * targets[case.target], s)
    assert search.exponent_ == exponent
    assert alpha_of(search) == pytest.approx(c**power * alpha, rel=1e-5, abs=0)
    assert_same(predictions(search, x) / c, expected)


# What multiplies alpha where y is multiplied by c, of estimators whose alpha a search cannot find in any unit of y.
HELD = {
    "PoissonRegressor": (0.1, lambda c: c),
    "TweedieRegressor": (0.1, np.sqrt),
    "GammaRegressor": (0.1, lambda c: 1.0),
    "HuberRegressor": (3.5, lambda c: 1 / c),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # alpha is held at its bounds
@pytest.mark.parametrize("c", [1e-60, 1e-12, 1e12, 1e60])
@pytest.mark.parametrize("name", HELD)
def test_at_a_given_alpha_another_unit_of_y_multiplies_predictions_and_leaves_the_same_zeros(name, c):
    x, targets, s = data()
    case, (alpha, factor) = CASES[name], HELD[name]
    exponent = 0.5 if name == "HuberRegressor" else 1.0

    def held(unit):
        bounds = np.array([1, 1 + 1e-9]) * alpha * factor(unit)
        last = {"refit": lambda results: len(results["snapshot"]) - 1}
        search = HyperTrainingSearchCV(case.estimator, exponent=exponent, cv=3, alpha_bounds=bounds, **last)
        return search.fit(x, unit * targets[case.target], sample_weight=s)

    plain, scaled = held(1.0), held(c)
    np.testing.assert_array_equal(scaled.best_estimator_.coef_ == 0, plain.best_estimator_.coef_ == 0)
    assert_same(scaled.predict(x) / c, plain.predict(x))


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_the_paired_rule_has_no_unit(unit):
    losses = np.array([[1.0, 1.1, 1.2, 0.9], [0.8, 1.0, 0.9, 0.7]])
    assert choose(unit * losses) == choose(losses) == 1
    gain = losses[0] - losses[1]
    assert confidence(unit * gain) == pytest.approx(confidence(gain), rel=1e-12)
    assert 0 < confidence(gain) < 1


def test_decays_of_the_family_depend_on_ratios_of_weights_alone():
    decays = Decays(torch.arange(4))
    w = torch.tensor([[3.0, 1.0, 0.1, 0.0]], dtype=torch.float64)
    hyper = Hyper(torch.tensor(0.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64))
    plain, tiny = (decays.log_decays(unit * w, hyper, decays.scale(unit * w)) for unit in (1.0, 1e-110))
    torch.testing.assert_close(tiny, plain, rtol=1e-12, atol=1e-12)


# The estimators of their own.

OWN = {
    "cv": (HyperTrainedRidge(cv=3), "real"),
    "cv, one exponent": (HyperTrainedRidge(cv=3, average_exponents=False), "real"),
    "cv, global": (HyperTrainedRidge("global", cv=3), "real"),
    "cv, free": (HyperTrainedRidge(cv=3, shrinkage=1.0), "real"),
    **{name: (HyperTrainedRidge(criterion=name), "real") for name in ("loo", "gcv", "evidence")},
    **{f"{name}, free": (HyperTrainedRidge(criterion=name, shrinkage=1.0), "real") for name in ("loo", "evidence")},
    "classifier": (HyperTrainedRidgeClassifier(cv=3), "three"),
    "classifier, global": (HyperTrainedRidgeClassifier("global", cv=3), "two"),
    "logistic": (HyperTrainedLogisticRegression(cv=3), "three"),
    "logistic, global": (HyperTrainedLogisticRegression("global", cv=3), "two"),
}


@cache
def own(name):
    """In the units of `data`: alpha of the family, exponent, predictions."""
    x, targets, s = data()
    model, target = OWN[name]
    model = clone(model).fit(x, targets[target], sample_weight=s)
    return model.family_alpha_, model.exponent_, predictions(model, x)


UNITS = {"real": ("x", "y", "weights")}  # labels have none


@pytest.mark.parametrize("c", EXTREMES)
@pytest.mark.parametrize(
    ("name", "unit"),
    [
        (name, unit)
        for name, (model, target) in OWN.items()
        for unit in UNITS.get(target, ("x", "weights"))
        # A weight counts as so many rows of evidence against the prior of free decays.
        if (name, unit) != ("cv, free", "weights")
    ],
)
def test_the_own_estimators_follow_every_unit(name, unit, c):
    x, targets, s = data()
    model, target = OWN[name]
    alpha, exponent, expected = own(name)
    rows, y, weights, factor = {
        "x": (c * x, targets[target], s, c**2),
        "y": (x, c * targets[target], s, 1),
        "weights": (x, targets[target], c * s, c),
    }[unit]
    model = clone(model).fit(rows, y, sample_weight=weights)
    assert model.exponent_ == exponent
    assert model.family_alpha_ == pytest.approx(factor * alpha, rel=1e-5, abs=0)
    assert_same(predictions(model, rows) / (c if unit == "y" else 1), expected)


# What no unit can help.


@pytest.mark.parametrize("size", [1e154, 1e-310])
@pytest.mark.parametrize("kind", ["array", "frame", "sparse", "pipeline"])
@pytest.mark.parametrize("name", ["HyperTrainedRidge", "HyperTrainedLogisticRegression", "HyperTrainedRidgeClassifier"])
def test_a_column_without_squares_is_refused_by_its_name_before_any_work(name, kind, size, monkeypatch):
    x, targets, _ = data()
    x = x * [1.0, 1.0, size, 1.0, 1.0]
    kinds = {
        "array": (x, "x2"),
        "frame": (pd.DataFrame(x, columns=list("abcde")), "c"),
        "sparse": (sparse.csr_array(x), "x2"),
        "pipeline": (x, "x2"),
    }
    rows, column = kinds[kind]
    estimators = {
        "HyperTrainedRidge": (HyperTrainedRidge(), Ridge(), "real"),
        "HyperTrainedLogisticRegression": (HyperTrainedLogisticRegression(), LogisticRegression(), "two"),
        "HyperTrainedRidgeClassifier": (HyperTrainedRidgeClassifier(), RidgeClassifier(), "three"),
    }
    model, inside, target = estimators[name]
    if kind == "pipeline":
        model = HyperTrainingSearchCV(make_pipeline(FunctionTransformer(feature_names_out="one-to-one"), inside))
    monkeypatch.setattr("skhyper.estimators.search.tune", lambda *_: pytest.fail("it went to work"))
    with pytest.raises(
        ValueError, match=rf"X must hold columns .*column '{column}' has [0-9.]+e.{abs(np.log10(size)):.0f}"
    ):
        model.fit(rows, targets[target])


@pytest.mark.parametrize("size", [1e160, 1e100, 1e-160])
def test_a_target_without_squares_is_refused_by_its_name(size):
    x, targets, _ = data()
    y = targets["real"]
    with pytest.raises(ValueError, match=r"y must hold columns .*column 0 has"):
        HyperTrainedRidge().fit(x, size * y)
    with pytest.raises(ValueError, match=r"y must hold columns .*column 'second' has"):
        HyperTrainedRidge().fit(x, pd.DataFrame({"first": y, "second": size * y}))
    with pytest.raises(ValueError, match=r"y must hold columns .*column 0 has"):
        HyperTrainingSearchCV(HuberRegressor()).fit(x, size * y)


def test_a_target_in_a_unit_of_its_own_is_scaled_before_it_is_looked_at():
    x, targets, _ = data()
    scaled = TransformedTargetRegressor(Ridge(), transformer=StandardScaler())
    search = HyperTrainingSearchCV(scaled, granularity="global", scoring="r2")
    plain = clone(search).fit(x, targets["real"])
    huge = clone(search).fit(x, 1e100 * targets["real"])
    assert huge.best_params_["regressor__alpha"] == pytest.approx(plain.best_params_["regressor__alpha"], rel=1e-6)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_weights_that_vanish_or_overflow_are_refused(size):
    x, targets, s = data()
    with pytest.raises(ValueError, match=r"sample_weight must have its largest entry between .* got"):
        HyperTrainedRidge().fit(x, targets["real"], sample_weight=size * s)


def test_a_column_of_zeros_and_one_with_a_few_tiny_entries_have_nothing_wrong():
    x, targets, _ = data()
    x = np.c_[x, np.zeros(60), np.where(np.arange(60) < 3, 1e-310, x[:, 0])]
    for rows in (x, sparse.csr_array(x)):
        model = HyperTrainedRidge().fit(rows, targets["real"])
        assert np.isfinite(model.coef_).all()
        assert model.coef_[5] == 0


def test_copies_of_a_column_in_any_unit_are_one_column():
    x, targets, _ = data()
    copies = np.repeat(x[:, :1], 3, axis=1)
    plain = HyperTrainedRidgeClassifier().fit(copies, targets["two"])
    huge = HyperTrainedRidgeClassifier().fit(1e12 * copies, targets["two"])
    assert_same(huge.decision_function(1e12 * copies), plain.decision_function(copies))
    ridge = RidgeClassifier(alpha=huge.baseline_alpha_ / 1e24).fit(copies, targets["two"])
    unit = HyperTrainedRidgeClassifier("global").fit(1e12 * copies, targets["two"])
    assert_same(unit.decision_function(1e12 * copies), ridge.decision_function(copies))


@pytest.mark.parametrize("unit", [1.0, 1e-12])
def test_columns_far_from_zero_in_a_tiny_unit_are_fitted_as_centred_ones(unit):
    x, targets, _ = data()
    far = x + 1e6
    centred = HyperTrainedRidge("global", tol=1e-9).fit(far - far.mean(axis=0), targets["real"])
    model = HyperTrainedRidge("global", tol=1e-9).fit(unit * far, targets["real"])
    expected = centred.predict(far - far.mean(axis=0))
    np.testing.assert_allclose(model.predict(unit * far), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
