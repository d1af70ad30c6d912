"""Criteria without held-out rows in the place of the outer loss: squared loss, decays that do not depend on w.

Equal decays go through one singular value decomposition of the rows, others through a factorisation each time; value
and hypergradient share it. Weights for the final fit come from another algorithm's best response.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..criteria import Criterion, Quantities
from ..decays import Hyper
from ..designs import DenseDesign
from ..leverage import Dual, Primal, Rows, Smoother, Spectral, Targets, training_rows
from ..losses import SquaredError
from ..networks import Layers
from ..problem import Problem
from ..result import Evaluation
from .base import Algorithm, BestResponse

CAPACITY = 64


@dataclass(frozen=True)
class Analytic(Algorithm):
    """A criterion, and the algorithm that solves for weights."""

    criterion: Criterion
    inner: Algorithm

    def bind(self, problem: Problem) -> "AnalyticResponse":
        """Centre and weigh the rows; each counts once, whatever its weight."""
        if problem.loss != SquaredError():
            raise ValueError(f"leave-one-out, GCV and evidence need a squared loss, got {problem.loss}")
        problem = replace(problem, counts=None)
        return AnalyticResponse(problem, self.criterion, self.inner.bind(problem), *training_rows(problem))


@dataclass(frozen=True)
class AnalyticResponse(BestResponse):
    """The best response of all rows as one fold, judged by a criterion."""

    criterion: Criterion
    inner: BestResponse
    rows: Rows
    targets: Targets

    @property
    def capacity(self) -> int:
        """Points of a scan at once; they share the decomposition."""
        return CAPACITY

    def take_folds(self, which: Tensor) -> "AnalyticResponse":
        """There is one fold."""
        return self

    def take_output(self, t: int) -> "AnalyticResponse | None":
        """The response of one target; the decomposition of the rows is shared."""
        inner = self.inner.take_output(t)
        if inner is None:
            return None
        return AnalyticResponse(inner.problem, self.criterion, inner, self.rows, self.targets.take_output(t))

    def all_rows(self, problem: Problem) -> BestResponse | None:
        """The inner best response, if these are the rows that it has."""
        mine, other = self.problem, problem
        if not isinstance(mine.design, DenseDesign) or not isinstance(other.design, DenseDesign):
            return None
        same = mine.design.x.data_ptr() == other.design.x.data_ptr() and mine.design.x.shape == other.design.x.shape
        same = same and torch.equal(mine.y, other.y) and torch.equal(mine.train, other.train)
        return self.inner if same else None

    def solve(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Tensor:
        """The inner algorithm's weights."""
        return self.inner.solve(hyper, s2, w, tol)

    def adjoint(self, w: Tensor, hyper: Hyper, s2: Tensor, v: Tensor, tol: float = 1e-8) -> tuple[Tensor, float]:
        """The inner algorithm's."""
        return self.inner.adjoint(w, hyper, s2, v, tol)

    def look(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> tuple[Tensor, Tensor]:
        """Weights and criteria of several candidates, (C, 1, n_weights) and (C, 1)."""
        each = [self._evaluate(Hyper(x, q), False) for x, q in zip(hyper.log_alpha, hyper.exponent, strict=True)]
        return torch.stack([e.w for e in each]), torch.stack([e.fold_losses for e in each])

    def evaluate(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Evaluation:
        """Weights, criterion and hypergradient from one factorisation for each set of decays."""
        return self._evaluate(hyper, True)

    def left_out(self, hyper: Hyper) -> Tensor:
        """The prediction of each row by the other rows, (n, T)."""
        parts = self._smoothers(hyper)
        weights = torch.cat([s.in_features(s.weights(t)) for s, t in parts], -1)
        weighted = torch.cat([s.residuals(t) for s, t in parts], -1)
        free = torch.cat([s.free[:, None].expand_as(t) for s, t in parts], -1)
        used, root = self.rows.used[:, None], self.rows.c.sqrt()[:, None]
        y = self.problem.y
        # The weighted residuals do not cancel where the fit is close; rows of weight zero are left out as it is.
        residuals = torch.where(used, weighted / root, y - self.problem.outputs(self._join(weights))[0])
        return y - residuals / free

    def _evaluate(self, hyper: Hyper, differentiate: bool) -> Evaluation:
        parts = self._smoothers(hyper)
        weights = [s.weights(t) for s, t in parts]
        q = Quantities(*(torch.cat(list(v), -1) for v in zip(*map(_quantities, parts, weights), strict=True)))
        value, derivatives = self.criterion(q, self.rows)
        w = self._join(torch.cat([s.in_features(v) for (s, _), v in zip(parts, weights, strict=True)], -1))
        gradient = self._hypergradient(hyper, parts, weights, derivatives) if differentiate else hyper
        return Evaluation(hyper, w, value.reshape(1), gradient, 0.0)

    def _smoothers(self, hyper: Hyper) -> list[tuple[Smoother, Tensor]]:
        """One for all targets where they share decays, else one for each, with its targets."""
        if float(hyper.exponent) != 2:
            raise ValueError(f"a criterion without held-out rows needs decays that do not depend on w, got {hyper}")
        rows, t = self.rows, self.targets.t
        (n, p), n_outputs = rows.z.shape, t.shape[1]
        if hyper.offsets is None:
            return [(Spectral(rows.decomposition, hyper.log_alpha.exp()), t)]
        decays = self.problem.decays.restrict(p * n_outputs)
        a = decays.spread((hyper.log_alpha + hyper.offsets).exp()).unflatten(-1, (p, n_outputs))
        if decays.by_output(n_outputs):
            return [(Spectral(rows.decomposition, a[0, i]), t[:, i : i + 1]) for i in range(n_outputs)]
        smoother = Dual if n <= p else Primal
        if decays.shared_by_outputs(n_outputs):
            return [(smoother(rows, a[:, 0]), t)]
        return [(smoother(rows, a[:, i]), t[:, i : i + 1]) for i in range(n_outputs)]

    def _hypergradient(
        self, hyper: Hyper, parts: list[tuple[Smoother, Tensor]], weights: list[Tensor], derivatives: Quantities
    ) -> Hyper:
        p, n_outputs = self.rows.z.shape[1], self.targets.t.shape[1]
        # By the decay of each weight; one that all weights of an output, or all outputs, share is put at the first.
        total, start = self.rows.z.new_zeros(p, n_outputs), 0
        for (smoother, t), w in zip(parts, weights, strict=True):
            columns = slice(start, start + t.shape[1])
            own = _by_decay(smoother, w, Quantities(*(v[..., columns] for v in derivatives)))
            if isinstance(smoother, Spectral):
                total[0, start] = own.sum()
            else:
                total[:, start] = own
            start = columns.stop
        if hyper.offsets is None:
            return Hyper(total.sum(), torch.zeros_like(hyper.exponent))
        by_group = self.problem.decays.restrict(p * n_outputs).group_sums(total.flatten())
        return Hyper(by_group.sum(), torch.zeros_like(hyper.exponent), by_group)

    def _join(self, coefficients: Tensor) -> Tensor:
        """Coefficients (p, T) -> flat weights of the one fold, (1, n_weights)."""
        intercepts = self.targets.mean - self.rows.x_mean @ coefficients
        return self.problem.network.join(Layers(coefficients[None], intercepts[None], intercepts[None, :0]))


def _quantities(part: tuple[Smoother, Tensor], w: Tensor) -> Quantities:
    smoother, t = part
    residuals = smoother.residuals(t)
    penalised = (residuals**2).sum(0) + (smoother.a.expand(len(w))[:, None] * w**2).sum(0)
    return Quantities(
        residuals, smoother.free[:, None].expand_as(t), penalised, smoother.log_determinant.expand(t.shape[1])
    )


def _by_decay(smoother: Smoother, w: Tensor, d: Quantities) -> Tensor:
    """The derivative with respect to the logarithm of the decay of each coordinate, summed over targets: (q,)."""
    a = smoother.a.expand(len(w))
    out = a * (w**2 @ d.penalised) - d.log_determinant.sum() * smoother.effective
    if bool(d.residuals.any()):
        out = out + a * (w * (smoother.gain.mT @ d.residuals)).sum(-1)
    if bool(d.free.any()):
        out = out + a * (d.free.sum(-1) @ smoother.gain**2)
    return out
