"""Composites: what the final estimator inside sees in each fold is what scikit-learn would hand it."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import make_regression
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skhyper.adapters import adapter_for
from skhyper.adapters.task import align, make_target, make_task
from skhyper.adapters.unwrap import final_estimator, record_fold, unwrap, weight_name
from skhyper.boundary import Split

X, Y = make_regression(12, 3, noise=1.0, random_state=0)
SPLIT = Split(np.arange(8), np.array([8, 9, 11]))


def recorded(composite, x=X, y=Y, split=SPLIT):
    leaf = unwrap(composite)
    return record_fold(leaf, adapter_for(leaf.estimator), composite, x, y, split, {})


@pytest.mark.parametrize(
    ("composite", "name"),
    [
        (Ridge(), "alpha"),
        (make_pipeline(StandardScaler(), Ridge()), "ridge__alpha"),
        (TransformedTargetRegressor(Ridge()), "regressor__alpha"),
        (
            Pipeline([("scale", "passthrough"), ("inner", TransformedTargetRegressor(make_pipeline(PCA(), Ridge())))]),
            "inner__regressor__ridge__alpha",
        ),
    ],
    ids=["bare", "pipeline", "target", "nested"],
)
def test_the_parameter_has_its_nested_name(composite, name):
    target = make_target(composite, Y)
    assert target.parameter == name
    assert name in composite.get_params()


@pytest.mark.parametrize("last", ["passthrough", None])
def test_a_pipeline_that_ends_in_no_estimator_is_refused(last):
    with pytest.raises(TypeError, match=f"last={last!r} is no estimator"):
        unwrap(Pipeline([("scale", StandardScaler()), ("last", last)]))


def test_preprocessing_is_fitted_to_the_training_rows_alone():
    fold = recorded(make_pipeline(StandardScaler(), Ridge()))
    scaler = StandardScaler().fit(X[SPLIT.train])
    for rows in SPLIT:
        np.testing.assert_allclose(fold.x[rows], scaler.transform(X[rows]))
    assert not fold.x[10].any()
    np.testing.assert_array_equal(fold.names, ["x0", "x1", "x2"])


class Lenient(TransformerMixin, BaseEstimator):
    """As a target encoder does, training rows come out otherwise than new ones."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return X

    def fit_transform(self, X, y=None):
        return 2 * self.fit(X).transform(X)


def test_training_rows_are_as_fit_transform_leaves_them():
    fold = recorded(make_pipeline(Lenient(), Ridge()))
    np.testing.assert_array_equal(fold.x[SPLIT.train], 2 * X[SPLIT.train])
    np.testing.assert_array_equal(fold.x[SPLIT.validation], X[SPLIT.validation])


def test_targets_are_transformed_by_what_the_training_rows_taught():
    fold = recorded(TransformedTargetRegressor(Ridge(), transformer=StandardScaler()))
    scaler = StandardScaler().fit(Y[:8, None])
    for rows in SPLIT:
        np.testing.assert_allclose(fold.y[rows], scaler.transform(Y[rows, None])[:, 0])
    assert fold.y.ndim == 1


def test_sparse_features_stay_sparse():
    fold = recorded(make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge()), np.arange(12)[:, None] % 3)
    assert sparse.issparse(fold.x)
    np.testing.assert_array_equal(fold.x.toarray().sum(axis=1), [1] * 10 + [0, 1])


def test_the_users_composite_and_final_estimator_are_left_alone():
    composite = make_pipeline(StandardScaler(), Ridge(alpha=7.0))
    fold = recorded(composite)
    assert not hasattr(composite[0], "mean_")
    assert type(final_estimator(fold.composite)) is Ridge
    assert final_estimator(fold.composite).alpha == 7.0


def test_columns_that_differ_between_folds_are_aligned_by_name():
    names, columns = align([np.array(["a", "b"], dtype=object), np.array(["b", "c", "a"], dtype=object)])
    assert names.tolist() == ["a", "b", "c"]
    assert [at.tolist() for at in columns] == [[0, 1], [1, 2, 0]]
    same = np.array(["a"], dtype=object)
    assert align([same, same])[1] is None


def test_a_category_that_a_fold_lacks_is_a_column_of_zeros_there():
    frame = pd.DataFrame({"kind": list("aabbaabbaabc"), "size": np.arange(12.0)})
    one_hot = ColumnTransformer(
        [
            ("kind", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["kind"]),
            ("size", "passthrough", ["size"]),
        ]
    )
    composite = make_pipeline(one_hot, Ridge())
    splits = [Split(np.arange(11), np.array([11])), Split(np.arange(2, 12), np.array([0, 1]))]
    target = make_target(composite, Y)
    task = make_task(target, frame, Y, splits, granularity="feature")
    assert task.names.tolist() == ["kind__kind_a", "kind__kind_b", "size__size", "kind__kind_c"]
    x = task.encoding.problem.design.x
    assert not x[0, :, 3].any()
    assert x[1, 11].tolist() == [0.0, 0.0, 11.0, 1.0]
    w = task.encoding.problem.design.x.new_tensor([[1.0, 2.0, 3.0, 9.0, 0.5], [1.0, 2.0, 3.0, 4.0, 0.5]])
    first = final_estimator(task.fitted(0, w, 2.0, 1))
    np.testing.assert_array_equal(first.coef_, [1.0, 2.0, 3.0])
    assert first.alpha == 2.0
    np.testing.assert_array_equal(final_estimator(task.fitted(1, w, 2.0, 1)).coef_, [1.0, 2.0, 4.0, 3.0])


def test_columns_without_names_are_counted():
    assert recorded(make_pipeline(Lenient(), Ridge())).names.tolist() == ["x0", "x1", "x2"]


def test_sample_weight_goes_by_the_name_that_scikit_learn_gives_it():
    nested = TransformedTargetRegressor(make_pipeline(StandardScaler(), Ridge()))
    assert weight_name(unwrap(Ridge())) == "sample_weight"
    assert weight_name(unwrap(nested)) == "ridge__sample_weight"
    with sklearn.config_context(enable_metadata_routing=True):
        assert weight_name(unwrap(make_pipeline(Ridge()))) is None
        assert weight_name(unwrap(make_pipeline(Ridge().set_fit_request(sample_weight=True)))) == "sample_weight"
        assert weight_name(unwrap(Ridge().set_fit_request(sample_weight="weights"))) == "weights"
