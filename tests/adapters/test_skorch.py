"""skorch's nets: their objective step by step, which of their weights share a decay, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping, Freezer, LRScheduler
from skorch.dataset import Dataset
from torch import nn

from skhyper.adapters import supported
from skhyper.adapters.network import encode_network
from skhyper.adapters.registry import adapter_for
from skhyper.boundary import Granularity, to_tensor, torch_session
from skhyper.core.training import Trainer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((23, 3)).astype(np.float32)
IMAGES = RNG.standard_normal((23, 1, 4, 4)).astype(np.float32)
Y2 = RNG.standard_normal((23, 2)).astype(np.float32)
CODES = (np.arange(23) % 3).astype(np.int64)
BITS = np.arange(23) % 2


def layers(n_outputs=2, last=nn.Identity):
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, n_outputs), last())


def convolution(n_outputs=3):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, n_outputs))


class Flat(nn.Module):
    """One output without an axis of its own."""

    def __init__(self):
        super().__init__()
        self.inner = layers(1)

    def forward(self, x):
        return self.inner(x)[:, 0]


def regressor(module=layers, **settings):
    return NeuralNetRegressor(module, **{"verbose": 0, "train_split": None, "batch_size": 10, **settings})


def classifier(module=layers, **settings):
    defaults = {"verbose": 0, "train_split": None, "batch_size": 10, "module__n_outputs": 3}
    return NeuralNetClassifier(module, **{**defaults, "criterion": nn.CrossEntropyLoss, **settings})


def encoded(net, x, y, granularity="global", labels=None):
    """The adapter, its encoding, and the net as `read` left it."""
    adapter = adapter_for(net)
    shell = clone(net)
    x, y = adapter.read(shell, x, y)
    kind = adapter.granularity(shell, Granularity(granularity, labels))
    encoding = encode_network(adapter, shell, x, y, granularity=kind, classes=adapter.classes(net, y))
    return adapter, encoding, kind


UNDECAYED = [("*.bias", {"weight_decay": 0})]
CASES = {
    "plain descent": (regressor(lr=0.1), X, Y2),
    "momentum": (regressor(optimizer__momentum=0.7, lr=0.03, optimizer__nesterov=True), X, Y2),
    "adam": (regressor(optimizer=torch.optim.Adam, lr=0.02, optimizer__betas=(0.8, 0.99), optimizer__eps=1e-3), X, Y2),
    "all rows": (regressor(batch_size=-1, lr=0.1), X, Y2),
    "flat output": (regressor(Flat, lr=0.1), X, Y2[:, 0]),
    "undecayed biases": (regressor(lr=0.1, optimizer__param_groups=UNDECAYED), X, Y2),
    "huber": (regressor(criterion=nn.HuberLoss, criterion__delta=0.5, lr=0.1), X, Y2),
    "smooth l1": (regressor(criterion=nn.SmoothL1Loss, criterion__beta=0.5, lr=0.1), X, Y2),
    "poisson": (regressor(criterion=nn.PoissonNLLLoss, lr=0.1), X, Y2**2),
    "logits": (classifier(lr=0.1), X, CODES),
    "probabilities": (classifier(lr=0.1, criterion=nn.NLLLoss, module__last=nn.Softmax), X, CODES),
    "convolution": (classifier(convolution, lr=0.1, optimizer=torch.optim.Adam), IMAGES, CODES),
    "binary": (NeuralNetBinaryClassifier(Flat, lr=0.1, verbose=0, train_split=None, batch_size=10), X, BITS),
}


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax")
@pytest.mark.parametrize("name", CASES)
def test_at_a_fixed_alpha_training_is_skorchs_own_step_by_step(name):
    net, x, y = CASES[name]
    alpha, epochs = 0.3, 8
    adapter, encoding, _ = encoded(net, x, y)
    problem = encoding.problem
    trainer = Trainer(problem)
    shell = clone(net)
    adapter.read(shell, x, y)
    w = to_tensor(adapter.start(shell, problem.network, np.random.RandomState(1)))[None]
    decay = alpha * (problem.decays.index >= 0).to(w)[None]
    own = clone(net).set_params(max_epochs=epochs, optimizer__weight_decay=alpha).initialize()
    with torch.no_grad():
        for p, value in zip(own.module_.parameters(), problem.network.split(w[0]), strict=True):
            p.copy_(value)
    targets = y.astype(np.float32) if isinstance(net, NeuralNetBinaryClassifier) else y
    own.partial_fit(x, targets)
    state, _ = trainer.run(trainer.start(0, w), decay, epochs * trainer.steps_per_epoch)
    for p, value in zip(own.module_.parameters(), problem.network.split(state.w[0]), strict=True):
        torch.testing.assert_close(value, p.detach(), rtol=2e-4, atol=2e-5)
    fitted = clone(net)
    adapter.read(fitted, x, y)
    adapter.store(fitted, encoding.solution(state.w[0]), x, y, adapter.classes(net, y))
    np.testing.assert_allclose(fitted.predict_proba(x), own.predict_proba(x), rtol=1e-3, atol=1e-4)


def test_weights_share_a_decay_by_layer_unit_and_input():
    found = {}
    for name in ("global", "layer", "output", "feature", "weight"):
        _, encoding, kind = encoded(classifier(), X, CODES, name)
        found[name] = (encoding.problem.decays.index.tolist(), kind.names(["a", "b", "c"], [0, 1, 2]))
    assert found["global"] == ([0] * 31, ["all"])
    assert found["layer"] == ([0] * 16 + [1] * 15, ["0", "2"])
    units = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3] + [0, 1, 2, 3] + [4] * 4 + [5] * 4 + [6] * 4 + [4, 5, 6]
    assert found["output"] == (units, [*(f"0.weight[{j}]" for j in range(4)), *(f"2.weight[{j}]" for j in range(3))])
    inputs = [0, 1, 2] * 4 + [3] * 4 + [4, 5, 6, 7] * 3 + [8] * 3
    assert found["feature"] == (inputs, ["a", "b", "c", "0.bias", *(f"2.weight[:, {i}]" for i in range(4)), "2.bias"])
    assert found["weight"][0] == list(range(31))
    assert found["weight"][1][:2] == ["0.weight[0, 0]", "0.weight[0, 1]"]
    assert found["weight"][1][-1] == "2.bias[2]"


def test_groups_of_columns_and_parameters_without_decay():
    labels = np.array(["u", "v", "u"], dtype=object)
    net = classifier(optimizer__param_groups=UNDECAYED)
    _, encoding, kind = encoded(net, X, CODES, "feature", labels)
    assert encoding.problem.decays.index.tolist() == [0, 1, 0] * 4 + [-1] * 4 + [2] * 12 + [-1] * 3
    assert kind.names(["a", "b", "c"], [0, 1, 2]) == ["u", "v", "2"]


@pytest.mark.parametrize("name", ["global", "layer", "output", "weight"])
def test_a_convolution_has_every_granularity_but_features(name):
    _, encoding, kind = encoded(classifier(convolution), IMAGES, CODES, name)
    index = encoding.problem.decays.index.tolist()
    names = kind.names([f"x{j}" for j in range(16)], [0, 1, 2])
    assert sorted(set(index)) == list(range(len(names)))
    assert len(set(names)) == len(names)
    if name == "output":
        assert index[:18] == [0] * 9 + [1] * 9
    with pytest.raises(ValueError, match=r"nn\.Linear that reads X itself"):
        encoded(classifier(convolution), IMAGES, CODES, "feature")


class Overriding(NeuralNetRegressor):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred, y_true, *args, **kwargs) + 1


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (regressor(optimizer=torch.optim.AdamW), r"optimizer=<class .*AdamW.*no penalty of the loss"),
        (regressor(optimizer=torch.optim.RMSprop), r"optimizer=<class .*RMSprop"),
        (regressor(optimizer=torch.optim.Adam, optimizer__amsgrad=True), "optimizer__amsgrad=True"),
        (regressor(optimizer__param_groups=[("*.bias", {"lr": 0.1})]), "optimizer__param_groups"),
        (regressor(criterion=type("Own", (nn.MSELoss,), {})), r"criterion=<class .*Own"),
        (regressor(criterion=nn.L1Loss), r"criterion=<class .*L1Loss"),
        (regressor(criterion=nn.MSELoss, criterion__reduction="sum"), "criterion__reduction='sum'"),
        (classifier(criterion__weight=torch.ones(3)), "criterion__weight"),
        (classifier(criterion__label_smoothing=0.1), "criterion__label_smoothing=0.1"),
        (regressor(iterator_train__drop_last=True), "iterator_train__drop_last"),
        (regressor(dataset=type("Own", (Dataset,), {})), "dataset"),
        (regressor(device="meta"), "device='meta'"),
        (regressor(callbacks=[("rate", LRScheduler())]), "callbacks=LRScheduler"),
        (regressor(callbacks=[Freezer("0.*")]), "callbacks=Freezer"),
        (Overriding(layers), "Overriding overrides get_loss"),
    ],
    ids=lambda value: value.replace("\\", "")[:30] if isinstance(value, str) else "",
)
def test_a_setting_without_a_differentiable_objective_is_a_type_error_that_names_it(net, message):
    with pytest.raises(TypeError, match=message):
        adapter_for(net)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (regressor(max_epochs=0), "max_epochs must be an integer >= 1, got 0"),
        (regressor(batch_size=0), "batch_size must be an integer >= 1, or -1 for all rows, got 0"),
        (regressor(lr=-1.0), r"lr must be > 0, got -1\.0"),
    ],
)
def test_a_setting_out_of_range_is_a_value_error_that_names_it(net, message):
    with pytest.raises(ValueError, match=message):
        adapter_for(net)


class Tuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = layers()

    def forward(self, x):
        return self.inner(x), x


class Frozen(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 2).requires_grad_(False))


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * g


class Once(nn.Module):
    """Differentiable once."""

    def __init__(self):
        super().__init__()
        self.inner = layers()

    def forward(self, x):
        return Twice.apply(self.inner(x))


def normalised():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


MODULES = [
    (normalised, TypeError, "BatchNorm1d changes its buffer '1.running_mean' in training"),
    (Tuple, TypeError, "must return one tensor, got tuple"),
    (Frozen, ValueError, "no parameters that require gradients"),
    (Once, TypeError, "cannot be differentiated twice"),
    (lambda: nn.Linear(5, 2), ValueError, r"cannot read rows of X of shape \(3,\)"),
    (lambda: nn.Linear(3, 5), ValueError, "must return 2 outputs, one for each column of y, got 5"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2))), ValueError, "must return outputs of shape"),
    (lambda: nn.Linear(3, 2).double(), ValueError, r"dtype of the module, float64, got float32; pass X\.astype"),
]


@pytest.mark.parametrize(("module", "error", "message"), MODULES, ids=[m for *_, m in MODULES])
def test_a_module_that_cannot_be_tuned_says_why(module, error, message):
    with pytest.raises(error, match=message):
        encoded(regressor(module), X, Y2)


@pytest.mark.parametrize(
    ("net", "x", "y", "error", "message"),
    [
        (classifier(), X, CODES.astype(str), ValueError, "must hold integers >= 0.*LabelEncoder"),
        (classifier(), X, CODES - 1, ValueError, "a minimum of -1"),
        (classifier(), X, CODES + 1, ValueError, "an output for each class, 4 or more, got 3"),
        (classifier(), X, np.zeros(23, dtype=int), ValueError, "at least 2 classes"),
        (classifier(criterion=nn.NLLLoss), X, CODES, ValueError, "rows that sum to one"),
        (NeuralNetBinaryClassifier(Flat), X, CODES, ValueError, r"must hold 0 and 1, got \[0, 1, 2\]"),
        (NeuralNetBinaryClassifier(layers), X, BITS, ValueError, "must return one output, the logit of class 1, got 2"),
        (regressor(), {"x": X}, Y2, TypeError, "X must be an array for NeuralNetRegressor.*got dict"),
        (regressor(), np.where(X > 1, np.nan, X), Y2, ValueError, "X contains NaN"),
        (regressor(), X, np.where(Y2 > 1, np.inf, Y2), ValueError, "y contains infinity"),
        (regressor(), X.astype(np.float64), Y2, ValueError, r"got float64; pass X\.astype\(np\.float32\)"),
        (regressor(), X[:9], Y2, ValueError, "inconsistent numbers of samples"),
    ],
)
def test_data_that_cannot_be_used_says_why(net, x, y, error, message):
    with pytest.raises(error, match=message):
        encoded(net, x, y)


def test_early_stopping_gives_its_patience_and_other_settings_hold():
    net = regressor(callbacks=[("stop", EarlyStopping(patience=7))], max_epochs=13, iterator_train__shuffle=True)
    recipe = adapter_for(net).recipe(net)
    assert (recipe.patience, recipe.max_epochs, recipe.shuffle, recipe.batch_size) == (7, 13, True, 10)
    assert adapter_for(regressor()).recipe(regressor()).patience is None
    assert not adapter_for(regressor()).recipe(regressor()).shuffle


def test_a_subclass_that_keeps_the_training_is_served():
    class Named(NeuralNetRegressor):
        pass

    assert adapter_for(Named(layers)).parameter == "optimizer__weight_decay"


def test_a_module_instance_is_neither_changed_nor_shared():
    module = layers()
    before = [p.detach().clone() for p in module.parameters()]
    adapter, encoding, _ = encoded(regressor(module), X, Y2)
    start = adapter.start(regressor(module), encoding.problem.network, np.random.RandomState(0))
    np.testing.assert_array_equal(start, torch.cat([p.flatten() for p in before]).double())
    one, other = regressor(module), regressor(module)
    for net, w in ((one, torch.zeros(26)), (other, torch.ones(26))):
        adapter.store(net, encoding.solution(w.double()), X, Y2, None)
    assert not one.predict(X).any()
    assert other.predict(X).all()
    for p, value in zip(module.parameters(), before, strict=True):
        assert torch.equal(p, value)


def test_modules_are_made_with_the_users_default_dtype():
    with torch_session():
        _, encoding, _ = encoded(regressor(), X, Y2)
        assert torch.get_default_dtype() == torch.float64
    assert {p.dtype for p in encoding.problem.network.module.parameters()} == {torch.float32}


def test_skorch_is_imported_by_its_users_alone():
    code = "import sys, skhyper.estimators.search, skhyper.adapters; print('skorch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
    assert {"NeuralNetRegressor", "NeuralNetClassifier", "NeuralNetBinaryClassifier"} <= set(supported())
