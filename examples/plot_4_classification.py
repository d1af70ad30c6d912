"""
4. Classification, and a model to take away
===========================================

``HyperTrainingSearchCV(LogisticRegression())`` beside ``LogisticRegressionCV``, by test log-loss. The tuned decays
become part of a plain scikit-learn pipeline.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhyper import HyperTrainingSearchCV
from skhyper.displays import DecayDisplay

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)

by_grid = make_pipeline(
    StandardScaler(), LogisticRegressionCV(Cs=20, l1_ratios=(0,), scoring="neg_log_loss", use_legacy_attributes=False)
)
by_grid.fit(X_train, y_train)
print(f"LogisticRegressionCV: test log-loss {log_loss(y_test, by_grid.predict_proba(X_test)):.4f}")

# %%
# The search leaves the single C only where a finer row is clearly better. Here it is not.
pipeline = make_pipeline(StandardScaler(), LogisticRegression())
search = HyperTrainingSearchCV(pipeline, scoring="neg_log_loss").fit(X_train, y_train)
print(
    f"HyperTrainingSearchCV: test log-loss {log_loss(y_test, search.predict_proba(X_test)):.4f}, q = {search.exponent_}"
)

# %%
# A small model can be had all the same, and its price can be seen: with a fixed exponent of 1, the Lasso's penalty,
# coefficients are exactly zero.
search = HyperTrainingSearchCV(pipeline, scoring="neg_log_loss", exponent=1.0).fit(X_train, y_train)
kept = (search.best_estimator_[-1].coef_ != 0).sum()
print(f"{kept} of {X.shape[1]} features: test log-loss {log_loss(y_test, search.predict_proba(X_test)):.4f}")

# %%
# The decays have the names of the features.
figure, ax = plt.subplots(figsize=(8, 5))
DecayDisplay.from_estimator(search, ax=ax)
ax.tick_params(axis="x", rotation=90, labelsize=7)
figure.tight_layout()
plt.show()

# %%
# ``clone`` would lose these decays. ``refit_estimator`` gives a pipeline that has them built in, as a scaling of the
# columns, and that any scikit-learn tool can fit again.
plain = search.refit_estimator()
print(plain)
print(f"fitted again: test log-loss {log_loss(y_test, plain.fit(X_train, y_train).predict_proba(X_test)):.4f}")
