"""The score that was asked for decides; what a scorer requests is routed; labels keep their kind.

`benchmarks/scores.py` holds a hundred data sets against a grid; here are the cases that say which rule is broken. The
rule for rows and the scores of many models are tested in `test_batched_scores.py`.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import UndefinedMetricWarning, UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import f1_score, fbeta_score, get_scorer, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold, cross_val_score, cross_validate
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.utils.metadata_routing import get_routing_for_object

from skhyper import (
    HypernetClassifier,
    HypernetRegressor,
    HyperTrainedLogisticRegression,
    HyperTrainedRidge,
    HyperTrainedRidgeClassifier,
    HyperTrainingSearchCV,
)

X, Y = make_classification(200, 30, n_informative=4, flip_y=0.2, random_state=1)
XU, YU = make_classification(200, 20, n_informative=4, flip_y=0.2, weights=[0.8], random_state=1)
XR, YR = make_regression(60, 4, noise=20.0, random_state=0)
WEIGHTS = np.random.default_rng(0).uniform(0.2, 3.0, 60)
GROUPS = np.arange(60) // 10
LOGISTIC = LogisticRegression(solver="newton-cholesky", tol=1e-8, max_iter=1000)
CLASSIFIERS = (HyperTrainedLogisticRegression, HyperTrainedRidgeClassifier)


def search(estimator, scoring, **settings):
    return HyperTrainingSearchCV(estimator, **{"granularity": "global", "cv": 3, "scoring": scoring, **settings})


def grid(estimator, scoring, values, **settings):
    return GridSearchCV(estimator, values, **{"cv": 3, "scoring": scoring, **settings})


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture(autouse=True)
def _undefined_metrics():
    """A model of nothing but the larger class is among those that are tried, and has no precision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        yield


def mean_absolute_distance(estimator, x, y):
    return -np.abs(estimator.predict_proba(x)[:, 1] - y).mean()


# Which score decides


@pytest.mark.parametrize("scoring", ["accuracy", "f1", "roc_auc"])
def test_a_classifiers_named_score_is_at_least_a_grids(scoring):
    ours = search(LOGISTIC, scoring).fit(X, Y)
    best = grid(LOGISTIC, scoring, {"C": np.logspace(-5, 5, 41)}).fit(X, Y).best_score_
    assert ours.best_score_ >= best - 1e-9
    assert ours.selection_metric_ == scoring
    own = cross_val_score(clone(LOGISTIC).set_params(**ours.best_params_), X, Y, cv=3, scoring=scoring).mean()
    assert ours.best_score_ == ours.baseline_score_ == pytest.approx(own, rel=1e-9)


def test_f1_of_a_rare_class_is_at_least_a_grids():
    best = grid(LOGISTIC, "f1", {"C": np.logspace(-6, 4, 41)}).fit(XU, YU).best_score_
    assert search(LOGISTIC, "f1").fit(XU, YU).best_score_ >= best - 1e-9


def test_the_accuracy_of_sparse_counts_is_at_least_a_grids():
    rng = np.random.default_rng(6)
    counts = sparse.csr_array(rng.poisson(0.1, (150, 80)).astype(float))
    labels = (counts[:, :10].sum(axis=1) + rng.normal(0, 1, 150) > 1).astype(int)
    best = grid(LOGISTIC, "accuracy", {"C": np.logspace(-4, 4, 25)}).fit(counts, labels).best_score_
    assert search(LogisticRegression(), "accuracy").fit(counts, labels).best_score_ >= best - 1e-9


@pytest.mark.parametrize("scoring", ["r2", "neg_mean_absolute_error", "neg_root_mean_squared_error", "max_error"])
def test_a_regressions_named_score_is_at_least_a_grids(scoring):
    x, y = XR, np.sign(YR) * np.abs(YR) ** 1.7
    scoring = "neg_max_error" if scoring == "max_error" else scoring
    ours = search(Ridge(), scoring, cv=KFold(4)).fit(x, y)
    best = grid(Ridge(), scoring, {"alpha": np.logspace(-4, 5, 91)}, cv=KFold(4)).fit(x, y).best_score_
    assert ours.best_score_ >= best - 1e-4 * abs(best)
    assert ours.selection_metric_ == scoring


@pytest.mark.parametrize(
    ("scoring", "refit", "name"),
    [
        (mean_absolute_distance, True, "mean_absolute_distance"),
        (make_scorer(f1_score, average="macro"), True, "f1_score"),
        (make_scorer(fbeta_score, beta=2), True, "fbeta_score"),
        ("balanced_accuracy", True, "balanced_accuracy"),
        ("neg_brier_score", True, "neg_brier_score"),
        (["neg_log_loss", "f1"], "f1", "f1"),
        ({"plain": "accuracy", "mean": make_scorer(f1_score, average="macro")}, "mean", "mean"),
        ({"plain": "accuracy", "other": "f1"}, "plain", "plain"),
        (get_scorer("roc_auc"), True, "roc_auc"),
    ],
)
def test_scorers_of_every_form_decide(scoring, refit, name):
    ours = search(LOGISTIC, scoring, refit=refit).fit(XU, YU)
    best = grid(LOGISTIC, scoring, {"C": np.logspace(-6, 6, 25)}, refit=refit).fit(XU, YU).best_score_
    assert ours.best_score_ >= best - 1e-4 * abs(best)
    assert ours.selection_metric_ == name


def test_a_callable_refit_chooses_the_row_and_a_single_score_the_alpha():
    ours = search(LOGISTIC, "accuracy", refit=lambda results: 0).fit(X, Y)
    named = search(LOGISTIC, "accuracy").fit(X, Y)
    assert ours.best_params_ == named.best_params_
    assert ours.selection_metric_ == "accuracy"
    assert search(LOGISTIC, ["accuracy", "f1"], refit=lambda results: 0).fit(X, Y).selection_metric_ == "loss"


@pytest.mark.parametrize(("scoring", "name"), [(None, "loss"), ("neg_log_loss", "neg_log_loss")])
def test_the_loss_decides_where_it_is_the_score_or_none_is_named(scoring, name):
    ours = search(LOGISTIC, scoring).fit(X, Y)
    values = {"C": np.logspace(-3, 0, 46)}
    best = grid(LOGISTIC, "neg_log_loss", values).fit(X, Y)
    assert np.log(ours.best_params_["C"]) == pytest.approx(np.log(best.best_params_["C"]), abs=0.1)
    assert ours.selection_metric_ == name


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_the_one_line_classifiers_are_the_search_by_that_score(model):
    ours = model("global", cv=3, scoring="f1").fit(XU, YU)
    estimator = LOGISTIC if model is HyperTrainedLogisticRegression else RidgeClassifier()
    values = np.logspace(-6, 6, 41)
    best = grid(estimator, "f1", {"C" if estimator is LOGISTIC else "alpha": values}).fit(XU, YU)
    assert ours.best_score_ >= best.best_score_ - 1e-9
    assert ours.selection_metric_ == "f1"
    assert model("global", cv=3).fit(XU, YU).selection_metric_ == "loss"


def test_ridge_regression_goes_by_the_absolute_error_that_was_asked_for():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((80, 20))
    y = x[:, 0] + 2 * rng.standard_t(1.5, 80)
    ours = HyperTrainedRidge("global", cv=KFold(4), scoring="neg_mean_absolute_error").fit(x, y)
    values = {"alpha": np.logspace(-2, 6, 81)}
    best = grid(Ridge(), "neg_mean_absolute_error", values, cv=KFold(4)).fit(x, y)
    assert ours.best_score_ >= best.best_score_ - 1e-4
    assert ours.selection_metric_ == "neg_mean_absolute_error"
    assert HyperTrainedRidge("global", cv=KFold(4)).fit(x, y).selection_metric_ == "loss"


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_a_finer_decay_is_kept_for_a_gain_of_the_score_alone(model):
    ours = model(cv=3, scoring="f1").fit(XU, YU)
    means = ours.cv_results_["mean_test_score"]
    assert ours.baseline_score_ == means[0]
    assert ours.best_score_ == means[ours.best_index_] >= ours.baseline_score_
    assert ours.baseline_score_ == model("global", cv=3, scoring="f1").fit(XU, YU).best_score_
    assert ours.best_index_ == 0 or ours.best_score_ > ours.baseline_score_


def test_the_guards_score_is_that_of_the_whole_choice_on_rows_that_it_never_saw():
    folds = StratifiedKFold(2)
    ours = HyperTrainedRidgeClassifier(cv=3, scoring="f1", guard_cv=folds).fit(XU, YU)
    by_hand = []
    for train, test in folds.split(XU, YU):
        alone = HyperTrainedRidgeClassifier(cv=3, scoring="f1").fit(XU[train], YU[train])
        by_hand.append(f1_score(YU[test], alone.predict(XU[test])))
    np.testing.assert_allclose(ours.guard_scores_, by_hand)
    assert ours.guard_score_ == pytest.approx(np.mean(by_hand))
    assert ours.guard_score_ not in (ours.best_score_, ours.baseline_score_)


def test_squared_loss_whose_steps_are_dear_asks_the_score_too(monkeypatch):
    monkeypatch.setattr("skhyper.core.algorithms.closed_form.iteration_pays", lambda problem: True)
    best = grid(RidgeClassifier(), "f1", {"alpha": np.logspace(-4, 5, 41)}).fit(XU, YU).best_score_
    by_loss = search(RidgeClassifier(), None).fit(XU, YU)
    ours = search(RidgeClassifier(), "f1").fit(XU, YU)
    at_loss = cross_val_score(RidgeClassifier(**by_loss.best_params_), XU, YU, cv=3, scoring="f1").mean()
    assert ours.best_score_ >= max(best - 0.02, at_loss)
    finer = search(RidgeClassifier(), "f1", granularity="feature").fit(XU, YU)
    assert finer.best_score_ >= finer.baseline_score_ == pytest.approx(ours.best_score_)


def test_without_a_finite_score_the_loss_decides():
    def of_large_folds(estimator, x, y):
        return np.nan if len(y) == 66 else estimator.score(x, y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn's, of scores that are not finite
        ours = search(LOGISTIC, of_large_folds).fit(X, Y)
    assert ours.best_params_["C"] == pytest.approx(search(LOGISTIC, None).fit(X, Y).best_params_["C"], rel=1e-6)
    assert ours.selection_metric_ == "loss"


def test_points_whose_score_is_not_finite_are_left_out():
    def of_strong_decays(estimator, x, y):
        return np.nan if estimator.C > 0.01 else estimator.score(x, y)

    ours = search(LOGISTIC, of_strong_decays).fit(X, Y)
    values = {"C": np.logspace(-5, -2, 31)[:-1]}
    assert ours.best_params_["C"] <= 0.01
    assert ours.best_score_ >= grid(LOGISTIC, of_strong_decays, values).fit(X, Y).best_score_ - 1e-9


def test_a_score_that_fails_is_an_error_or_the_error_score():
    def fails(estimator, x, y):
        raise RuntimeError("no score")

    with pytest.raises(RuntimeError, match="no score"):
        search(LOGISTIC, fails, error_score="raise").fit(X, Y)
    with pytest.warns(UserWarning, match="no score"):
        ours = search(LOGISTIC, fails, error_score=-1.0).fit(X, Y)
    assert ours.best_score_ == -1.0


@pytest.mark.filterwarnings("ignore:Alpha was still moving")
def test_a_neural_network_says_that_its_loss_decides():
    ours = search(MLPClassifier((3,), max_iter=5, random_state=0), "accuracy", cv=0.3).fit(X[:60], Y[:60])
    assert ours.selection_metric_ == "loss"


def test_a_spent_budget_leaves_a_model_with_its_score():
    ours = search(LOGISTIC, "accuracy", time_limit=1e-9).fit(X, Y)
    assert ours.best_score_ == ours.cv_results_["mean_test_score"][0]
    assert "time limit" in ours.stop_reason_


# The target's own unit


@pytest.mark.parametrize("scoring", ["neg_mean_squared_error", "neg_mean_absolute_error"])
@pytest.mark.parametrize(
    "how",
    [
        {"func": np.log, "inverse_func": np.exp},
        {"transformer": QuantileTransformer(n_quantiles=40)},
        {"transformer": StandardScaler()},
    ],
    ids=["log", "quantiles", "scaled"],
)
def test_a_transformed_target_is_judged_in_its_own_unit(how, scoring):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 12))
    y = np.exp(x[:, :3] @ [0.6, 0.4, 0.3] + 0.8 * rng.standard_normal(120))
    estimator = TransformedTargetRegressor(make_pipeline(StandardScaler(), Ridge()), **how)
    ours = search(estimator, scoring, cv=KFold(3)).fit(x, y)
    values = {"regressor__ridge__alpha": np.logspace(0, 3, 25)}
    best = grid(estimator, scoring, values, cv=KFold(3)).fit(x, y).best_score_
    assert ours.best_score_ >= best - 2e-4 * abs(best)
    assert ours.selection_metric_ == scoring


def test_the_logarithms_alpha_is_the_grids_on_the_target():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 12))
    y = np.exp(x[:, :3] @ [0.6, 0.4, 0.3] + 0.8 * rng.standard_normal(120))
    estimator = TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp)
    ours = search(estimator, "neg_mean_squared_error", cv=KFold(5)).fit(x, y)
    values = {"regressor__alpha": np.logspace(0, 2.5, 51)}
    best = grid(estimator, "neg_mean_squared_error", values, cv=KFold(5)).fit(x, y)
    logs = np.log([ours.best_params_["regressor__alpha"], best.best_params_["regressor__alpha"]])
    assert logs[0] == pytest.approx(logs[1], abs=0.15)


# What a scorer requests


@pytest.mark.usefixtures("_routing")
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("model", [HyperTrainedRidge, *CLASSIFIERS])
def test_a_scorer_gets_the_weights_that_it_requests(model, wanted):
    regression = model is HyperTrainedRidge
    y = YR if regression else (YR > 0).astype(int)
    name = "neg_mean_squared_error" if regression else "accuracy"
    scorer = get_scorer(name).set_score_request(sample_weight=wanted)
    ours = model("global", cv=KFold(3), scoring=scorer).fit(XR, y, sample_weight=WEIGHTS)
    scores = []
    for train, test in KFold(3).split(XR):
        if model is HyperTrainedLogisticRegression:
            own = clone(LOGISTIC).set_params(C=1 / ours.alpha_)
        else:
            own = (Ridge if regression else RidgeClassifier)(alpha=ours.alpha_)
        own.fit(XR[train], y[train], sample_weight=WEIGHTS[train])
        weights = {"sample_weight": WEIGHTS[test]} if wanted else {}
        scores.append(get_scorer(name)._sign * get_scorer(name)._score_func(y[test], own.predict(XR[test]), **weights))
    assert ours.best_score_ == pytest.approx(np.mean(scores), rel=1e-6)


@pytest.mark.usefixtures("_routing")
@pytest.mark.parametrize("model", [HyperTrainedRidge, *CLASSIFIERS])
def test_the_models_are_routers(model):
    routing = get_routing_for_object(model(cv=GroupKFold(3)))
    assert routing.consumes("fit", ["groups", "colour"]) == {"groups"}
    asked = model(cv=GroupKFold(3)).set_fit_request(sample_weight=True)
    assert get_routing_for_object(asked).consumes("fit", ["sample_weight", "groups"]) == {"sample_weight", "groups"}
    y = YR if model is HyperTrainedRidge else (YR > 0).astype(int)
    scorer = get_scorer("r2" if model is HyperTrainedRidge else "accuracy").set_score_request(sample_weight=False)
    params = {"sample_weight": WEIGHTS, "groups": GROUPS}
    asked = model("global", cv=GroupKFold(3)).set_fit_request(sample_weight=True)
    scores = cross_validate(asked, XR, y, params=params, cv=GroupKFold(3), scoring=scorer, error_score="raise")
    assert np.isfinite(scores["test_score"]).all()


@pytest.mark.usefixtures("_routing")
def test_metadata_that_nobody_requests_are_an_error():
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
        HyperTrainedRidge("global", cv=3, scoring="r2").fit(XR, YR, sample_weight=WEIGHTS)
    with pytest.raises(TypeError, match="groups"):
        HyperTrainedRidge("global", cv=3).fit(XR, YR, groups=GROUPS)


@pytest.mark.usefixtures("_routing")
def test_what_else_a_scorer_requests_reaches_it():
    def at_price(y, predicted, price):
        return -(price * (y - predicted) ** 2).mean()

    scorer = make_scorer(at_price).set_score_request(price=True)
    ours = HyperTrainedRidge("global", cv=KFold(3), scoring=scorer).fit(XR, YR, price=WEIGHTS)
    scores = []
    for train, test in KFold(3).split(XR):
        own = Ridge(alpha=ours.alpha_).fit(XR[train], YR[train])
        scores.append(at_price(YR[test], own.predict(XR[test]), WEIGHTS[test]))
    assert ours.best_score_ == pytest.approx(np.mean(scores), rel=1e-6)


def test_without_routing_other_metadata_are_an_error():
    with pytest.raises(ValueError, match="enable_metadata_routing"):
        HyperTrainedRidge("global", cv=3).fit(XR, YR, price=WEIGHTS)


# Kinds of targets

BOOLS = X[:, 0] > 0
COUNTS = np.digitize(X[:, 0], [-0.5, 0.5])
SOME = {
    "search": lambda: search(LogisticRegression(), None),
    "ridge": lambda: HyperTrainedRidgeClassifier("global", cv=3),
    "logistic": lambda: HyperTrainedLogisticRegression("global", cv=3),
    "network": lambda: HypernetClassifier((2,), max_iter=2, n_estimators=1, random_state=0),
}


@pytest.mark.parametrize("model", SOME)
@pytest.mark.parametrize(
    ("labels", "plain"),
    [
        (pd.Series(BOOLS, dtype="boolean"), BOOLS),
        (pd.DataFrame({"y": pd.Series(BOOLS, dtype="boolean")})["y"], BOOLS),
        (BOOLS.astype(object), BOOLS),
        (pd.Series(BOOLS).astype("category"), BOOLS),
        (pd.Series(COUNTS, dtype="Int64"), COUNTS),
        (pd.Series(COUNTS, dtype="UInt8"), COUNTS.astype("uint8")),
        (pd.Series(COUNTS).astype("category"), COUNTS),
    ],
    ids=["boolean", "of a frame", "objects", "category", "Int64", "UInt8", "category of numbers"],
)
def test_labels_keep_their_kind(model, labels, plain):
    ours = SOME[model]().fit(X, labels)
    assert ours.classes_.dtype == plain.dtype
    assert ours.classes_.tolist() == np.unique(plain).tolist()
    assert ours.predict(X[:9]).dtype == plain.dtype
    same = SOME[model]().fit(X, plain)
    np.testing.assert_array_equal(ours.predict(X), same.predict(X))


def hole(values, missing):
    values = np.array(values, dtype=object)
    values[3] = missing
    return values


WORDS = np.where(BOOLS, "yes", "no")


@pytest.mark.parametrize("model", SOME)
@pytest.mark.parametrize(
    "labels",
    [
        hole(WORDS, None),
        hole(WORDS, np.nan),
        hole(WORDS, pd.NA),
        hole(WORDS, None).tolist(),
        hole(WORDS, np.nan).tolist(),
        hole(BOOLS, None),
        hole(COUNTS, None),
        pd.Series(hole(BOOLS, pd.NA), dtype="boolean"),
        pd.Series(hole(COUNTS, pd.NA), dtype="Int64"),
        pd.Series(hole(WORDS, pd.NA), dtype="string"),
        pd.Series(hole(WORDS, None)).astype("category"),
    ],
    ids=["None", "nan", "NA", "list", "list nan", "bools", "numbers", "boolean", "Int64", "string", "category"],
)
def test_a_missing_label_is_an_error_that_names_y(model, labels):
    with pytest.raises(ValueError, match=r"Input y contains (missing values|NaN)"):
        SOME[model]().fit(X, labels)


@pytest.mark.parametrize("model", SOME)
def test_labels_of_several_types_are_an_error_that_names_them(model):
    with pytest.raises(ValueError, match="y must hold values of one type, got int, str"):
        SOME[model]().fit(X, hole(WORDS, 3))


@pytest.mark.parametrize(
    "regressor",
    [search(Ridge(), None), HyperTrainedRidge("global", criterion="loo"), HypernetRegressor(max_iter=2)],
    ids=["search", "leave-one-out", "network"],
)
@pytest.mark.parametrize("missing", [None, pd.NA, np.nan], ids=str)
@pytest.mark.parametrize("kind", [np.asarray, list, pd.Series], ids=["array", "list", "series"])
def test_a_missing_number_is_an_error_that_names_y(regressor, missing, kind):
    with pytest.raises(ValueError, match=r"Input y contains (missing values|NaN)"):
        clone(regressor).fit(XR, kind(hole(YR, missing)))
