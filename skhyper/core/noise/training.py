"""Training of all members at once: Adam on the flat parameters, (M, P).

The loss of a member is, over its training rows with weights s_i of mean 1 and draws z_k,

    mean_i s_i [-(1/a) log mean_k exp(a log p(y_i | x_i, z_k))] + alpha / (2 n) sum_j c_j w_j^2

with c_j the number of inputs of the layer that w_j belongs to: a Gaussian prior of variance 1 / (alpha c_j). Members
share no parameter, so the gradient of the sum of their losses is each member's own. Hyperparameters of the layout
follow another loss, the negative log marginal likelihood of held-out rows, averaged over the members of a fit, with a
prior about zero: they move alike in all of its members, and each keeps those of its best weights.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import cos, pi
from typing import NamedTuple

import torch
from torch import Tensor

from .dealing import Dealing, Groups, arrange, minibatches
from .layout import Layout
from .likelihood import NoiseModel, marginal
from .network import StochasticMLP

Waves = tuple[Tensor, Tensor, Tensor]

# A member that diverges goes on from its best weights with its learning rate times this.
ROLLBACK_RATE = 0.3

# Steps from one look at held-out rows to the next, and draws in it.
HELD_EVERY, HELD_DRAWS = 4, 4
# Standard deviation of the prior of hyperparameters.
HELD_STD = 1.0

# Numbers in the activations of a layer where held-out rows are judged.
MAX_ACTIVATIONS = 2**23


@dataclass(frozen=True)
class Model:
    """The main network and its noise model."""

    network: StochasticMLP
    noise: NoiseModel

    @property
    def layout(self) -> Layout:
        """All parameters of a member."""
        return Layout({**self.network.blocks(), **self.noise.blocks()})


class Rows(NamedTuple):
    """The data: inputs (n, p), targets (n, T), weights of mean 1 (n,)."""

    x: Tensor
    y: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Settings:
    """How to train.

    Parameters
    ----------
    n_steps : int
        Updates.
    batch_size : int
        Rows in a minibatch; as many as there are, or more: full batch.
    learning_rate : float
        Of weights in the scale of their prior.
    schedule : str
        "cosine": down to zero; "constant".
    warmup : float
        Share of the steps over which the rate rises; only with "cosine".
    alpha : float
        Precision of the prior.
    exponent : float
        a.
    n_draws : int
        K.
    dealing : Dealing
        How draws and rows meet.
    n_evaluations : int
        Lines in the curves.
    n_eval_draws : int
        Draws by which held-out rows are judged.
    optimizer : str
        "adam", or "sgd": with momentum beta1.
    beta1, beta2 : float
        Decay of the moments.
    """

    n_steps: int
    batch_size: int
    learning_rate: float = 0.05
    schedule: str = "cosine"
    warmup: float = 0.02
    alpha: float = 1.0
    exponent: float = 0.5
    n_draws: int = 8
    dealing: Dealing = Dealing.SHARED
    n_evaluations: int = 50
    n_eval_draws: int = 16
    optimizer: str = "adam"
    beta1: float = 0.9
    beta2: float = 0.98


class Record(NamedTuple):
    """One line of the curves, a number for each member."""

    step: int
    loss: Tensor
    held_out: Tensor
    spread: Tensor


class Trained(NamedTuple):
    """What training leaves."""

    flat: Tensor  # (M, P)
    curve: list[Record]
    n_rollbacks: Tensor  # (M,)
    optimizer: tuple[Tensor, Tensor, int]  # moments and number of steps, where another run may go on


@dataclass
class Trainer:
    """Trains `flat` on rows; `run` does it."""

    model: Model
    rows: Rows
    train_rows: Tensor  # (M, n_train)
    held_rows: Tensor | None  # (M, n_val)
    waves: Waves | None
    settings: Settings
    generator: torch.Generator
    n_effective: float  # n of the prior: the sum of the training rows' weights
    alphas: Tensor | None = None  # (M,), of the members, in the place of the settings' one
    n_fits: int = 1  # members of different fits share no hyperparameter

    def __post_init__(self) -> None:
        layout, like = self.model.layout, self.rows.x
        self.layout = layout
        self.rates = layout.spread("rate").to(like)
        alphas = torch.tensor([self.settings.alpha], dtype=torch.float64) if self.alphas is None else self.alphas
        self.decay = layout.spread("precision").to(like) * (alphas.to(like)[:, None] / self.n_effective)  # (1 or M, P)
        self.packed = torch.cat([self.rows.x, self.rows.y, self.rows.weight[:, None]], 1)
        self.widths = [self.rows.x.shape[1], self.rows.y.shape[1], 1]
        n_train = self.train_rows.shape[1]
        self.full_batch = self.settings.batch_size >= n_train
        batch = n_train if self.full_batch else self.settings.batch_size
        self.groups: Groups = arrange(self.settings.dealing, batch, self.settings.n_draws)
        self.prior = self.model.network.prior(self.waves, like[None])  # (M, n, O)
        self.held = layout.spread("held").to(like.device) > 0  # (P,)
        if self.held_rows is not None:
            size = min(batch, self.held_rows.shape[1])
            self.held_batches = minibatches(self.held_rows, size, self.generator)

    @property
    def n_members(self) -> int:
        """M."""
        return self.train_rows.shape[0]

    def noise(self, n_draws: int) -> Tensor:
        """z, (M, n_draws, d); every other draw mirrors the one before."""
        d = self.model.network.generator.noise_dim
        like = self.rows.x
        shape = (self.n_members, (n_draws + 1) // 2 if n_draws > 1 else 1, d)
        z = torch.randn(shape, generator=self.generator, dtype=like.dtype, device=like.device)
        return torch.stack([z, -z], 2).flatten(1, 2)[:, :n_draws] if n_draws > 1 else z

    def batches(self) -> Iterator[Tensor]:
        """Rows of each step, (M, B)."""
        if not self.full_batch:
            yield from minibatches(self.train_rows, self.settings.batch_size, self.generator)
        while True:
            yield self.train_rows

    def loss(self, flat: Tensor, index: Tensor) -> Tensor:
        """The members' losses on rows (M, B), without the prior: (M,)."""
        g, r, repeated = self.groups
        if not repeated:
            index = index[:, : g * r]
        member = torch.arange(self.n_members, device=index.device)[:, None]
        parts = self.layout.split(flat)
        x, y, weight = self.packed[index].split(self.widths, -1)
        prior = None if self.prior is None else self.prior[member, index]
        shape = (1, r) if repeated else (g, r)
        x, y, weight = x.unflatten(1, shape), y.unflatten(1, shape), weight[..., 0].unflatten(1, shape)
        prior = None if prior is None else prior.unflatten(1, shape)
        outputs = self.model.network.forward(parts, x, self.noise(g), prior, self.generator)
        log_p = self.model.noise.log_density(parts, outputs, y)
        penalty = self.model.noise.penalty(parts, outputs)
        importance = self.model.noise.importance(outputs)
        if repeated:
            row = penalty.mean(1) - importance.mean(1) * marginal(log_p, self.settings.exponent)
            loss = (weight[:, 0] * row).mean(1)
        else:
            loss = (weight * (penalty - importance * log_p)).mean((1, 2))
        return loss

    def penalty(self, flat: Tensor) -> Tensor:
        """Minus the log prior of each member over n, (M,)."""
        return 0.5 * (self.decay * flat.square()).sum(1)

    def held_out_loss(self, flat: Tensor, z: Tensor, held: Tensor) -> Tensor:
        """Negative log marginal likelihood of rows that each member holds out, (M, n_val) -> (M,)."""
        parts = self.layout.split(flat)
        outputs = held_out_outputs(self.model, self.rows.x, held, parts, z, self.waves)
        log_p = self.model.noise.log_density(parts, outputs, self.rows.y[held][:, None])
        weight = self.rows.weight[held]
        return -(marginal(log_p, 1.0) * weight).sum(1) / weight.sum(1)

    def held_gradient(self, flat: Tensor) -> Tensor:
        """Of the held-out loss by the hyperparameters, the mean over the members of a fit: (M, their number)."""
        if self.held_rows is None or not bool(self.held.any()):
            return flat.new_zeros(self.n_members, int(self.held.sum()))
        losses = self.held_out_loss(flat, self.noise(HELD_DRAWS), next(self.held_batches))
        (gradient,) = torch.autograd.grad(losses.sum(), flat)
        own = gradient[:, self.held].unflatten(0, (self.n_fits, -1)).mean(1, keepdim=True)
        n_rows = self.held_rows.numel() / self.n_fits
        prior = flat.detach()[:, self.held] / (HELD_STD**2 * n_rows)
        return own.repeat_interleave(self.n_members // self.n_fits, 1).flatten(0, 1) + prior

    def spread(self, flat: Tensor, z: Tensor) -> Tensor:
        """Mean over weights of their standard deviation over draws, (M,)."""
        generator, parts = self.model.network.generator, self.layout.split(flat)
        if not generator.stochastic:
            return flat.new_zeros(self.n_members)
        draws = generator.draws(parts, z)
        total = flat.new_zeros(self.n_members)
        for i in range(len(self.model.network.shapes)):
            w, b = generator.weights(parts, f"layer.{i}", draws)
            total += w.std(1).sum((1, 2)) + b.std(1).sum(1)
        return total / self.model.network.n_weights

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        settings = self.settings
        if settings.schedule == "constant":
            return settings.learning_rate
        done = step / settings.n_steps
        ramp = min(1.0, (step + 1) / max(1.0, settings.warmup * settings.n_steps))
        return settings.learning_rate * ramp * 0.5 * (1 + cos(pi * done))

    def run(
        self,
        start: Tensor,
        watch: Callable[[Record], None] = lambda record: None,
        optimizer: tuple[Tensor, Tensor, int] | None = None,
    ) -> Trained:
        """Train from `start`, (M, P); `optimizer` is where an earlier run left it."""
        settings = self.settings
        walk = Walk.begin(start, optimizer)
        n_eval = settings.n_eval_draws if self.model.network.generator.stochastic else 1
        z_eval, z_spread = self.noise(n_eval), self.noise(10)
        every = max(1, settings.n_steps // settings.n_evaluations)
        curve: list[Record] = []
        batches = self.batches()
        since = 0
        for step in range(settings.n_steps):
            self.advance(walk, next(batches), step)
            since += 1
            if since == every or step + 1 == settings.n_steps:
                with torch.no_grad():
                    held = walk.best_loss.new_full((self.n_members,), torch.nan)
                    if self.held_rows is not None:
                        held = self.held_out_loss(walk.flat, z_eval, self.held_rows)
                    record = Record(
                        step + 1, walk.total / since + self.penalty(walk.flat), held, self.spread(walk.flat, z_spread)
                    )
                    walk.settle(held, judged=self.held_rows is not None)
                since = 0
                curve.append(record)
                watch(record)
        return Trained(walk.best, curve, walk.n_rollbacks, (walk.first, walk.second, walk.done))

    def advance(self, walk: "Walk", index: Tensor, step: int) -> None:
        """One update of all members on rows (M, B)."""
        losses = self.loss(walk.flat, index)
        (gradient,) = torch.autograd.grad(losses.sum(), walk.flat)
        if step % HELD_EVERY == 0:
            walk.held_gradient = self.held_gradient(walk.flat)
        with torch.no_grad():
            walk.total += losses.detach()
            gradient += self.decay * walk.flat
            gradient[:, self.held] = walk.held_gradient
            walk.flat -= self.rate(step) * walk.factor * self.rates * self.direction(gradient, walk)

    def direction(self, gradient: Tensor, walk: "Walk") -> Tensor:
        """The optimiser's direction; the moments are updated in place."""
        b1, b2 = self.settings.beta1, self.settings.beta2
        walk.done += 1
        if self.settings.optimizer == "sgd":
            return walk.first.mul_(b1).add_(gradient)
        walk.first.lerp_(gradient, 1 - b1)
        walk.second.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        scale = (walk.second / (1 - b2**walk.done)).sqrt_().add_(1e-8)
        return walk.first / scale / (1 - b1**walk.done)


@dataclass
class Walk:
    """Where a run stands: parameters, the optimiser's moments, and each member's best so far."""

    flat: Tensor
    first: Tensor
    second: Tensor
    done: int
    best: Tensor
    best_loss: Tensor  # (M,)
    factor: Tensor  # (M, 1), of the learning rate
    total: Tensor  # (M,), losses since the last evaluation
    n_rollbacks: Tensor  # (M,)
    held_gradient: Tensor  # of the hyperparameters, when held-out rows were last looked at

    @classmethod
    def begin(cls, start: Tensor, optimizer: tuple[Tensor, Tensor, int] | None) -> "Walk":
        """At `start`, with moments of an earlier run or none."""
        first, second, done = optimizer or (torch.zeros_like(start), torch.zeros_like(start), 0)
        m = len(start)
        losses, factor = start.new_full((m,), torch.inf), start.new_ones(m, 1)
        flat = start.clone().requires_grad_()
        count = torch.zeros(m, dtype=torch.int64, device=start.device)
        best = start.clone()
        return cls(flat, first, second, done, best, losses, factor, start.new_zeros(m), count, start.new_zeros(0))

    def settle(self, held: Tensor, judged: bool) -> None:
        """Keep what is best; members whose loss is not finite go back to it, more slowly from then on."""
        sound = torch.isfinite(self.total) & torch.isfinite(self.flat).all(1)
        if judged:
            sound &= torch.isfinite(held)
        better = sound & (held < self.best_loss) if judged else sound
        self.best[better] = self.flat.detach()[better]
        self.best_loss[better] = held[better]
        self.total = torch.zeros_like(self.total)
        lost = ~sound
        if bool(lost.any()):
            self.n_rollbacks += lost
            self.flat[lost] = self.best[lost]
            self.first[lost], self.second[lost] = 0.0, 0.0
            self.factor[lost] *= ROLLBACK_RATE


def held_out_outputs(
    model: Model, x: Tensor, held: Tensor, parts: dict[str, Tensor], z: Tensor, waves: Waves | None
) -> Tensor:
    """Outputs at each member's held-out rows, a few draws at a time: (M, G, n_val, O)."""
    width = max(model.network.hidden, default=1)
    size = max(1, MAX_ACTIVATIONS // (held.numel() * width))
    own = x[held]
    return torch.cat([model.network.outputs(parts, own, draws, waves) for draws in z.split(size, 1)], 1)
