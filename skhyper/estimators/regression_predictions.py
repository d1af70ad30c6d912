"""What a fitted HypernetRegressor says of new rows: means, densities, quantiles, intervals, scores, draws."""

from abc import ABC
from collections.abc import Callable
from copy import copy
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_random_state, check_scalar
from sklearn.utils.validation import _num_samples, check_is_fitted, column_or_1d

from ..boundary import refuse_unreadable, to_numpy, to_tensor, torch_session
from ..core.noise.predictive import Distribution, Mixture, variance_parts
from ..core.noise.state import State
from ..core.noise.truncated import Truncated
from .hypernet import BaseHypernet, Uncertainty
from .hypernet_state import load_state

# The smallest standard deviation, in the unit of y.
TINY = 1e-300


class PredictsDistributions(BaseHypernet, ABC):
    """Predictions of a regression, a mixture over members and draws for each row."""

    min_std: float
    _bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    _n_targets: int
    _vector: bool

    def predict(self, X: ArrayLike, return_std: bool = False, n_samples: int | None = None) -> Any:
        """Predict the mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        return_std : bool, default=False
            Whether to give standard deviations too. They include the observation noise.
        n_samples : int, default=None
            Number of draws of each member, at most the number made at fit; None: all.

        Returns
        -------
        mean : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Mean of the predictive distribution.
        std : ndarray of the same shape
            Its standard deviation; only if `return_std`.
        """
        check_is_fitted(self)
        if not return_std and self._bounds is None:
            return self._mean(X, n_samples)
        if not return_std:
            return self._collect(X, lambda law, part: law.expectation(), n_samples)

        def both(law: Distribution, part: slice) -> torch.Tensor:
            return torch.stack([law.expectation(), law.variance().sqrt()], -1)

        values = self._collect(X, both, n_samples)
        return values[..., 0], values[..., 1]

    def predict_quantiles(self, X: ArrayLike, quantiles: ArrayLike = (0.05, 0.5, 0.95)) -> NDArray[np.float64]:
        """Predict quantiles.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        quantiles : array-like of shape (n_quantiles,), default=(0.05, 0.5, 0.95)
            Levels in (0, 1).

        Returns
        -------
        y : ndarray of shape (n_samples, n_quantiles) or (n_samples, n_targets, n_quantiles)
            Quantiles of the predictive distribution, of each target by itself.
        """
        levels = np.atleast_1d(np.asarray(quantiles, dtype=np.float64))
        if levels.ndim != 1 or not len(levels) or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"quantiles must lie in the open interval (0, 1), got {quantiles!r}.")
        return self._collect(X, lambda law, part: torch.stack([law.quantile(q) for q in levels], -1))

    def predict_interval(self, X: ArrayLike, coverage: float = 0.9) -> NDArray[np.float64]:
        """Predict central intervals.

        With `conformal_fraction` their level is chosen by split conformal prediction: of the n rows that were set
        aside, the ceil((n + 1) coverage)-th smallest value of abs(2 F(y) - 1). Then at least the share `coverage` of
        new observations lies inside on average, whatever their distribution, if rows are exchangeable; of each target
        by itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        coverage : float, default=0.9
            Share of observations in (0, 1) that should lie inside.

        Returns
        -------
        interval : ndarray of shape (n_samples, 2) or (n_samples, n_targets, 2)
            Lower and upper ends.
        """
        check_is_fitted(self)
        if not isinstance(coverage, Real) or not 0 < coverage < 1:
            raise ValueError(f"coverage must lie in the open interval (0, 1), got {coverage!r}.")
        level = self._interval_level(coverage)
        ends = 0.5 - level / 2, 0.5 + level / 2
        return self._collect(X, lambda law, part: torch.stack([law.quantile(q) for q in ends], -1))

    def cdf(self, X: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Evaluate the predictive distribution function.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Where to evaluate it.

        Returns
        -------
        p : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Probability of a value of at most y.
        """
        targets = self._check_targets(X, y)
        return self._collect(X, lambda law, part: law.cdf(targets[part]))

    def log_prob(self, X: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Evaluate the log density in y's own unit.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Observations.

        Returns
        -------
        log_p : ndarray of shape (n_samples,)
            Log density of the mixture over members and draws; of all targets of a row jointly.
        """
        targets = self._check_targets(X, y)
        return self._collect(X, lambda law, part: law.log_density(targets[part])[:, None], flat=True)

    def crps(self, X: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Evaluate the continuous ranked probability score, E|Y - y| - E|Y - Y'| / 2; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Observations.

        Returns
        -------
        score : ndarray of shape (n_samples,) or (n_samples, n_targets)
            In the unit of y, of each target by itself.
        """
        targets = self._check_targets(X, y)
        return self._collect(X, lambda law, part: law.crps(targets[part]))

    def sample_y(self, X: ArrayLike, n_samples: int = 1, random_state: Any = 0) -> NDArray[np.float64]:
        """Draw observations.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        n_samples : int, default=1
            Number of observations for each row. All rows of a column share member and draw,
            but for targets near their bounds.
        random_state : int, RandomState instance or None, default=0
            Seed.

        Returns
        -------
        y : ndarray of shape (n_samples_X, n_samples) or (n_samples_X, n_targets, n_samples)
            Observations, noise included.
        """
        check_is_fitted(self)
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        random = check_random_state(random_state)
        level = to_tensor(random.uniform(size=n_samples))
        noise = to_tensor(random.standard_normal((n_samples, _num_samples(X), self._n_targets)))
        return self._collect(X, lambda law, part: law.draw(level, noise[:, part]).movedim(0, -1))

    def sample_functions(self, n: int = 1, random_state: Any = 0) -> list[Callable[[ArrayLike], NDArray[np.float64]]]:
        """Draw regression functions: each has the same weights for all rows and calls.

        Parameters
        ----------
        n : int, default=1
            Number of functions.
        random_state : int, RandomState instance or None, default=0
            Seed of the choice of member and noise.

        Returns
        -------
        functions : list of callables
            From X to values without observation noise, of shape (n_samples,) or (n_samples, n_targets); of bounded
            targets those between the bounds that are nearest.
        """
        check_is_fitted(self)
        check_scalar(n, "n", Integral, min_val=1)
        random = check_random_state(random_state)
        n_members = len(self._state["flat"])
        model = copy(self)  # later fits leave it alone
        return [MemberFunction(model, random.randint(n_members), self._one_noise(random)) for _ in range(n)]

    def predict_uncertainty(self, X: ArrayLike) -> Uncertainty:
        """Split the predictive variance.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.

        Returns
        -------
        parts : Uncertainty
            Variances `total` = `aleatoric` + `epistemic`, each of shape (n_samples,) or (n_samples, n_targets), in
            the squared unit of y. Epistemic is the variance between the members' means; what one member's draws
            spread is part of its noise model.
        """
        members = self._check_members()
        stacked = self._collect(X, lambda law, part: torch.stack(variance_parts(law, members), -1))
        return Uncertainty(*np.moveaxis(stacked, -1, 0))

    def _check_targets(self, X: ArrayLike, y: ArrayLike) -> torch.Tensor:
        check_is_fitted(self)
        refuse_unreadable(y=y)
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        targets = (column_or_1d(y)[:, None] if self._n_targets == 1 else y).reshape(len(y), -1)
        if targets.shape != (_num_samples(X), self._n_targets):
            raise ValueError(
                f"y must have one row for each of the {_num_samples(X)} rows of X and {self._n_targets} target(s), "
                f"got shape {np.shape(y)}."
            )
        return to_tensor(targets)

    def _interval_level(self, coverage: float) -> torch.Tensor:
        """Level of the central interval of each target, (T,): `coverage`, or what conformal prediction makes of it."""
        if not hasattr(self, "conformal_scores_"):
            return torch.full((self._n_targets,), coverage, dtype=torch.float64)
        n = len(self.conformal_scores_)
        rank = int(np.ceil((n + 1) * coverage - 1e-9))
        if rank > n:
            raise ValueError(
                f"coverage must be at most n / (n + 1) = {n / (n + 1):.4g} with the n = {n} rows that "
                f"conformal_fraction sets aside, got {coverage!r}."
            )
        return to_tensor(self.conformal_scores_[rank - 1])

    def _law(self, outputs: torch.Tensor, state: State) -> Distribution:
        """The predictive distribution in y's unit, from outputs (M, S, n, O)."""
        noise, scale = self._model.noise, 1 / state.y_scaling.factor
        parts = self._model.layout.split(state.flat.double())
        log_sigma = noise.log_sigma(parts, outputs) + state.log_factor[: outputs.shape[1], None]
        mean = outputs[..., : noise.n_targets] * scale + state.y_scaling.center
        std = (torch.exp(log_sigma) * scale).clamp_min(max(self.min_std, TINY)).expand_as(mean)
        mixture = Mixture(mean.flatten(0, 1), std.flatten(0, 1))
        return mixture if self._bounds is None else Truncated(mixture, *(to_tensor(end) for end in self._bounds))

    def _mean(self, X: ArrayLike, n_samples: int | None) -> NDArray[np.float64]:
        """Means alone, which need no outputs of single draws."""
        x = self._rows(X)
        predictor, state = self._predictor(n_samples)
        with torch_session(predictor.work(len(x))):
            rows = state.inputs(to_tensor(x)).to(state.flat.dtype)
            mean = predictor.mean(rows, self._n_targets).double()
            values = to_numpy(mean / state.y_scaling.factor + state.y_scaling.center)
        return values[:, 0] if self._vector else values

    def _collect(
        self,
        X: ArrayLike,
        reduce: Callable[[Distribution, slice], torch.Tensor],
        n_samples: int | None = None,
        flat: bool = False,
    ) -> NDArray[np.float64]:
        """What `reduce` makes of each block of rows, (rows, T, ...), put together."""

        def of_outputs(part: slice, outputs: torch.Tensor, state: State) -> torch.Tensor:
            return reduce(self._law(outputs, state), part)

        values = np.concatenate(self._collect_blocks(X, of_outputs, n_samples))
        return values[:, 0] if flat or self._vector else values


class MemberFunction:
    """One member with one fixed noise."""

    def __init__(self, model: PredictsDistributions, member: int, noise: NDArray[np.float64]) -> None:
        self.model, self.member, self.noise = model, member, noise

    def __call__(self, X: ArrayLike) -> NDArray[np.float64]:
        """Values at the rows of X."""
        model = self.model
        outputs = model._one_function(X, self.member, self.noise)[:, : model._n_targets]
        scaling = load_state(model._state).y_scaling
        values = to_numpy(outputs / scaling.factor + scaling.center)
        values = values if model._bounds is None else np.clip(values, *model._bounds)
        return values[:, 0] if model._vector else values
