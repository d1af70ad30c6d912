"""Small problems of every kind: all losses, all granularities."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from skhyper.core import losses
from skhyper.core.decays import Decays, Hyper
from skhyper.core.designs import DenseDesign, Design
from skhyper.core.losses import Loss
from skhyper.core.networks import LinearNetwork
from skhyper.core.problem import Problem


@dataclass(frozen=True)
class LossCase:
    """A loss, and how to draw targets for given outputs."""

    name: str
    loss: Loss
    draw: Callable[[Tensor, torch.Generator], Tensor]
    n_outputs: int = 1
    shift: float = 0.0  # added to all outputs, towards where the loss is well scaled


def noisy(f: Tensor, g: torch.Generator) -> Tensor:
    return f + torch.randn(f.shape, generator=g, dtype=f.dtype)


def heavy_tailed(f: Tensor, g: torch.Generator) -> Tensor:
    noise = torch.randn(f.shape, generator=g, dtype=f.dtype)
    return f + 0.7 * noise / torch.rand(f.shape, generator=g, dtype=f.dtype)


def zero_one(f: Tensor, g: torch.Generator) -> Tensor:
    return torch.bernoulli(torch.sigmoid(f), generator=g)


def signs(f: Tensor, g: torch.Generator) -> Tensor:
    return 2 * zero_one(f, g) - 1


def one_hot(f: Tensor, g: torch.Generator) -> Tensor:
    drawn = torch.multinomial(torch.softmax(f, -1), 1, generator=g)[:, 0]
    return torch.nn.functional.one_hot(drawn, f.shape[-1]).to(f)


def counts(f: Tensor, g: torch.Generator) -> Tensor:
    return torch.poisson(torch.exp(f), generator=g)


def positive(f: Tensor, g: torch.Generator) -> Tensor:
    return torch.exp(f + 0.5 * torch.randn(f.shape, generator=g, dtype=f.dtype))


def positive_or_zero(f: Tensor, g: torch.Generator) -> Tensor:
    return positive(f, g) * (torch.rand(f.shape, generator=g, dtype=f.dtype) > 0.2)


LOSSES = [
    LossCase("squared error", losses.SquaredError(), noisy),
    LossCase("squared error of two targets", losses.SquaredError(), noisy, 2),
    LossCase("log loss", losses.LogLoss(), zero_one),
    LossCase("log loss of two labels", losses.LogLoss(), zero_one, 2),
    LossCase("multinomial log loss", losses.MultinomialLogLoss(), one_hot, 3),
    LossCase("Poisson", losses.TweedieLog(1.0), counts, shift=0.5),
    LossCase("Tweedie 1.5", losses.TweedieLog(1.5), positive_or_zero),
    LossCase("gamma", losses.TweedieLog(2.0), positive),
    LossCase("normal with log link", losses.TweedieLog(0.0), positive),
    LossCase("Huber", losses.Huber(0.8), heavy_tailed),
    LossCase("concomitant Huber", losses.ConcomitantHuber(1.35), heavy_tailed),
    LossCase("squared hinge", losses.SquaredHinge(), signs),
    LossCase("squared hinge of three classes", losses.SquaredHinge(), signs, 3),
    LossCase("modified Huber", losses.ModifiedHuber(), signs),
    LossCase("epsilon-insensitive", losses.SquaredEpsilonInsensitive(0.3), noisy),
    LossCase("rescaled", losses.Rescaled(losses.LogLoss(), 0.3), zero_one),
]

GRANULARITIES = ["global", "output", "feature", "weight", "groups"]


def decay_index(network: LinearNetwork, granularity: str) -> Tensor:
    """Weight -> decay; no decay for intercepts and constants."""
    j = torch.arange(network.n_coefficients)
    feature, output = j // network.n_outputs, j % network.n_outputs
    of = {
        "global": torch.zeros_like(j),
        "output": output,
        "feature": feature,
        "weight": j,
        "groups": (feature + 1) // 2,
    }[granularity]
    return torch.cat([of, torch.full((network.n_weights - len(j),), -1)])


def folds(n: int, k: int) -> tuple[Tensor, Tensor]:
    """Row weights of training and validation, rows dealt out in turn."""
    validation = (torch.arange(n) % k == torch.arange(k)[:, None]).double()
    return 1 - validation, validation / validation.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Maker:
    """Draws problems, always the same ones."""

    n_rows: int = 60
    n_features: int = 6
    n_folds: int = 3
    correlation: float = 0.5

    def design(self) -> Tensor:
        """Correlated columns (n, p)."""
        g = torch.Generator().manual_seed(0)
        x = torch.randn(self.n_rows, self.n_features, generator=g, dtype=torch.float64)
        j = torch.arange(self.n_features, dtype=torch.float64)
        return x @ torch.linalg.cholesky(self.correlation ** (j[:, None] - j).abs()).T

    def targets(self, case: LossCase, x: Tensor) -> Tensor:
        """Targets (n, T), from a few large coefficients and more small ones."""
        g = torch.Generator().manual_seed(1)
        coefficients = torch.randn(x.shape[1], case.n_outputs, generator=g, dtype=torch.float64)
        coefficients *= 0.6 ** torch.arange(x.shape[1])[:, None]
        return case.draw(x @ coefficients + case.shift, g)

    def __call__(
        self, case: LossCase, granularity: str = "feature", design: Design | None = None, intercept: bool = True
    ) -> Problem:
        x = self.design()
        network = LinearNetwork(x.shape[1], case.n_outputs, intercept, case.loss.n_constants)
        train, validation = folds(len(x), self.n_folds)
        return Problem(
            DenseDesign(x) if design is None else design,
            self.targets(case, x),
            train,
            validation,
            network,
            case.loss,
            case.loss,
            Decays(decay_index(network, granularity)),
        )


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def sized() -> Callable[..., Maker]:
    """Problems of other sizes."""
    return lambda **sizes: replace(Maker(), **sizes)


@pytest.fixture(params=LOSSES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> LossCase:
    return request.param


@pytest.fixture
def case_named() -> Callable[[str], LossCase]:
    return lambda name: next(case for case in LOSSES if case.name == name)


@pytest.fixture(params=GRANULARITIES)
def granularity(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def hyper() -> Callable[..., Hyper]:
    """Hyperparameters from numbers."""

    def build(alpha: float, exponent: float = 2.0, offsets: Tensor | None = None) -> Hyper:
        numbers = torch.tensor([alpha, exponent], dtype=torch.float64)
        return Hyper(numbers[0].log(), numbers[1], offsets)

    return build
