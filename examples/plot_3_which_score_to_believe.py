"""
3. Which score to believe
=========================

A score that hyperparameters were fitted to is no estimate. Here the targets are noise: nothing can be learnt, and no
honest score is above zero.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import Ridge

from skhyper import HyperTrainingSearchCV

rng = np.random.default_rng(1)
X, y = rng.standard_normal((80, 120)), rng.standard_normal(80)
X_test, y_test = rng.standard_normal((2000, 120)), rng.standard_normal(2000)

# %%
# One alpha; the family, with two fitted numbers; and 120 free decays (``shrinkage``), each fitted to the held-out rows.
# ``guard_cv`` reruns all of it on outer folds, and no decision reads the result.
settings = {
    "one alpha": {"granularity": "global"},
    "family": {"exponent": 1.0},
    "120 free decays": {"shrinkage": 3.0, "exponent": 2},
}
rows = {}
for name, setting in settings.items():
    search = HyperTrainingSearchCV(Ridge(), guard_cv=5, **setting).fit(X, y)
    rows[name] = search.best_score_, search.guard_score_, search.score(X_test, y_test)
    print(f"{name:16s} fitted {search.n_hyperparameters_:4d}: best_score_ {rows[name][0]:6.3f}, ", end="")
    print(f"guard_score_ {rows[name][1]:6.3f}, new rows {rows[name][2]:6.3f}")

# %%
# With a decay for each feature that was fitted by itself ``best_score_`` promises what new rows do not keep.
# ``guard_score_`` does not.
figure, ax = plt.subplots()
positions = np.arange(len(rows))
for i, label in enumerate(("best_score_", "guard_score_", "new rows")):
    ax.bar(positions + 0.27 * (i - 1), [values[i] for values in rows.values()], 0.25, label=label)
ax.axhline(0, color="0.5", lw=0.8)
ax.set_xticks(positions, rows)
ax.set_ylabel("$R^2$ on targets that cannot be predicted")
ax.legend()
plt.show()
