"""Linear regression: ``python -m benchmarks.linear`` compares HyperTrainedRidge with its peers.

Sixteen sets, at most 500 training rows, test = the rest (at most 5,000 rows), random splits. Score: test mean squared
error over the variance of the test targets. ``--development`` runs the same on the development tasks, on which the
defaults were chosen; no set belongs to both.

Counted peers have wide grids and are converged; ``lasso_cv_default`` (LassoCV(cv=5) as it comes) and
``ridge_cv_default`` are printed too. Times are compared with LassoCV(cv=5) as it comes, which is the fastest of its
kind: the converged peer is several times slower.
"""

from benchmarks.data import LINEAR_TASKS
from benchmarks.development import TASKS
from benchmarks.peers import MODELS, OURS, mse_ratio
from benchmarks.report import against_peers, common, edges, figure, markdown, means, quality_bars, time_bar
from benchmarks.runner import RESULTS, in_order, parser, run

BASE = "ridge_cv"
COUNTED = [name for name, model in MODELS.items() if model.counted]
LABEL = "test MSE / RidgeCV's (means over splits)"


def report(rows, title):
    """The text of the tables and of the bars."""
    order = [name for name in MODELS if name in set(rows["model"])]
    peers = [name for name in COUNTED if name in order]
    scores = means(rows)[[name for name in order if name != "lasso_cv_default_scored"]]
    scores.insert(0, "p", means(rows, "p").max(axis=1).astype(int))
    scores.insert(0, "n", means(rows, "n").max(axis=1).astype(int))
    splits = rows.groupby("set")["split"].nunique().min()
    text = [f"# {title}", "", f"Test MSE / variance of y, mean over at least {splits} random splits.", ""]
    text += [markdown(scores), ""]
    for variant in [name for name in OURS if name in order]:
        shared = common(rows, [variant, *peers])
        if shared.empty:
            continue
        table = against_peers(shared, variant, BASE, peers)
        text += [f"## {variant} against the peers", "", markdown(table), "", *quality_bars(table, BASE)]
        other = "lasso_cv_default_scored" if OURS[variant].get("guard_cv") else "lasso_cv_default"
        text += [*time_bar(rows, variant, other), ""]
    seconds = means(rows, "seconds")[order].median().rename("median over sets, seconds").to_frame()
    text += ["## Times", "", markdown(seconds, 3), ""]
    text += ["## Fits at the edge of their range, or not converged", "", markdown(edges(rows)), ""]
    return "\n".join(text)


def main(argv=None):
    cli = parser(__doc__.splitlines()[0], MODELS, LINEAR_TASKS)
    cli.add_argument("--development", action="store_true", help="the development tasks instead of the benchmark's sets")
    arguments = cli.parse_args(argv)
    tasks, name = (TASKS, "linear_development") if arguments.development else (LINEAR_TASKS, "linear")
    unknown = set(arguments.sets or ()) - set(tasks)
    if unknown:
        cli.error(f"unknown sets {sorted(unknown)}; known are {' '.join(tasks)}")
    chosen = {key: task for key, task in tasks.items() if not arguments.sets or key in arguments.sets}
    rows = run(chosen, MODELS, mse_ratio, arguments, RESULTS / f"{name}.csv")
    if rows.empty:
        return
    rows = in_order(rows, tasks, MODELS)
    text = report(rows, "Linear regression" + (", development tasks" if arguments.development else ""))
    (RESULTS / f"{name}.md").write_text(text)
    figure(rows, BASE, [next(iter(OURS)), *COUNTED], RESULTS / f"{name}.png", label=LABEL)
    print(text)


if __name__ == "__main__":
    main()
