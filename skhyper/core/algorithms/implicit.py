"""Implicit differentiation of linear networks with any convex loss: Newton's method, and its Hessian once more."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from skhyper.core.algorithms.base import Algorithm, BestResponse
from skhyper.core.cg import conjugate_gradients
from skhyper.core.decays import Hyper
from skhyper.core.hessian import Factor, Hessian, Layout
from skhyper.core.inner import InnerObjective
from skhyper.core.newton import Minimiser
from skhyper.core.problem import Problem

# Numbers in the batch of Hessians, or of rows, that is solved at once.
MAX_NUMBERS = 2**20

# Candidates that are solved at once: a scan from strong to weak decays can then end early, and starts warm.
MAX_CANDIDATES = 6

# Accuracy of the solutions that lead from equal decays to the family's.
PATH_TOL = 1e-2
# Blocks of the Hessian up to this size are factorised whatever a product with it costs.
ALWAYS_DENSE = 64
# Most entries of the second derivatives of all rows and folds that are held at once.
MOST_ENTRIES = 1 << 25


@dataclass(frozen=True)
class Implicit(Algorithm):
    """The best response by Newton's method, the hypergradient by the implicit function theorem.

    Parameters
    ----------
    dense_limit : int
        Largest block of the Hessian that is factorised; above, conjugate gradients take products with it.
    dense_cost : float
        Most operations for a factorised Hessian, in products with it.
    max_iter : int
        Most Newton steps.
    cg_max_iter : int
        Most steps of conjugate gradients for one linear system.
    """

    dense_limit: int = 1500
    dense_cost: float = 200.0
    max_iter: int = 200
    cg_max_iter: int = 1000

    def bind(self, problem: Problem) -> "ImplicitResponse":
        return ImplicitResponse(problem, self)


@dataclass(frozen=True)
class ImplicitResponse(BestResponse):
    """The best response that `Implicit` computes."""

    algorithm: Implicit

    @property
    def capacity(self) -> int:
        """As many candidates as keep the batch small, where the Hessian is factorised; else one."""
        numbers = self.problem.n_folds * max(self.layout.block_size**2, self.problem.train.shape[-1])
        return min(MAX_CANDIDATES, max(1, MAX_NUMBERS // numbers)) if self.dense else 1

    def take_folds(self, which: Tensor) -> "ImplicitResponse":
        return ImplicitResponse(self.problem.take_folds(which), self.algorithm)

    @cached_property
    def layout(self) -> Layout:
        """How the Hessian falls into blocks."""
        return Layout(self.problem)

    @cached_property
    def dense(self) -> bool:
        """Whether the Hessian is factorised."""
        (_, n_outputs), size, design = self.layout.shape, self.layout.block_size, self.problem.design
        blocks, grams = (n_outputs, n_outputs) if self.layout.split else (1, n_outputs * (n_outputs + 1) // 2)
        stored = max(design.n_stored, 1)
        operations = grams * 2 * stored * stored / design.n_rows + blocks * size**3 / 3
        cheap = size <= ALWAYS_DENSE or operations <= self.algorithm.dense_cost * 4 * stored * n_outputs
        by_row = 1 if self.layout.split else n_outputs**2
        return size <= self.algorithm.dense_limit and cheap and self.problem.train.numel() * by_row <= MOST_ENTRIES

    @cached_property
    def by_fold(self) -> list["ImplicitResponse"]:
        """Each fold by itself where conjugate gradients serve: a vector of all folds would be most of the memory."""
        if self.dense or self.problem.n_folds == 1:
            return []
        folds = torch.arange(self.problem.n_folds)
        return [self.take_folds(folds == k) for k in folds]

    def solve(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Tensor:
        if self.by_fold:
            starts = [w] * len(self.by_fold) if w is None else w.split(1, -2)
            parts = zip(self.by_fold, s2.split(1), starts, strict=True)
            return torch.cat([one.solve(hyper, s2_k, w_k, tol) for one, s2_k, w_k in parts], -2)
        minimise = Minimiser(self.layout, self.dense, self.algorithm.max_iter, self.algorithm.cg_max_iter)
        leading = (hyper.log_alpha + hyper.exponent).shape
        offsets = None if hyper.offsets is None else hyper.offsets.expand(*leading, -1)
        hyper = Hyper(hyper.log_alpha.expand(leading), hyper.exponent.expand(leading), offsets)
        folds = torch.Size([*leading, self.problem.n_folds])
        if w is None:
            w = self.problem.constant_model().expand(*folds, -1)
            # Weights that vanish stay so where q < 1: come from equal decays, by way of the convex q = 1.
            path = [2.0, 1.0]
            for least in path:
                if (hyper.exponent < least).any():
                    easier = hyper._replace(exponent=hyper.exponent.clamp(min=least))
                    w = minimise(InnerObjective(self.problem, easier, s2), w, PATH_TOL)
        else:
            w = w.expand(*folds, -1)
        return minimise(InnerObjective(self.problem, hyper, s2), w, tol)

    def adjoint(self, w: Tensor, hyper: Hyper, s2: Tensor, v: Tensor, tol: float = 1e-8) -> tuple[Tensor, float]:
        if self.by_fold:
            parts = zip(self.by_fold, s2.split(1), w.split(1, -2), v.split(1, -2), strict=True)
            solutions, errors = zip(
                *(one.adjoint(w_k, hyper, s2_k, v_k, tol) for one, s2_k, w_k, v_k in parts), strict=True
            )
            return torch.cat(solutions, -2), max(errors)
        decays = self.problem.decays
        a = decays.spread(decays.log_decays(w, hyper, s2).exp())
        b = None if bool((hyper.exponent == 2).all()) else decays.concavity(w, hyper, s2)
        hessian = Hessian(self.layout, self.problem.outputs(w), w, a, b)
        v = self.layout.centre(v)
        if not self.dense:
            needed = torch.full(w.shape[:-1], tol, dtype=w.dtype)
            found = conjugate_gradients(hessian.product, hessian.jacobi, v, needed, self.algorithm.cg_max_iter)
            return self.layout.centre(found.x), float(found.residual.max())
        factor = Factor(hessian)
        if not factor.positive.all():
            factor = Factor(hessian, definite=False)
        u = self.layout.centre(factor.solve(v))
        left = v - hessian.product(u)
        if left.norm() > tol * v.norm():
            u = u + self.layout.centre(factor.solve(left))
            left = v - hessian.product(u)
        size = float(v.norm())
        return u, float(left.norm()) / size if size else 0.0
