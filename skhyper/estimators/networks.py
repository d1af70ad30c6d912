"""What a search does differently where the main network is trained step by step."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import norm as sparse_norm
from sklearn.utils import check_random_state
from torch import Tensor

from ..adapters.network import NetworkAdapter
from ..adapters.task import Task
from ..boundary import to_numpy, to_tensor
from ..core.final_network import still_learning, train_on
from ..core.hypertraining import TrainingPlan, hyper_train, judged_losses
from ..core.layer_family import LOWEST
from ..core.loop import Budget
from ..core.losses import SquaredError, TweedieLog
from ..core.problem import NetworkProblem
from ..core.result import Result
from ..core.selection import choose
from .plan import TUNED, check_exponents, n_real_groups

# Standard deviation of the prior of free decays where nobody says.
TAU = 1.0
# Row 0 is left for a gain of more than this many standard errors of the judging rows' paired differences.
STANDARD_ERRORS = 1.0
# Distance of the columns of all rows from those of a fold, relative to these, up to which they are the same.
MOVED = 0.5
# Of training steps, by name.
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


def check_precision(dtype: str, adapter: Any) -> None:
    """Only neural networks train in single precision.

    Raises
    ------
    ValueError
        If another estimator is asked to.
    """
    if dtype != "float64" and not isinstance(adapter, NetworkAdapter):
        raise ValueError(
            f"dtype must be 'float64' for estimators other than neural networks, whose search is in double precision "
            f"or has a dtype of its own, got {dtype!r}."
        )


def in_precision(task: Task, dtype: str) -> Task:
    """The task with training steps in this precision."""
    problem = task.encoding.problem
    if not isinstance(problem, NetworkProblem):
        return task
    encoding: Any = replace(task.encoding, problem=replace(problem, dtype=PRECISIONS[dtype]))
    return replace(task, encoding=encoding)


def make_training_plan(
    problem: NetworkProblem, algorithm: Any, exponent: Any, shrinkage: Any, taus: tuple[float, ...], bounds: Any
) -> TrainingPlan:
    """What to tune.

    Raises
    ------
    ValueError
        If the family cannot be tuned, or free decays are asked for where there is one decay only.
    """
    single = n_real_groups(problem.decays) == 1
    if single and taus:
        raise ValueError(f"shrinkage={shrinkage!r} needs two decays or more, but granularity='global' has one.")
    if isinstance(exponent, str) and exponent != TUNED:
        # A family of single weights gains more and loses more than free decays; of groups it does not lose more.
        grouped = bool((problem.decays.sizes > 1).any())
        ties = not taus and grouped and algorithm.follows_weights and several_in_a_layer(problem)
        rows: tuple[float | None, ...] = (None,) if ties else ()
    else:
        rows = family_rows(problem, algorithm, exponent)
    if isinstance(shrinkage, str) and not single and not rows:
        taus = (TAU,)
    squared = problem.outer_loss in (SquaredError(), TweedieLog(0))
    return TrainingPlan(taus, rows, bounds, log_scale=squared)


def several_in_a_layer(problem: NetworkProblem) -> bool:
    """Whether a layer has several decays, so that an exponent means something."""
    decays, layers = problem.decays, problem.network.layer()[problem.decays.decayed]
    return len((layers * decays.n_groups + decays.groups).unique()) > len(layers.unique())


def family_rows(problem: NetworkProblem, algorithm: Any, exponent: Any) -> tuple[float | None, ...]:
    """Exponents of the family to try beside 2; None stands for one of each layer, tuned.

    Raises
    ------
    ValueError
        If no layer has several decays, an exponent is below 1, or the algorithm takes decays for constants.
    """
    rows = (None,) if isinstance(exponent, str) else check_exponents(exponent) or ()
    if not rows:
        return ()
    if min((q for q in rows if q is not None), default=LOWEST) < LOWEST:
        raise ValueError(f"exponent must be >= {LOWEST:g} for neural networks, got {exponent!r}.")
    if not several_in_a_layer(problem):
        raise ValueError(
            f"exponent={exponent!r} needs several decays in a layer; set granularity='output', 'feature' or 'weight', "
            "or exponent=2."
        )
    if not algorithm.follows_weights:
        raise ValueError(f"exponent={exponent!r} needs algorithm='implicit' or 't1t2', which follow such decays.")
    return rows


def network_seed(estimator: Any, random_state: Any) -> np.random.RandomState:
    """Random numbers of the weights and of the batches: the estimator's own, or those of the search."""
    own = getattr(estimator, "random_state", None)
    return check_random_state(random_state if own is None else own)


Halves = Callable[[], NetworkProblem | None] | None


def tune_network(
    task: Task,
    algorithm: Any,
    plan: TrainingPlan,
    budget: Budget,
    random_state: Any,
    watch: Callable[..., None],
    halves: Halves,
) -> tuple[Result, int]:
    """Run the procedure from weights as the estimator's own fit draws them; also the seed of everything else."""
    adapter, problem = task.target.adapter, task.encoding.problem
    assert isinstance(adapter, NetworkAdapter)
    assert isinstance(problem, NetworkProblem)
    estimator = task.target.leaf.estimator
    random = network_seed(estimator, random_state)
    w = to_tensor(adapter.start(estimator, problem.network, random))[None]
    seed = int(random.randint(np.iinfo(np.int32).max))
    return hyper_train(problem, algorithm, plan, budget, seed, w, watch, halves=halves), seed


def continue_network(
    task: Task,
    algorithm: Any,
    plan: TrainingPlan,
    budget: Budget,
    seed: int,
    checkpoint: bytes,
    watch: Any,
    halves: Halves,
) -> Result:
    """Go on from a checkpoint of a run on the same rows."""
    problem = task.encoding.problem
    assert isinstance(problem, NetworkProblem)
    return hyper_train(problem, algorithm, plan, budget, seed, None, watch, pickle.loads(checkpoint), halves)


def choose_row(problem: NetworkProblem, result: Result, seed: int) -> int:
    """The paired rule over held-out rows."""
    with torch.no_grad():
        losses: NDArray[np.float64] = judged_losses(problem, result.snapshots, seed).numpy()
    return choose(losses, STANDARD_ERRORS)


class FinalNetwork(NamedTuple):
    """The chosen row on all rows."""

    estimator: Any
    moved: Any  # the estimator where log alpha is larger by one, to first order
    decays: Tensor
    interrupted: bool


def refit_network(
    task: Task, result: Result, index: int, alpha: float, budget: Budget, same: bool, random_state: Any
) -> FinalNetwork:
    """The chosen row's network after more steps on all rows, as a fitted estimator.

    Where preprocessing gives all rows other columns than the folds had, it is trained from new initial weights.
    """
    adapter, problem = task.target.adapter, task.encoding.problem
    assert isinstance(adapter, NetworkAdapter)
    assert isinstance(problem, NetworkProblem)
    w = None
    if not same:
        estimator = task.target.leaf.estimator
        w = to_tensor(adapter.start(estimator, problem.network, network_seed(estimator, random_state)))[None]
    learning = still_learning(result.history, result.snapshots[0].name)
    trained = train_on(problem, result.snapshots[index], budget, learning, w)
    fitted, moved = (
        task.fitted(0, w, alpha, trained.epochs, trained.losses) for w in (trained.w, trained.w + trained.tangent)
    )
    return FinalNetwork(fitted, moved, trained.decays, trained.interrupted)


def same_columns(tuned: Task, task: Task) -> bool:
    """Whether preprocessing gives all rows the columns that the first fold had, by name and by what is in them."""
    if tuned.folds[0].composite is None:
        return True
    own, now = tuned.folds[0], task.folds[0]
    if not np.array_equal(own.names, now.names):
        return False
    rows = tuned.encoding.rows[to_numpy(tuned.encoding.problem.train[0]) > 0]
    before, after = own.x[rows], now.x[rows]
    if sparse.issparse(before):
        moved, size = sparse_norm(after - before), sparse_norm(before)
    else:
        moved, size = np.linalg.norm(after - before), np.linalg.norm(before)
    return bool(moved <= MOVED * size)
