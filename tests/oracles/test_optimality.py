"""Conditions that only the minimum of a group lasso meets, written down in numpy."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from skhyper import HyperTrainingSearchCV


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # alpha is held at its bounds
def test_a_group_that_has_nearly_vanished_is_as_exact_as_the_others():
    """Classes share the groups; alpha s sqrt(p_g) w_g / ||w_g|| balances the slope of the log-loss in each."""
    rng = np.random.default_rng(0)
    x, groups = rng.standard_normal((120, 12)) + 0.5 * rng.standard_normal((120, 1)), np.arange(12) // 3
    w = np.zeros((12, 3))
    w[:6] = rng.standard_normal((6, 3)) / 2
    y = (x @ w + 0.3 + rng.gumbel(size=(120, 3))).argmax(1)
    c = rng.exponential(size=120)
    search = HyperTrainingSearchCV(
        LogisticRegression(),
        decay_groups=groups,
        exponent=1.0,
        alpha_bounds=(0.1 * c.sum(), 0.3 * c.sum()),
        guard_cv=None,
        refit=lambda results: len(results["snapshot"]) - 1,
    )
    model = search.fit(x, y, sample_weight=c).best_estimator_
    first, last = (row["C"] for row in search.cv_results_["params"])
    start = LogisticRegression(C=first, tol=1e-12, max_iter=1000, solver="newton-cholesky").fit(x, y, c)
    level = np.sqrt((start.coef_**2).mean()) / last
    slope = (c[:, None] * (softmax(x @ model.coef_.T + model.intercept_, axis=1) - np.eye(3)[y])).T @ x
    sizes = np.array([np.linalg.norm(model.coef_[:, groups == g]) for g in range(4)])
    assert 0 < sizes[sizes > 0].min() < 1e-3 * sizes.max()
    for g, size in enumerate(sizes):
        own, at = slope[:, groups == g], model.coef_[:, groups == g]
        if size:
            np.testing.assert_allclose(own, -level * 3 * at / size, rtol=0, atol=1e-8 * level)
        else:
            assert np.linalg.norm(own) <= 3 * level
