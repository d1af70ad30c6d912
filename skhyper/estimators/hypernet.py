"""What HypernetRegressor and HypernetClassifier share: parameters, fit, and the fitted state."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ..boundary import refuse_unreadable, to_numpy, to_tensor, torch_session
from ..core.noise.calibration import Judged
from ..core.noise.likelihood import NoiseModel
from ..core.noise.objective import Model
from ..core.noise.predictor import Predictor, members_waves
from ..core.noise.procedure import Fit, Holding, Job, run
from ..core.noise.rows import Data
from ..core.noise.scaling import Scaling
from ..core.noise.state import Candidate, State, begin
from ..core.noise.training import Record, Settings
from .all_or_nothing import all_or_nothing
from .hypernet_options import (
    ACTIVATIONS,
    SCALINGS,
    resolve_device,
    resolve_inputs,
    resolve_network,
    resolve_settings,
)
from .hypernet_rows import Encoded, ReadsRows
from .hypernet_state import dump_state, load_state, to_arrays, to_tensors

# Numbers in one block of outputs, and the multiplications that take as long as what is done with each of them.
MAX_OUTPUTS, REDUCTION = 2**23, 30.0


class Uncertainty(NamedTuple):
    """Total uncertainty and its parts."""

    total: NDArray[np.float64]
    aleatoric: NDArray[np.float64]
    epistemic: NDArray[np.float64]


class BaseHypernet(ReadsRows, ABC):
    """Networks whose weights are generated from noise, and trained by maximum likelihood."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "generator": [StrOptions({"auto", "full", "low_rank", "none"})],
        "noise_layers": [StrOptions({"all", "last"})],
        "patience": [Interval(Real, 1, None, closed="both")],
        "noise_trial": [Interval(Real, 0, 1, closed="left")],
        "residual": ["boolean"],
        "noise_dim": [Interval(Integral, 1, None, closed="left")],
        "hypernet_hidden_layer_sizes": ["array-like"],
        "hypernet_dropout": [Interval(Real, 0, 1, closed="left")],
        "input_noise": [Interval(Real, 0, None, closed="left")],
        "objective": [Interval(Real, 0, 1, closed="both")],
        "n_train_samples": [Interval(Integral, 1, None, closed="left")],
        "draws": [StrOptions({"shared", "dealt", "row"})],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "prior_scale": [Interval(Real, 0, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({"adam", "sgd"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "learning_rate": [StrOptions({"constant", "trapezoid"})],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "validation_fraction": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither")],
        "n_frequencies": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "preprocessing": [StrOptions(set(SCALINGS) - {None}), None],
        "device": [str],
        "dtype": [StrOptions({"float64", "float32"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
    }

    # Of the first layer, with a residual base: regression gains by a start from rougher functions, labels do not.
    _first_gain: ClassVar[float] = 1.0

    @property
    def _mean_weight(self) -> float:
        """Of the error of the mean beside the likelihood; labels have none."""
        return 0.0

    @abstractmethod
    def _noise_model(self, n_targets: int) -> NoiseModel:
        """The noise model."""

    @abstractmethod
    def _target_scaling(self, data: Data) -> Scaling:
        """The scaling of targets."""

    def _check_first_pass(self, data: Data) -> None:
        """Whether the scaling that the first rows give can serve all that follow."""

    def _predictor(self, n_samples: int | None) -> tuple[Predictor, State]:
        """The fitted members with the first `n_samples` of each one's noise bank."""
        state = load_state(self._state)
        size = state.bank.shape[1]
        if n_samples is not None:
            check_scalar(n_samples, "n_samples", Integral, min_val=1)
            if n_samples > size and self._model.network.generator.stochastic:
                raise ValueError(f"n_samples must be in [1, {size}], the draws made at fit, got {n_samples}.")
        return Predictor(self._model, state.flat, state.bank[:, : n_samples or size], state.waves), state

    def _check_members(self) -> int:
        """The number of members, which must be at least 2 to disagree."""
        check_is_fitted(self)
        members = len(self._state["flat"])
        if members < 2:
            raise ValueError(
                "predict_uncertainty needs n_estimators of at least 2, got 1: the epistemic part is the disagreement "
                "between members, which the spread of one member's draws does not measure."
            )
        return members

    def _one_noise(self, random: np.random.RandomState) -> NDArray[np.float64]:
        """A draw of the noise, (n_entries,)."""
        seeded = torch.Generator().manual_seed(int(random.randint(2**31 - 1)))
        like = torch.empty(0, dtype=torch.float64)
        return self._model.network.generator.sample(1, 1, seeded, like)[0, 0].numpy()

    def _one_function(self, X: ArrayLike, member: int, noise: NDArray[np.float64]) -> torch.Tensor:
        """Outputs of one member with one given noise, (n, O)."""
        x = self._rows(X)
        state = load_state(self._state)
        waves = members_waves(state.waves, member)
        z = to_tensor(noise)[None, None].to(state.flat.dtype)
        predictor = Predictor(self._model, state.flat[member : member + 1], z, waves)
        with torch_session(predictor.work(len(x))), torch.no_grad():
            return predictor.outputs(state.inputs(to_tensor(x)).to(state.flat.dtype))[0, 0].double()

    def _rows(self, X: ArrayLike) -> NDArray[np.float64]:
        """Checked rows of X."""
        check_is_fitted(self)
        refuse_unreadable(X=X)
        return validate_data(self, X, dtype=np.float64, reset=False)

    def _collect_blocks(
        self, X: ArrayLike, reduce: Callable[[slice, torch.Tensor, State], torch.Tensor], n_samples: int | None = None
    ) -> list[NDArray[np.float64]]:
        """What `reduce` makes of the outputs of each block of rows, (M, S, rows, O)."""
        blocks = []
        for part, outputs, state in self._outputs(X, n_samples):
            with torch_session(REDUCTION * outputs.numel()), torch.no_grad():
                blocks.append(to_numpy(reduce(part, outputs, state)))
        return blocks

    def _outputs(self, X: ArrayLike, n_samples: int | None = None) -> Iterator[tuple[slice, torch.Tensor, State]]:
        """Blocks of rows and their outputs, (M, S, rows, O) in float64."""
        x = self._rows(X)
        predictor, state = self._predictor(n_samples)
        size = max(1, MAX_OUTPUTS // (predictor.bank[..., 0].numel() * self._model.network.n_outputs))
        for start in range(0, len(x), size):
            part = slice(start, min(start + size, len(x)))
            with torch_session(predictor.work(part.stop - part.start)), torch.no_grad():
                rows = state.inputs(to_tensor(x[part])).to(state.flat.dtype)
                outputs = predictor.outputs(rows).double()
            yield part, outputs, state

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Train all members. An interruption keeps the best weights so far, with a ConvergenceWarning.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets or labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. Rows of weight zero are dropped.
        X_val, y_val : array-like, default=None
            Rows to stop and to calibrate by, instead of some of X's own.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If a parameter is out of range or does not go with the data, or X or y hold NaN or infinity.
        TypeError
            If X or y are masked arrays or hold dates.
        """
        again = self.warm_start and hasattr(self, "_state")
        encoded = self._encode(X, y, sample_weight, X_val, y_val, reset=not again)
        settings = resolve_settings(self, encoded.small, encoded.n_own, encoded.n_rows)
        self._fit(encoded, settings, self._holding(encoded), again)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def _partial_fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """One pass through the rows."""
        if self.early_stopping is True:
            raise ValueError("partial_fit holds out no rows; set early_stopping='auto' or False, got True.")
        again = hasattr(self, "_state")
        encoded = self._encode(X, y, sample_weight, None, None, reset=not again)
        if not again:
            self._check_first_pass(encoded.data)
        settings = resolve_settings(self, encoded.small, encoded.n_own, encoded.n_rows, one_pass=True)
        self._fit(encoded, settings, Holding(), again, keep_optimizer=True)
        return self

    def _fit(
        self, encoded: Encoded, settings: Settings, holding: Holding, again: bool, keep_optimizer: bool = False
    ) -> None:
        """Train, and store what was learnt."""
        n = encoded.n_own
        with torch_session():
            job = self._job(encoded, settings, holding, [settings.alpha], again, keep_optimizer)
            with torch_session(_work(job.candidates[0], settings)):
                (fit,) = run(job, self._watch())
        self._store(fit, settings, n, again, keep_optimizer)

    def _fit_alphas(self, X: Any, y: Any, sample_weight: Any, alphas: Sequence[float]) -> list[Self]:
        """A fitted copy for each alpha, trained as one batch: all start alike and hold out the same rows."""
        encoded = self._encode(X, y, sample_weight, None, None, reset=True)
        settings = resolve_settings(self, encoded.small, encoded.n_own, encoded.n_rows)
        with torch_session():
            job = self._job(encoded, settings, self._holding(encoded), alphas)
            with torch_session(len(alphas) * _work(job.candidates[0], settings)):
                fits = run(job, self._watch())
        if fits[0].interrupted:  # the search keeps what was trained to its end
            raise KeyboardInterrupt
        fitted = []
        for alpha, fit in zip(alphas, fits, strict=True):
            one = copy(self).set_params(alpha=alpha)
            one._store(fit, settings, len(encoded.data.x), again=False, keep_optimizer=False)
            fitted.append(one)
        return fitted

    def _job(
        self,
        encoded: Encoded,
        settings: Settings,
        holding: Holding,
        alphas: Sequence[float],
        again: bool = False,
        keep_optimizer: bool = False,
    ) -> Job:
        """What to train, and on what."""
        generator, candidates = self._begin(encoded, settings, holding, again)
        return Job(
            candidates,
            encoded.data,
            holding,
            settings,
            alphas,
            generator,
            self._like(),
            splitter=self._splitter(generator, again),
            optimizer=to_tensors(getattr(self, "_optimizer", None)) if keep_optimizer else None,
            before=Judged(*to_tensors(self._judged)) if again and keep_optimizer and self._judged else None,
        )

    def _begin(
        self, encoded: Encoded, settings: Settings, holding: Holding, again: bool
    ) -> tuple[torch.Generator, list[Candidate]]:
        """Random numbers, and the models that may be trained, with the weights from which they start."""
        data = encoded.data
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if again:
            self._check_unchanged(data.y.shape[1])
            generator = torch.Generator().manual_seed((seed + 7919 * self.t_) % (2**31 - 1))
            return generator, [Candidate(self._model, load_state(self._state))]
        generator = torch.Generator().manual_seed(seed)
        own = Data(*(values[: encoded.n_own] for values in data))
        noise, targets = self._noise_model(data.y.shape[1]), self._target_scaling(own)
        chooses = bool(holding.share or holding.n_given) and not encoded.small and settings.decay_from < 1
        self.t_, self._inputs_asked = 0, [self.preprocessing, self.n_frequencies]
        candidates = []
        for k, inputs in enumerate(resolve_inputs(self, own, chooses)):
            model = Model(resolve_network(self, inputs.n_columns, noise), noise)
            random = torch.Generator().manual_seed(seed + k) if k else generator  # a rival leaves the first one's alone
            state = begin(model, self.n_estimators, self.n_samples, inputs, targets, random)
            candidates.append(Candidate(model, state))
        return generator, candidates

    def _check_unchanged(self, n_targets: int) -> None:
        """Training goes on with the networks that there are."""
        noise, sizes = self._noise_model(n_targets), np.shape(self._state["bank"])[:2]
        asked = Model(resolve_network(self, self._model.network.n_features, noise), noise)
        draws = self.n_samples if asked.network.generator.stochastic else 1
        preprocessing, frequencies = self._inputs_asked
        kept = self.n_frequencies in ("auto", frequencies, self.n_frequencies_)  # "auto": as they are
        same_inputs = kept and preprocessing == self.preprocessing
        if asked != self._model or sizes != (self.n_estimators, draws) or not same_inputs:
            raise ValueError(
                "partial_fit and warm_start go on with the networks of the first fit, but a parameter that shapes them "
                "(layers, generator, noise, n_estimators, n_samples) or their inputs (preprocessing, n_frequencies) "
                "has been changed; put it back or fit a clone."
            )

    def _splitter(self, generator: torch.Generator, again: bool) -> torch.Generator:
        """Of what is held out: a fit that goes on holds out the same rows, if there are as many."""
        if not again:
            self._split_state = generator.get_state().numpy().copy()
            return generator
        splitter = torch.Generator()
        splitter.set_state(torch.from_numpy(self._split_state.copy()))
        return splitter

    def _like(self) -> torch.Tensor:
        """Of the precision and on the device of the training."""
        return torch.empty(0, dtype=getattr(torch, self.dtype), device=resolve_device(self.device))

    def _store(self, fit: Fit, settings: Settings, n: int, again: bool, keep_optimizer: bool) -> None:
        self._model, self._state = fit.model, dump_state(fit.state)
        self.n_frequencies_ = len(fit.state.inputs.frequencies)
        self._judged = to_arrays(fit.judged)
        vars(self).pop("_optimizer", None)
        if keep_optimizer:
            self._optimizer = to_arrays(fit.optimizer)
        names = ("loss", "held_out", "spread")
        curves = [np.array([float(getattr(record, name).mean()) for record in fit.curve]) for name in names]
        if again:
            old = (self.loss_curve_, self.validation_loss_curve_, self.weight_spread_curve_)
            curves = [np.concatenate(pair) for pair in zip(old, curves, strict=True)]
        self.loss_curve_, self.validation_loss_curve_, self.weight_spread_curve_ = curves
        self.noise_dropped_ = fit.dropped
        self.t_ += fit.n_steps
        rows_seen = fit.n_steps * min(settings.batch_size, n)
        self.n_iter_ = max(1, round(rows_seen / n)) + (self.n_iter_ if again else 0)
        self.n_rollbacks_ = fit.n_rollbacks
        if fit.interrupted:
            warnings.warn(
                f"Training was interrupted after {fit.n_steps} updates; the best weights so far are kept.",
                ConvergenceWarning,
                stacklevel=4,
            )
        if fit.n_rollbacks:
            warnings.warn(
                f"The loss was not finite {fit.n_rollbacks} time(s); the members concerned went on from their best "
                f"weights with a smaller learning rate. Lower learning_rate_init (now {self.learning_rate_init}) or "
                "look for outliers in y.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _watch(self) -> Any:
        """Prints a line for each evaluation if `verbose`."""
        if not self.verbose:
            return lambda record: None

        def say(record: Record) -> None:
            print(
                f"[{type(self).__name__}] step {record.step}: loss {float(record.loss.mean()):.4f}, held-out loss "
                f"{float(record.held_out.mean()):.4f}, weight spread {float(record.spread.mean()):.4g}"
            )

        return say


def _work(candidate: Candidate, settings: Settings) -> float:
    """Multiplications of a step, roughly."""
    model, state = candidate
    return float(model.network.n_weights * len(state.flat) * settings.n_draws * settings.batch_size)
