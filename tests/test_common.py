"""scikit-learn's own checks of its contract, with no expected failure, and those that it keeps for itself."""

import dataclasses

import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator

from skhyper import (
    HypernetClassifier,
    HypernetRegressor,
    HyperTrainedLogisticRegression,
    HyperTrainedRidge,
    HyperTrainedRidgeClassifier,
    HyperTrainingSearchCV,
)
from skhyper.algorithms import NETWORK_ALGORITHMS, ClosedForm, ImplicitDifferentiation
from skhyper.estimators.scaling import ColumnScaling

ESTIMATORS = [
    HyperTrainingSearchCV(Ridge()),
    HyperTrainingSearchCV(LogisticRegression()),
    HyperTrainingSearchCV(MLPRegressor()),
    HyperTrainingSearchCV(MLPClassifier()),
    HyperTrainedRidge(),
    HyperTrainedLogisticRegression(),
    HyperTrainedRidgeClassifier(),
]
# Networks whose weights come from noise take no sparse X, and most of a check of theirs is training.
NETWORKS = [HypernetRegressor(), HypernetClassifier()]
# Checks of scikit-learn's own test suite that `check_estimator` leaves out.
KEPT_BACK = [
    estimator_checks.check_param_validation,
    estimator_checks.check_dataframe_column_names_consistency,
    estimator_checks.check_inplace_ensure_writeable,
    estimator_checks.check_set_output_transform,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_sample_weight_equivalence_on_dense_data,
    estimator_checks.check_sample_weight_equivalence_on_sparse_data,
    estimator_checks.check_sample_weights_not_overwritten,
    estimator_checks.check_sample_weights_list,
    estimator_checks.check_sample_weights_shape,
]


def all_checks():
    for estimator in [*ESTIMATORS, *NETWORKS, ColumnScaling()]:
        for of, check in estimator_checks_generator(estimator, legacy=True):
            yield pytest.param(of, check, id=f"{type(estimator).__name__}-{check.func.__name__}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), list(all_checks()))
def test_it_keeps_the_contract(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("check", KEPT_BACK, ids=lambda check: check.__name__)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_it_passes_the_checks_that_scikit_learn_keeps_for_itself(estimator, check):
    check(type(estimator).__name__, estimator)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "check", [check for check in KEPT_BACK if "sparse" not in check.__name__], ids=lambda c: c.__name__
)
@pytest.mark.parametrize("estimator", NETWORKS, ids=str)
def test_networks_pass_the_checks_that_scikit_learn_keeps_for_itself(estimator, check):
    check(type(estimator).__name__, estimator)


@pytest.mark.parametrize(
    "algorithm",
    [ClosedForm(), ImplicitDifferentiation(), *(NETWORK_ALGORITHMS[name]() for name in NETWORK_ALGORITHMS)],
    ids=str,
)
def test_an_algorithm_object_is_a_plain_estimator(algorithm):
    name = type(algorithm).__name__
    estimator_checks.check_estimator_cloneable(name, algorithm)
    estimator_checks.check_no_attributes_set_in_init(name, algorithm)
    estimator_checks.check_get_params_invariance(name, algorithm)
    estimator_checks.check_set_params(name, algorithm)


def test_the_settings_of_an_algorithm_are_checked_at_fit():
    search = HyperTrainingSearchCV(Ridge(), algorithm=ImplicitDifferentiation(max_iter=0))
    with pytest.raises(ValueError, match="The 'max_iter' parameter of ImplicitDifferentiation"):
        search.fit([[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 2.0, 3.0])


def test_an_algorithm_object_has_the_settings_of_the_core():
    core = ImplicitDifferentiation()._resolve(None)
    assert dataclasses.asdict(core) == ImplicitDifferentiation().get_params()
    changed = ImplicitDifferentiation(dense_limit=1, dense_cost=2.0, max_iter=3, cg_max_iter=4)
    assert dataclasses.asdict(changed._resolve(None)) == changed.get_params()
