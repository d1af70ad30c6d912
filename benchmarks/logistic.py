"""Logistic regression: ``python -m benchmarks.logistic`` compares HyperTrainingSearchCV with its peers.

Eight sets, at most 400 training rows, columns standardised by them, test = the rest (at most 5,000 rows). Score: test
log-loss. Peers: LogisticRegressionCV with l2 (lbfgs) and with l1 (saga, converged), GridSearchCV over the same 20
values of C, and OptunaSearchCV given the seconds that ours took on the same split. ``l1_default`` is the l1 path with
saga's default 100 sweeps: not converged, not counted, but it is the faster one, so its time is compared as well.
(saga stops when a sweep changes the weights by less than tol = 1e-4 of the largest, so at large C the "converged" path
stays near its warm start; a smaller tol takes ten times as long and changed the chosen C on none of the sets tried.)
``--development`` runs the same on the development tasks.
"""

from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV

from benchmarks.data import LOGISTIC_SETS, logistic_task
from benchmarks.development import LOGISTIC_TASKS as DEVELOPMENT
from benchmarks.report import against_peers, common, edges, figure, markdown, means, quality_bars, time_bar
from benchmarks.runner import RESULTS, Fitted, Model, in_order, parser, run

TASKS = {name: logistic_task(name) for name in LOGISTIC_SETS}
MAX_ITER = 5000
CS = np.logspace(-4, 4, 20)
BASE = "l2"
BEST_OF = ["l1", "l2"]
LABEL = "test log-loss / l2's (means over splits)"

# Ours: the constructor's arguments of each variant. The first is the one that the bars are about.
OURS = {
    "ours": {},
    "ours_guard": {"guard_cv": 5},
}


def ours(split, **settings):
    from skhyper import HyperTrainingSearchCV

    search = HyperTrainingSearchCV(LogisticRegression(max_iter=MAX_ITER), scoring="neg_log_loss", **settings)
    search.fit(split.X_train, split.y_train)
    return Fitted(
        search,
        n_hyperparameters=getattr(search, "n_hyperparameters_", np.nan),
        guard_score=float(getattr(search, "guard_score_", np.nan)),
    )


def path(split, l1_ratio, solver, max_iter=MAX_ITER):
    """LogisticRegressionCV; "converged" means that the chosen C was, whatever happened further down the path."""
    settings = {"Cs": CS, "cv": 5, "scoring": "neg_log_loss", "solver": solver, "max_iter": max_iter, "random_state": 0}
    model = LogisticRegressionCV(l1_ratios=(l1_ratio,), use_legacy_attributes=False, **settings)
    model.fit(split.X_train, split.y_train)
    chosen = int(np.argmin(np.abs(np.log(CS / model.C_))))
    return Fitted(model, chosen in (0, len(CS) - 1), 1, converged=bool((model.n_iter_[..., chosen] < max_iter).all()))


def grid_search(split):
    search = GridSearchCV(LogisticRegression(max_iter=MAX_ITER), {"C": CS}, cv=5, scoring="neg_log_loss")
    search.fit(split.X_train, split.y_train)
    return Fitted(search, search.best_params_["C"] in (CS[0], CS[-1]), 1)


def optuna_search(split, seconds):
    """As many trials as `seconds` allow, at least one."""
    import optuna
    from optuna_integration import OptunaSearchCV

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {"C": optuna.distributions.FloatDistribution(CS[0], CS[-1], log=True)}
    settings = {"cv": 5, "scoring": "neg_log_loss", "n_trials": None, "timeout": seconds, "random_state": 0}
    search = OptunaSearchCV(LogisticRegression(max_iter=MAX_ITER), space, **settings)
    search.fit(split.X_train, split.y_train)
    return Fitted(search, n_hyperparameters=1)


MODELS = {
    **{name: Model(partial(ours, **settings), counted=False) for name, settings in OURS.items()},
    "l2": Model(partial(path, l1_ratio=0.0, solver="lbfgs")),
    "l1": Model(partial(path, l1_ratio=1.0, solver="saga")),
    "grid_search": Model(grid_search),
    "optuna_search": Model(optuna_search, budget=next(iter(OURS))),
    "l1_default": Model(partial(path, l1_ratio=1.0, solver="saga", max_iter=100), counted=False),
}


def test_log_loss(estimator, split):
    return float(log_loss(split.y_test, estimator.predict_proba(split.X_test), labels=np.unique(split.y_train)))


def report(rows, title):
    """The text of the tables and of the bars."""
    order = [name for name in MODELS if name in set(rows["model"])]
    scores = means(rows)[order]
    scores.insert(0, "p", means(rows, "p").max(axis=1).astype(int))
    scores.insert(0, "n", means(rows, "n").max(axis=1).astype(int))
    splits = rows.groupby("set")["split"].nunique().min()
    text = [f"# {title}", "", f"Test log-loss, mean over at least {splits} random splits.", ""]
    text += [markdown(scores), ""]
    for variant in [name for name in OURS if name in order]:
        shared = common(rows, [variant, *BEST_OF])
        if shared.empty:
            continue
        table = against_peers(shared, variant, BASE, BEST_OF)
        bars = quality_bars(table, BASE, geometric_limit=1.01, median_limit=None, loo_limit=None)
        text += [f"## {variant} against the better of l1 and l2", "", markdown(table), "", *bars]
        text += [line for other in ("l1", "l1_default", "l2") for line in time_bar(rows, variant, other)] + [""]
    seconds = means(rows, "seconds")[order].median().rename("median over sets, seconds").to_frame()
    text += ["## Times", "", markdown(seconds, 3), ""]
    text += ["## Fits at the edge of their range, or not converged", "", markdown(edges(rows)), ""]
    return "\n".join(text)


def main(argv=None):
    cli = parser(__doc__.splitlines()[0], MODELS, TASKS)
    cli.add_argument("--development", action="store_true", help="the development tasks instead of the benchmark's sets")
    arguments = cli.parse_args(argv)
    tasks, name = (DEVELOPMENT, "logistic_development") if arguments.development else (TASKS, "logistic")
    unknown = set(arguments.sets or ()) - set(tasks)
    if unknown:
        cli.error(f"unknown sets {sorted(unknown)}; known are {' '.join(tasks)}")
    chosen = {key: task for key, task in tasks.items() if not arguments.sets or key in arguments.sets}
    rows = run(chosen, MODELS, test_log_loss, arguments, RESULTS / f"{name}.csv")
    if rows.empty:
        return
    rows = in_order(rows, tasks, MODELS)
    text = report(rows, "Logistic regression" + (", development tasks" if arguments.development else ""))
    (RESULTS / f"{name}.md").write_text(text)
    figure(rows, BASE, [m for m in MODELS if m != "ours_guard"], RESULTS / f"{name}.png", label=LABEL)
    print(text)


if __name__ == "__main__":
    main()
