"""What a run leaves: states, evaluations, snapshots, and the reason why it stopped."""

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .decays import Hyper
from .layer_family import LayerFamily

if TYPE_CHECKING:
    from .algorithms.base import Response


class StopReason(Enum):
    """Why a run stopped; the value is the sentence that the user reads."""

    CONVERGED = "The hypergradient is below its tolerance."
    NO_PROGRESS = "The outer loss no longer falls by more than its tolerance."
    SCANNED = "The best alpha lies between others that were tried."
    AT_BOUND = "The best hyperparameters lie on a bound of the search; widen alpha_bounds if that is not meant."
    AT_LIMIT = "Alpha went as far as the data allow: either all weights are shrunk to nothing, or none is shrunk."
    MAX_ITER = "The maximum number of hyperparameter steps was reached; raise max_iter to go on."
    FULL_LENGTH = "Training has its full length, which follows from the network's max_iter."
    MOVING = (
        "Training has its full length, which follows from the network's max_iter, but alpha was still moving; raise "
        "that max_iter, or go on with continue_fit."
    )
    MOVING_AT_MAX_ITER = (
        "Alpha was still moving when the maximum number of hyperparameter steps was reached; raise max_iter, or go on "
        "with continue_fit."
    )
    UNSOLVED = (
        "The weights of the inner problem did not converge; raise max_iter of the algorithm, or scale the columns."
    )
    UNDONE = "The final training on all rows diverged and was undone; lower the network's learning rate."
    TIME_LIMIT = "The time limit was reached; the best model so far is kept."
    INTERRUPTED = "The search was interrupted; the best model so far is kept."
    DIVERGED = "The outer loss was not finite; the best model so far is kept."


# Reasons of the user's, after which no further stage begins.
ENDED = (StopReason.TIME_LIMIT, StopReason.INTERRUPTED)
# What a stage that has all its steps is told to be instead if alpha is still moving.
MOVING = {StopReason.FULL_LENGTH: StopReason.MOVING, StopReason.MAX_ITER: StopReason.MOVING_AT_MAX_ITER}


class Evaluation(NamedTuple):
    """An algorithm's answer at one set of hyperparameters."""

    hyper: Hyper
    w: Tensor  # (K, n_weights), also the warm start of the next evaluation
    fold_losses: Tensor  # (K,)
    gradient: Hyper  # d outer / d hyperparameters
    error: float  # relative residual of the adjoint equation, or of the inner problem if that is larger
    state: Any = None  # of a training run: where it goes on

    @property
    def value(self) -> float:
        """The outer loss."""
        return float(self.fold_losses.mean())


class Record(NamedTuple):
    """One line of the history."""

    stage: str
    iteration: int
    value: float
    objective: float
    log_alpha: float
    exponent: float
    gradient_norm: float
    error: float
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    """A candidate that selection may choose: where a stage ended."""

    name: str
    hyper: Hyper
    w: Tensor  # (K, n_weights)
    fold_losses: Tensor  # (K,)
    n_hyperparameters: int
    stop_reason: StopReason
    error: float
    seconds: float
    mixture: tuple[float, ...] = ()  # of an average: the weights of the snapshots before it
    state: Any = None  # of a training run: where it goes on
    cosine: float | None = None  # of a training run: of the hypergradient with an accurate one
    curve: "Curve | None" = None  # the outer loss along log alpha, by the best response
    family: LayerFamily | None = None  # of a network whose decays follow its weights: what the offsets mean
    scores: Tensor | None = None  # (K,), where a score decides: of free decays, by folds that these did not see


class Curve(NamedTuple):
    """The outer loss as a function of log alpha."""

    log_alpha: Tensor  # ascending, (points,)
    loss: Tensor  # mean over folds, (points,)


@dataclass(frozen=True)
class Result:
    """All snapshots of a run (row 0 is the tuned global alpha), its history and its end."""

    snapshots: tuple[Snapshot, ...]
    s2: Tensor  # (K,), the family's constant in each fold
    history: tuple[Record, ...]
    stop_reason: StopReason
    response: "Response"  # what the run prepared, which may serve the final fit too
    checkpoint: Any = None  # of a training run: from what it goes on
    reference: Snapshot | None = None  # the global alpha of the lowest loss, where a score decides what row 0 is

    @property
    def unit(self) -> Snapshot:
        """The tuned global solution that gives the family its unit."""
        return self.snapshots[0] if self.reference is None else self.reference

    @property
    def losses(self) -> Tensor:
        """Validation losses: (snapshots, K)."""
        return torch.stack([s.fold_losses for s in self.snapshots])
