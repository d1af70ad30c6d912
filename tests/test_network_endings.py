"""How the search of a network ends: what is said of it, what is kept, and in which unit alpha is.

The right values come from scikit-learn: its own networks at fixed alphas, its losses of held-out rows, and its rule for
the penalty, which divides alpha by the weight of a batch.
"""

import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import has_fit_parameter

from skhyper.core import hypertraining
from skhyper.core.algorithms.gauss_newton import GaussNewton
from skhyper.core.decays import Decays
from skhyper.core.designs import DenseDesign
from skhyper.core.hypertraining import TrainingPlan, hyper_train, judged_losses, judged_rows
from skhyper.core.loop import Budget
from skhyper.core.losses import SquaredError
from skhyper.core.mlp import MLP
from skhyper.core.problem import NetworkProblem
from skhyper.core.recipe import Adam, Recipe
from skhyper.core.selection import choose
from skhyper.core.training import Trainer
from skhyper.estimators.search import HyperTrainingSearchCV
from skhyper.estimators.splits import resolve_cv

weighted = pytest.mark.skipif(
    not has_fit_parameter(MLPRegressor(), "sample_weight"), reason="this scikit-learn's networks take no weights"
)
X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)


def told(fit):
    """What `fit` returns, and the ConvergenceWarnings that it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = fit()
    return fitted, [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]


def sparse_truth():
    """Few rows, many columns, much noise: the right alpha is far above the first one."""
    rng = np.random.RandomState(0)
    x = rng.standard_normal((200, 50))
    return x, x[:, 0] + rng.standard_normal(200)


def network(**settings):
    return MLPClassifier(**{"hidden_layer_sizes": (6,), "max_iter": 40, "learning_rate_init": 0.01, **settings})


def test_a_search_whose_alpha_still_moves_at_its_full_length_says_so_once():
    """A grid over scikit-learn's own fits finds a far larger alpha; the network is too short for the way there."""
    x, y = sparse_truth()
    plain = MLPRegressor(hidden_layer_sizes=(10,), max_iter=60, learning_rate_init=0.003, random_state=0)
    search = HyperTrainingSearchCV(plain, cv=3, random_state=0)
    search, said = told(lambda: search.fit(x, y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        grid = GridSearchCV(plain, {"alpha": np.logspace(-2, 3, 6)}, cv=3).fit(x, y)
    assert grid.best_params_["alpha"] > 3 * search.best_params_["alpha"]
    assert len(said) == 1
    assert "Alpha was still moving" in said[0]
    assert "raise MLPRegressor's max_iter" in said[0]
    assert "lpha was still moving" in search.stop_reason_


def test_a_search_that_has_taken_max_iter_steps_before_alpha_was_found_says_so_once():
    search, said = told(lambda: HyperTrainingSearchCV(network(max_iter=200), max_iter=4, random_state=0).fit(X, Y))
    assert len(said) == 1
    assert "raise the search's max_iter" in said[0]
    assert search.stop_reason_.startswith("Alpha was still moving when the maximum number of hyperparameter steps")
    more, said = told(lambda: search.continue_fit(X, Y, max_iter=1))
    assert len(said) == 1
    assert "Alpha was still moving" in more.stop_reason_


def test_a_search_whose_alpha_is_found_says_nothing():
    """Labels without a law: whatever alpha does, held-out rows are predicted no better."""
    rng = np.random.RandomState(1)
    x, y = rng.standard_normal((200, 3)), rng.randint(2, size=200)
    search, said = told(lambda: HyperTrainingSearchCV(network(max_iter=200), random_state=0).fit(x, y))
    assert said == []
    assert "moving" not in search.stop_reason_


def test_the_guards_searches_leave_the_word_to_the_search_itself():
    search = HyperTrainingSearchCV(network(max_iter=200), max_iter=4, guard_cv=2, random_state=0)
    assert len(told(lambda: search.fit(X, Y))[1]) == 1


def exploding(monkeypatch, epoch):
    """Training on all rows that diverges in one of its epochs."""
    run, epochs = Trainer.run, []

    def exploded(self, state, decay, n_steps):
        state, loss = run(self, state, decay, n_steps)
        if self.problem.train.min() > 0:  # all rows train
            epochs.append(loss)
            if len(epochs) == epoch:
                state.w.fill_(np.nan)
                return state, loss * np.inf
        return state, loss

    monkeypatch.setattr(Trainer, "run", exploded)


def test_final_steps_that_diverge_are_undone_and_that_is_said_once(monkeypatch):
    folds = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]
    exploding(monkeypatch, epoch=3)
    search, said = told(lambda: HyperTrainingSearchCV(network(), cv=folds, random_state=0).fit(X, Y))
    said = [text for text in said if "moving" not in text]
    assert len(said) == 1
    assert "final training on all rows diverged" in said[0]
    assert "lower MLPClassifier's learning_rate_init" in said[0]
    assert "diverged and was undone" in search.stop_reason_
    assert search.best_score_ == pytest.approx(search.score(X[1::2], Y[1::2]), abs=1e-12)  # the tuned weights


def test_an_outlier_that_only_the_final_steps_see_makes_them_diverge():
    """No part is replaced here: scikit-learn's own fit of these rows does not survive the outlier either."""
    rng = np.random.RandomState(0)
    x = rng.standard_normal((81, 3))
    y = x[:, 0] + 0.1 * rng.standard_normal(81)
    x[80] = 100.0
    folds = [(np.arange(60), np.arange(60, 81))]
    settings = {"hidden_layer_sizes": (6,), "activation": "identity", "solver": "sgd", "learning_rate_init": 0.02}
    plain = MLPRegressor(max_iter=60, random_state=0, **settings)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="non-finite parameter weights"):
        told(lambda: plain.fit(x, y))
    search, said = told(lambda: HyperTrainingSearchCV(plain, cv=folds, random_state=0).fit(x, y))
    assert sum("final training on all rows diverged" in text for text in said) == 1
    assert "diverged and was undone" in search.stop_reason_
    assert search.score(x[:80], y[:80]) > 0.9


def test_the_best_weights_are_as_exact_as_they_were_trained(monkeypatch):
    """The loss of the held-out rows when weights were best is scikit-learn's loss of the weights that are kept."""
    train, held = np.arange(0, 150, 2), np.arange(1, 150, 2)
    exploding(monkeypatch, epoch=1)  # so that the estimator has the tuned weights
    search = HyperTrainingSearchCV(network(), cv=[(train, held)], scoring="neg_log_loss", random_state=0)
    search, _ = told(lambda: search.fit(X, Y))
    best = min(search.history_["value"])
    assert log_loss(Y[held], search.predict_proba(X[held])) == pytest.approx(best, rel=1e-13)
    assert -search.best_score_ == pytest.approx(best, rel=1e-13)


@pytest.mark.parametrize("part", ["accuracy", "curve"])
def test_an_interruption_while_the_first_stage_concludes_keeps_it(monkeypatch, part):
    def interrupted(*args):
        raise KeyboardInterrupt

    if part == "accuracy":
        monkeypatch.setattr(hypertraining, "accuracy", interrupted)
    else:
        monkeypatch.setattr("skhyper.core.trained.TrainedResponse.curve", interrupted)
    folds = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]
    search = HyperTrainingSearchCV(network(), cv=folds, scoring="neg_log_loss", random_state=0)
    try:
        told(lambda: search.fit(X, Y))
    except KeyboardInterrupt:
        pytest.fail("The stage is lost.")
    assert "interrupted" in search.stop_reason_
    assert np.isnan(search.hypergradient_error_)  # nothing is known of it
    assert -search.best_score_ == pytest.approx(min(search.history_["value"]), rel=1e-13)
    assert search.score(X, Y) > -0.3
    assert search.response_range_ == pytest.approx((search.best_params_["alpha"],) * 2)


@weighted
@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20, 1e6])
@pytest.mark.parametrize("settings", [{}, {"algorithm": "joint"}, {"batch_size": 40}], ids=str)
def test_a_factor_on_all_weights_goes_to_alpha(factor, settings):
    """As in scikit-learn's own fit: with weights * c and alpha * c its network is the same."""
    plain = network(random_state=0, batch_size=settings.get("batch_size", "auto"))
    weight = np.random.RandomState(0).uniform(0.5, 2.0, len(Y))
    algorithm = settings.get("algorithm", "auto")

    def tuned(weights):
        search = HyperTrainingSearchCV(plain, algorithm=algorithm, max_iter=12, random_state=0)
        return told(lambda: search.fit(X, Y, sample_weight=weights))[0]

    one, other = tuned(weight), tuned(weight * factor)
    assert other.best_params_["alpha"] == pytest.approx(factor * one.best_params_["alpha"], rel=1e-6)
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), rtol=1e-6)
    own = [
        told(lambda c=c: network(random_state=0, alpha=0.5 * c).fit(X, Y, sample_weight=weight * c))[0].predict_proba(X)
        for c in (1.0, factor)
    ]
    np.testing.assert_allclose(own[1], own[0], rtol=1e-6)


class Recording(GaussNewton):
    """Remembers the problems that it is bound to."""

    problems: ClassVar[list] = []

    def bind(self, problem):
        self.problems.append(problem)
        return super().bind(problem)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 8])
def test_rows_that_fit_free_decays_do_not_judge_them_however_small_a_fold_is(n_rows):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40 + n_rows, 3, generator=generator, dtype=torch.float64)
    held = torch.zeros(n_rows, len(x), dtype=torch.float64)
    held[:, 40:] = torch.eye(n_rows)
    train = (torch.arange(len(x)) < 40).double().expand(n_rows, -1)
    loss, recipe = SquaredError(), Recipe(Adam(0.01), max_epochs=20)
    decays = Decays(torch.tensor([0, 1, 2, -1]))
    problem = NetworkProblem(DenseDesign(x), x[:, :1], train, held, MLP((3, 1)), loss, loss, decays, recipe=recipe)
    Recording.problems.clear()
    result = hyper_train(problem, Recording(), TrainingPlan(taus=(1.0,)), Budget(), seed=0)
    fits, judges = (Recording.problems[-1].validation > 0).any(0), judged_rows(problem, 0)
    assert len(result.snapshots) == 2
    assert fits.any()
    assert not (fits & judges).any()
    assert judges.any() == (n_rows > 1)
    assert float(Recording.problems[-1].validation.sum()) == pytest.approx(n_rows)  # the mean over folds is one of rows
    if n_rows == 1:  # nobody judges, so the tuned global decay stays
        assert choose(judged_losses(problem, result.snapshots, 0).numpy()) == 0


def test_few_rows_are_held_out_several_times():
    for n, n_splits in ((50, 3), (660, 3), (1000, 2), (2000, 1)):
        rows = np.arange(n)
        assert resolve_cv(None, rows, classifier=False, network=True).get_n_splits(rows[:, None], rows) == n_splits
    search, _ = told(lambda: HyperTrainingSearchCV(network(), max_iter=5, random_state=0).fit(X, Y))
    assert search.n_splits_ == 3
    once, _ = told(lambda: HyperTrainingSearchCV(network(), cv=0.2, max_iter=5, random_state=0).fit(X, Y))
    assert once.n_splits_ == 1


def test_random_hold_outs_are_no_folds_of_a_guard():
    search = HyperTrainingSearchCV(network(), granularity="layer", max_iter=5, random_state=0)
    search, _ = told(lambda: search.fit(X, Y))
    assert search.n_splits_ == 3
    assert np.isnan(search.guard_score_)
    assert search.guard_reason_.startswith("cv=None holds out random rows of a network")


def test_a_network_that_is_too_short_for_its_alpha_says_so_or_finds_it():
    """Diabetes, 100 epochs: scikit-learn's grid has 3; without a word alpha may not be an order below."""
    x, y = load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    plain = MLPRegressor(hidden_layer_sizes=(30,), max_iter=100, random_state=0)
    for seed in range(2):
        rows, _ = train_test_split(np.arange(len(y)), random_state=seed)
        part = StandardScaler().fit_transform(x[rows])
        search, said = told(lambda: HyperTrainingSearchCV(plain, random_state=0).fit(part, y[rows]))  # noqa: B023
        assert said or search.best_params_["alpha"] > 0.3


def test_four_classes_have_no_more_loss_than_a_grids():
    x, y = make_classification(1100, 15, n_informative=6, n_classes=3, random_state=3)
    plain = MLPClassifier((20,), max_iter=100, learning_rate_init=0.005, random_state=0)
    train = slice(0, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = HyperTrainingSearchCV(plain, random_state=0).fit(x[train], y[train])
        grid = GridSearchCV(plain, {"alpha": np.logspace(-3, 1, 5)}, scoring="neg_log_loss", cv=3)
        grid.fit(x[train], y[train])
    ours, theirs = (log_loss(y[300:], fitted.predict_proba(x[300:])) for fitted in (search, grid))
    assert ours < 1.05 * theirs
