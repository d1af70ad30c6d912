"""
2. A decay for each feature
===========================

``HyperTrainedRidge`` is ridge regression with a decay for each feature. The decays follow the weights through a family
with two numbers: alpha, and an exponent q that leads from ridge regression (2) over the Lasso (1) to sparser models.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LassoCV, RidgeCV

from skhyper import HyperTrainedRidge
from skhyper.displays import DecayDisplay

# %%
# Two problems of 200 rows and 80 columns: in one all columns matter, in the other five.
rng = np.random.default_rng(0)
X, X_test = rng.standard_normal((200, 80)), rng.standard_normal((5000, 80))
truths = {"80 columns matter": rng.standard_normal(80) / 9, "5 columns matter": np.where(np.arange(80) < 5, 0.45, 0.0)}

models = {
    "RidgeCV": RidgeCV(np.logspace(-6, 6, 61)),
    "LassoCV": LassoCV(),
    "HyperTrainedRidge": HyperTrainedRidge(),
}
fitted = {}
for problem, w in truths.items():
    y = X @ w + rng.standard_normal(200)
    for name, model in models.items():
        model.fit(X, y)
        print(f"{problem:20s} {name:20s} error of the mean {np.mean((X_test @ w - model.predict(X_test)) ** 2):.4f}")
    weights = {q: round(v, 2) for q, v in models["HyperTrainedRidge"].exponent_weights_.items()}
    print(f"{'':20s} weights of the exponents: {weights}")
    fitted[problem] = HyperTrainedRidge(average_exponents=False).fit(X, y)

# %%
# By default the coefficients are averages over exponents. With ``average_exponents=False`` one exponent is chosen, and
# the decays belong to one model.
figure, axes = plt.subplots(2, 1, figsize=(7, 6), sharex=True)
for ax, (problem, model) in zip(axes, fitted.items(), strict=True):
    DecayDisplay.from_estimator(model, ax=ax)
    ax.set_title(f"{problem}: q = {model.exponent_:g}")
    ax.set_xticks([])
figure.tight_layout()
plt.show()
