"""HyperTrainingSearchCV over skorch's nets, from the user's side.

What they minimise and what is refused is tested in adapters/test_skorch.py, modules in core/test_module_network.py.
"""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping, EpochScoring, ProgressBar
from torch import nn

from skhyper.algorithms import NETWORK_ALGORITHMS
from skhyper.estimators.search import HyperTrainingSearchCV

# Short searches, whose alpha is still moving when they end; tests/test_network_endings.py has what is said of that.
pytestmark = pytest.mark.filterwarnings("ignore:Alpha was still moving")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 4)).astype(np.float32)
Y = (np.sin(X[:, :1]) + 0.1 * RNG.standard_normal((90, 1))).astype(np.float32)
CODES = (X[:, 0] + X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 1)
DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = (DIGITS / 16).astype(np.float32).reshape(-1, 1, 8, 8)


class Layers(nn.Sequential):
    def __init__(self, n_outputs=1, dropout=0.0):
        super().__init__(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, n_outputs))


class Images(nn.Sequential):
    def __init__(self):
        convolution = nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        super().__init__(*convolution, nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 10))


def settings(**given):
    common = {"optimizer": torch.optim.Adam, "lr": 0.02, "max_epochs": 30, "batch_size": 32, "verbose": 0}
    return {**common, "iterator_train__shuffle": True, **given}


def regressor(**given):
    return NeuralNetRegressor(Layers, **settings(**given))


def classifier(**given):
    return NeuralNetClassifier(Layers, **settings(module__n_outputs=3, criterion=nn.CrossEntropyLoss, **given))


def search(estimator, **given):
    return HyperTrainingSearchCV(estimator, **{"random_state": 0, "max_iter": 20, **given})


def parameters(net):
    return [p.detach().numpy() for p in net.module_.parameters()]


def test_the_fitted_object_is_the_users_own_net(tmp_path):
    ours = search(classifier()).fit(X, CODES)
    fitted = ours.best_estimator_
    assert type(fitted) is NeuralNetClassifier
    assert fitted.optimizer__weight_decay == ours.best_params_["optimizer__weight_decay"] > 0
    assert fitted.optimizer_.param_groups[0]["weight_decay"] == fitted.optimizer__weight_decay
    np.testing.assert_array_equal(ours.classes_, [0, 1, 2])
    np.testing.assert_array_equal(fitted.classes_, [0, 1, 2])
    np.testing.assert_allclose(ours.predict_proba(X).sum(1), 1, rtol=1e-5)
    assert ours.score(X, CODES) == (ours.predict(X) == CODES).mean() > 0.8
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    fitted.save_params(f_params=tmp_path / "net.pt")
    other = clone(fitted).initialize()
    other.load_params(f_params=tmp_path / "net.pt")
    np.testing.assert_array_equal(other.predict_proba(X), fitted.predict_proba(X))
    epochs = len(fitted.history)
    assert fitted.history[:, "epoch"] == list(range(1, epochs + 1))
    assert fitted.history[-1, "train_objective"] < fitted.history[0, "train_objective"]
    before = parameters(fitted)[0].copy()
    fitted.partial_fit(X, CODES)
    assert len(fitted.history) == epochs + 30
    assert not np.array_equal(parameters(fitted)[0], before)


def test_the_best_params_are_those_of_a_grid_search():
    ours = search(regressor()).fit(X, Y)
    own = clone(regressor()).set_params(**ours.best_params_).fit(X, Y)
    assert own.optimizer_.param_groups[0]["weight_decay"] == ours.best_params_["optimizer__weight_decay"]
    grid = GridSearchCV(regressor(), {"optimizer__weight_decay": [1e-4]}, cv=2).fit(X, Y)
    assert list(grid.best_params_) == list(ours.best_params_)
    assert next(iter(ours.alphas_.values())) == pytest.approx(ours.best_params_["optimizer__weight_decay"], rel=1e-5)


@pytest.mark.parametrize(
    "estimator",
    [
        regressor(),
        regressor(optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr=0.01),
        regressor(criterion=nn.HuberLoss),
        make_pipeline(StandardScaler(), regressor()),
        TransformedTargetRegressor(regressor(), transformer=StandardScaler()),
    ],
    ids=["adam", "momentum", "huber", "pipeline", "target"],
)
def test_regressors_pipelines_and_transformed_targets_are_tuned(estimator):
    ours = search(estimator, max_iter=40).fit(X, Y)
    assert type(ours.best_estimator_) is type(estimator)
    assert ours.predict(X).shape == Y.shape
    assert ours.score(X, Y) > 0.7
    assert ours.history_["value"][-1] < ours.history_["value"][0]
    assert len(set(ours.history_["log_alpha"])) > 1
    assert set(ours.best_params_) <= set(estimator.get_params()) | {"optimizer__weight_decay"} | {
        f"{prefix}__optimizer__weight_decay" for prefix in ("neuralnetregressor", "regressor")
    }


def test_two_classes_by_one_logit_and_labels_by_probabilities():
    bits = (CODES > 0).astype(np.float32)
    binary = search(NeuralNetBinaryClassifier(Layers, **settings())).fit(X, bits)
    assert binary.score(X, bits) > 0.8
    probable = NeuralNetClassifier(lambda: nn.Sequential(Layers(3), nn.Softmax(dim=-1)), **settings())
    ours = search(probable, scoring="neg_log_loss").fit(X, CODES)
    assert log_loss(CODES, ours.predict_proba(X)) < 0.7


def test_images_tune_and_generalise_better_than_without_decay():
    """400 images; every fourth label, held-out and test rows' too, is a random one."""
    order = np.random.default_rng(0).permutation(len(DIGITS))
    x, y = DIGITS[order], LABELS[order].copy()
    train, test = slice(0, 400), slice(400, None)
    y[::4] = np.random.default_rng(1).integers(10, size=len(y[::4]))
    net = NeuralNetClassifier(Images, criterion=nn.CrossEntropyLoss, **settings(lr=0.005, max_epochs=60))
    ours = HyperTrainingSearchCV(net, random_state=0).fit(x[train], y[train])
    torch.manual_seed(0)
    bare = clone(net).set_params(train_split=None).fit(x[train], y[train])
    tuned, without = (log_loss(y[test], e.predict_proba(x[test])) for e in (ours, bare))
    assert tuned < 0.85 * without


def test_a_pipeline_may_make_images_of_rows():
    shape = FunctionTransformer(lambda x: x.reshape(-1, 1, 8, 8).astype(np.float32))
    net = NeuralNetClassifier(Images, criterion=nn.CrossEntropyLoss, **settings(max_epochs=10))
    flat = DIGITS[:200].reshape(200, -1)
    ours = search(make_pipeline(shape, net), cv=2).fit(flat, LABELS[:200])
    assert ours.predict(flat).shape == (200,)
    assert ours.n_splits_ == 2


@pytest.mark.parametrize(("granularity", "n"), [("layer", 2), ("output", 11), ("feature", 14), ("weight", 67)])
def test_every_granularity_names_its_decays_and_keeps_the_global_row(granularity, n):
    ours = search(classifier(), granularity=granularity).fit(X, CODES)
    assert len(ours.alphas_) == n
    assert list(ours.cv_results_["n_hyperparameters"]) == [1, {"layer": 3, "weight": 68}.get(granularity, 5)]
    forced = search(classifier(), granularity=granularity, shrinkage=0.5).fit(X, CODES)
    assert forced.best_index_ == 1
    assert len(set(forced.alphas_.values())) > 1


def test_groups_of_columns_share_a_decay():
    ours = search(classifier(), decay_groups=["a", "b", "b", "b"]).fit(X, CODES)
    assert list(ours.alphas_) == ["a", "b", "0", "3"]


@pytest.mark.parametrize("algorithm", NETWORK_ALGORITHMS)
def test_every_algorithm_tunes(algorithm):
    ours = search(classifier(module__dropout=0.2), algorithm=algorithm).fit(X, CODES)
    assert np.isfinite(ours.best_score_)
    assert len(set(ours.history_["log_alpha"])) > 1
    assert ours.hypergradient_error_ >= 0


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_runs_with_one_random_state_are_identical_whatever_n_jobs_and_torchs_seed_are(dropout):
    net = regressor(module__dropout=dropout)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = search(net, cv=2, granularity="layer").fit(X, Y)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32
    torch.manual_seed(2)
    two = search(net, cv=2, granularity="layer", n_jobs=2).fit(X, Y)
    other = search(net, cv=2, granularity="layer", random_state=1).fit(X, Y)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    assert one.guard_score_ == two.guard_score_
    assert not np.allclose(one.predict(X), other.predict(X))


@pytest.mark.parametrize("algorithm", ["implicit", "joint"])
def test_a_continued_search_ends_as_one_that_was_not_interrupted(algorithm):
    net = classifier(module__dropout=0.2, max_epochs=100)
    whole = search(net, max_iter=16, algorithm=algorithm).fit(X, CODES)
    parts = search(net, max_iter=6, algorithm=algorithm).fit(X, CODES)
    parts = pickle.loads(pickle.dumps(parts)).continue_fit(X, CODES, max_iter=10)
    assert parts.n_iter_ == whole.n_iter_ == 16
    np.testing.assert_array_equal(parts.predict_proba(X), whole.predict_proba(X))


def test_the_best_response_moves_along_alpha_without_training():
    ours = search(regressor()).fit(X, Y)
    tuned = ours.best_params_["optimizer__weight_decay"]
    here, there = ours.best_response(tuned), ours.best_response(1.5 * tuned)
    np.testing.assert_allclose(here.predict(X), ours.predict(X), rtol=1e-6)
    assert there.optimizer__weight_decay == 1.5 * tuned
    assert sum((p**2).sum() for p in parameters(there)) < sum((p**2).sum() for p in parameters(here))
    low, high = ours.response_range_
    assert ours.validation_curve([low, tuned, high]).shape == (3,)


def test_a_search_is_itself_scored_by_cross_validation():
    scores = cross_val_score(search(regressor(), max_iter=10), X, Y, cv=2)
    assert np.isfinite(scores).all()


def test_what_cannot_be_used_is_refused_before_any_work():
    with pytest.raises(ValueError, match="sample_weight must be None"):
        search(regressor()).fit(X, Y, sample_weight=np.ones(90))
    with pytest.raises(ValueError, match=r"X\.astype\(np\.float32\)"):
        search(regressor()).fit(X.astype(float), Y)
    with pytest.raises(TypeError, match="optimizer="):
        search(regressor(optimizer=torch.optim.RMSprop)).fit(X, Y)
    images = search(NeuralNetClassifier(Images, criterion=nn.CrossEntropyLoss, **settings()), granularity="feature")
    with pytest.raises(ValueError, match=r"nn\.Linear that reads X itself"):
        images.fit(DIGITS, LABELS)
    with pytest.raises(ValueError, match="not for neural networks"):
        search(regressor(), algorithm="closed_form").fit(X, Y)
    with pytest.raises(TypeError, match="X must be an array"):
        search(regressor()).fit(list(X), Y)
    dummies = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    with pytest.raises(ValueError, match="fixed number of inputs"):
        search(make_pipeline(dummies, regressor()), cv=2).fit(X, Y)


def test_a_time_limit_leaves_a_model():
    ours = search(classifier(max_epochs=10_000), time_limit=0.5, max_iter=10_000).fit(X, CODES)
    assert "time limit" in ours.stop_reason_
    assert np.isfinite(ours.predict_proba(X)).all()


def test_disabled_callbacks_change_nothing_and_stay_disabled():
    ours, expected = (search(regressor(callbacks=given)).fit(X, Y) for given in ("disable", None))
    assert ours.best_params_ == expected.best_params_
    np.testing.assert_array_equal(ours.predict(X), expected.predict(X))
    assert ours.best_estimator_.callbacks == "disable"
    assert ours.best_estimator_.partial_fit(X, Y).callbacks_ == []


class Chatty(NeuralNetRegressor):
    def on_epoch_end(self, net, **kwargs):
        super().on_epoch_end(net, **kwargs)


@pytest.mark.parametrize(
    ("callbacks", "names"),
    [
        ([EpochScoring("r2"), ("bar", ProgressBar), EarlyStopping()], r"on_epoch_end\(\), EpochScoring, ProgressBar\."),
        (None, r"on_epoch_end\(\)\."),
    ],
)
def test_callbacks_that_nobody_calls_are_named_in_one_warning(callbacks, names):
    net = Chatty(Layers, **settings(callbacks=callbacks, max_epochs=2))
    with pytest.warns(UserWarning, match=rf"Callbacks of Chatty are not called, .*: {names} Leave them out") as told:
        search(net).fit(X, Y)
    assert len([one for one in told if "Callbacks" in str(one.message)]) == 1
