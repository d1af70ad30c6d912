"""The one-line classifiers are the search over one model; the search itself is tested elsewhere."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold

from skhyper.estimators.logistic import HyperTrainedLogisticRegression
from skhyper.estimators.ridge_classifier import HyperTrainedRidgeClassifier
from skhyper.estimators.search import HyperTrainingSearchCV

X, Y = load_iris(return_X_y=True)
CASES = [
    (HyperTrainedLogisticRegression, LogisticRegression(solver="newton-cg", tol=1e-10, max_iter=10_000)),
    (HyperTrainedRidgeClassifier, RidgeClassifier()),
]


@pytest.mark.parametrize(("cls", "model"), CASES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_is_the_search_over_its_model(cls, model, n_classes):
    kept = 3 - n_classes <= Y
    x, y = X[kept], Y[kept]
    ours = cls(cv=3).fit(x, y)
    search = HyperTrainingSearchCV(model, cv=3).fit(x, y)
    np.testing.assert_allclose(ours.coef_, search.best_estimator_.coef_)
    assert ours.alphas_ == search.alphas_
    assert ours.best_score_ == search.best_score_
    assert ours.baseline_score_ == search.baseline_score_
    np.testing.assert_array_equal(ours.predict(x), search.predict(x))


@pytest.mark.parametrize(("cls", "model"), CASES)
def test_one_alpha_gives_the_models_own_fit(cls, model):
    ours = cls("global", cv=3).fit(X, Y)
    name = "C" if isinstance(model, LogisticRegression) else "alpha"
    value = ours.C_ if name == "C" else ours.alpha_
    own = model.set_params(**{name: value}).fit(X, Y)
    np.testing.assert_allclose(ours.coef_, own.coef_, rtol=1e-4, atol=1e-5)
    assert ours.alpha_ == pytest.approx(ours.baseline_alpha_)
    assert ours.family_alpha_ == ours.baseline_alpha_
    assert ours.exponent_ == 2.0


def test_probabilities_are_those_of_the_model():
    ours = HyperTrainedLogisticRegression("global", cv=3).fit(X, Y)
    np.testing.assert_allclose(ours.predict_proba(X).sum(axis=1), 1.0)
    np.testing.assert_allclose(np.exp(ours.predict_log_proba(X)), ours.predict_proba(X))
    np.testing.assert_array_equal(ours.classes_[ours.predict_proba(X).argmax(axis=1)], ours.predict(X))


@pytest.mark.parametrize(("cls", "model"), CASES)
def test_balanced_weights_are_read_off_all_rows(cls, model):
    few = np.r_[0:50, 50:70, 100:110]
    balanced = cls("global", cv=3, class_weight="balanced").fit(X[few], Y[few])
    given = cls("global", cv=3, class_weight={0: 80 / 150, 1: 80 / 60, 2: 80 / 30}).fit(X[few], Y[few])
    np.testing.assert_allclose(balanced.coef_, given.coef_)
    plain = cls("global", cv=3).fit(X[few], Y[few])
    assert np.abs(plain.coef_ - balanced.coef_).max() > 1e-3


@pytest.mark.parametrize(("cls", "model"), CASES)
def test_the_guard_reads_balanced_weights_off_its_training_rows(cls, model):
    few, folds = np.r_[0:50, 50:70, 100:110], StratifiedKFold(3)
    x, y = X[few], Y[few]
    ours = cls("global", cv=folds, class_weight="balanced", guard_cv=folds).fit(x, y)
    by_hand = [
        cls("global", cv=folds, class_weight="balanced").fit(x[train], y[train]).score(x[test], y[test])
        for train, test in folds.split(x, y)
    ]
    np.testing.assert_allclose(ours.guard_scores_, by_hand)
    assert ours.best_estimator_.class_weight == "balanced"


def test_several_labels_for_a_row():
    x, labels = make_multilabel_classification(100, 8, n_classes=3, random_state=0)
    ours = HyperTrainedRidgeClassifier(cv=3).fit(x, labels)
    search = HyperTrainingSearchCV(RidgeClassifier(), cv=3).fit(x, labels)
    np.testing.assert_array_equal(ours.predict(x), search.predict(x))
    assert ours.score(x, labels) == search.score(x, labels) > 0.4
    with pytest.raises(ValueError, match="1d array"):
        HyperTrainedLogisticRegression(cv=3).fit(x, labels)


@pytest.mark.filterwarnings("ignore:Classes without training rows")
@pytest.mark.parametrize(("cls", "model"), CASES)
def test_a_class_of_weight_zero_is_not_there(cls, model):
    weights = np.where(Y == 2, 0.0, 1.0)
    ours = cls("global", cv=3, class_weight="balanced").fit(X, Y, sample_weight=weights)
    assert ours.score(X[Y < 2], Y[Y < 2]) > 0.9


@pytest.mark.parametrize(("cls", "model"), CASES)
def test_missing_labels_are_named(cls, model):
    with pytest.raises(ValueError, match="Input y contains NaN"):
        cls(class_weight="balanced").fit(X, np.where(np.arange(150) == 3, np.nan, Y))


@pytest.mark.parametrize(("cls", "model"), CASES)
def test_frames_groups_weights_and_pickles(cls, model):
    frame, labels = pd.DataFrame(X, columns=list("abcd")), pd.Series(Y).map({0: "u", 1: "v", 2: "w"})
    ours = cls("global", cv=LeaveOneGroupOut())
    ours.fit(frame, labels, sample_weight=np.ones(150), groups=np.arange(150) % 3)
    np.testing.assert_array_equal(ours.feature_names_in_, list("abcd"))
    np.testing.assert_array_equal(ours.classes_, ["u", "v", "w"])
    assert len([key for key in ours.cv_results_ if key.startswith("split")]) == 3
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).predict(frame), ours.predict(frame))
