"""HyperTrainingSearchCV: it is GridSearchCV to the user, and its model is the estimator's own.

Which row should win, and how well decays generalise, is left to the core and the benchmarks.
"""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_regression
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import (
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    TweedieRegressor,
)
from sklearn.metrics import check_scoring, log_loss, make_scorer, mean_squared_error
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneGroupOut, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC, LinearSVR

from skhyper.algorithms import ClosedForm, ImplicitDifferentiation
from skhyper.core.selection import choose
from skhyper.estimators.search import HyperTrainingSearchCV

X, Y = load_diabetes(return_X_y=True)
X, Y = X[:150] / X.std(), Y[:150]
XC, YC = load_iris(return_X_y=True)
BINARY = slice(50, 150)  # of iris: two classes that overlap


def search(estimator=None, **settings):
    return HyperTrainingSearchCV(Ridge() if estimator is None else estimator, **settings)


def data_for(estimator):
    return (XC, YC) if is_classifier(estimator) else (X, Y)


def test_it_has_what_a_grid_search_has():
    ours = search(return_train_score=True).fit(X, Y)
    theirs = GridSearchCV(Ridge(), {"alpha": [1.0, 2.0]}, return_train_score=True).fit(X, Y)
    assert {name for name in vars(theirs) if name.endswith("_")} <= set(vars(ours))
    assert set(theirs.cv_results_) <= set(ours.cv_results_)
    rows = len(ours.cv_results_["params"])
    for key, value in theirs.cv_results_.items():
        assert len(ours.cv_results_[key]) == rows
        assert type(ours.cv_results_[key]) is type(value)
    assert ours.n_splits_ == 5
    assert ours.best_score_ == ours.cv_results_["mean_test_score"][ours.best_index_]
    assert ours.best_params_ == ours.cv_results_["params"][ours.best_index_]
    assert ours.baseline_score_ == ours.cv_results_["mean_test_score"][0]
    assert is_regressor(ours)
    np.testing.assert_array_equal(ours.predict(X), ours.best_estimator_.predict(X))
    assert ours.score(X, Y) == ours.best_estimator_.score(X, Y)


def test_rows_are_scored_as_a_grid_search_would_score_them():
    ours = search(granularity="global", return_train_score=True, cv=KFold(4)).fit(X, Y)
    theirs = GridSearchCV(Ridge(), {"alpha": [ours.best_params_["alpha"]]}, return_train_score=True, cv=KFold(4))
    theirs.fit(X, Y)
    for key in ("mean_test_score", "std_test_score", "split3_test_score", "mean_train_score"):
        np.testing.assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], rtol=1e-4)


@pytest.mark.parametrize("scoring", [None, "r2", "neg_mean_squared_error", "neg_mean_absolute_error"])
def test_a_folds_rows_scored_in_one_call_have_the_scores_of_one_at_a_time(scoring):
    scorer = check_scoring(Ridge(), scoring)
    at_once = search(scoring=scoring).fit(X, Y)
    decides = scoring in ("r2", "neg_mean_absolute_error")  # else the loss does, and no score may
    one_by_one = search(
        scoring={"score": lambda *given: scorer(*given)}, refit="score" if decides else lambda results: 0
    ).fit(X, Y)
    assert len(at_once.cv_results_["params"]) > 1
    for i in range(len(at_once.cv_results_["params"])):
        for k in range(at_once.n_splits_):
            ours, theirs = (
                at_once.cv_results_[f"split{k}_test_score"][i],
                one_by_one.cv_results_[f"split{k}_test_score"][i],
            )
            assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("wrap", [lambda r: make_pipeline(StandardScaler(), r), TransformedTargetRegressor])
def test_each_row_of_a_composite_has_the_score_of_its_own_decays(wrap):
    ours = search(wrap(Ridge())).fit(X, Y)
    first = search(wrap(Ridge()), granularity="global").fit(X, Y)
    scores = ours.cv_results_["mean_test_score"]
    assert scores[0] == pytest.approx(first.best_score_, rel=1e-6)
    assert len(set(scores.round(8))) == len(scores)


def test_the_tuned_global_alpha_is_the_minimum_of_the_criterion():
    ours = search(granularity="global", scoring="neg_mean_squared_error").fit(X, Y)
    alpha = ours.best_params_["alpha"]
    nearby = [
        cross_val_score(Ridge(a), X, Y, scoring="neg_mean_squared_error").mean() for a in (0.98 * alpha, 1.02 * alpha)
    ]
    assert ours.best_score_ > max(nearby)


EXACT = [
    Ridge(),
    Ridge(fit_intercept=False),
    RidgeClassifier(),
    LogisticRegression(solver="newton-cg", tol=1e-10, max_iter=10_000),
    LogisticRegression(solver="newton-cg", tol=1e-10, max_iter=10_000, class_weight="balanced"),
    LinearSVC(tol=1e-10, dual=False, max_iter=100_000),
    LinearSVR(loss="squared_epsilon_insensitive", tol=1e-10, dual=False, max_iter=100_000),
    PoissonRegressor(tol=1e-10, max_iter=10_000),
    GammaRegressor(tol=1e-10, max_iter=10_000),
    TweedieRegressor(power=1.5, tol=1e-10, max_iter=10_000),
    HuberRegressor(tol=1e-10, max_iter=10_000),
    make_pipeline(StandardScaler(), Ridge()),
    TransformedTargetRegressor(make_pipeline(StandardScaler(), Ridge()), func=np.log, inverse_func=np.exp),
    make_pipeline(StandardScaler(), TransformedTargetRegressor(Ridge(), transformer=StandardScaler())),
]


@pytest.mark.parametrize("estimator", EXACT, ids=lambda e: repr(e).replace("\n", "")[:50])
def test_at_one_global_alpha_the_estimators_own_fit_gives_the_best_estimator(estimator):
    x, y = data_for(estimator)
    ours = search(estimator, granularity="global").fit(x, y)
    assert type(ours.best_estimator_) is type(estimator)
    own = clone(estimator).set_params(**ours.best_params_).fit(x, y)
    method = "decision_function" if is_classifier(estimator) else "predict"
    expected = getattr(own, method)(x)
    np.testing.assert_allclose(getattr(ours, method)(x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert (ours.exponent_, ours.n_hyperparameters_, ours.best_index_) == (2.0, 1, 0)
    assert list(ours.alphas_) == ["all"]


def test_a_fixed_exponent_of_one_is_the_lasso_and_selects_features():
    ours = search(exponent=1.0).fit(X, Y)
    assert ours.exponent_ == 1.0
    zero = ours.best_estimator_.coef_ == 0
    assert zero.any()
    assert np.isinf([a for a, gone in zip(ours.alphas_.values(), zero, strict=True) if gone]).all()
    # At q = 1 the penalty is alpha s |w| with s^2 the mean square of the global solution's weights.
    start = Ridge(ours.cv_results_["params"][0]["alpha"]).fit(X, Y)
    level = ours.best_params_["alpha"] * np.sqrt((start.coef_**2).mean())
    lasso = Lasso(alpha=level / len(Y), tol=1e-10, max_iter=100_000).fit(X, Y)
    np.testing.assert_allclose(ours.best_estimator_.coef_, lasso.coef_, rtol=1e-5, atol=1e-5)
    chosen = SelectFromModel(ours.best_estimator_, threshold=1e-5, prefit=True).transform(X)
    assert chosen.shape[1] == (~zero).sum()


@pytest.mark.parametrize("exponent", [1.5, 0.7])
@pytest.mark.parametrize(
    "estimator",
    [
        Ridge(),
        make_pipeline(PolynomialFeatures(2, include_bias=False), StandardScaler(), Ridge()),
        LogisticRegression(tol=1e-9, max_iter=1000),
    ],
    ids=["ridge", "pipeline", "logistic"],
)
def test_the_plain_pipeline_keeps_the_decays(estimator, exponent):
    x, y = data_for(estimator)
    x, y = (x, y) if is_regressor(estimator) else (x[BINARY], y[BINARY])
    ours = search(estimator, exponent=exponent, cv=3).fit(x[:, :4], y)
    plain = clone(ours.refit_estimator()).fit(x[:, :4], y)
    expected = (ours.predict if is_regressor(estimator) else ours.decision_function)(x[:, :4])
    got = (plain.predict if is_regressor(estimator) else plain.decision_function)(x[:, :4])
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_plain_pipeline_needs_decays_of_features():
    ours = search(granularity="weight", exponent=1.5, cv=3).fit(X, np.c_[Y, Y**2])
    with pytest.raises(ValueError, match="granularity='weight'"):
        ours.refit_estimator()


def test_the_plain_pipeline_of_a_target_transformer_scales_inside():
    estimator = TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp)
    ours = search(estimator, exponent=1.5, cv=3).fit(X, Y)
    np.testing.assert_allclose(ours.refit_estimator().fit(X, Y).predict(X), ours.predict(X), rtol=1e-4)


def test_a_pipeline_gives_what_preprocessing_by_hand_gives_in_each_fold():
    pipeline = make_pipeline(StandardScaler(), Ridge())
    ours = search(pipeline, granularity="global", scoring="neg_mean_squared_error").fit(X, Y)
    scores = []
    for train, test in KFold(5).split(X):
        scaler = StandardScaler().fit(X[train])
        model = Ridge(ours.best_params_["ridge__alpha"]).fit(scaler.transform(X[train]), Y[train])
        scores.append(-mean_squared_error(Y[test], model.predict(scaler.transform(X[test]))))
    np.testing.assert_allclose([ours.cv_results_[f"split{k}_test_score"][0] for k in range(5)], scores, rtol=1e-6)


@pytest.mark.parametrize(
    ("granularity", "names"),
    [
        ("global", ["all"]),
        ("output", ["low", "high"]),
        ("feature", ["a", "b", "c"]),
        ("weight", ["a[low]", "a[high]", "b[low]", "b[high]", "c[low]", "c[high]"]),
    ],
)
def test_decays_are_named_after_features_and_targets(granularity, names):
    x, y = make_regression(40, 3, n_targets=2, noise=5.0, random_state=0)
    frame, target = pd.DataFrame(x, columns=list("abc")), pd.DataFrame(y, columns=["low", "high"])
    exponent = 2 if granularity == "global" else 1.5
    ours = search(granularity=granularity, exponent=exponent, cv=3).fit(frame, target)
    assert list(ours.alphas_) == names
    np.testing.assert_array_equal(ours.feature_names_in_, list("abc"))


def test_groups_of_features_share_a_decay_by_name_or_by_position():
    frame = pd.DataFrame(X[:, :4], columns=list("abcd"))
    by_name = search(decay_groups={"a": "u", "b": "u", "c": "v", "d": "v"}, exponent=1.5, cv=3).fit(frame, Y)
    by_position = search(decay_groups=[0, 0, 1, 1], exponent=1.5, cv=3).fit(frame, Y)
    assert list(by_name.alphas_) == ["u", "v"]
    np.testing.assert_array_equal(list(by_name.alphas_.values()), list(by_position.alphas_.values()))
    np.testing.assert_array_equal(by_name.best_estimator_.coef_, by_position.best_estimator_.coef_)


def test_data_frames_of_either_kind_and_sparse_matrices_give_the_same_model():
    expected = search(cv=3).fit(X, Y)
    columns = [f"c{j}" for j in range(X.shape[1])]
    pandas = search(cv=3).fit(pd.DataFrame(X, columns=columns), pd.Series(Y))
    polars = search(cv=3).fit(pl.DataFrame(X, schema=columns), pl.Series(Y))
    thin = search(cv=3).fit(sparse.csr_array(X), Y)
    for other in (pandas, polars, thin):
        np.testing.assert_allclose(other.best_estimator_.coef_, expected.best_estimator_.coef_, rtol=1e-6)
    for named in (pandas, polars):
        assert list(named.alphas_) == list(getattr(named, "feature_names_in_", [f"x{j}" for j in range(X.shape[1])]))
    np.testing.assert_array_equal(pandas.feature_names_in_, columns)
    if hasattr(Ridge().fit(pl.DataFrame(X, schema=columns), Y), "feature_names_in_"):  # not in every version
        np.testing.assert_array_equal(polars.feature_names_in_, columns)


@pytest.mark.parametrize("estimator", [Ridge(), LogisticRegression()], ids=["ridge", "logistic"])
def test_integer_weights_are_repeated_rows(estimator):
    x, y = data_for(estimator)
    x, y = x[::3], y[::3]
    weights = np.random.default_rng(0).integers(0, 4, len(y))
    copies = np.repeat(np.arange(len(y)), weights)
    fold = np.arange(len(y)) % 3
    weighted = search(estimator, cv=[(fold != k, fold == k) for k in range(3)])
    weighted.fit(x, y, sample_weight=weights)
    repeated = search(estimator, cv=[(fold[copies] != k, fold[copies] == k) for k in range(3)])
    repeated.fit(x[copies], y[copies])
    assert weighted.best_index_ == repeated.best_index_
    np.testing.assert_allclose(weighted.best_estimator_.coef_, repeated.best_estimator_.coef_, rtol=1e-5, atol=1e-8)


@pytest.mark.filterwarnings("ignore:The best alpha lies on a bound")
def test_the_validation_rows_of_a_fold_do_not_touch_its_weights():
    splits = list(KFold(3).split(X))
    changed = Y.copy()
    changed[splits[0][1]] *= -1
    kept = [
        search(exponent=1.5, cv=[splits[0]], alpha_bounds=(1.0, 1.0 + 1e-9), return_train_score=True).fit(X, y)
        for y in (Y, changed)
    ]
    np.testing.assert_allclose(*(s.cv_results_["split0_train_score"] for s in kept))


def test_the_outer_loss_is_the_twin_of_the_score():
    ours = search(LogisticRegression(), scoring="neg_log_loss", cv=3).fit(XC, YC)
    np.testing.assert_allclose(-ours.cv_results_["mean_test_score"], ours.cv_results_["mean_outer_loss"], rtol=1e-6)
    scorer = make_scorer(log_loss, greater_is_better=False, response_method="predict_proba")
    np.testing.assert_array_equal(
        search(LogisticRegression(), scoring=scorer, cv=3).fit(XC, YC).cv_results_["mean_test_score"],
        ours.cv_results_["mean_test_score"],
    )
    deviance = search(GammaRegressor(), scoring="neg_mean_poisson_deviance", cv=3, granularity="global").fit(X, Y)
    own = search(GammaRegressor(), cv=3, granularity="global").fit(X, Y)
    assert deviance.best_params_ != own.best_params_


def test_a_score_without_a_twin_chooses_the_row_by_itself():
    ours = search(LogisticRegression(), scoring="accuracy", cv=3).fit(XC, YC)
    scores = np.stack([ours.cv_results_[f"split{k}_test_score"] for k in range(3)], axis=1)
    assert ours.best_index_ == choose(-scores)


def test_several_scores_at_once():
    ours = search(scoring=["r2", "neg_mean_squared_error"], refit="r2", cv=3).fit(X, Y)
    assert ours.multimetric_
    assert set(ours.scorer_) == {"r2", "neg_mean_squared_error"}
    assert ours.best_score_ == ours.cv_results_["mean_test_r2"][ours.best_index_]
    assert ours.score(X, Y) == pytest.approx(ours.best_estimator_.score(X, Y))
    named = search(scoring={"a": "r2", "b": "neg_mean_squared_error"}, refit=False, cv=3).fit(X, Y)
    assert "mean_test_b" in named.cv_results_
    assert not hasattr(named, "best_index_")
    assert not hasattr(named, "predict")


def test_refit_may_be_switched_off_or_be_a_rule():
    bare = search(refit=False, cv=3).fit(X, Y)
    assert bare.best_index_ >= 0
    assert not hasattr(bare, "best_estimator_")
    assert not hasattr(bare, "predict")
    rule = search(refit=lambda results: 0, cv=3).fit(X, Y)
    assert rule.best_index_ == 0
    assert rule.exponent_ == 2.0
    assert not hasattr(rule, "best_score_")
    assert hasattr(rule, "predict")


@pytest.mark.parametrize(
    ("cv", "n_splits"),
    [(None, 5), (3, 3), (0.25, 1), (TimeSeriesSplit(3), 3), (list(KFold(2).split(X)), 2), (iter(KFold(2).split(X)), 2)],
    ids=["none", "int", "float", "time", "list", "iterator"],
)
def test_held_out_data_come_in_all_the_forms_of_cv(cv, n_splits):
    ours = search(granularity="global", cv=cv, random_state=0).fit(X, Y)
    assert ours.n_splits_ == n_splits
    assert np.isfinite(ours.best_score_)


def test_groups_reach_the_splitter():
    groups = np.arange(len(Y)) % 3
    assert search(granularity="global", cv=LeaveOneGroupOut()).fit(X, Y, groups=groups).n_splits_ == 3


def test_folds_are_as_many_as_the_smallest_class_fills():
    few = np.concatenate([np.arange(50), [60, 61, 62], np.arange(100, 120)])
    ours = search(LogisticRegression(), granularity="global").fit(XC[few], YC[few])
    assert ours.n_splits_ == 3


def test_a_class_without_training_rows_is_masked_with_a_warning():
    splits = [(np.arange(100), np.arange(100, 150, 5)), (np.arange(0, 150, 2), np.arange(1, 150, 2))]
    held = np.r_[np.arange(100, 150, 5), np.arange(0, 20)]
    splits[0] = (np.arange(20, 100), held)
    with pytest.warns(UserWarning, match=r"Classes without training rows, by fold of cv: \{0: \[.*2.*\]\}"):
        ours = search(LogisticRegression(), cv=splits, granularity="global").fit(XC, YC)
    assert ours.best_score_ < 1
    np.testing.assert_array_equal(ours.classes_, [0, 1, 2])
    with pytest.raises(ValueError, match="Classes without training rows"):
        search(LogisticRegression(), cv=splits, error_score="raise").fit(XC, YC)


@pytest.mark.filterwarnings("ignore:The search had taken all of its steps")
def test_free_decays_are_counted_and_guarded():
    ours = search(shrinkage=0.3, cv=2, max_iter=5).fit(X[:60, :3], Y[:60])
    assert ours.shrinkage_ == 0.3
    assert ours.n_hyperparameters_ >= 3
    assert np.isfinite(ours.guard_score_)
    assert len(ours.guard_scores_) == 2


@pytest.mark.parametrize("algorithm", ["closed_form", "implicit", ClosedForm(), ImplicitDifferentiation(max_iter=50)])
def test_algorithms_agree(algorithm):
    expected = search(exponent=1.5, cv=3).fit(X, Y)
    ours = search(exponent=1.5, cv=3, algorithm=algorithm).fit(X, Y)
    np.testing.assert_allclose(ours.best_estimator_.coef_, expected.best_estimator_.coef_, rtol=1e-3, atol=1e-3)


def test_an_estimator_by_itself_may_be_tuned_inside_a_cross_validation():
    assert np.isfinite(cross_val_score(search(granularity="global", cv=3), X, Y, cv=2)).all()


def test_a_fitted_search_can_be_pickled():
    ours = search(make_pipeline(StandardScaler(), LogisticRegression()), cv=3).fit(XC, YC)
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.predict_proba(XC), ours.predict_proba(XC))
    assert again.alphas_ == ours.alphas_


def test_a_time_limit_keeps_the_best_model_so_far():
    ours = search(time_limit=1e-9, cv=3).fit(X, Y)
    assert "time limit" in ours.stop_reason_
    assert ours.best_index_ == 0
    assert np.isfinite(ours.predict(X)).all()


def test_an_interruption_keeps_the_best_model_so_far(monkeypatch):
    from skhyper.estimators import search as module

    class Impatient(module.Watch):
        def __call__(self, record):
            if record.stage.startswith("family"):
                raise KeyboardInterrupt

    monkeypatch.setattr(module, "Watch", Impatient)
    ours = search(cv=3).fit(X, Y)
    assert "interrupted" in ours.stop_reason_
    assert len(ours.cv_results_["params"]) == 1
    assert np.isfinite(ours.score(X, Y))


def test_verbose_prints_a_line_a_stage(capsys):
    search(cv=3, exponent=1.5, verbose=1).fit(X, Y)
    out = capsys.readouterr().out
    assert "global alpha: outer loss" in out
    assert "family, q = 1.5: outer loss" in out
    search(cv=3, exponent=1.5).fit(X, Y)
    assert capsys.readouterr().out == ""


def counting_callback():
    """One of scikit-learn's callbacks, where the installed version has them, which counts on its class."""
    callback = pytest.importorskip("sklearn.callback")

    class Count(callback.FitCallback if isinstance(callback.FitCallback, type) else object):
        begun = ended = 0

        def setup(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            Count.begun += 1

        def on_fit_task_end(self, estimator, context):
            Count.ended += 1

        def teardown(self, estimator, context):
            pass

    return Count()


def test_callbacks_are_told_of_every_step():
    count = counting_callback()
    ours = search(cv=3, exponent=1.5).set_callbacks(count).fit(X, Y)
    assert count.begun == count.ended == ours.n_iter_ + 1


def test_callbacks_of_the_inner_estimator_are_named_in_one_warning():
    model = make_pipeline(StandardScaler(), LogisticRegression().set_callbacks(counting_callback()))
    with pytest.warns(UserWarning, match="Callbacks of LogisticRegression are not called, .*: Count\\.") as told:
        search(model, cv=3).fit(XC[BINARY], YC[BINARY])
    assert len(told) == 1


def test_the_history_is_a_table():
    ours = search(cv=3, exponent=1.5).fit(X, Y)
    table = pd.DataFrame(ours.history_)
    assert len(table) == ours.n_iter_
    assert {"stage", "value", "log_alpha", "exponent", "gradient_norm", "seconds"} <= set(table)
    assert ours.total_time_ > 0


def test_the_html_repr_shows_the_estimator():
    assert "Ridge" in search()._repr_html_()
    assert "best_estimator_" in search(cv=3).fit(X, Y)._repr_html_()


def test_one_feature_has_one_decay():
    ours = search(cv=3).fit(X[:, :1], Y)
    assert ours.exponent_ == 2.0
    assert list(ours.alphas_) == ["x0"]


def test_a_classifier_of_the_descent_family_is_built_with_all_classes():
    ours = search(SGDClassifier(loss="log_loss"), granularity="global", cv=3).fit(XC, YC)
    np.testing.assert_array_equal(ours.classes_, [0, 1, 2])
    assert ours.predict_proba(XC).shape == (150, 3)
    assert ours.score(XC, YC) > 0.8


def test_real_data_are_tuned_to_a_better_model_than_the_default():
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)[::4]
    ours = search(LogisticRegression(), scoring="neg_log_loss", cv=3).fit(x, y[::4])
    assert ours.best_score_ > cross_val_score(LogisticRegression(), x, y[::4], scoring="neg_log_loss", cv=3).mean()
