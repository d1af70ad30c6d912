"""Samplers of imbalanced-learn in the tuned pipeline: in fit alone, on training rows alone.

Where `granularity="global"` the right values are scikit-learn's and imbalanced-learn's own: the same pipeline, with the
alpha that was found, in `cross_val_score` and in its own fit.
"""

import numpy as np
import pandas as pd
import pytest
import sklearn
from imblearn import FunctionSampler
from imblearn.ensemble import BalancedBaggingClassifier
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import Pipeline, make_pipeline
from imblearn.under_sampling import NearMiss, RandomUnderSampler
from scipy import sparse
from sklearn.base import BaseEstimator, clone
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import HuberRegressor, LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_score,
)
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from skhyper import HypernetClassifier, HypernetRegressor, HyperTrainingSearchCV
from skhyper.estimators.hypernet_scorers import crps_scorer

X, Y = make_classification(160, 8, weights=[0.8], flip_y=0.1, random_state=0)
X3, Y3 = make_classification(200, 8, n_classes=3, n_informative=5, weights=[0.7, 0.2], random_state=0)
CV = StratifiedKFold(4, shuffle=True, random_state=1)
WEIGHT = np.random.default_rng(0).uniform(0.5, 2, len(Y))
OVER, UNDER = SMOTE(random_state=0), RandomUnderSampler(random_state=0)
FEWER, MORE = RandomUnderSampler(sampling_strategy=0.5, random_state=0), RandomOverSampler(random_state=0)
LOGISTIC = LogisticRegression(tol=1e-10, max_iter=10000)
PLACES = {
    "first": (OVER, StandardScaler()),
    "middle": (StandardScaler(), OVER, StandardScaler()),
    "last": (StandardScaler(), OVER),
    "alone": (OVER,),
    "fewer rows": (StandardScaler(), UNDER),
    "two": (FEWER, StandardScaler(), OVER),
}


def global_search(pipeline, **given):
    return HyperTrainingSearchCV(pipeline, **{"granularity": "global", "cv": CV, **given})


def check_as_refitted(search, x, y, scoring=None, rtol=1e-6):
    """Fold scores and coefficients are those of the pipeline itself at the alpha that was found."""
    again = clone(search.estimator).set_params(**search.best_params_)
    scores = [search.cv_results_[f"split{k}_test_score"][0] for k in range(search.n_splits_)]
    np.testing.assert_allclose(scores, cross_val_score(again, x, y, cv=search.cv, scoring=scoring), rtol=rtol)
    again.fit(x, y)
    np.testing.assert_allclose(final(search.best_estimator_).coef_, final(again).coef_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(final(search.best_estimator_).intercept_, final(again).intercept_, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(search.predict(x[:20]), search.best_estimator_.predict(x[:20]))


def final(fitted):
    return fitted.regressor_[-1] if hasattr(fitted, "regressor_") else fitted[-1]


@pytest.mark.parametrize("place", PLACES)
def test_a_sampler_acts_wherever_it_stands_and_on_training_rows_alone(place):
    pipeline = make_pipeline(*PLACES[place], LOGISTIC)
    ours = global_search(pipeline, scoring="neg_log_loss").fit(X, Y)
    check_as_refitted(ours, X, Y, "neg_log_loss")
    assert type(ours.best_estimator_) is Pipeline
    assert ours.cv_results_["mean_outer_loss"][0] == pytest.approx(-ours.best_score_, rel=1e-6)


@pytest.mark.parametrize("place", ["first", "last", "fewer rows"])
def test_no_point_of_a_grid_is_better(place):
    pipeline = make_pipeline(*PLACES[place], LOGISTIC)
    ours = global_search(pipeline, scoring="neg_log_loss").fit(X, Y)
    values = {"logisticregression__C": np.geomspace(1e-2, 10, 16)}
    grid = GridSearchCV(pipeline, values, cv=CV, scoring="neg_log_loss").fit(X, Y)
    assert ours.best_score_ >= grid.best_score_ - 1e-6


@pytest.mark.parametrize("model", [RidgeClassifier(), LinearSVC(tol=1e-10, max_iter=100000), LOGISTIC])
@pytest.mark.parametrize("sampler", [OVER, NearMiss()])
def test_every_kind_of_linear_classifier_follows_a_sampler(model, sampler):
    labels = np.array(["few", "some", "many"])[Y3] if not isinstance(model, LinearSVC) else Y3 > 0
    pipeline = make_pipeline(StandardScaler(), sampler, model)
    check_as_refitted(global_search(pipeline).fit(X3, labels), X3, labels)


def test_class_weights_are_those_of_the_resampled_rows():
    some = RandomUnderSampler(sampling_strategy=0.5, random_state=0)
    pipeline = make_pipeline(some, StandardScaler(), clone(LOGISTIC).set_params(class_weight="balanced"))
    check_as_refitted(global_search(pipeline, scoring="neg_log_loss").fit(X, Y), X, Y, "neg_log_loss")


def sparse_rows(x, y):
    return sparse.csr_array(x[20:]), y[20:]


def single_precision(x, y):
    return x[20:].astype(np.float32), y[20:]


@pytest.mark.parametrize(
    ("x", "y", "sampler", "rtol"),
    [
        (pd.DataFrame(X, columns=[f"c{j}" for j in range(8)]), pd.Series(Y), OVER, 1e-6),
        (pd.DataFrame(X), pd.Series(np.array(["no", "yes"])[Y], dtype="category"), OVER, 1e-6),
        (sparse.csr_array(X * (X > 0)), Y, OVER, 1e-5),
        (X, Y, FunctionSampler(func=sparse_rows), 1e-6),
        (X, Y, FunctionSampler(func=single_precision), 1e-3),
        (X.astype(np.float32), Y.astype(float), OVER, 1e-3),
    ],
    ids=["frame", "categories", "sparse", "to sparse", "to float32", "float32"],
)
def test_data_of_every_kind_passes_samplers(x, y, sampler, rtol):
    check_as_refitted(global_search(make_pipeline(sampler, LOGISTIC)).fit(x, y), x, y, rtol=rtol)


def test_names_of_columns_pass_samplers():
    frame = pd.DataFrame(X, columns=[f"c{j}" for j in range(8)])
    for place in ("first", "last", "alone"):
        assert list(HyperTrainingSearchCV(make_pipeline(*PLACES[place], LOGISTIC), cv=2).fit(frame, Y).alphas_) == [
            *frame
        ]


def test_folds_with_different_columns_and_different_numbers_of_rows_are_aligned():
    """One category is in a single row, so that the fold that holds it out lacks the column."""
    frame = pd.DataFrame({"kind": np.where(np.arange(len(Y)) == 5, "rare", np.array(["a", "b"])[(X[:, 0] > 0) * 1])})
    frame[["u", "v"]] = X[:, 1:3]
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["kind"]), remainder="passthrough")
    pipeline = make_pipeline(encode, RandomOverSampler(random_state=0), LOGISTIC)
    check_as_refitted(global_search(pipeline, scoring="neg_log_loss").fit(frame, Y), frame, Y, "neg_log_loss")


@pytest.mark.parametrize(
    "cv",
    [
        TimeSeriesSplit(3),
        [(np.arange(160), np.arange(160)), (np.arange(100), np.arange(60, 160))],
        [(np.r_[0:90, 0:90], np.r_[90:160, 95])],
    ],
    ids=["growing", "overlapping", "repeated"],
)
def test_folds_of_any_shape_are_resampled(cv):
    pipeline = make_pipeline(StandardScaler(), OVER, LOGISTIC)
    check_as_refitted(global_search(pipeline, cv=cv, scoring="neg_log_loss").fit(X, Y), X, Y, "neg_log_loss")


def test_samplers_are_replaced_taken_out_cached_and_nested(tmp_path):
    plain = make_pipeline(StandardScaler(), LOGISTIC)
    expected = global_search(make_pipeline(OVER, StandardScaler(), LOGISTIC)).fit(X, Y).best_params_
    taken_out = make_pipeline(OVER, StandardScaler(), LOGISTIC).set_params(smote="passthrough")
    assert global_search(taken_out).fit(X, Y).best_params_ == global_search(plain).fit(X, Y).best_params_
    replaced = make_pipeline(UNDER, StandardScaler(), LOGISTIC).set_params(randomundersampler=OVER)
    assert global_search(replaced).fit(X, Y).best_params_ == expected
    cached = Pipeline([("smote", OVER), ("scale", StandardScaler()), ("model", LOGISTIC)], memory=str(tmp_path))
    check_as_refitted(global_search(cached).fit(X, Y), X, Y)
    nested = make_pipeline(OVER, make_pipeline(StandardScaler(), LOGISTIC))
    (found,) = global_search(nested).fit(X, Y).best_params_.values()
    assert found == expected["logisticregression__C"]


XR, YR = make_regression(120, 5, noise=20.0, random_state=0)
YR[:6] += 2000


def without_outliers(x, y):
    kept = np.abs(y - np.median(y)) < 6 * np.median(np.abs(y - np.median(y)))
    return x[kept], y[kept]


FOLDS = KFold(4, shuffle=True, random_state=0)
CLEAN = FunctionSampler(func=without_outliers, validate=False)


@pytest.mark.parametrize(("model", "rtol"), [(Ridge(), 1e-6), (HuberRegressor(tol=1e-9, max_iter=10000), 1e-4)])
def test_outliers_are_dropped_from_training_rows_and_judge(model, rtol):
    pipeline = make_pipeline(StandardScaler(), CLEAN, model)
    ours = global_search(pipeline, cv=FOLDS, scoring="neg_mean_squared_error").fit(XR, YR)
    check_as_refitted(ours, XR, YR, "neg_mean_squared_error", rtol)
    assert ours.cv_results_["mean_outer_loss"][0] == pytest.approx(-ours.best_score_ / 2, rel=1e-5)


def test_a_sampler_inside_a_transformed_target_sees_the_target_transformed():
    y = np.exp(YR / 400)
    model = TransformedTargetRegressor(
        make_pipeline(CLEAN, StandardScaler(), Ridge()), func=np.log, inverse_func=np.exp
    )
    check_as_refitted(global_search(model, cv=FOLDS).fit(XR, y), XR, y)


def test_several_targets_are_resampled_together():
    y = np.column_stack([YR, YR[::-1]])
    half = FunctionSampler(func=lambda x, y: (x[::2], y[::2]), validate=False)
    check_as_refitted(global_search(make_pipeline(half, StandardScaler(), Ridge()), cv=FOLDS).fit(XR, y), XR, y)


@pytest.mark.parametrize("samplers", [[UNDER], [MORE], [FEWER, MORE]])
def test_sample_weights_follow_the_rows_that_samplers_keep(samplers):
    pipeline = make_pipeline(StandardScaler(), *samplers, LOGISTIC)
    ours = global_search(pipeline).fit(X, Y, logisticregression__sample_weight=WEIGHT)

    def by_hand(train):
        scaler = StandardScaler().fit(X[train])
        x, y, weight = scaler.transform(X[train]), Y[train], WEIGHT[train]
        for sampler in map(clone, samplers):
            x, y = sampler.fit_resample(x, y)
            weight = weight[sampler.sample_indices_]
        model = clone(LOGISTIC).set_params(C=ours.best_params_["logisticregression__C"])
        return scaler, model.fit(x, y, sample_weight=weight)

    losses = []
    for train, held in CV.split(X, Y):
        scaler, model = by_hand(train)
        losses.append(log_loss(Y[held], model.predict_proba(scaler.transform(X[held])), sample_weight=WEIGHT[held]))
    assert ours.cv_results_["mean_outer_loss"][0] == pytest.approx(np.mean(losses), rel=1e-6)
    np.testing.assert_allclose(ours.best_estimator_[-1].coef_, by_hand(np.arange(len(Y)))[1].coef_, rtol=1e-5)


def test_sample_weights_beside_made_rows_are_refused_with_the_sampler():
    pipeline = make_pipeline(StandardScaler(), OVER, LOGISTIC)
    with pytest.raises(ValueError, match=r"sample_weight must be None where smote=SMOTE\(random_state=0\) makes rows"):
        global_search(pipeline).fit(X, Y, logisticregression__sample_weight=WEIGHT)


class HeavyRows(BaseEstimator):
    """A sampler of nobody's library: it keeps the rows whose weight is above one."""

    def fit(self, X, y, sample_weight):
        return self

    def fit_resample(self, X, y, sample_weight):
        self.sample_indices_ = np.flatnonzero(sample_weight > 1)
        return X[self.sample_indices_], y[self.sample_indices_]


def test_metadata_is_routed_to_samplers_and_past_them():
    with sklearn.config_context(enable_metadata_routing=True):
        heavy = HeavyRows().set_fit_request(sample_weight=True).set_fit_resample_request(sample_weight=True)
        model = clone(LOGISTIC).set_fit_request(sample_weight=True)
        pipeline, accuracy = make_pipeline(heavy, model), get_scorer("accuracy").set_score_request(sample_weight=True)
        groups = np.arange(len(Y)) // 4
        search = global_search(pipeline, cv=GroupKFold(4), scoring=accuracy)
        ours = search.fit(X, Y, sample_weight=WEIGHT, groups=groups)
    kept = WEIGHT > 1
    by_hand = clone(LOGISTIC).set_params(C=ours.best_params_["logisticregression__C"])
    by_hand.fit(X[kept], Y[kept], sample_weight=WEIGHT[kept])
    np.testing.assert_allclose(ours.best_estimator_[-1].coef_, by_hand.coef_, rtol=1e-5, atol=1e-8)
    scores = []
    for train, held in GroupKFold(4).split(X, Y, groups):
        rows = train[kept[train]]
        by_hand.fit(X[rows], Y[rows], sample_weight=WEIGHT[rows])
        scores.append(by_hand.score(X[held], Y[held], sample_weight=WEIGHT[held]))
    assert ours.best_score_ == pytest.approx(np.mean(scores))


def test_the_guard_resamples_the_training_rows_of_its_outer_folds():
    pipeline = make_pipeline(StandardScaler(), OVER, LOGISTIC)
    outer = StratifiedKFold(2)
    ours = HyperTrainingSearchCV(pipeline, cv=3, guard_cv=outer, scoring="neg_log_loss").fit(X, Y)
    bare = clone(ours).set_params(guard_cv=None)
    scores = [bare.fit(X[train], Y[train]).score(X[held], Y[held]) for train, held in outer.split(X, Y)]
    np.testing.assert_allclose(ours.guard_scores_, scores, rtol=1e-9)


def test_refit_estimator_keeps_finer_decays_behind_a_sampler():
    ours = HyperTrainingSearchCV(make_pipeline(StandardScaler(), OVER, LOGISTIC), cv=CV, exponent=1.5).fit(X, Y)
    again = ours.refit_estimator().fit(X, Y)
    assert type(again) is Pipeline
    np.testing.assert_allclose(again.predict_proba(X), ours.predict_proba(X), atol=1e-5)


def test_classes_that_only_a_sampler_knows_are_refused():
    other = FunctionSampler(func=lambda x, y: (x, y + 5), validate=False)
    with pytest.raises(ValueError, match=r"functionsampler must keep the classes of y \[0, 1\], but gives \[5, 6\]"):
        global_search(make_pipeline(other, LOGISTIC)).fit(X, Y)


NETWORK = MLPClassifier((8,), max_iter=30, learning_rate_init=0.01, random_state=0)


@pytest.mark.parametrize("cv", [None, 3])
@pytest.mark.parametrize("place", PLACES)
def test_networks_train_on_resampled_rows_and_are_judged_by_others(place, cv):
    pipeline = make_pipeline(*PLACES[place], NETWORK)
    ours = HyperTrainingSearchCV(pipeline, cv=cv, scoring="neg_log_loss", random_state=0, max_iter=15).fit(X, Y)
    assert ours.cv_results_["mean_outer_loss"][0] == pytest.approx(-ours.best_score_, rel=1e-9)
    network = ours.best_estimator_[-1]
    rows = network.t_ / network.n_iter_
    n_few, n_many = np.sort(np.bincount(Y))
    assert rows == {"fewer rows": 2 * n_few, "two": 4 * n_few}.get(place, 2 * n_many)
    assert ours.score(X, Y) > log_loss_of_a_constant(Y)


def log_loss_of_a_constant(y):
    return -log_loss(y, np.full(len(y), 0.5))


def test_the_search_of_a_network_behind_a_sampler_goes_on_and_answers_for_other_alphas():
    pipeline = make_pipeline(OVER, StandardScaler(), NETWORK)
    ours = HyperTrainingSearchCV(pipeline, max_iter=10, random_state=0).fit(X, Y)
    n_iter = ours.n_iter_
    assert ours.continue_fit(X, Y, max_iter=5).n_iter_ > n_iter
    (alpha,) = ours.best_params_.values()
    moved = ours.best_response(alpha * 1.1)
    assert type(moved) is Pipeline
    assert np.abs(moved.predict_proba(X) - ours.predict_proba(X)).max() < 0.1


HYPERNET = HypernetClassifier((8,), n_estimators=2, max_iter=10, random_state=0)


@pytest.mark.parametrize("place", ["first", "last"])
def test_networks_that_train_themselves_are_fitted_to_resampled_rows(place, monkeypatch):
    fit_alphas, counts = HypernetClassifier._fit_alphas, []

    def note(model, x, y, *rest):
        counts.append(np.bincount(y).tolist())
        return fit_alphas(model, x, y, *rest)

    monkeypatch.setattr(HypernetClassifier, "_fit_alphas", note)
    pipeline = make_pipeline(*PLACES[place], HYPERNET)
    halves = StratifiedKFold(2)
    ours = HyperTrainingSearchCV(pipeline, cv=halves, max_iter=2).fit(X, Y)
    expected = [[max(np.bincount(Y[train]))] * 2 for train, _ in halves.split(X, Y)]
    assert counts[:2] == expected
    again = clone(pipeline).set_params(**ours.best_params_).fit(X, Y)
    np.testing.assert_allclose(ours.predict_proba(X), again.predict_proba(X), rtol=1e-6)


def test_sample_weights_follow_the_rows_to_networks_that_train_themselves():
    pipeline = make_pipeline(StandardScaler(), UNDER, HYPERNET)
    search = HyperTrainingSearchCV(pipeline, cv=2, max_iter=2)
    ours = search.fit(X, Y, hypernetclassifier__sample_weight=WEIGHT)
    drawn = clone(UNDER)
    scaled = StandardScaler().fit_transform(X)
    rows = drawn.fit_resample(scaled, Y)
    by_hand = clone(HYPERNET).set_params(alpha=ours.best_params_["hypernetclassifier__alpha"])
    by_hand.fit(*rows, sample_weight=WEIGHT[drawn.sample_indices_])
    np.testing.assert_allclose(ours.predict_proba(X), by_hand.predict_proba(scaled), rtol=1e-6)


def test_scores_of_predictive_distributions_reach_through_samplers():
    half = FunctionSampler(func=lambda x, y: (x[::2], y[::2]), validate=False)
    model = HypernetRegressor((8,), n_estimators=2, max_iter=10, random_state=0)
    fitted = make_pipeline(StandardScaler(), half, model).fit(XR, YR)
    expected = -fitted[-1].crps(fitted[0].transform(XR), YR).mean()
    assert crps_scorer(fitted, XR, YR) == pytest.approx(expected)


def test_a_search_with_a_sampler_works_inside_of_ensembles():
    search = global_search(make_pipeline(OVER, StandardScaler(), LOGISTIC), cv=3)
    bagged = BalancedBaggingClassifier(search, sampling_strategy=0.5, n_estimators=2, random_state=0).fit(X, Y)
    assert bagged.score(X, Y) > 0.7
