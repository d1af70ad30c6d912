"""What leaves a tuned network as it is: rows of weight zero, copies of rows, the order of rows and of columns, units.

Sums that are taken in another order differ in rounding, which training magnifies: so runs are short. What no network
that starts from random weights of its own size can promise: predictions that follow a unit of X or y without a scaler
before it, the same random initial weights for columns in another order, the same batches for copies of rows.
"""

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import has_fit_parameter

from skhyper.algorithms import NETWORK_ALGORITHMS
from skhyper.core.algorithms.gauss_newton import GaussNewton
from skhyper.core.algorithms.t1t2 import T1T2
from skhyper.core.decays import Decays, Hyper
from skhyper.core.designs import DenseDesign
from skhyper.core.hypertraining import TrainingPlan, hyper_train
from skhyper.core.loop import Budget
from skhyper.core.losses import SquaredError
from skhyper.core.mlp import MLP, TANH
from skhyper.core.problem import NetworkProblem
from skhyper.core.recipe import Recipe
from skhyper.estimators.search import HyperTrainingSearchCV

# Short searches, whose alpha is still moving when they end; tests/test_network_endings.py has what is said of that.
pytestmark = pytest.mark.filterwarnings("ignore:Alpha was still moving")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 4))
Y = np.sin(X[:, 0]) + 0.1 * RNG.standard_normal(60)
XC, YC = (part[::2] for part in load_iris(return_X_y=True))
weighted = pytest.mark.skipif(
    not has_fit_parameter(MLPRegressor(), "sample_weight"), reason="this scikit-learn's networks take no weights"
)


def network(y, **settings):
    kind = MLPRegressor if y.dtype == float else MLPClassifier
    return kind(**{"hidden_layer_sizes": (6,), "max_iter": 40, "learning_rate_init": 0.01, **settings})


def search(estimator, **settings):
    return HyperTrainingSearchCV(estimator, **{"random_state": 0, "max_iter": 8, **settings})


def outputs(fitted, x):
    return fitted.predict_proba(x) if hasattr(fitted, "predict_proba") else fitted.predict(x)


@weighted
@pytest.mark.parametrize(("x", "y"), [(X, Y), (XC, YC)], ids=["regressor", "classifier"])
@pytest.mark.parametrize("settings", [{}, {"granularity": "layer", "shrinkage": 1.0}], ids=["global", "layer"])
@pytest.mark.parametrize("batch_size", ["auto", 16])
def test_a_row_of_weight_zero_does_not_exist(x, y, settings, batch_size):
    fold = np.arange(len(y)) % 4
    kept = np.arange(len(y)) % 5 != 0
    wrong = y.copy()
    wrong[~kept] = 1e6 if y.dtype == float else 0
    estimator = network(y, batch_size=batch_size)
    one = search(estimator, cv=[(fold != 0, fold == 0)], **settings)
    one.fit(x, wrong, sample_weight=kept.astype(float))
    other = search(estimator, cv=[(fold[kept] != 0, fold[kept] == 0)], **settings).fit(x[kept], y[kept])
    np.testing.assert_array_equal(outputs(one, x), outputs(other, x))
    assert one.alphas_ == other.alphas_


@weighted
@pytest.mark.parametrize(("x", "y"), [(X, Y), (XC, YC)], ids=["regressor", "classifier"])
@pytest.mark.parametrize("algorithm", NETWORK_ALGORITHMS)
def test_in_full_batches_integer_weights_are_repeated_rows(x, y, algorithm):
    """With the global decay: rows that judge finer ones are drawn, and copies of a row not together."""
    counts = np.random.default_rng(0).integers(0, 4, len(y))
    copies, fold = np.repeat(np.arange(len(y)), counts), np.arange(len(y)) % 3
    estimator = network(y, batch_size=sum(counts))
    one = search(estimator, algorithm=algorithm, cv=[(fold != k, fold == k) for k in range(3)])
    one.fit(x, y, sample_weight=counts)
    other = search(estimator, algorithm=algorithm, cv=[(fold[copies] != k, fold[copies] == k) for k in range(3)])
    other.fit(x[copies], y[copies])
    assert one.best_params_["alpha"] == pytest.approx(other.best_params_["alpha"], rel=1e-4)
    np.testing.assert_allclose(outputs(one, x), outputs(other, x), rtol=1e-3, atol=1e-4)


@weighted
def test_weights_reach_a_network_through_pipelines_and_target_transformers():
    kept = np.arange(60) % 5 != 0
    changed = Y + 5.0 * ~kept
    pipeline = make_pipeline(StandardScaler(), network(Y))
    fold = np.arange(60) % 4 == 0
    for estimator, name in (
        (pipeline, "mlpregressor__sample_weight"),
        (TransformedTargetRegressor(network(Y), func=lambda y: 2 * y, inverse_func=lambda y: y / 2), "sample_weight"),
    ):
        fits = [
            search(estimator, cv=[(~fold, fold)]).fit(X, y, **{name: kept.astype(float)}).predict(X)
            for y in (Y, changed)
        ]
        np.testing.assert_array_equal(*fits)
        assert not np.array_equal(fits[0], search(estimator, cv=[(~fold, fold)]).fit(X, changed).predict(X))


@pytest.mark.parametrize(("x_unit", "y_unit"), [(1.0, 1024.0), (64.0, 1.0), (2.0**-20, 2.0**-10)])
@pytest.mark.parametrize("algorithm", ["implicit", "joint"])
def test_behind_scalers_units_change_predictions_by_themselves(x_unit, y_unit, algorithm):
    estimator = TransformedTargetRegressor(make_pipeline(StandardScaler(), network(Y)), transformer=StandardScaler())
    one, other = (
        search(estimator, granularity="feature", algorithm=algorithm).fit(a * X, b * Y)
        for a, b in ((1.0, 1.0), (x_unit, y_unit))
    )
    np.testing.assert_allclose(other.predict(x_unit * X), y_unit * one.predict(X), rtol=1e-9)
    assert one.alphas_ == pytest.approx(other.alphas_, rel=1e-9)


def problem(x, y, c, held, recipe=None):
    """A network with a decay a weight, in full batches."""
    mlp, loss = MLP((x.shape[1], 5, 1), TANH), SquaredError()
    x, y, c, held = (torch.as_tensor(part, dtype=torch.float64) for part in (x, y[:, None], c, held))
    decayed = mlp.layer() >= 0
    decays = Decays(torch.where(decayed, decayed.cumsum(0) - 1, -1))
    train, validation = c * (1 - held), c * held
    return NetworkProblem(
        DenseDesign(x),
        y,
        train[None],
        (validation / validation.sum())[None],
        mlp,
        loss,
        loss,
        decays,
        recipe=recipe or Recipe(batch_size=1000, max_epochs=200),
    )


HELD = (np.arange(60) % 4 == 0).astype(float)
ALGORITHMS = {"implicit": GaussNewton(interval=5), "t1t2": T1T2(interval=5)}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_order_of_rows_and_of_columns_changes_nothing_from_the_same_weights(name):
    """Of rows, while none is drawn: the global decay in full batches."""
    part = problem(X, Y, np.ones(60), HELD)
    w = part.network.start(1, torch.Generator().manual_seed(0))
    rows, columns = RNG.permutation(60), RNG.permutation(4)
    same = part.network.split(w)[0].coefficients[0]
    moved = w.clone()
    part.network.split(moved)[0].coefficients[0] = same[columns]
    other = problem(X[rows][:, columns], Y[rows], np.ones(60), HELD[rows])
    ends = [
        hyper_train(p, ALGORITHMS[name], TrainingPlan(), Budget(max_iter=12), 0, start).snapshots[0]
        for p, start in ((part, w), (other, moved))
    ]
    before, after = (part.network.split(end.w)[0].coefficients[0] for end in ends)
    torch.testing.assert_close(after, before[columns], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ends[0].hyper.log_alpha, ends[1].hyper.log_alpha, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("batch_size", [1000, 10])
def test_a_factor_on_all_weights_is_one_on_alpha(name, batch_size):
    """A batch's loss and penalty are divided by its weight."""
    recipe = Recipe(batch_size=batch_size, max_epochs=200)
    one, other = (problem(X, Y, np.full(60, c), HELD, recipe) for c in (1.0, 8.0))
    found = []
    for part, log_alpha in ((one, -1.0), (other, -1.0 + np.log(8.0))):
        response = ALGORITHMS[name].bind(part)
        hyper = Hyper(torch.tensor(log_alpha), torch.tensor(2.0), torch.linspace(-1, 1, part.decays.n_groups).double())
        progress = response.begin(0)
        for _ in range(4):
            evaluation = response.evaluate(hyper, torch.ones(1).double(), progress)
            progress = evaluation.state
        found.append(evaluation)
    torch.testing.assert_close(found[0].w, found[1].w, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0].gradient.offsets, found[1].gradient.offsets, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_runs_are_identical_whatever_runs_the_guards_folds(backend):
    settings = {"cv": 3, "granularity": "weight", "shrinkage": 1.0}
    one = search(network(YC), **settings).fit(XC, YC)
    with parallel_config(backend=backend):
        two = search(network(YC), n_jobs=2, **settings).fit(XC, YC)
    assert len(one.guard_scores_) == 3
    assert np.isfinite(one.guard_score_)
    np.testing.assert_array_equal(one.guard_scores_, two.guard_scores_)
    np.testing.assert_array_equal(one.predict_proba(XC), two.predict_proba(XC))
    assert one.alphas_ == two.alphas_
