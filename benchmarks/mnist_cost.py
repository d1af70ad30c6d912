"""The cost of training steps on MNIST: `python -m benchmarks.mnist --cost`."""

from itertools import pairwise
from math import prod

import pandas as pd
import torch

from benchmarks.predict_cost import fastest
from benchmarks.report import bar, markdown
from skhyper import HypernetClassifier
from skhyper.core.noise.likelihood import Categorical
from skhyper.core.noise.objective import Model, Rows
from skhyper.core.noise.training import Trainer, Walk
from skhyper.estimators.hypernet_options import resolve_network, resolve_settings

BATCH = 256
N_DRAWS = 8


def stepper(settings, n_rows=4 * BATCH):
    """One training step of a 784-...-10 network on random rows, as a function without arguments."""
    model = HypernetClassifier(**{"preprocessing": None, "batch_size": BATCH, "dtype": "float32", **settings})
    noise = Categorical(10)
    whole = Model(resolve_network(model, 784, noise), noise)
    random = torch.Generator().manual_seed(0)
    x = torch.rand(n_rows, 784, generator=random)
    y = torch.eye(10)[torch.randint(10, (n_rows,), generator=random)]
    train = torch.arange(n_rows)[None]
    configuration = resolve_settings(model, False, n_rows)
    trainer = Trainer(
        whole, Rows(x, y, torch.ones(n_rows)), train, None, None, configuration, torch.Generator(), n_rows
    )
    walk = Walk.begin(whole.layout.draw(1, random).float(), whole.layout, None)
    phase = trainer.noisy()
    return lambda: trainer.advance(walk, train[:, :BATCH], phase, 0)


def floor_row(sizes, n_features):
    """The products of a step with one draw a row and a full generator: forward, and twice that backward."""
    pairs = [(torch.rand(BATCH, n_features * a), torch.rand(n_features * a, b)) for a, b in pairwise(sizes)]

    def call():
        for x, w in pairs:
            out = x @ w
            x.T @ out
            out @ w.T

    return call


def floor_shared(sizes, n_features):
    """The products with K draws of a full generator: the weights, K passes, and twice that backward."""
    pairs = [(torch.rand(n_features, a * b), torch.rand(BATCH, a)) for a, b in pairwise(sizes)]
    h = torch.rand(N_DRAWS, n_features)

    def call():
        for d, x in pairs:
            w = (h @ d).unflatten(1, (x.shape[1], -1))
            h.T @ w.flatten(1)
            w.flatten(1) @ d.T
            out = x @ w
            x.T @ out
            out @ w.transpose(1, 2)

    return call


def cost(network, hidden, hypernet, repeats):
    """Processor seconds of a step of each kind, taken in turns; `hypernet` are the hidden layers of full generators."""
    shared = {"hidden_layer_sizes": hidden, "n_estimators": 1, "prior_scale": 0.0}
    shared |= {"n_train_samples": N_DRAWS, "draws": "shared"}
    full = {**shared, "generator": "full", "hypernet_hidden_layer_sizes": hypernet}
    sizes, features = (784, *hidden, 10), hypernet[-1]
    calls = {
        "twin": stepper({**shared, "generator": "none"}),
        f"low rank, {N_DRAWS} draws, each all rows": stepper({**shared, "generator": "low_rank"}),
        f"low rank, rows dealt to {N_DRAWS} draws": stepper({**shared, "generator": "low_rank", "draws": "dealt"}),
        f"full, {N_DRAWS} draws, each all rows": stepper(full),
        "full, a draw for each row": stepper({**full, "draws": "row"}),
        f"products of full, {N_DRAWS} draws": floor_shared(sizes, features),
        "products of full, a draw for each row": floor_row(sizes, features),
    }
    for call in calls.values():
        call()
    seconds = pd.Series(fastest(list(calls.values()), repeats), calls, name="seconds a step")
    table = seconds.to_frame().assign(**{"/ twin": seconds / seconds["twin"]}).rename_axis("step")
    weights = prod(hidden[:1]) * 784 + sum(a * b for a, b in zip(hidden, (*hidden[1:], 10), strict=True))
    lines = [
        bar(f"low rank over {N_DRAWS} x twin", table["/ twin"].iloc[1] / N_DRAWS, 1.3),
        bar("low rank, dealt, over twin", table["/ twin"].iloc[2], 2.0),
        f"* full generator over its products: {seconds.iloc[3] / seconds.iloc[5]:.2f}",
        f"* full generator, a draw for each row, over its products: {seconds.iloc[4] / seconds.iloc[6]:.2f}",
    ]
    text = [f"## Steps of {network}, {weights:,} weights, minibatches of {BATCH}, float32, one thread", ""]
    return [*text, markdown(table, 3), "", *lines, ""]
