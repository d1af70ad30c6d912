#!/usr/bin/env bash
# imbalanced-learn 0.14.2 with scikit-learn 1.9.1: sample weights behind a sampler belong to other rows, without a word.
#
# imbalanced-learn's Pipeline hands `sample_weight` to the final step as it was given, while its samplers drop, repeat or
# reorder the rows. Where the number of rows changes, fit fails with a message about lengths. Where it does not change,
# nothing is said: RandomUnderSampler on classes that are balanced already returns all rows, but grouped by class, and
# each row is then fitted with the weight of another one. An expert would expect the weights to follow the rows, since
# samplers know them (`sample_indices_`), or to be refused.
#
# Output seen:
#   rows before and after the sampler: 200 200
#   the pipeline's coefficients are those of weights in their old order: True
#   distance from the fit without the sampler, which has the same rows: 0.2
#   after the weights were put into the sampler's order by hand: 0.0
#
# Exits with 0 while this is so, and with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  imbalanced-learn==0.14.2 scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

X, y = make_classification(200, 5, flip_y=0, random_state=0)
weight = np.linspace(0.1, 2, 200)


def model():
    return LogisticRegression(tol=1e-10, max_iter=1000)


sampler = RandomUnderSampler(random_state=0)
X_kept, y_kept = sampler.fit_resample(X, y)
print("rows before and after the sampler:", len(X), len(X_kept))
pipeline = make_pipeline(RandomUnderSampler(random_state=0), model())
behind = pipeline.fit(X, y, logisticregression__sample_weight=weight)[-1].coef_
plain = model().fit(X, y, sample_weight=weight).coef_
misplaced = model().fit(X_kept, y_kept, sample_weight=weight).coef_
by_hand = model().fit(X_kept, y_kept, sample_weight=weight[sampler.sample_indices_]).coef_
same = bool(np.abs(behind - misplaced).max() < 1e-6)
apart, right = np.abs(behind - plain).max(), np.abs(by_hand - plain).max()
print("the pipeline's coefficients are those of weights in their old order:", same)
print(f"distance from the fit without the sampler, which has the same rows: {apart:.1f}")
print(f"after the weights were put into the sampler's order by hand: {right:.1f}")
sys.exit(0 if same and apart > 0.05 and right < 1e-3 and len(X) == len(X_kept) else 1)
PYTHON
