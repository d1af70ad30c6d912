"""
5. A neural network in one training run
=======================================

``HyperTrainingSearchCV(MLPClassifier())`` moves the decays while the network is trained, where a grid search trains a
network for every alpha and fold.
"""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier

from skhyper import HyperTrainingSearchCV
from skhyper.displays import BestResponseDisplay, HyperTrainingDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.5, random_state=0, stratify=y)
network = MLPClassifier((40,), max_iter=100, random_state=0)

# %%
# A decay for each layer.
start = time.perf_counter()
search = HyperTrainingSearchCV(network, granularity="layer", scoring="neg_log_loss", random_state=0)
search.fit(X_train, y_train)
print(f"{time.perf_counter() - start:.1f} s, decays {search.alphas_}")
accuracy = search.best_estimator_.score(X_test, y_test)
print(f"test log-loss {log_loss(y_test, search.predict_proba(X_test)):.4f}, accuracy {accuracy:.4f}")

# %%
# For comparison, a grid of seven alphas.
start = time.perf_counter()
grid = GridSearchCV(network, {"alpha": np.logspace(-3, 1, 7)}, scoring="neg_log_loss", cv=5)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    grid.fit(X_train, y_train)
print(f"{time.perf_counter() - start:.1f} s, {grid.best_params_}")
print(f"test log-loss {log_loss(y_test, grid.predict_proba(X_test)):.4f}")

# %%
# Held-out loss and alpha along the way.
HyperTrainingDisplay.from_estimator(search)
plt.show()

# %%
# The network's response to alpha is known around the tuned value: the held-out loss at other alphas needs no training.
BestResponseDisplay.from_estimator(search)
plt.show()
low, high = search.response_range_
for alpha in np.geomspace(low, high, 5)[1:-1]:
    print(f"alpha {alpha:8.3g}: held-out loss {search.validation_curve([alpha])[0]:.4f}")
