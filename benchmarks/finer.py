"""Finer decays of a network: ``python -m benchmarks.finer``, 784-100-10 on 4,000 MNIST rows, half of them held out.

HyperTrainingSearchCV(MLPClassifier(), cv=.5) with one decay, one a layer, one a weight (79,400), selection on: finer
decays are fitted to 60 % of the held-out rows, judged by the rest, and kept only for a clear gain. Those of weights are
free, as by default, or (``weight, family``) tied to the weights with an alpha and an exponent of each layer. Test
log-loss and error of the final network, trained on with all 4,000 rows, on MNIST's 10,000 test rows; paired by seed.
``weight, forced`` keeps the finer decays whatever the judging rows say: what selection saves from.
"""

from functools import partial

import numpy as np
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from benchmarks.data import Split, load_mnist
from benchmarks.report import log_ratio, markdown, means
from benchmarks.runner import RESULTS, Fitted, Model, in_order, parser, run

N_ROWS = 4000
BASE = "global"


def mnist(seed):
    X, y, X_test, y_test = load_mnist()
    rows = np.random.RandomState(seed).permutation(len(y))[:N_ROWS]
    return Split(X[rows], y[rows], X_test, y_test, np.ones(X.shape[1]))


def fit(part, granularity, **settings):
    from skhyper import HyperTrainingSearchCV

    network = MLPClassifier(random_state=0)
    search = HyperTrainingSearchCV(
        network, granularity=granularity, cv=0.5, scoring="neg_log_loss", random_state=0, **settings
    )
    search.fit(part.X_train, part.y_train)
    return Fitted(search, n_hyperparameters=search.n_hyperparameters_, converged=True)


MODELS = {
    BASE: Model(partial(fit, granularity="global"), warm_up=False),
    "layer": Model(partial(fit, granularity="layer"), warm_up=False),
    "weight": Model(partial(fit, granularity="weight"), warm_up=False),
    "weight, family": Model(partial(fit, granularity="weight", exponent="tuned"), warm_up=False),
    "weight, joint": Model(partial(fit, granularity="weight", algorithm="joint"), warm_up=False),
    "weight, forced": Model(partial(fit, granularity="weight", shrinkage=1.0), warm_up=False),
}


def metric(search, part):
    return {
        "score": log_loss(part.y_test, search.predict_proba(part.X_test)),
        "error": 100 * (search.predict(part.X_test) != part.y_test).mean(),
        "chosen": search.best_index_,
    }


def report(rows):
    """The text of the table."""
    order = [name for name in MODELS if name in set(rows["model"])]
    table = means(rows)[order].T.set_axis(["test log-loss"], axis=1)
    table["test error, %"] = means(rows, "error")[order].iloc[0]
    table["seeds with finer decays"] = means(rows, "chosen")[order].iloc[0] * rows["split"].nunique()
    table["seconds of CPU"] = means(rows, "cpu_seconds")[order].iloc[0]
    for name in order:
        mean, error = (part.iloc[0] for part in log_ratio(rows, name, BASE))
        table.loc[name, f"log ratio to {BASE}"], table.loc[name, "s.e."] = mean, error
    seeds = rows["split"].nunique()
    head = f"# Finer decays of 784-100-10, {N_ROWS} MNIST rows, half held out, {seeds} seeds"
    return "\n".join([head, "", markdown(table.rename_axis("granularity")), ""])


def main(argv=None):
    arguments = parser(__doc__.splitlines()[0], MODELS, {"mnist": mnist}).parse_args(argv)
    rows = run({"mnist": mnist}, MODELS, metric, arguments, RESULTS / "finer.csv")
    if rows.empty:
        return
    rows = in_order(rows, {"mnist": mnist}, MODELS)
    text = report(rows)
    (RESULTS / "finer.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
