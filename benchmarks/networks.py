"""Neural networks: ``python -m benchmarks.networks`` compares HyperTrainingSearchCV(MLP) with searches over alpha.

MNIST (2,000 rows), digits, segment, spambase, and regression sets, at most 2,000 training rows, columns standardised by
them (MNIST: pixels in [0, 1]), targets too; test = the rest, at most 5,000 rows. The estimators are MLPClassifier and
MLPRegressor as they come. Score: test log-loss, or mean squared error in units of the targets' variance.

Peers: GridSearchCV over 20 and over 7 alphas, RandomizedSearchCV (20 draws), HalvingRandomSearchCV (20 draws, max_iter
as the resource) and OptunaSearchCV (20 trials), all with cv=5 and one job; ``grid_20_jobs_2`` has two jobs.

Curves against time: a peer's is the test loss of what it would have returned after each of its alphas, refitted; ours
is that of searches that end after a share of the hyper-steps. Times are seconds of CPU, of one thread.
"""

import time
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor

from benchmarks.data import Split, load, load_mnist, split
from benchmarks.report import common, log_ratio, markdown, means
from benchmarks.runner import RESULTS, Fitted, Model, in_order, parser, run

ALPHAS = np.logspace(-5, 2, 20)
N_TRAIN = 2000
BASE = "grid_20"
SHARES = (0.1, 0.25, 0.5)  # of the evaluations of a search of ours, for its curve
SEVERAL_JOBS = ("grid_20_jobs_2",)  # whose processor time is that of other processes
CLASSIFICATION = ("digits", "segment", "spambase")
REGRESSION = ("concrete", "kin8nm")


def classification(name):
    return lambda seed: split(*load(name), seed, max_train=N_TRAIN, stratify=True)


def regression(name):
    def task(seed):
        part = split(*load(name), seed, max_train=N_TRAIN)
        mean, scale = part.y_train.mean(), part.y_train.std()
        return Split(part.X_train, (part.y_train - mean) / scale, part.X_test, (part.y_test - mean) / scale, part.terms)

    return task


def mnist(seed):
    X, y, X_test, y_test = load_mnist()
    rows = np.random.RandomState(seed).permutation(len(y))[:N_TRAIN]
    return Split(X[rows], y[rows], X_test[:5000], y_test[:5000], np.ones(X.shape[1]))


TASKS = {
    **{name: classification(name) for name in CLASSIFICATION},
    **{name: regression(name) for name in REGRESSION},
    "mnist": mnist,
}


def estimator(part):
    """The network, and the score that searches read."""
    if part.y_train.dtype.kind == "f":
        return MLPRegressor(random_state=0), "neg_mean_squared_error"
    return MLPClassifier(random_state=0), "neg_log_loss"


class Search(NamedTuple):
    """A fitted search and its cost."""

    fitted: object
    cpu_seconds: float


def timed(search, part):
    """Fit a search."""
    start = time.process_time()
    search.fit(part.X_train, part.y_train)
    return Search(search, time.process_time() - start)


def ours(part, algorithm="auto", **settings):
    from skhyper import HyperTrainingSearchCV, algorithms

    network, scoring = estimator(part)
    if algorithm == "joint, low rank":
        algorithm = algorithms.JointHyperTraining(hypernet="low_rank")
    if algorithm == "joint, fine-tuning":
        algorithm = algorithms.JointHyperTraining(fine_tuning=5)
    search = HyperTrainingSearchCV(network, algorithm=algorithm, scoring=scoring, random_state=0, **settings)
    done = timed(search, part)
    return Fitted(done, n_hyperparameters=search.n_hyperparameters_, converged=True)


def searched(part, make):
    """A search over alpha; whether a network has converged is the estimator's own affair here."""
    network, scoring = estimator(part)
    done = timed(make(network, scoring), part)
    alpha = done.fitted.best_params_["alpha"]
    return Fitted(done, not ALPHAS[0] < alpha < ALPHAS[-1], 1, converged=True)


def grid(network, scoring, alphas=ALPHAS, n_jobs=None):
    return GridSearchCV(network, {"alpha": alphas}, cv=5, scoring=scoring, n_jobs=n_jobs)


def random(network, scoring):
    space = {"alpha": loguniform(ALPHAS[0], ALPHAS[-1])}
    return RandomizedSearchCV(network, space, n_iter=20, cv=5, scoring=scoring, random_state=0)


def halving(network, scoring):
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (the import is what makes the next one possible)
    from sklearn.model_selection import HalvingRandomSearchCV

    space = {"alpha": loguniform(ALPHAS[0], ALPHAS[-1])}
    resource = {"resource": "max_iter", "min_resources": 20, "max_resources": 200, "n_candidates": 20}
    return HalvingRandomSearchCV(network, space, **resource, cv=5, scoring=scoring, random_state=0)


def optuna_search(network, scoring):
    import optuna
    from optuna_integration import OptunaSearchCV

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {"alpha": optuna.distributions.FloatDistribution(ALPHAS[0], ALPHAS[-1], log=True)}
    return OptunaSearchCV(network, space, n_trials=20, cv=5, scoring=scoring, random_state=0)


OURS = {
    "implicit": {},
    "joint": {"algorithm": "joint"},
    "joint_low_rank": {"algorithm": "joint, low rank"},
    "joint_fine_tuning": {"algorithm": "joint, fine-tuning"},
    "simplified": {"algorithm": "simplified"},
    "global": {"algorithm": "global"},
    "unrolled": {"algorithm": "unrolled"},
    "t1t2": {"algorithm": "t1t2"},
    "implicit_layer": {"granularity": "layer"},
    "implicit_weight": {"granularity": "weight"},
    "joint_weight": {"algorithm": "joint", "granularity": "weight"},
    "implicit_cv5": {"cv": 5},
}
PEERS = {
    "grid_20": grid,
    "grid_7": partial(grid, alphas=ALPHAS[::3]),
    "random_20": random,
    "halving_20": halving,
    "optuna_20": optuna_search,
    "grid_20_jobs_2": partial(grid, n_jobs=2),
}
MODELS = {
    **{name: Model(partial(ours, **settings), counted=False) for name, settings in OURS.items()},
    **{name: Model(partial(searched, make=make)) for name, make in PEERS.items()},
}


def metric(search, part):
    """The test loss of the final network, and of those that the search would have ended with before."""
    points = curve_of_ours(search, part) if hasattr(search.fitted, "stop_reason_") else curve_of_peer(search, part)
    return {"score": test_loss(search.fitted, part), "curve": " ".join(f"{t:.4g}:{loss:.5g}" for t, loss in points)}


def candidates(search):
    """Seconds, alphas and scores of a peer's candidates in turn; halving has no such order."""
    if hasattr(search, "trials_"):
        done = [(t.duration.total_seconds(), t.params["alpha"], t.value) for t in search.trials_]
        return (np.array(column) for column in zip(*done, strict=True))
    results = search.cv_results_
    seconds = (results["mean_fit_time"] + results["mean_score_time"]) * search.n_splits_
    rows = slice(0, 0 if "iter" in results else None)
    return seconds[rows], results["param_alpha"][rows], results["mean_test_score"][rows]


def curve_of_peer(search, part):
    """(CPU seconds, test loss) after each alpha that was the best so far, refitted."""
    seconds, alphas, scores = candidates(search.fitted)
    spent = np.cumsum(seconds) + search.fitted.refit_time_
    points, best = [], -np.inf
    for alpha, score, time_then in zip(alphas, scores, spent, strict=True):
        if score > best:
            best = score
            network = clone(search.fitted.estimator).set_params(alpha=float(alpha))
            loss = test_loss(network.fit(part.X_train, part.y_train), part)
            points.append((time_then / spent[-1] * search.cpu_seconds, loss))
    return points


def curve_of_ours(search, part):
    """(CPU seconds, test loss) of searches that end after a share of the evaluations."""
    n_iter = max(np.bincount(np.unique(search.fitted.history_["stage"], return_inverse=True)[1]))
    points = []
    for share in SHARES:
        shorter = timed(clone(search.fitted).set_params(max_iter=max(1, int(share * n_iter))), part)
        points.append((shorter.cpu_seconds, test_loss(shorter.fitted, part)))
    return points


def test_loss(fitted, part):
    """Log-loss, or the mean squared error as a share of the variance of the test targets."""
    if part.y_train.dtype.kind == "f":
        return float(np.mean((fitted.predict(part.X_test) - part.y_test) ** 2) / np.var(part.y_test))
    return float(log_loss(part.y_test, fitted.predict_proba(part.X_test), labels=fitted.classes_))


def report(rows):
    """The text of the tables."""
    order = [name for name in MODELS if name in set(rows["model"])]
    text = ["# Neural networks", "", "Test loss, mean over the random splits that a model was run on.", ""]
    text += [markdown(means(rows)[order]), ""]
    ours_and_base = [name for name in OURS if name in order and BASE in order]
    ratios = {name: np.exp(log_ratio(rows, name, BASE)[0]) for name in ours_and_base}
    text += [f"## Test loss over {BASE}'s, geometric mean over the splits of both", ""]
    text += [markdown(pd.DataFrame(ratios).rename_axis("set"), 3), ""]
    text += ["Times of different runs, in the column `run`, may be those of different machines.", ""]
    text += ["## Seconds, mean over splits", "", markdown(means(rows, "seconds")[order], 3), ""]
    text += ["## Seconds of CPU (this process alone), mean over splits", ""]
    text += [markdown(means(rows, "cpu_seconds")[order], 3), ""]
    for name in [name for name in OURS if name in order]:
        for peer in [peer for peer in ("grid_20", "grid_7", *SEVERAL_JOBS) if peer in order]:
            shared = common(rows, [name, peer])
            if shared.empty:
                continue
            loss = np.exp(log_ratio(shared, name, peer)[0])
            # The processor time of other processes is not known; that of the clock says what two jobs save.
            column, clock = ("seconds", "wall-clock") if peer in SEVERAL_JOBS else ("cpu_seconds", "CPU")
            seconds = means(shared, column)
            share = seconds[peer] / seconds[name]
            text.append(
                f"- {name} against {peer}: loss ratio geometric mean {np.exp(np.log(loss).mean()):.3f}, worst set "
                f"{loss.idxmax()} {loss.max():.3f} (target at most 1.01); {share.min():.0f} to {share.max():.0f} "
                f"times as fast in {clock} time (target at least 20 against grid_20)"
            )
    return "\n".join([*text, ""])


# Colour, style and width of curves: the default beside its peers; each algorithm beside the grid.
GRID = {BASE: ("black", "s--", 2.2)}
PEER_CURVES = {"implicit": ("C0", "o-", 2.2), **GRID, "grid_7": ("grey", "s--", 1.2)}
PEER_CURVES |= {"random_20": ("C1", "s--", 1.2), "optuna_20": ("C2", "s--", 1.2)}
OUR_CURVES = {name: (f"C{i % 10}", "o-" if i < 10 else "o:", 1.2) for i, name in enumerate(OURS)} | GRID
MARKS = "v^<>DPX*hds8"  # of the models of which the end alone is drawn


def figure(rows, path, curves, ends):
    """Test loss against seconds of CPU on the first split, one panel a set.

    Of the models in `curves` what each search has when it is stopped; of those in `ends` where it ends.
    """
    from matplotlib.figure import Figure

    rows = rows[rows["split"] == rows["split"].min()]
    sets = list(dict.fromkeys(rows["set"]))
    canvas = Figure(figsize=(11, 3.4 * -(-len(sets) // 3)), layout="constrained")
    panels = canvas.subplots(-(-len(sets) // 3), 3, squeeze=False).flat
    handles = {}
    for axes, name in zip(panels, sets, strict=False):
        part = rows[rows["set"] == name].set_index("model")
        base = part.loc[BASE, "score"] if BASE in part.index else 1.0
        for model in [m for m in (*curves, *ends) if m in part.index]:
            row = part.loc[model]
            points = [(row["cpu_seconds"], row["score"])]
            if model in curves and isinstance(row["curve"], str):
                points = [tuple(map(float, point.split(":"))) for point in row["curve"].split()] + points
            seconds, losses = np.array(points).T
            if model in curves:
                colour, style, width = curves[model]
                (handles[model],) = axes.plot(seconds, losses / base, style, ms=3, lw=width, color=colour)
            else:
                number = ends.index(model)
                style = {"marker": MARKS[number % len(MARKS)], "color": f"C{number % 10}", "ls": ""}
                (handles[model],) = axes.plot(seconds, losses / base, ms=7, mec="white", mew=0.5, **style)
        axes.axhline(1, lw=0.5, color="grey", zorder=0)
        axes.set(xscale="log", title=name, xlabel="seconds of CPU", ylim=(None, min(axes.get_ylim()[1], 1.7)))
    for axes in panels:
        axes.set_axis_off()
    canvas.axes[0].set_ylabel(f"test loss / {BASE}'s")
    in_turn = [name for name in (*curves, *ends) if name in handles]
    legend = {"loc": "outside lower center", "ncols": 6, "frameon": False, "fontsize": 9}
    canvas.legend([handles[name] for name in in_turn], in_turn, **legend)
    canvas.savefig(path, dpi=90)


def main(argv=None):
    cli = parser(__doc__.splitlines()[0], MODELS, TASKS)
    arguments = cli.parse_args(argv)
    unknown = set(arguments.sets or ()) - set(TASKS)
    if unknown:
        cli.error(f"unknown sets {sorted(unknown)}; known are {' '.join(TASKS)}")
    chosen = {key: task for key, task in TASKS.items() if not arguments.sets or key in arguments.sets}
    rows = run(chosen, MODELS, metric, arguments, RESULTS / "networks.csv")
    if rows.empty:
        return
    rows = in_order(rows, TASKS, MODELS)
    text = report(rows)
    (RESULTS / "networks.md").write_text(text)
    if BASE in set(rows["model"]):
        ends = [name for name in MODELS if name not in PEER_CURVES and name not in SEVERAL_JOBS]
        figure(rows, RESULTS / "networks.png", PEER_CURVES, ends)
        figure(rows, RESULTS / "networks_algorithms.png", OUR_CURVES, ())
    print(text)


if __name__ == "__main__":
    main()
