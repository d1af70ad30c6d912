"""The parts of the choice by a score: the rule for rows, and scores of many models in one call."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer

from benchmarks.scores import LOSS, compare
from skhyper import HyperTrainingSearchCV
from skhyper.core.selection import choose_by_score
from skhyper.estimators.batched_metrics import batched
from skhyper.estimators.scoring import Scoring

X, Y = make_classification(200, 20, n_informative=4, flip_y=0.2, weights=[0.8], random_state=1)


def test_ties_of_the_score_are_broken_by_the_loss():
    scores, losses = np.array([[0.7, 0.8], [0.8, 0.9], [0.9, 0.8]]), np.array([[0.5, 0.5], [0.4, 0.4], [0.3, 0.3]])
    assert choose_by_score(scores, losses) == 2
    assert choose_by_score(scores[[0, 0]], losses[:2]) == 1
    assert choose_by_score(scores[[0, 0]], losses[[1, 0]]) == 0
    assert choose_by_score(np.array([[0.7, 0.8], [0.9, 0.7]]), losses[:2]) == 0  # the gain is less than its error
    assert choose_by_score(np.full((2, 2), np.nan), losses[:2]) == 1


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")  # of a model that sees one class
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["accuracy", "f1", "precision", "recall", "jaccard", "roc_auc", None])
def test_models_scored_in_one_call_have_the_scores_of_one_at_a_time(name, weighted):
    models = [LogisticRegression(C=c).fit(X[:120], Y[:120]) for c in np.logspace(-6, 3, 8)]
    scorer = get_scorer(name) if name else HyperTrainingSearchCV(LogisticRegression())._get_scorers()[0]
    params = {"sample_weight": np.linspace(0.2, 2, 80)} if weighted else {}
    scoring = Scoring(scorer, X[120:], Y[120:], params, "raise")
    assert (batched(scorer, models[0], params) is None) == (name == "roc_auc" and weighted)
    np.testing.assert_allclose(scoring.of_all(models), [scoring(one) for one in models], rtol=1e-12)


@pytest.mark.parametrize(("scoring", "number"), [("f1", 17), ("neg_mean_absolute_error", 14)])
def test_a_set_of_the_benchmark_is_judged_as_well_as_by_its_grid(scoring, number):
    row = compare(scoring, number)
    assert row["difference"] >= -LOSS
    assert row["difference"] == row["search"] - row["grid"]
