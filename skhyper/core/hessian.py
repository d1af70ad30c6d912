"""The Hessian of the inner problem: as a product, as a diagonal, and factorised.

    H = J' diag(c_i l''_i) J + diag(a) - sum_g b_g w_g w_g'

J maps weights to outputs, l'' is the loss's Hessian of a row. With a loss that is a sum over outputs the first term
falls into one block for each output; groups of decays that span outputs are then added by Woodbury's identity.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .lu import lu_factor
from .problem import Problem, weighted

# Added to the diagonal of a matrix before it is factorised, relative; what rounding leaves undetermined stays small.
JITTER = 1e-14


@dataclass(frozen=True)
class Layout:
    """How a problem's weights fall into blocks, and which directions its loss does not see."""

    problem: Problem

    @cached_property
    def split(self) -> bool:
        """Whether the Hessian has one block for each output (but for groups that span outputs)."""
        if not self.problem.loss.separable or self.problem.network.n_constants:
            return False
        return not self.spanning or self.problem.decays.n_groups <= 2 * self.shape[0]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Inputs (features, and 1 for the intercept) and outputs."""
        network = self.problem.network
        return network.n_features + network.intercept, network.n_outputs

    @cached_property
    def block_size(self) -> int:
        """Rows of a block of the Hessian."""
        return self.shape[0] if self.split else self.problem.network.n_weights

    @cached_property
    def spanning(self) -> bool:
        """Whether some decay is shared by several outputs."""
        decays, n_outputs = self.problem.decays, self.shape[1]
        outputs = decays.decayed % n_outputs
        first = torch.zeros(decays.n_groups, dtype=torch.int64).scatter_(0, decays.groups, outputs)
        return bool((outputs != first[decays.groups]).any())

    @cached_property
    def one_hot(self) -> Tensor:
        """The decay of each weight as columns of zeros and ones, by block: (blocks, block_size, n_groups)."""
        index = self.to_blocks(self.problem.decays.index)
        return (index[..., None] == torch.arange(self.problem.decays.n_groups)).to(self.problem.train)

    @cached_property
    def same_decay(self) -> Tensor:
        """Whether two weights of a block share a decay: (blocks, block_size, block_size)."""
        index = self.to_blocks(self.problem.decays.index)
        return (index[..., :, None] == index[..., None, :]) & (index >= 0)[..., None]

    @cached_property
    def free_inputs(self) -> Tensor:
        """Inputs whose weights may shift together at no cost: no decay, and a loss that does not see it."""
        if not self.problem.loss.shift_invariant:
            return torch.zeros(0, dtype=torch.int64)
        n_inputs, n_outputs = self.shape
        index = torch.unflatten(self.problem.decays.index[: n_inputs * n_outputs], 0, self.shape)
        return (index < 0).all(-1).nonzero()[:, 0]

    def centre(self, v: Tensor) -> Tensor:
        """Remove the directions that the loss does not see: (..., n_weights) -> (..., n_weights)."""
        if not len(self.free_inputs):
            return v
        n_inputs, n_outputs = self.shape
        v = v.clone()
        inputs = torch.unflatten(v[..., : n_inputs * n_outputs], -1, self.shape)
        free = inputs[..., self.free_inputs, :]
        inputs[..., self.free_inputs, :] = free - free.mean(-1, keepdim=True)
        return v

    def to_blocks(self, v: Tensor) -> Tensor:
        """Flat weights -> (..., blocks, block_size)."""
        return torch.unflatten(v, -1, self.shape).mT if self.split else v[..., None, :]

    def from_blocks(self, v: Tensor) -> Tensor:
        """The inverse of `to_blocks`."""
        return v.mT.flatten(-2) if self.split else v[..., 0, :]


@dataclass(frozen=True)
class Hessian:
    """The Hessian at one point.

    Parameters
    ----------
    layout : Layout
    f : Tensor, shape (..., K, n, T + C)
        Outputs at the weights.
    w, a : Tensor, shape (..., K, n_weights)
        Weights and their decays.
    b : Tensor, shape (..., K, n_groups), optional
        Concavity of the penalty; None where it is quadratic.
    convex : bool
        Leave out what negative curvature the loss of a row has.
    """

    layout: Layout
    f: Tensor
    w: Tensor
    a: Tensor
    b: Tensor | None = None
    convex: bool = False

    @cached_property
    def weight_curvature(self) -> Tensor:
        """The diagonal of the penalty's Hessian: (..., K, n_weights)."""
        return self.a if self.b is None else self.a - self.layout.problem.decays.spread(self.b) * self.w**2

    @cached_property
    def row_curvature(self) -> Tensor:
        """c_i times the diagonal of l''_i: (..., K, n, T + C)."""
        problem = self.layout.problem
        curvature = problem.loss.curvature(self.f, problem.y)
        return weighted(problem.train, curvature.clamp(min=0) if self.convex else curvature)

    def product(self, v: Tensor) -> Tensor:
        """H v: (..., K, n_weights) -> (..., K, n_weights)."""
        problem, decays = self.layout.problem, self.layout.problem.decays
        df = problem.network.outputs(v, problem.design)
        if problem.loss.separable:
            df = self.row_curvature * df
        else:
            df = weighted(problem.train, self._row_product(df))
        out = self.layout.centre(problem.network.pullback(df, problem.design))
        if self.b is None or decays.single:
            return out.addcmul_(self.weight_curvature, v)
        return out + self.a * v - self.w * decays.spread(self.b * decays.group_sums(self.w * v))

    @cached_property
    def _row_product(self) -> Callable[[Tensor], Tensor]:
        problem = self.layout.problem
        return problem.loss.hessian_product(self.f, problem.y)

    @cached_property
    def diagonal(self) -> Tensor:
        """The diagonal of H, with 1 where it is not positive: (..., K, n_weights)."""
        problem = self.layout.problem
        network, c = problem.network, self.row_curvature
        rows, constants = c[..., : network.n_outputs], c[..., network.n_outputs :]
        parts = [problem.design.square_rmatvec(rows).flatten(-2), constants.sum(-2)]
        if network.intercept:
            parts.insert(1, rows.sum(-2))
        diagonal = torch.cat(parts, -1) + self.weight_curvature
        return torch.where(diagonal > 0, diagonal, 1.0)

    def jacobi(self, r: Tensor) -> Tensor:
        """r divided by the diagonal, in memory that the next call writes to."""
        return torch.div(r, self.diagonal, out=self._quotient)

    @cached_property
    def _quotient(self) -> Tensor:
        return torch.empty_like(self.diagonal)

    def blocks(self) -> Tensor:
        """H as matrices, without what groups that span blocks add: (..., K, blocks, block_size, block_size)."""
        layout, decays = self.layout, self.layout.problem.decays
        matrix = self._loss_blocks() if layout.split else self._loss_matrix()
        if self.b is None or decays.single:
            matrix.diagonal(dim1=-2, dim2=-1).add_(layout.to_blocks(self.weight_curvature))
            return matrix
        matrix.diagonal(dim1=-2, dim2=-1).add_(layout.to_blocks(self.a))
        if not (layout.split and layout.spanning):
            w, bw = layout.to_blocks(self.w), layout.to_blocks(decays.spread(self.b) * self.w)
            matrix -= layout.same_decay * bw[..., :, None] * w[..., None, :]
        return matrix

    @property
    def spanning_terms(self) -> Tensor | None:
        """U with H = blocks - U U' where groups of decays span blocks: (..., K, blocks, block_size, n_groups)."""
        layout, decays = self.layout, self.layout.problem.decays
        if self.b is None or decays.single or not (layout.split and layout.spanning):
            return None
        u = decays.spread(self.b.clamp(min=0).sqrt()) * self.w
        return layout.to_blocks(u)[..., None] * layout.one_hot

    def _loss_blocks(self) -> Tensor:
        problem, c = self.layout.problem, self.row_curvature
        gram = problem.design.grams(c)
        if not problem.network.intercept:
            return gram
        border, corner = problem.design.rmatvec(c).mT, c.sum(-2)[..., None]
        bottom = torch.cat([border, corner], -1)[..., None, :]
        return torch.cat([torch.cat([gram, border[..., None]], -1), bottom], -2)

    def _loss_matrix(self) -> Tensor:
        """All outputs in one matrix; inputs that the loss does not see are given curvature along their shift."""
        layout, problem, network = self.layout, self.layout.problem, self.layout.problem.network
        (n_inputs, n_outputs), p = layout.shape, network.n_features
        hessian = weighted(problem.train[..., None], problem.loss.hessian(self.f, problem.y))
        outer = hessian[..., :n_outputs, :n_outputs]
        first, second = torch.triu_indices(n_outputs, n_outputs)
        pairs = outer[..., first, second]
        which = torch.zeros(n_outputs, n_outputs, dtype=torch.int64)
        which[first, second] = which[second, first] = torch.arange(len(first))
        size = n_inputs * n_outputs
        matrix = self.f.new_zeros(*hessian.shape[:-3], network.n_weights, network.n_weights)
        inputs = torch.unflatten(torch.unflatten(matrix[..., :size, :size], -1, layout.shape), -3, layout.shape)
        # (..., T, T, p, p) -> (..., p, T, p, T)
        inputs[..., :p, :, :p, :] = problem.design.grams(pairs)[..., which, :, :].movedim(-4, -2).movedim(-4, -1)
        if network.intercept:
            border = problem.design.rmatvec(pairs)[..., which].transpose(-3, -2)  # (..., T, p, T)
            inputs[..., p, :, :p, :] = border
            inputs[..., :p, :, p, :] = border.movedim(-3, -1).transpose(-1, -2)
            inputs[..., p, :, p, :] = outer.sum(-3)
        if network.n_constants:
            across = hessian[..., :n_outputs, n_outputs:]  # (..., n, T, C)
            columns = torch.unflatten(problem.design.rmatvec(across.flatten(-2)), -1, across.shape[-2:])
            if network.intercept:
                columns = torch.cat([columns, across.sum(-3)[..., None, :, :]], -3)
            columns = columns.flatten(-3, -2)
            matrix[..., :size, size:] = columns
            matrix[..., size:, :size] = columns.mT
            matrix[..., size:, size:] = hessian[..., n_outputs:, n_outputs:].sum(-3)
        for j in layout.free_inputs.tolist():
            block = inputs[..., j, :, j, :]
            block += block.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] / n_outputs
        return matrix[..., None, :, :]


class Factor:
    """H factorised: by Cholesky with `definite`, else by LU."""

    def __init__(self, hessian: Hessian, definite: bool = True, jitter: float | Tensor = JITTER) -> None:
        self.layout, self.definite = hessian.layout, definite
        matrix = hessian.blocks()
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        shift = torch.as_tensor(jitter, dtype=matrix.dtype)[..., None, None]
        diagonal.add_(torch.where(diagonal == 0, 1.0, diagonal.abs() * shift))
        self._factor, self._pivots, self.positive = self._factorise(matrix)
        self._u = hessian.spanning_terms
        self.positive = self.positive.all(-1)
        if self._u is not None:
            small = torch.eye(self._u.shape[-1], dtype=matrix.dtype)
            small = small - (self._u.mT @ self._block_solve(self._u)).sum(-3)
            self._small, self._small_pivots, positive = self._factorise(small)
            self.positive = self.positive & positive

    def _factorise(self, matrix: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        if self.definite:
            factor, info = torch.linalg.cholesky_ex(matrix)
            return factor, None, info == 0
        return lu_factor(matrix)

    def _block_solve(self, b: Tensor) -> Tensor:
        return _solve(self._factor, self._pivots, b)

    def solve(self, b: Tensor) -> Tensor:
        """H^-1 b: (..., K, n_weights) -> (..., K, n_weights)."""
        x = self._block_solve(self.layout.to_blocks(b)[..., None])
        if self._u is not None:
            small = _solve(self._small, self._small_pivots, (self._u.mT @ x).sum(-3))
            x = x + self._block_solve(self._u @ small[..., None, :, :])
        return self.layout.from_blocks(x[..., 0])


def _solve(factor: Tensor, pivots: Tensor | None, b: Tensor) -> Tensor:
    if pivots is None:
        return torch.cholesky_solve(b, factor)
    x: Tensor = torch.linalg.lu_solve(factor, pivots, b)
    return x
