"""Bad input is refused before any work, by an error that names parameter, rule and value."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import GammaRegressor, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, LinearSVR

from skhyper.estimators import search as module
from skhyper.estimators.logistic import HyperTrainedLogisticRegression
from skhyper.estimators.ridge_classifier import HyperTrainedRidgeClassifier
from skhyper.estimators.search import HyperTrainingSearchCV

X, CLASSES = make_classification(30, 4, random_state=0)
Y = X @ np.arange(4.0) + 0.1 * CLASSES


either = pytest.mark.parametrize("estimator", [Ridge(), MLPRegressor()], ids=["linear", "network"])


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    def tune(*arguments):
        raise AssertionError("work began")

    monkeypatch.setattr(module, "tune", tune)
    monkeypatch.setattr(module, "tune_network", tune)


def changed(values, where, value):
    values = np.array(values, dtype=float)
    values[where] = value
    return values


DATA = {
    "NaN in X": (changed(X, (0, 0), np.nan), Y, "X contains NaN"),
    "infinite X": (changed(X, (0, 0), np.inf), Y, "X contains infinity"),
    "NaN in y": (X, changed(Y, 0, np.nan), "y contains NaN"),
    "infinite y": (X, changed(Y, 0, np.inf), "y contains infinity"),
    "strings in X": (np.array([["a"], ["b"], ["c"]]), [1.0, 2.0, 3.0], "could not convert string to float"),
    "strings in a frame": (pd.DataFrame({"a": ["u", "v", "w"]}), [1.0, 2.0, 3.0], "could not convert string to float"),
    "no features": (np.empty((3, 0)), [1.0, 2.0, 3.0], r"0 feature\(s\)"),
    "one row": (X[:1], Y[:1], "X must have at least 2 rows to hold some out, got n_samples=1"),
    "other lengths": (X, Y[:-1], "inconsistent numbers of samples"),
    "one dimension": (X[:, 0], Y, "Expected 2D array"),
    "no y": (X, None, "requires y to be passed, but the target y is None"),
}


@either
@pytest.mark.parametrize(("x", "y", "message"), DATA.values(), ids=DATA)
def test_data_that_cannot_be_used(estimator, x, y, message):
    with pytest.raises(ValueError, match=message):
        HyperTrainingSearchCV(estimator, cv=2).fit(x, y)


@either
def test_masked_arrays(estimator):
    with pytest.raises(TypeError, match="X is a masked array"):
        HyperTrainingSearchCV(estimator).fit(np.ma.masked_array(X), Y)
    with pytest.raises(TypeError, match="y is a masked array"):
        HyperTrainingSearchCV(estimator).fit(X, np.ma.masked_array(Y))


@either
def test_dates(estimator):
    days = np.arange("2020-01-01", "2020-01-31", dtype="datetime64[D]")
    with pytest.raises(TypeError, match=r"X holds dates \(datetime64\[D\]\)"):
        HyperTrainingSearchCV(estimator).fit(days[:, None], Y)
    with pytest.raises(TypeError, match="X holds dates"):
        HyperTrainingSearchCV(estimator).fit(pd.DataFrame(X).assign(day=days), Y)


@pytest.mark.parametrize(
    "estimator",
    [
        HyperTrainingSearchCV(LogisticRegression()),
        HyperTrainingSearchCV(MLPClassifier()),
        HyperTrainedLogisticRegression(),
        HyperTrainedRidgeClassifier(),
    ],
)
def test_a_single_class(estimator):
    with pytest.raises(ValueError, match="needs samples of at least 2 classes in y, got one class: 1"):
        estimator.fit(X, np.ones(30, dtype=int))


def test_a_fold_that_trains_on_a_single_class():
    order = np.argsort(CLASSES)
    n_first = int((CLASSES == 0).sum())
    splits = [(order[:n_first], order[n_first:])]
    with pytest.raises(ValueError, match=r"fold 0 of cv must hold at least 2 classes .* got \[0\]"):
        HyperTrainingSearchCV(LogisticRegression(), cv=splits).fit(X, CLASSES)


def test_a_target_out_of_the_range_of_a_loss():
    with pytest.raises(ValueError, match="out of the valid range of the loss 'HalfGammaLoss'"):
        HyperTrainingSearchCV(GammaRegressor()).fit(X, Y)


@either
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(30), "must have a positive entry|at least one non-zero number"),
        (changed(np.ones(30), 3, -1), "sample_weight must not be negative, got a minimum of -1"),
        (changed(np.ones(30), 3, np.nan), "sample_weight contains NaN"),
        (np.ones(29), "sample_weight"),
    ],
)
def test_weights_that_cannot_be_used(estimator, weights, message):
    with pytest.raises(ValueError, match=message):
        HyperTrainingSearchCV(estimator).fit(X, Y, sample_weight=weights)
    with pytest.raises(ValueError, match=message):
        HyperTrainedRidgeClassifier().fit(X, CLASSES, sample_weight=weights)


@either
def test_a_fold_without_weight(estimator):
    splits = [(np.arange(20), np.arange(20, 30))]
    weights = np.ones(30)
    weights[20:] = 0
    with pytest.raises(ValueError, match="Fold 0 of cv must have a validation row with a positive sample_weight"):
        HyperTrainingSearchCV(estimator, cv=splits).fit(X, Y, sample_weight=weights)
    with pytest.raises(ValueError, match="sample_weight is zero on every training row of fold 0"):
        HyperTrainingSearchCV(estimator, cv=splits).fit(X, Y, sample_weight=1 - weights)


SETTINGS = {
    "bounds reversed": ({"alpha_bounds": (1.0, 0.1)}, r"alpha_bounds must be .* 0 < low < high, got \(1\.0, 0\.1\)"),
    "bounds not positive": ({"alpha_bounds": (0.0, 1.0)}, "alpha_bounds must be"),
    "bounds infinite": ({"alpha_bounds": (1.0, np.inf)}, "alpha_bounds must be"),
    "three bounds": ({"alpha_bounds": (1.0, 2.0, 3.0)}, "alpha_bounds must be 'auto' or two"),
    "nested bounds": ({"alpha_bounds": [[1.0, 2.0]]}, r"alpha_bounds must be 'auto' or two .* got \[\[1\.0, 2\.0\]\]"),
    "nested exponents": ({"exponent": [[1.0]]}, r"exponent must hold values in \[0\.5, 2\], got \[\[1\.0\]\]"),
    "exponents of text": ({"exponent": ["a"]}, "exponent must hold values in"),
    "nested shrinkage": ({"shrinkage": [[1.0]]}, "shrinkage must hold positive numbers"),
    "groups too short": ({"decay_groups": [0, 1]}, r"decay_groups must hold one group for each of the 4 features"),
    "groups unknown": ({"decay_groups": {"a": 0}}, "decay_groups must have one entry"),
    "groups of weights": (
        {"decay_groups": [0] * 4, "granularity": "weight"},
        "granularity='weight' cannot be combined with decay_groups",
    ),
    "empty training fold": ({"cv": [([], [1, 2])]}, "fold 0 has no training rows"),
    "empty validation fold": ({"cv": [([0, 1], [])]}, "fold 0 has no validation rows"),
    "no folds": ({"cv": []}, "at least one fold"),
    "too many folds": ({"cv": 31}, "n_splits=31"),
    "index out of range": ({"cv": [([0, 1], [30])]}, "X has 30 rows"),
    "exponent too low": ({"exponent": [1.0, 0.1]}, r"exponent must hold values in \[0\.5, 2\], got \[1\.0, 0\.1\]"),
    "shrinkage of zero": (
        {"shrinkage": [0.0, 1.0]},
        r"shrinkage must hold positive numbers, got \[0\.0, 1\.0\]",
    ),
    "unknown granularity": ({"granularity": "features"}, "The 'granularity' parameter .* Got 'features' instead"),
    "unknown algorithm": ({"algorithm": "guess"}, "The 'algorithm' parameter .* Got 'guess' instead"),
    "unknown scoring": ({"scoring": "best"}, "The 'scoring' parameter"),
    "several scores without refit": (
        {"scoring": ["r2", "neg_mean_squared_error"]},
        "refit must be set to a scorer key",
    ),
}


SINGLE_DECAY = [
    (Ridge(), {"exponent": 1.0}, "need two decays or more, but there is one .*set exponent=2"),
    (Ridge(), {"shrinkage": 1.0}, "need two decays or more"),
    (
        MLPRegressor(),
        {"exponent": 1.0},
        "exponent=1.0 needs several decays in a layer; set granularity='output', .*or exponent=2",
    ),
    (MLPRegressor(), {"shrinkage": 1.0}, "shrinkage=1.0 needs two decays or more, but granularity='global' has one"),
]


@pytest.mark.parametrize(("estimator", "settings", "message"), SINGLE_DECAY)
def test_what_a_single_decay_cannot_have(estimator, settings, message):
    with pytest.raises(ValueError, match=message):
        HyperTrainingSearchCV(estimator, granularity="global", **settings).fit(X, Y)


@either
@pytest.mark.parametrize(("settings", "message"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_cannot_be_used(estimator, settings, message):
    with pytest.raises(ValueError, match=message):
        HyperTrainingSearchCV(estimator, **settings).fit(X, Y)


def test_the_closed_form_of_a_loss_that_has_none():
    with pytest.raises(ValueError, match=r"algorithm='closed_form' .* loss LogLoss; set algorithm='auto'"):
        HyperTrainingSearchCV(LogisticRegression(), algorithm="closed_form").fit(X, CLASSES)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (SVR(), "SVR.* cannot be tuned by hypergradients. Supported are Ridge"),
        (LinearSVR(), "set loss='squared_epsilon_insensitive'"),
        (Ridge(positive=True), "set positive=False"),
        (make_pipeline(StandardScaler(), Ridge(positive=True)), "set positive=False"),
    ],
    ids=["estimator", "loss", "constraint", "inside a pipeline"],
)
def test_an_unsupported_estimator_or_setting(estimator, message):
    with pytest.raises(TypeError, match=message):
        HyperTrainingSearchCV(estimator).fit(X, Y)


def test_a_fit_parameter_that_nobody_reads():
    with pytest.raises(TypeError, match=r"fit\(\) got unexpected keyword arguments \['colour'\]"):
        HyperTrainingSearchCV(Ridge()).fit(X, Y, colour="red")


def test_free_decays_where_folds_have_different_columns():
    from sklearn.feature_selection import SelectKBest

    rng = np.random.default_rng(0)
    noise = rng.normal(size=(30, 12))
    with pytest.raises(ValueError, match="preprocessing gives folds different columns; set shrinkage=None"):
        HyperTrainingSearchCV(make_pipeline(SelectKBest(k=3), Ridge()), shrinkage=1.0).fit(noise, CLASSES)
