"""Which row to keep: the paired rule, and weights for an average of rows."""

import numpy as np
from scipy.optimize import nnls

# Row 0 is left for a gain of more than this many standard errors of the paired fold-wise differences: of squared
# losses, and of likelihoods, where a few confident errors decide. Chosen on the development tasks
# (benchmarks/development.py); docs/experiments has the tables.
STANDARD_ERRORS = 0.5
STANDARD_ERRORS_OF_LIKELIHOODS = 1.5

# An average is drawn back to row 0 by this many standard errors of its gain over it, and its weights to equal ones by
# PULL; chosen on the same tasks.
DOUBT = 0.25
PULL = 0.1
TIE = 1e-9  # difference of scores that are equal but for rounding
HEAVY = 1e4  # weight of the equation sum v = 1 beside the data's


def choose(losses: np.ndarray, standard_errors: float = STANDARD_ERRORS) -> int:
    """Index of the row with the lowest mean loss, or 0 where its gain over row 0 is not clear.

    Parameters
    ----------
    losses : ndarray of shape (rows, folds)
        Validation losses, lower is better; row 0 is the tuned global alpha. Rows that are not finite in every fold
        are never chosen.
    standard_errors : float
        The gain that leaving row 0 needs, in standard errors of its mean over folds. With one fold there is no
        standard error, and any gain is enough.

    Notes
    -----
    With d_k the loss of row 0 minus that of the best row in fold k, the best row is kept when
    mean(d) > c std(d) / sqrt(K).
    """
    finite = np.isfinite(losses).all(axis=1)
    means = np.where(finite, np.where(finite[:, None], losses, 0.0).mean(axis=1), np.inf)
    best = int(means.argmin())
    if not finite[0]:
        return best
    gain = losses[0] - losses[best]
    return best if gain.mean() > standard_errors * _standard_error(gain) else 0


def choose_by_score(scores: np.ndarray, losses: np.ndarray, standard_errors: float = STANDARD_ERRORS) -> int:
    """Index of the row with the best mean score, or 0 where its gain over row 0 is not clear; ties by the loss.

    Parameters
    ----------
    scores : ndarray of shape (rows, folds)
        Higher is better. Rows that are not finite in every fold are never chosen; if none is, the losses decide.
    losses : ndarray of shape (rows, folds)
        Outer losses, which decide among rows with the best mean score, row 0 included.
    standard_errors : float
        As `choose`'s.
    """
    finite = np.isfinite(scores).all(axis=1)
    if not finite.any():
        return choose(losses, standard_errors)
    means = np.where(finite, np.where(finite[:, None], scores, 0.0).mean(axis=1), -np.inf)
    tied = means >= means.max() - TIE * max(abs(means.max()), 1.0)
    if tied[0]:
        return choose(np.where(tied[:, None], losses, np.inf), standard_errors)
    best = int(np.where(tied, np.nan_to_num(losses.mean(axis=1), nan=np.inf), np.inf).argmin())
    return (0, best)[choose(-scores[[0, best]], standard_errors)]


def confidence(gain: np.ndarray, standard_errors: float = DOUBT) -> float:
    """How far to leave row 0, between 0 and 1: the paired rule as a shrinkage.

    Parameters
    ----------
    gain : ndarray of shape (folds,)
        Loss of row 0 minus that of the candidate, fold by fold.
    standard_errors : float
        c.

    Notes
    -----
    max(0, 1 - c std(d) / (sqrt(K) mean(d))): 0 where the gain is below c standard errors, 1 where it is certain.
    """
    mean = gain.mean()
    return float(max(0.0, 1 - standard_errors * _standard_error(gain) / mean)) if mean > 0 else 0.0


def _standard_error(gain: np.ndarray) -> float:
    """Of the mean over folds, 0 with one fold; gains are scaled first, whose squares may leave the range of floats."""
    size = np.abs(gain).max()
    if len(gain) < 2 or size == 0:
        return 0.0
    return float(size * ((gain / size).std(ddof=1) / np.sqrt(len(gain))))


def stacking_weights(predictions: np.ndarray, y: np.ndarray, c: np.ndarray, pull: float = PULL) -> np.ndarray:
    """Weights on the simplex that minimise the squared error of the averaged held-out predictions.

    Parameters
    ----------
    predictions : ndarray of shape (rows, n, T)
        Held-out predictions of each row of the selection.
    y : ndarray of shape (n, T)
        Targets.
    c : ndarray of shape (n,)
        Weights of the held-out rows.
    pull : float
        Strength of the pull to equal weights, as a share of what the rows' disagreement carries.

    Notes
    -----
    minimise sum_i c_i (y_i - sum_m v_m f_mi)^2 + pull * t * sum_m (v_m - 1/M)^2, v >= 0, sum v = 1, with t the mean
    over rows of sum_i c_i (f_mi - mean_m f_mi)^2 (Breiman 1996, Stacked regressions).
    """
    root = np.sqrt(c)[:, None]
    disagreement = ((predictions - predictions.mean(axis=0)) * root).reshape(len(predictions), -1)
    strength = np.sqrt(pull * (disagreement**2).sum(axis=1).mean())
    m = len(predictions)
    # With v on the simplex, the residual is sum_m v_m (f_m - y): the constraint is one more, heavy equation.
    residuals = ((predictions - y) * root).reshape(m, -1).T
    heavy = HEAVY * max(np.linalg.norm(residuals), strength)
    if heavy == 0:
        return np.full(m, 1 / m)
    matrix = np.vstack([residuals, strength * np.eye(m), np.full((1, m), heavy)])
    target = np.concatenate([np.zeros(len(residuals)), np.full(m, strength / m), [heavy]])
    weights, _ = nnls(matrix, target)
    return weights / weights.sum()
