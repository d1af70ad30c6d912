"""A search over the alpha of an estimator that trains itself: a scan, whose points each fold trains as one batch."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import _check_method_params

from ..adapters.base import Array
from ..adapters.self_trained import SelfTrainedAdapter
from ..adapters.task import Target
from ..adapters.unwrap import final_estimator, fit_around, put_final, transform_features, transform_target
from ..boundary import Split, to_tensor
from ..core.loop import Budget, Journal, OutOfBudget
from ..core.noise.alphas import AlphaScan
from ..core.result import StopReason
from .plan import check_bounds, check_exponents, check_shrinkage

STAGE = "global alpha"
# How far from the estimator's own log alpha the scan may go, if no bounds are given.
FURTHEST = math.log(1e8)


class Scanned(NamedTuple):
    """What a scan leaves."""

    alpha: float
    fitted: list[Any]  # of each fold, at that alpha
    loss: float  # mean over folds
    seconds: float  # of training, per fold and alpha
    stop_reason: StopReason
    journal: Journal
    seed: Any  # of all fits


def refuse_settings(search: Any) -> None:
    """Only one alpha can be tuned, and by no algorithm of hypergradients.

    Raises
    ------
    ValueError
        If the search asks for more.
    """
    name = type(search.estimator).__name__
    if search.algorithm != "auto":
        raise ValueError(f"algorithm must be 'auto' for {name}, whose alpha is scanned, got {search.algorithm!r}.")
    if search.granularity not in ("auto", "global") or search.decay_groups is not None:
        raise ValueError(
            f"granularity must be 'auto' or 'global', and decay_groups None, for {name}, which has one alpha; got "
            f"granularity={search.granularity!r}, decay_groups={search.decay_groups!r}."
        )
    if check_exponents(search.exponent):
        raise ValueError(f"exponent must be 'auto' or 2 for {name}, which has one alpha, got {search.exponent!r}.")
    if check_shrinkage(search.shrinkage):
        raise ValueError(f"shrinkage must be 'auto' or None for {name}, which has one alpha, got {search.shrinkage!r}.")


def scan(search: Any, job: Any, budget: Budget, watch: Any) -> Scanned:
    """Train batches of alphas until the best lies between others; a spent budget or an interruption keeps the best."""
    adapter, leaf = job.target.adapter, job.target.leaf
    own = leaf.estimator.get_params()[adapter.parameter]
    start = own if own > 0 else type(leaf.estimator)().get_params()[adapter.parameter]
    given = check_bounds(search.alpha_bounds)
    bounds = given or (math.log(start) - FURTHEST, math.log(start) + FURTHEST)
    low, high = search.alpha_bounds if given else (0.0, np.inf)
    points, journal = AlphaScan(math.log(start), bounds), Journal(budget, watch)
    seed = final_seed(leaf.estimator, search.random_state)
    best: tuple[float, list[Any]] = (math.inf, [])
    n_trained, seconds, reason = 0, 0.0, StopReason.MAX_ITER
    try:
        while len(points.losses) < budget.max_iter:
            log_alphas = points.propose(budget.max_iter - len(points.losses))
            if not log_alphas:
                reason = points.stop_reason
                break
            began = time.perf_counter()
            alphas = [float(np.clip(math.exp(x), low, high)) for x in log_alphas]
            folds = Parallel(n_jobs=search.n_jobs)(
                delayed(fit_fold)(job.target, job, split, alphas, seed) for split in job.splits
            )
            seconds, n_trained = seconds + time.perf_counter() - began, n_trained + len(alphas)
            for x, fitted in zip(log_alphas, zip(*folds, strict=True), strict=True):
                loss = mean_loss(search, job, fitted)
                points.observe(x, loss)
                if loss < best[0] or not best[1]:
                    best = loss, list(fitted)
            values = to_tensor(np.array([points.losses[x] for x in log_alphas]))
            journal.scanned(STAGE, to_tensor(np.array(log_alphas)), values, values, 2.0)
    except OutOfBudget as stop:
        reason = stop.reason
    except KeyboardInterrupt:
        if not best[1]:
            raise
        reason = StopReason.INTERRUPTED
    alpha = final_estimator(best[1][0]).get_params()[adapter.parameter]
    per_fit = seconds / (n_trained * len(job.splits))
    return Scanned(alpha, best[1], best[0], per_fit, reason, journal, seed)


def missing_classes(job: Any) -> dict[int, list[Any]]:
    """The classes that the training rows of a fold lack."""
    labels = np.asarray(job.y)
    classes = job.target.adapter.classes(job.target.leaf.estimator, labels)
    if classes is None:
        return {}
    there = np.ones(len(labels), dtype=bool) if job.sample_weight is None else np.asarray(job.sample_weight) > 0
    trained = [split.train[there[split.train]] for split in job.splits]
    found = [np.setdiff1d(classes, labels[rows]).tolist() for rows in trained]
    return {k: lacking for k, lacking in enumerate(found) if lacking}


def final_seed(estimator: Any, random_state: Any) -> Any:
    """The estimator's own random_state, or one drawn from that of the search."""
    if estimator.random_state is not None:
        return estimator.random_state
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def fit_fold(target: Target, job: Any, split: Split, alphas: Sequence[float], seed: Any) -> list[Any]:
    """The user's estimator fitted to a fold's training rows, once for each alpha; preprocessing is fitted once."""
    adapter, leaf = target.adapter, target.leaf
    assert isinstance(adapter, SelfTrainedAdapter)
    x, y = (_safe_indexing(values, split.train) for values in (job.x, job.y))
    weight = None if job.sample_weight is None else job.sample_weight[split.train]
    composite = None
    if leaf.path:
        params = _check_method_params(job.x, job.routed.estimator.fit, indices=split.train)
        composite, x, y, weight = fit_around(leaf, target.estimator, x, y, params, weight)
    final = clone(leaf.estimator).set_params(random_state=seed)
    fitted = adapter.fit_alphas(final, x, y, weight, alphas)
    return [one if composite is None else put_final(composite, one) for one in fitted]


def mean_loss(search: Any, job: Any, fitted: Sequence[Any]) -> float:
    """Mean over folds; inf where it is undefined."""
    losses = [fold_loss(search, job, split, one) for split, one in zip(job.splits, fitted, strict=True)]
    value = float(np.mean(losses))
    return value if math.isfinite(value) else math.inf


def fold_loss(search: Any, job: Any, split: Split, fitted: Any) -> float:
    """Minus the score that was asked for, else the estimator's own loss, on held-out rows."""
    if search.scoring is not None:
        score = job.scoring.take(split.validation)(fitted)
        if isinstance(score, dict):
            score = score.get(search.refit) if isinstance(search.refit, str) else None
        if score is not None:
            return -float(score)
    x, y = (_safe_indexing(values, split.validation) for values in (job.x, job.y))
    weight = None if job.sample_weight is None else job.sample_weight[split.validation]
    held = transform_features(fitted, x), transform_target(fitted, y)
    loss: float = job.target.adapter.held_out_loss(final_estimator(fitted), *held, weight)
    return loss


def score_folds(job: Any, scanned: Scanned, train: bool) -> list[dict[str, Any]]:
    """One entry for each fold, in the form from which GridSearchCV makes its `cv_results_`."""
    out = []
    for split, one in zip(job.splits, scanned.fitted, strict=True):
        start = time.perf_counter()
        entry: dict[str, Any] = {"test_scores": job.scoring.take(split.validation)(one)}
        entry |= {"score_time": time.perf_counter() - start, "fit_time": scanned.seconds}
        entry["n_test_samples"] = len(split.validation)
        if train:
            entry["train_scores"] = job.scoring.take(split.train)(one)
        out.append(entry)
    return out


def refit_self_trained(job: Any, scanned: Scanned) -> Any:
    """The user's estimator fitted to all rows at the tuned alpha, by its own fit."""
    leaf, params = job.target.leaf, job.routed.estimator.fit
    own = {job.target.adapter.parameter: scanned.alpha, "random_state": scanned.seed}
    composite, x, y, weight = None, job.x, job.y, job.sample_weight
    if leaf.path:
        composite, x, y, weight = fit_around(leaf, job.target.estimator, x, y, params, weight)
    final = clone(leaf.estimator).set_params(**own)
    final.fit(x, y, **({} if weight is None else {"sample_weight": weight}))
    final.random_state = leaf.estimator.random_state
    return final if composite is None else put_final(composite, final)


def stage_columns(scanned: Scanned) -> dict[str, list[Any]]:
    """What `cv_results_` says of the one row beside parameters, times and scores."""
    return {
        "snapshot": [STAGE],
        "exponent": [2.0],
        "shrinkage": [0.0],
        "n_hyperparameters": [1],
        "mean_outer_loss": [scanned.loss],
    }


def scanned_curve(scanned: Scanned) -> tuple[Array, Array]:
    """Log alpha, ascending, and the mean held-out loss there."""
    points = sorted((record.log_alpha, record.value) for record in scanned.journal.records)
    log_alpha, loss = np.array(points).T
    return log_alpha, loss
