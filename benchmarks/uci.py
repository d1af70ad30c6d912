"""The nine uci sets: ``SKHYPER_DATA=FOLDER python -m benchmarks.uci``.

The splits of the literature (20; protein 5). Rows of ours: one hidden layer of 50 units (protein 100) with 1 and with 4
members, and the defaults. Twins: the same network trained by the same means without a hypernetwork, with as many
members and steps, and with as many passes as fit into our time. The paper's settings: `from_paper`, and its plain SGD,
with minibatches of one row (an hour for a split, so only if named in ``--models``) and with minibatches of 32.

Root mean squared error, test log-likelihood (standard deviations floored at half the step of the target), log P(bin)
for targets that have a step, 90 % intervals, CRPS. wine (6 levels) and naval (51) are outside counts about densities.
Comparisons are paired by split, and `converged_dropout.csv` beside the sets has converged dropout split by split.
Splits 6-19 are reported apart: prototypes looked at splits 0-5.

Splits are the outer loop, so that a run that is cut off is a fair table; rows in the CSV are not run again.
"""

from benchmarks.report import markdown
from benchmarks.runner import RESULTS, in_order, parser, run
from benchmarks.uci_data import LARGE, SETS, SMALL, SPLITS, task, year_task
from benchmarks.uci_models import DEAR, PEERS, PRESETS, alike, metric, models
from benchmarks.uci_report import bars, complete, paired_tables, table, times

COLUMNS = {
    "score": "RMSE",
    "log_likelihood": "Test log-likelihood",
    "log_bin": "log P(bin)",
    "coverage": "Coverage of 90 % intervals",
    "width": "Their mean width",
    "crps": "CRPS",
}


def report(rows, names):
    """All tables and bars as text."""
    rows = complete(rows)
    counts = rows.groupby("set", sort=False)["split"].nunique()
    done = ", ".join(f"{name} {n}" for name, n in counts.items())
    text = ["# The uci sets", "", f"Mean and standard error over splits. Splits that have rows: {done}.", ""]
    for column, title in COLUMNS.items():
        text += [f"## {title}", "", markdown(table(rows, column, names)), ""]
    late = rows[(rows["split"] >= 6)]
    if late["model"].str.startswith("1x50").any():
        text += ["## Splits 6-19 alone", ""]
        for column in ("score", "log_likelihood"):
            text += [f"{COLUMNS[column]}:", "", markdown(table(late, column, names, published=False)), ""]
    text += ["## Differences, paired by split", "", *paired_tables(rows)]
    text += ["## Processor seconds a fit", "", markdown(times(rows, names)), ""]
    text += ["## Bars", "", *bars(rows), ""]
    return "\n".join(text)


def arguments_of(argv):
    """The command line."""
    cli = parser(__doc__.splitlines()[0], models(seeds=3), SETS)
    cli.set_defaults(splits=20, models=None)
    cli.add_argument("--seeds", type=int, default=1, help="starts of ours and of the twins on each split")
    cli.add_argument("--large-splits", type=int, default=5, help="of " + ", ".join(LARGE))
    cli.add_argument("--peer-splits", type=int, default=5, help="of the peers and of the paper's settings")
    cli.add_argument("--year", metavar="PATH", help="the file of the year set, which is not shipped")
    cli.add_argument("--name", default="uci", help="of the results")
    arguments = cli.parse_args(argv)
    unknown = set(arguments.sets or ()) - {*SETS, "year"}
    if unknown:
        cli.error(f"unknown sets {sorted(unknown)}; known are {' '.join(SETS)}")
    return arguments


def main(argv=None):
    """Run what is missing, print, save."""
    arguments = arguments_of(argv)
    everything = models(seeds=max(3, arguments.seeds))
    if arguments.models is None:
        arguments.models = [name for name in models(arguments.seeds) if name not in DEAR]
    names = [name for name in SETS if not arguments.sets or name in arguments.sets]
    tasks = {name: task(name) for name in names}
    if arguments.year and (not arguments.sets or "year" in arguments.sets):
        tasks["year"] = year_task(arguments.year)

    def wanted(name, split, model):
        limit = SPLITS[name] if name not in LARGE else min(SPLITS[name], arguments.large_splits)
        if model in PEERS or model in PRESETS:
            limit = min(limit, arguments.peer_splits)
        too_many = model == "Gaussian process" and name not in SMALL  # at most 2,000 rows
        return split < limit and not too_many and alike(model, name) is None

    order = [*SETS, "year"]
    path = RESULTS / f"{arguments.name}.csv"
    rows = run(
        tasks, everything, metric, arguments, path, order=lambda pair: (pair[1], order.index(pair[0])), wanted=wanted
    )
    if rows.empty:
        return
    rows = in_order(rows, order, everything)
    text = report(rows, [name for name in everything if "@" not in name])
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
