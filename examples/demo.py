"""The main job in one minute: ``make demo``.

On the diabetes data that scikit-learn ships (degree-2 features), GridSearchCV beside HyperTrainingSearchCV and RidgeCV
beside HyperTrainedRidge: time, number of decays, fitted hyperparameters and test score, with a plot of the decays.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LassoCV, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from skhyper import HyperTrainedRidge, HyperTrainingSearchCV

OUTPUT = Path("outputs/demo_decays.png")
ALPHAS = np.logspace(-6, 6, 61)


def features():
    """Standardised columns, their squares and products, standardised."""
    return make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler())


def models():
    """Pairs of what is used today and what takes its place."""
    pipeline = make_pipeline(features(), Ridge())
    return {
        "GridSearchCV(pipeline, 61 alphas)": GridSearchCV(pipeline, {"ridge__alpha": ALPHAS}),
        "HyperTrainingSearchCV(pipeline)": HyperTrainingSearchCV(pipeline),
        "RidgeCV(61 alphas)": make_pipeline(features(), RidgeCV(ALPHAS)),
        "LassoCV()": make_pipeline(features(), LassoCV(max_iter=50_000)),
        "HyperTrainedRidge()": make_pipeline(features(), HyperTrainedRidge()),
    }


def describe(model):
    """Decays, hyperparameters fitted to held-out loss, and the exponent q, of a fitted model."""
    last = model[-1] if hasattr(model, "steps") else model
    decays = len(getattr(last, "alphas_", {})) or np.size(last.alpha_ if hasattr(last, "alpha_") else 1)
    exponent = 1.0 if isinstance(last, LassoCV) else getattr(last, "exponent_", 2.0)
    return {"decays": decays, "fitted": getattr(last, "n_hyperparameters_", 1), "q": exponent}


def main():
    """Fit, compare, plot."""
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    rows, fitted = [], {}
    for seed in track(range(5)):
        split = train_test_split(X, y, test_size=1 / 3, random_state=seed)
        for name, model in models().items():
            model = clone(model)
            start = time.perf_counter()
            model.fit(split[0], split[2])
            seconds = time.perf_counter() - start
            row = {"model": name, "seconds": seconds, "test R2": model.score(split[1], split[3])}
            rows.append(row | describe(model))
            fitted[name] = model
    table = pd.DataFrame(rows).groupby("model", sort=False).median().astype({"decays": int, "fitted": int})
    print(f"\nMedians over 5 random splits, {len(split[0])} training rows:\n\n{table.round(3)}\n")
    plot_decays(fitted["HyperTrainedRidge()"])
    print(f"Decays of the last split's features: {OUTPUT}")


def track(splits):
    """A progress bar where rich is installed."""
    try:
        from rich.progress import track as bar
    except ImportError:
        return splits
    return bar(splits, description="fitting")


def plot_decays(model):
    """Decay against size of the coefficient, one point a feature."""
    import matplotlib.pyplot as plt

    ridge, names = model[-1], model[:-1].get_feature_names_out()
    fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    ax.scatter(np.abs(ridge.coef_), ridge.alpha_, s=18)
    ax.axhline(ridge.baseline_alpha_, color="0.5", linestyle="--", label="tuned global alpha")
    for j in np.argsort(-np.abs(ridge.coef_))[:6]:
        ax.annotate(names[j], (abs(ridge.coef_[j]), ridge.alpha_[j]), xytext=(4, 4), textcoords="offset points")
    ax.set(xlabel="|coefficient|", ylabel="decay", yscale="log", title=f"HyperTrainedRidge: q = {ridge.exponent_:g}")
    ax.legend()
    OUTPUT.parent.mkdir(exist_ok=True)
    fig.savefig(OUTPUT, dpi=120)


if __name__ == "__main__":
    main()
