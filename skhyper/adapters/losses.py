"""Losses that estimators need beside the core's: one-vs-rest class weights, and scores that ignore a fitted scale."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.losses import Loss, SeparableLoss


@dataclass(frozen=True)
class SignedWeights(SeparableLoss):
    """|y| loss(f, sign(y)): the weight of each row and output rides on its +-1 target.

    One-vs-rest estimators weigh the rows of the positive class only, so that outputs differ in their row weights.

    Parameters
    ----------
    loss : SeparableLoss
        For targets in {-1, 1}, or in {0, 1} if `zero_one`.
    zero_one : bool
        Whether the loss reads 0 for the negative class.
    weighted : bool
        Whether |y| counts; the outer loss reads the sign alone.
    """

    loss: SeparableLoss
    zero_one: bool = False
    weighted: bool = True

    def _label(self, y: Tensor) -> Tensor:
        return (y > 0).to(y) if self.zero_one else y.sign()

    def _factor(self, y: Tensor) -> Tensor | float:
        return y.abs() if self.weighted else 1.0

    def each(self, f: Tensor, y: Tensor) -> Tensor:
        return self._factor(y) * self.loss.each(f, self._label(y))

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        return self._factor(y) * self.loss.gradient(f, self._label(y))

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        return self._factor(y) * self.loss.curvature(f, self._label(y))


@dataclass(frozen=True)
class OfPredictions(Loss):
    """A loss of the first outputs; the `n_ignored` last ones, constants such as a scale, do not matter to it."""

    loss: Loss
    n_ignored: int

    def value(self, f: Tensor, y: Tensor) -> Tensor:
        return self.loss.value(f[..., : -self.n_ignored], y)

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        gradient = torch.zeros_like(f)
        gradient[..., : -self.n_ignored] = self.loss.gradient(f[..., : -self.n_ignored], y)
        return gradient

    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        hessian = f.new_zeros(*f.shape, f.shape[-1])
        hessian[..., : -self.n_ignored, : -self.n_ignored] = self.loss.hessian(f[..., : -self.n_ignored], y)
        return hessian
