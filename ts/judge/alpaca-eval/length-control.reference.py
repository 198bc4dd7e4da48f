"""Writes length-control.reference.json beside it: what scikit-learn finds on made-up comparisons.

    python length-control.reference.py      (scikit-learn, numpy)

The steps are those of alpaca_eval's metrics/glm_winrate.py: soft labels by doubled rows, L1, liblinear, no intercept, C by
grouped 5-fold cross-validation of the log-loss. `tight` repeats the fits at a tolerance of 1e-12.
"""

import json
import pathlib
import warnings

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import make_scorer
from sklearn.model_selection import GroupKFold

warnings.filterwarnings("ignore")
sklearn.set_config(enable_metadata_routing=True)
rng = np.random.default_rng(6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def make(n, phi, gamma, theta):
    difficulty = rng.normal(0, 1.5, n).round(4)
    delta = rng.normal(0, 400, n).round()
    logit = phi * np.tanh(delta / delta.std(ddof=1)) + gamma * difficulty + theta
    preference = np.clip(sigmoid(logit + rng.normal(0, 1, n)), 0, 1).round(4)
    return difficulty, delta, preference


def log_loss(y_true, y_pred, true_prob, true_weight):
    p = np.where(y_true == 1, true_prob, 1 - true_prob)
    q = np.clip(y_pred, 1e-15, 1 - 1e-15)
    return -np.mean((p * np.log(q) + (1 - p) * np.log(1 - q)) * true_weight)


rows = make(160, -1.8, 0.9, -1.2)
gamed = make(120, -1.6, 0.8, 0.0)
deviation = rows[1].std(ddof=1)
gamed_standard = (gamed[1] / gamed[1].std(ddof=1)).round(6)

features = np.concatenate(
    [
        np.stack([np.tanh(gamed_standard), gamed[0], np.zeros(120)], 1),
        np.stack([np.tanh(rows[1] / deviation), rows[0], np.ones(160)], 1),
    ]
)
p = np.concatenate([gamed[2], rows[2]])
weight = np.concatenate([np.full(120, 0.1), np.ones(160)])

n = len(p)
X = np.concatenate([features, features])
y = np.concatenate([np.ones(n, int), np.zeros(n, int)])
true_prob = np.concatenate([p, 1 - p])
true_weight = np.concatenate([weight, weight])
groups = np.concatenate([np.arange(n), np.arange(n)])
# Dealt out from the last row to the first, whatever this machine's sort does with equal sizes.
fold_of = (n - 1 - np.arange(n)) % 5
folds = [(np.flatnonzero(fold_of[groups] != f), np.flatnonzero(fold_of[groups] == f)) for f in range(5)]


def fit(cv, **kwargs):
    scorer = make_scorer(log_loss, response_method="predict_proba", greater_is_better=False)
    scorer = scorer.set_score_request(true_weight=True, true_prob=True)
    model = LogisticRegressionCV(
        cv=cv, scoring=scorer, random_state=123, penalty="l1", solver="liblinear", fit_intercept=False, **kwargs
    )
    model.set_fit_request(sample_weight=True)
    extra = {"groups": groups} if hasattr(cv, "split") else {}
    model.fit(X, y, sample_weight=true_prob * true_weight, true_weight=true_weight, true_prob=true_prob, **extra)
    scores = list(model.scores_.values())[0] if isinstance(model.scores_, dict) else model.scores_
    C = np.ravel(model.C_)[0]
    rate = sigmoid(model.coef_[0][1] * rows[0] + model.coef_[0][2])
    return {
        "C": float(C),
        "coefficients": model.coef_[0].tolist(),
        "scores": np.asarray(scores).reshape(5, 10).mean(0).tolist(),
        "length_controlled_winrate": float(100 * rate.mean()),
        "lc_standard_error": float(100 * rate.std(ddof=1) / np.sqrt(len(rate))),
    }


def single(C):
    model = LogisticRegression(
        C=C, penalty="l1", solver="liblinear", fit_intercept=False, tol=1e-12, max_iter=10_000, random_state=123
    )
    model.set_fit_request(sample_weight=True)
    model.fit(X, y, sample_weight=true_prob * true_weight)
    return {"C": C, "coefficients": model.coef_[0].tolist()}


out = {
    "made_with": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
    "rows": {"difficulty": rows[0].tolist(), "delta": rows[1].tolist(), "preference": rows[2].tolist()},
    "gamed": {
        "difficulty": gamed[0].tolist(),
        "standardisedLength": gamed_standard.tolist(),
        "preference": gamed[2].tolist(),
    },
    "single": [single(C) for C in (0.01, 0.1, 1.0, 100.0)],
    "tight": fit(folds, tol=1e-12, max_iter=10_000),
    "upstream": fit(GroupKFold(5)),
}
path = pathlib.Path(__file__).with_suffix("").with_suffix(".reference.json")
path.write_text(json.dumps(out) + "\n")
print(out["tight"], out["upstream"], out["single"], sep="\n")
