"""Going on with the search of a neural network where it stopped."""

from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..adapters.unwrap import unwrap
from ..algorithms import resolve
from ..boundary import torch_session
from ..core.loop import Budget
from .all_or_nothing import all_or_nothing
from .networks import continue_network
from .progress import Watch


class ContinuedSearch:
    """What a search does with a run of training that may go on."""

    @all_or_nothing
    def continue_fit(self, X, y=None, max_iter=100, **params):
        """Go on with the last stage of the search of a neural network exactly where it stopped.

        With one decay for all weights, a search with `max_iter=a` that is continued for `max_iter=b` ends as one with
        `max_iter=a + b` whose full length, which follows from the network's own max_iter, does not end it; a continued
        search goes on beyond that. Finer decays are a stage of their own, the one that goes on. Training rows are not
        kept, so they must be given again; the guard is not run again.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The training data of `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The targets of `fit`.
        max_iter : int, default=100
            Hypergradient steps to add to the last stage, at least 1.
        **params : dict
            As in `fit`.

        Returns
        -------
        self : HyperTrainingSearchCV
            Fitted.

        Raises
        ------
        ValueError
            If the search was not fitted to a neural network, or to other numbers of rows or columns, or max_iter is no
            positive number.
        """
        check_is_fitted(self, "n_splits_")
        if not hasattr(self, "_checkpoint"):
            name = type(unwrap(self.estimator).estimator).__name__
            raise ValueError(
                "continue_fit is for neural networks whose decays move while they are trained; fit the search over "
                f"{name} again, with a larger max_iter."
            )
        if not isinstance(max_iter, Integral) or max_iter < 1:
            raise ValueError(f"max_iter must be a positive integer, got {max_iter!r}.")
        budget = Budget(np.inf if self.time_limit is None else self.time_limit, max_iter)
        job = self._check(X, y, params, self._splits)
        if len(job.y) != self._n_rows:
            raise ValueError(f"continue_fit needs the {self._n_rows} rows of fit, got {len(job.y)}.")
        columns = getattr(self, "n_features_in_", None)
        if columns is not None and np.ndim(X) == 2 and np.shape(X)[1] != columns:
            raise ValueError(f"continue_fit needs the {columns} columns of fit, got {np.shape(X)[1]}.")
        watch = Watch(self, X, y, self.verbose)
        with torch_session(job.work):
            task = self._encode(job, job.splits)
            algorithm = resolve(self.algorithm, task.encoding.problem)
            plan = self._plan(task, algorithm)
            result = continue_network(
                task, algorithm, plan, budget, self._seed, self._checkpoint, watch, self._halves(job)
            )
            self._finish(job, task, algorithm, result, plan, budget)
        self.total_time_ += budget.seconds
        watch.end()
        return self
