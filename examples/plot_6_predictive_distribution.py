"""
6. A predictive distribution from one fit
=========================================

``HypernetRegressor`` generates the weights of a small network from noise and is trained by maximum likelihood. It gives
intervals, densities and samples, and says how much of the uncertainty is the model's own.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from skhyper import HypernetRegressor
from skhyper.displays import CalibrationDisplay, PredictionIntervalDisplay, WeightSpreadDisplay

# %%
# One feature, noise that grows with it, and a gap in the data.
rng = np.random.default_rng(0)
x = np.concatenate([rng.uniform(-2, -0.5, 150), rng.uniform(0.5, 2, 150)])
y = np.sin(3 * x) + (0.05 + 0.15 * (x + 2)) * rng.standard_normal(300)
model = HypernetRegressor(random_state=0).fit(x[:, None], y)

grid = np.linspace(-3, 3, 300)[:, None]
total, aleatoric, epistemic = model.predict_uncertainty(grid)
figure, axes = plt.subplots(2, 1, figsize=(7, 7), sharex=True)
PredictionIntervalDisplay.from_estimator(model, x[:, None], y, ax=axes[0])
low, high = model.predict_interval(grid, coverage=0.9).T
axes[0].fill_between(grid[:, 0], low, high, alpha=0.15, lw=0, color="tab:green")
axes[1].plot(grid, np.sqrt(aleatoric), label="aleatoric: noise")
axes[1].plot(grid, np.sqrt(epistemic), label="epistemic: members disagree")
axes[1].set(xlabel="feature", ylabel="standard deviation")
axes[1].legend()
plt.show()

# %%
# Real data: are the intervals right on rows that the network has not seen?
X, y = load_diabetes(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0)
model = HypernetRegressor(random_state=0).fit(X_train, y_train)
print(f"mean log density of the test rows {model.log_prob(X_test, y_test).mean():.3f}")
figure, axes = plt.subplots(1, 2, figsize=(10, 4))
PredictionIntervalDisplay.from_estimator(model, X_test, y_test, ax=axes[0])
CalibrationDisplay.from_estimator(model, X_test, y_test, ax=axes[1])
plt.show()

# %%
# The noise in the weights is on trial: where held-out rows see no use for it, the members go on as plain networks, at
# half the cost.
print(f"noise dropped: {model.noise_dropped_}")

# %%
# Errors of two sizes are something else. A Gaussian must be wide for the few large ones; the mixture over draws is not.
x = rng.uniform(-2, 2, 600)
y = np.sin(2 * x) + np.where(rng.uniform(size=600) < 0.85, 0.05, 1.0) * rng.standard_normal(600)
mixture = HypernetRegressor(random_state=0).fit(x[:, None], y)
plain = HypernetRegressor(generator="none", random_state=0).fit(x[:, None], y)

error = np.linspace(-2, 2, 400)
row = np.zeros((400, 1))
truth = sum(w * np.exp(-0.5 * (error / s) ** 2) / (s * np.sqrt(2 * np.pi)) for w, s in ((0.85, 0.05), (0.15, 1.0)))
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
axes[0].semilogy(error, truth, "k--", label="truth")
axes[0].semilogy(error, np.exp(mixture.log_prob(row, error)), label=f"noise kept: {not mixture.noise_dropped_}")
axes[0].semilogy(error, np.exp(plain.log_prob(row, error)), label="plain network")
axes[0].set(xlabel="y at x = 0", ylabel="density", ylim=(1e-4, 20))
axes[0].legend()
WeightSpreadDisplay.from_estimator(mixture, ax=axes[1])
plt.show()
