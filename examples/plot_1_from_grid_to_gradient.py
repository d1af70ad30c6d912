"""
1. From a grid to a gradient
============================

A pipeline that was tuned by ``GridSearchCV`` is tuned by ``HyperTrainingSearchCV``: same attributes, no grid, and as
many decays as the pipeline has columns.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from skhyper import HyperTrainingSearchCV
from skhyper.displays import BestResponseDisplay, HyperTrainingDisplay

X, y = load_diabetes(return_X_y=True, as_frame=True)
pipeline = make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), Ridge())

# %%
# The grid needs values that somebody has to think of.
grid = GridSearchCV(pipeline, {"ridge__alpha": np.logspace(-6, 6, 61)}).fit(X, y)
print(grid.best_params_, grid.best_score_)

# %%
# The search by gradient needs none. Its first row is the tuned single alpha, which it leaves only where the folds agree
# that finer decays are better.
search = HyperTrainingSearchCV(pipeline).fit(X, y)
print(search.best_params_, search.best_score_, f"a single alpha: {search.baseline_score_}")
print(
    f"{len(search.alphas_)} decays, {search.n_hyperparameters_} numbers fitted to held-out rows, q = {search.exponent_}"
)

# %%
# Neither score is an estimate for new rows: the hyperparameters were chosen by them. An outer cross-validation is.
for name, model in (("grid", grid), ("gradient", search)):
    scores = cross_val_score(model, X, y, cv=5)
    print(f"{name}: R2 {scores.mean():.3f}, by fold {scores.round(3)}")

# %%
# The held-out loss along alpha. The grid's values lie on the curve; the search looked at few points.
single = HyperTrainingSearchCV(pipeline, granularity="global").fit(X, y)
BestResponseDisplay.from_estimator(single)
plt.show()

# %%
# And the course of the search, stage by stage.
HyperTrainingDisplay.from_estimator(search)
plt.show()
