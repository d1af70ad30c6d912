"""Tables, bars and figure of the benchmarks that compare models over sets and splits."""

import numpy as np
import pandas as pd

TIMES_NOTE = "times of different runs, or none: repeat with --rerun for the timed models"


def means(rows, column="score"):
    """Mean over splits: one row a set, one column a model, in the rows' order."""
    return rows.pivot_table(index="set", columns="model", values=column, aggfunc="mean", sort=False)


def log_ratio(rows, model, other):
    """Per set: mean and standard error over splits of log(score of model / score of other), paired by split."""
    wide = np.log(rows.pivot_table(index=["set", "split"], columns="model", values="score", sort=False))
    difference = (wide[model] - wide[other]).dropna().groupby("set", sort=False)
    return difference.mean(), difference.std(ddof=1) / np.sqrt(difference.size())


def common(rows, models):
    """The rows of the sets and splits on which every one of `models` has a row."""
    counts = rows[rows["model"].isin(models)].groupby(["set", "split"])["model"].nunique()
    complete = counts[counts == len(models)].index
    return rows[pd.MultiIndex.from_frame(rows[["set", "split"]]).isin(complete)]


def best_peer(rows, peers):
    """The counted peer with the smallest mean in each set: chosen with hindsight, on the test rows."""
    table = means(rows)[peers]
    return table.idxmin(axis=1), table.min(axis=1)


def against_peers(rows, model, base, peers):
    """Per set: the ratio to `base` and to the best of `peers`, of means over splits, with paired standard errors."""
    table = means(rows)
    best, smallest = best_peer(rows, peers)
    to_base, error_base = log_ratio(rows, model, base)
    result = pd.DataFrame({model: table[model], base: table[base], "best peer": best, "its score": smallest})
    result[f"/ {base}"] = table[model] / table[base]
    result[f"log ratio to {base}"] = to_base
    result["s.e."] = error_base
    result["/ best"] = table[model] / smallest
    paired = {name: log_ratio(rows, model, peer) for peer in best.unique() for name in best.index[best == peer]}
    result["log ratio to best"] = pd.Series({name: mean[name] for name, (mean, _) in paired.items()})
    result["s.e. "] = pd.Series({name: error[name] for name, (_, error) in paired.items()})
    return result


def leave_one_out(ratios):
    """Geometric means of all sets but one."""
    logs = np.log(ratios)
    return np.exp((logs.sum() - logs) / (len(logs) - 1))


def bar(text, value, limit):
    return f"* {text}: {value:.4f} ({'holds' if value <= limit else 'FAILS'}: at most {limit})"


def quality_bars(table, base, *, base_limit=1.02, median_limit=1.00, geometric_limit=1.00, loo_limit=1.01):
    """The lines that say whether each bar holds; None drops a bar."""
    to_base, to_best = table[f"/ {base}"], table["/ best"]
    worst = to_base.idxmax()
    lines = [
        bar(f"largest ratio to {base} ({worst})", to_base[worst], base_limit),
        bar("geometric mean of the ratio to the best peer", float(np.exp(np.log(to_best).mean())), geometric_limit),
    ]
    if median_limit is not None:
        lines.append(bar("median of the ratio to the best peer", float(to_best.median()), median_limit))
    if loo_limit is not None and len(to_best) > 1:
        left = leave_one_out(to_best)
        lines.append(bar(f"largest mean with one set left out ({left.idxmax()})", left.max(), loo_limit))
    spread = np.log(to_best).std(ddof=1) / np.sqrt(len(to_best))
    lines.append(f"* standard error of the log of that geometric mean over sets: {spread:.4f}")
    return lines


def time_bar(rows, model, other, limit=1.0):
    """Medians over sets of two models' seconds; only pairs of one run are compared."""
    pair = rows[rows["model"].isin([model, other])]
    same_run = pair.groupby(["set", "split"])["run"].transform("nunique") == 1
    pair = common(pair[same_run], [model, other])
    if pair.empty:
        return [f"* time of {model} against {other}: {TIMES_NOTE}"]
    table = means(pair, "seconds")
    ratio = table[model].median() / table[other].median()
    text = f"median seconds of {model} {table[model].median():.3f} / {other} {table[other].median():.3f}"
    each = (table[model] / table[other]).median()
    return [bar(text, ratio, limit), f"  (median over {len(table)} sets of the ratio within a set: {each:.3f})"]


def edges(rows):
    """Fits whose tuned value lies at the end of its range, and fits that did not converge, by set and model."""
    bad = rows.assign(not_converged=1 - rows["converged"])
    table = bad.groupby(["set", "model"], sort=False)[["at_edge", "not_converged"]].sum().astype(int)
    return table[(table > 0).any(axis=1)]


def markdown(table, digits=4):
    """A table in Markdown, without a further dependency."""
    table = table.reset_index()
    cells = [[_cell(value, digits) for value in row] for row in table.itertuples(index=False)]
    head = [str(column).strip() for column in table.columns]
    widths = [max(len(row[i]) for row in [head, *cells]) for i in range(len(head))]
    lines = ["| " + " | ".join(value.ljust(w) for value, w in zip(row, widths, strict=True)) + " |" for row in cells]
    top = "| " + " | ".join(value.ljust(w) for value, w in zip(head, widths, strict=True)) + " |"
    return "\n".join([top, "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines])


def _cell(value, digits):
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.{digits}g}"
    return str(value)


def figure(rows, base, models, path, *, label):
    """Every model's mean score over the base model's, one line a set, saved as a small PNG."""
    from matplotlib.figure import Figure

    table = means(rows)
    table = table[[m for m in models if m in table]].div(table[base], axis=0)
    canvas = Figure(figsize=(7.5, 0.27 * len(table) + 1.6), layout="constrained")
    axes = canvas.subplots()
    markers = "osD^v<>Phd"
    for i, model in enumerate(table):
        first = i == 0
        axes.plot(
            table[model],
            np.arange(len(table)),
            markers[i % len(markers)],
            label=model,
            color="black" if first else f"C{i - 1}",
            markersize=8 if first else 5,
            alpha=1 if first else 0.8,
            zorder=3 if first else 2,
        )
    low, high = np.nanpercentile(table, [0, 100])
    axes.set_xscale("log")
    axes.set_xlim(max(low, 0.3) / 1.05, min(high, 3.0) * 1.05)
    ticks = [
        t for t in (0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3) if axes.get_xlim()[0] < t < axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_yticks(np.arange(len(table)), table.index)
    axes.invert_yaxis()
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlabel(label)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.12 * 16 / (len(table) + 4)), ncols=3, frameon=False)
    canvas.savefig(path, dpi=90)
