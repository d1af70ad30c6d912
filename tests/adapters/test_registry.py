"""Which estimators and settings are taken, and what the refusal says."""

import importlib.util

import pytest
import sklearn.linear_model
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import (
    Lasso,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.svm import SVC, LinearSVC, LinearSVR

from skhyper.adapters import RidgeAdapter, adapter_for, register, registry


@pytest.mark.parametrize("estimator", [Lasso(), RidgeCV(), SVC(), RandomForestRegressor()])
def test_an_unknown_estimator_is_refused_with_what_is_supported(estimator):
    with pytest.raises(TypeError, match=r"Supported are Ridge, .*LogisticRegression.*adapters\.register"):
        adapter_for(estimator)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (Ridge(positive=True), r"Ridge\(positive=True\).*set positive=False"),
        (LogisticRegression(penalty="l1"), r"LogisticRegression\(penalty='l1'\)"),
        (LogisticRegression(penalty=None), r"LogisticRegression\(penalty=None\)"),
        (LogisticRegressionCV(), "use LogisticRegression"),
        (LinearSVR(), r"LinearSVR\(loss='epsilon_insensitive'\).*set loss='squared_epsilon_insensitive'"),
        (LinearSVC(loss="hinge"), r"LinearSVC\(loss='hinge'\).*set loss='squared_hinge'"),
        (LinearSVC(penalty="l1"), r"LinearSVC\(penalty='l1'\)"),
        (LinearSVC(multi_class="crammer_singer"), r"multi_class='crammer_singer'"),
        (SGDClassifier(), r"SGDClassifier\(loss='hinge'\).*set loss to one of 'log_loss'"),
        (SGDClassifier(loss="log_loss", penalty="elasticnet"), r"penalty='elasticnet'.*set penalty='l2'"),
        (SGDRegressor(loss="epsilon_insensitive"), r"SGDRegressor\(loss='epsilon_insensitive'\)"),
        (TweedieRegressor(power=1.5, link="identity"), r"link='identity'.*set link='log'"),
        (TweedieRegressor(power=-1), r"power=-1"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value),
)
def test_a_setting_without_a_smooth_objective_is_named_with_what_to_change(estimator, message):
    with pytest.raises(TypeError, match=message):
        adapter_for(estimator)


def test_an_elastic_net_is_refused_however_it_is_spelt():
    elastic = LogisticRegression(solver="saga", l1_ratio=0.5)
    if LogisticRegression().penalty == "deprecated":
        with pytest.raises(TypeError, match=r"l1_ratio=0\.5.*set l1_ratio=0"):
            adapter_for(elastic)
    with pytest.raises(TypeError, match="penalty='elasticnet'"):
        adapter_for(elastic.set_params(penalty="elasticnet"))


def test_the_nearest_registered_class_serves_a_subclass(monkeypatch):
    monkeypatch.setattr(registry, "_ADAPTERS", dict(registry._ADAPTERS))

    class MyRidge(Ridge):
        pass

    class MyOwnRidge(MyRidge):
        pass

    assert adapter_for(MyOwnRidge()) is adapter_for(Ridge())
    mine = RidgeAdapter()
    register(MyRidge, mine)
    assert adapter_for(MyOwnRidge()) is mine
    assert adapter_for(Ridge()) is not mine


class Accelerated(Ridge):
    """What a library puts in the place of scikit-learn's own class."""


def fresh_registry():
    """The module as if it were imported now."""
    spec = importlib.util.spec_from_file_location("skhyper.adapters.fresh", registry.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_patched_scikit_learn_may_be_there_at_import_or_come_and_go_later(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.linear_model, "Ridge", Accelerated)
        patched = fresh_registry()
        for estimator in (Accelerated(), Ridge()):
            assert isinstance(patched.adapter_for(estimator), RidgeAdapter)
    for module in (patched, fresh_registry()):
        for estimator in (Accelerated(), Ridge()):
            assert isinstance(module.adapter_for(estimator), RidgeAdapter)


def test_what_is_registered_for_a_patched_class_serves_the_one_in_whose_place_it_was(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.linear_model, "Ridge", Accelerated)
        module, mine = fresh_registry(), RidgeAdapter()
        module.register(sklearn.linear_model.Ridge, mine)
    assert module.adapter_for(Ridge()) is mine
    assert module.adapter_for(Accelerated()) is mine


def test_a_subclass_of_the_same_name_is_no_patch():
    module, mine = fresh_registry(), RidgeAdapter()
    own = type("Ridge", (Ridge,), {})
    module.register(own, mine)
    assert module.adapter_for(own()) is mine
    assert module.adapter_for(Ridge()) is not mine


@pytest.mark.parametrize(
    ("arguments", "message"), [((Ridge(), RidgeAdapter()), "estimator_class"), ((Ridge, RidgeAdapter), "adapter must")]
)
def test_only_a_class_and_an_adapter_can_be_registered(arguments, message):
    with pytest.raises(TypeError, match=message):
        register(*arguments)
