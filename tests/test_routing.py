"""Metadata and sample weights reach splitter, estimator and scorer where GridSearchCV would send them."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import make_regression
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import Ridge
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.metadata_routing import get_routing_for_object

from skhyper.estimators.search import HyperTrainingSearchCV

X, Y = make_regression(60, 4, noise=20.0, random_state=0)
WEIGHTS = np.random.default_rng(0).uniform(0.2, 3.0, 60)
GROUPS = np.arange(60) // 10


@pytest.fixture
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def search(estimator, **settings):
    return HyperTrainingSearchCV(estimator, **{"granularity": "global", "cv": KFold(3), **settings})


def same_model(ours, expected):
    np.testing.assert_allclose(ours.predict(X), expected.predict(X), rtol=1e-6)


def test_weights_count_in_the_fit_of_a_bare_estimator():
    ours = search(Ridge()).fit(X, Y, sample_weight=WEIGHTS)
    same_model(ours, Ridge(**ours.best_params_).fit(X, Y, sample_weight=WEIGHTS))


def test_weights_go_to_a_step_of_a_pipeline_by_its_name():
    pipeline = make_pipeline(StandardScaler(), Ridge())
    ours = search(pipeline).fit(X, Y, ridge__sample_weight=WEIGHTS)
    expected = make_pipeline(StandardScaler(), Ridge()).set_params(**ours.best_params_)
    same_model(ours, expected.fit(X, Y, ridge__sample_weight=WEIGHTS))


def test_weights_reach_other_steps_too():
    pipeline = make_pipeline(StandardScaler(), Ridge())
    both = {"ridge__sample_weight": WEIGHTS, "standardscaler__sample_weight": WEIGHTS}
    ours = search(pipeline).fit(X, Y, **both)
    same_model(ours, make_pipeline(StandardScaler(), Ridge()).set_params(**ours.best_params_).fit(X, Y, **both))


def test_weights_go_through_a_target_transformer():
    estimator = TransformedTargetRegressor(Ridge(), transformer=StandardScaler())
    ours = search(estimator).fit(X, Y, sample_weight=WEIGHTS)
    same_model(ours, estimator.set_params(**ours.best_params_).fit(X, Y, sample_weight=WEIGHTS))


def test_scorers_get_weights_where_a_grid_search_gives_them():
    ours = search(Ridge(), scoring="neg_mean_squared_error").fit(X, Y, sample_weight=WEIGHTS)
    grid = GridSearchCV(Ridge(), {"alpha": [ours.best_params_["alpha"]]}, cv=KFold(3), scoring="neg_mean_squared_error")
    grid.fit(X, Y, sample_weight=WEIGHTS)
    assert ours.best_score_ == pytest.approx(grid.best_score_, rel=1e-4)


def test_the_outer_loss_is_weighted():
    weighted = search(Ridge(), scoring="neg_mean_squared_error").fit(X, Y, sample_weight=WEIGHTS)
    model, loss = weighted, []
    for train, test in KFold(3).split(X):
        own = Ridge(**model.best_params_).fit(X[train], Y[train], sample_weight=WEIGHTS[train])
        loss.append(np.average((own.predict(X[test]) - Y[test]) ** 2 / 2, weights=WEIGHTS[test]))
    assert weighted.cv_results_["mean_outer_loss"][0] == pytest.approx(np.mean(loss), rel=1e-6)


@pytest.mark.usefixtures("_routing")
def test_metadata_are_routed_to_who_asks():
    estimator = make_pipeline(
        StandardScaler().set_fit_request(sample_weight=False), Ridge().set_fit_request(sample_weight=True)
    )
    scorer = get_scorer("neg_mean_squared_error").set_score_request(sample_weight=True)
    ours = search(estimator, cv=GroupKFold(3), scoring=scorer).fit(X, Y, sample_weight=WEIGHTS, groups=GROUPS)
    loss = []
    for train, test in GroupKFold(3).split(X, Y, GROUPS):
        own = clone(estimator).set_params(**ours.best_params_).fit(X[train], Y[train], sample_weight=WEIGHTS[train])
        loss.append(np.average((own.predict(X[test]) - Y[test]) ** 2, weights=WEIGHTS[test]))
    assert ours.best_score_ == pytest.approx(-np.mean(loss), rel=1e-5)
    assert ours.cv_results_["mean_outer_loss"][0] == pytest.approx(np.mean(loss) / 2, rel=1e-5)


@pytest.mark.usefixtures("_routing")
def test_metadata_that_nobody_asked_for_are_an_error():
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
        search(Ridge()).fit(X, Y, sample_weight=WEIGHTS)
    with pytest.raises(TypeError, match="colour"):
        search(Ridge()).fit(X, Y, colour=WEIGHTS)


@pytest.mark.usefixtures("_routing")
def test_a_renamed_weight_reaches_the_estimator():
    ours = search(Ridge().set_fit_request(sample_weight="importance")).fit(X, Y, importance=WEIGHTS)
    same_model(ours, Ridge(**ours.best_params_).fit(X, Y, sample_weight=WEIGHTS))


@pytest.mark.usefixtures("_routing")
def test_the_search_tells_a_router_what_it_takes():
    ours = search(Ridge().set_fit_request(sample_weight=True), cv=GroupKFold(3))
    routing = get_routing_for_object(ours)
    assert routing.consumes("fit", ["sample_weight", "groups"]) == {"sample_weight", "groups"}
