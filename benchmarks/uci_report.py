"""Tables and bars of the uci benchmark."""

import numpy as np
import pandas as pd

from benchmarks.report import markdown
from benchmarks.uci_data import NGBOOST, NO_DENSITY, PAPER, PUBLISHED_DENSITY, PUBLISHED_RMSE, SETS, SMALL, dropout_rows
from benchmarks.uci_models import alike

# +1: smaller is better.
SIGN = {"score": 1, "crps": 1, "log_likelihood": -1}
PUBLISHED = {"score": PUBLISHED_RMSE, "log_likelihood": PUBLISHED_DENSITY}
DENSITY_SETS = tuple(name for name in SETS if name not in NO_DENSITY)
SECONDS = 20.0


def complete(rows):
    """The rows, with those of models that equal another's fit filled in, and those of converged dropout."""
    filled = [rows]
    for name in rows["set"].unique():
        for model in ("default", "default@1", "default@2"):
            other = alike(model, name)
            if other is not None:
                filled.append(rows[(rows["set"] == name) & (rows["model"] == other)].assign(model=model))
    try:
        published = dropout_rows()
    except SystemExit:
        published = rows[:0]
    known = set(zip(rows["set"], rows["split"], strict=True))
    filled.append(published[[key in known for key in zip(published["set"], published["split"], strict=True)]])
    return pd.concat([part for part in filled if len(part)], ignore_index=True)


def over_seeds(rows, column):
    """Mean over the starts of each model: index (set, split), columns models."""
    rows = rows.assign(model=rows["model"].str.partition("@")[0])
    return rows.pivot_table(index=["set", "split"], columns="model", values=column, aggfunc="mean", sort=False)


def _cell(values):
    values = values.dropna()
    if values.empty:
        return ""
    mean = values.mean()
    digits = 5 if abs(mean) < 0.01 else 4 if abs(mean) < 0.2 else 3 if abs(mean) < 1 else 2
    if len(values) == 1:
        return f"{mean:.{digits}f} (1)"
    return f"{mean:.{digits}f} ± {values.sem():.{digits}f} ({len(values)})"


def table(rows, column, names, published=True):
    """One line a model: mean ± standard error (number of splits) by set; then what has been published."""
    wide = over_seeds(rows, column).reindex(columns=[*names, "dropout"])
    cells = wide.groupby(level="set", sort=False).agg(_cell).T
    cells = cells[(cells != "").any(axis=1)]
    if published:
        lines = pd.DataFrame(PUBLISHED.get(column, {})).T.reindex(columns=cells.columns)
        cells = pd.concat([cells, lines.map(lambda v: "" if np.isnan(v) else f"{v:g}")])
    return cells.rename(index={"dropout": "dropout, these splits"}).rename_axis("model")


def times(rows, names):
    """Mean processor seconds."""
    wide = over_seeds(rows, "cpu_seconds").groupby(level="set", sort=False).mean().T
    return wide.reindex(names).dropna(how="all").round(2).rename_axis("model")


def paired(rows, model, other, column):
    """By set: mean difference of the two, its standard error, and the number of splits; less is better."""
    wide = over_seeds(rows, column)
    if model not in wide or other not in wide:
        return pd.DataFrame(columns=["difference", "s.e.", "splits"])
    difference = (SIGN[column] * (wide[model] - wide[other])).dropna().groupby(level="set", sort=False)
    result = {"difference": difference.mean(), "s.e.": difference.sem(), "splits": difference.size()}
    return pd.DataFrame(result)


def paired_tables(rows):
    """Ours against dropout and the twins."""
    text = []
    for model in ("1x50, 1", "1x50, 4"):
        members = model[-1]
        for other in ("dropout", f"twin, {members}", f"twin, {members}, equal time"):
            for column, what in (("score", "RMSE"), ("log_likelihood", "minus log-likelihood")):
                lines = paired(rows, model, other, column)
                if len(lines):
                    text += [f"{what}, {model} less {other}:", "", markdown(lines), ""]
    return text


def line(text, n, done, wanted, of):
    """A bar about a number of sets; open as long as sets are missing and it can go either way."""
    if n >= wanted:
        verdict = "holds"
    elif n + of - done < wanted:
        verdict = "FAILS"
    else:
        verdict = f"open, {of - done} sets not run"
    return f"* {text}: {n} of {done} ({verdict}: at least {wanted} of {of})"


def _means(rows, model, column):
    wide = over_seeds(rows, column)
    return wide[model].groupby(level="set").mean().dropna() if model in wide else pd.Series(dtype=float)


def against_published(rows, model):
    """The paper's row of errors."""
    own = _means(rows, model, "score").drop("year", errors="ignore")
    good = sum(own[name] <= PUBLISHED_RMSE[PAPER][name] for name in own.index)
    bad = [name for name in own.index if own[name] > PUBLISHED_RMSE[PAPER][name]]
    return line(f"{model}: RMSE at or below the paper's row (behind: {', '.join(bad) or 'none'})", good, len(own), 9, 9)


def against_dropout(rows, model):
    """Converged dropout on the same splits, paired."""
    errors, densities = (paired(rows, model, "dropout", column) for column in ("score", "log_likelihood"))
    densities = densities[densities.index.isin(DENSITY_SETS)]
    lines = []
    for what, pairs, wanted, of in (("RMSE", errors, 8, 9), ("log-likelihood", densities, 6, 7)):
        behind = ", ".join(pairs.index[pairs["difference"] > 0]) or "none"
        good = int((pairs["difference"] <= 0).sum())
        lines.append(
            line(f"{model}: {what} no worse than converged dropout (behind: {behind})", good, len(pairs), wanted, of)
        )
    return lines


def against_twin(rows, members, column, what):
    """At equal members and equal time: better by more than 2 standard errors on 5 sets, worse on none."""
    pairs = paired(rows, f"1x50, {members}", f"twin, {members}, equal time", column)
    if column == "log_likelihood":
        pairs = pairs[pairs.index.isin(DENSITY_SETS)]
    better = pairs.index[pairs["difference"] < -2 * pairs["s.e."]]
    worse = pairs.index[pairs["difference"] > 2 * pairs["s.e."]]
    text = f"{members} member(s), {what}: better than the twin by 2 s.e. (worse: {', '.join(worse) or 'none'})"
    result = line(text, len(better), len(pairs), 5, 9 if column == "score" else 7)
    return result if not len(worse) else result.replace("(holds", "(FAILS, worse on some")


def against_real_mlp(rows):
    """Geometric mean of the ratio of errors, on the splits that both have."""
    wide = over_seeds(rows, "score").reindex(columns=["default", "RealMLP"]).dropna()
    if wide.empty:
        return "* default against RealMLP: not run"
    means = wide.groupby(level="set").mean()
    ratio = float(np.exp(np.log(means["default"] / means["RealMLP"]).mean()))
    verdict = "holds" if ratio <= 1.03 else "FAILS"
    return f"* default: RMSE over RealMLP's, geometric mean of {len(means)} sets: {ratio:.3f} ({verdict}: at most 1.03)"


def against_density_peer(rows, peer):
    """Log-likelihood of the defaults above a peer's; above the published mean where the peer has no rows."""
    own = _means(rows, "default", "log_likelihood")
    own = own[own.index.isin(DENSITY_SETS)]
    difference = paired(rows, "default", peer, "log_likelihood")["difference"]
    good, done = 0, 0
    for name in own.index:
        if name in difference.index:
            good, done = good + (difference[name] < 0), done + 1
        elif peer == "NGBoost":
            good, done = good + (own[name] > PUBLISHED_DENSITY[NGBOOST][name]), done + 1
    text = f"default: log-likelihood above {peer}"
    return line(text, good, done, 5 if peer == "NGBoost" else 4, 7 if peer == "NGBoost" else 4)


def coverage_bar(rows, model):
    """Sets whose mean coverage of 90 % intervals is within 85-95 %."""
    own = _means(rows, model, "coverage").drop("year", errors="ignore")
    good = own.between(0.85, 0.95)
    outside = ", ".join(f"{name} {own[name]:.3f}" for name in own.index[~good]) or "none"
    return line(f"{model}: 90 % intervals cover 85-95 % (outside: {outside})", int(good.sum()), len(own), 8, 9)


def seconds_bar(rows):
    """One member on the small sets."""
    own = rows[(rows["model"] == "1x50, 1") & rows["set"].isin(SMALL)]["cpu_seconds"]
    if own.empty:
        return "* seconds of one member: not run"
    verdict = "holds" if own.max() < SECONDS else "FAILS"
    return f"* one 1x50 member on the small sets, slowest fit: {own.max():.1f} s ({verdict}: under {SECONDS:.0f})"


def bars(rows):
    """All of them."""
    lines = []
    for model in ("1x50, 1", "1x50, 4"):
        lines += [against_published(rows, model), *against_dropout(rows, model), coverage_bar(rows, model)]
    for members in (1, 4):
        lines += [against_twin(rows, members, "score", "RMSE")]
        lines += [against_twin(rows, members, "log_likelihood", "log-likelihood")]
    lines += [against_real_mlp(rows), against_density_peer(rows, "NGBoost")]
    lines += [against_density_peer(rows, "Gaussian process"), seconds_bar(rows)]
    return lines
