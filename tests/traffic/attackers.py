"""Three classifiers and the attack on two lines, with training and test on different runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from lightgbm import LGBMClassifier
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CORES = 2

Scorer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def boosting(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    model = LGBMClassifier(
        n_estimators=200,
        learning_rate=0.05,
        num_leaves=15,
        min_child_samples=10,
        subsample=0.8,
        subsample_freq=1,
        colsample_bytree=0.5,
        class_weight="balanced",
        random_state=1,
        n_jobs=CORES,
        verbose=-1,
    )
    return model.fit(train, labels).predict_proba(test)[:, 1]


def trees(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    model = ExtraTreesClassifier(
        n_estimators=500,
        min_samples_leaf=2,
        class_weight="balanced",
        random_state=1,
        n_jobs=CORES,
    )
    return model.fit(train, labels).predict_proba(test)[:, 1]


def ridge(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    model = make_pipeline(
        StandardScaler(),
        RidgeClassifierCV(alphas=np.logspace(0, 6, 13), class_weight="balanced"),
    )
    return model.fit(train, labels).decision_function(test)


def convolved(series: np.ndarray, kernels: int = 500, seed: int = 1) -> np.ndarray:
    """Random convolutions of `(windows, rows, steps)`: of each its largest value and how often it
    is positive. Kernels are drawn as in ROCKET: nine normal weights, a random dilation, a random
    bias, on a random choice of rows.
    """
    rng = np.random.default_rng(seed)
    _, rows, steps = series.shape
    # One scale for all windows, so that how much there is counts too.
    mean = series.mean(axis=(0, 2), keepdims=True)
    spread = series.std(axis=(0, 2), keepdims=True) + 1e-9
    scaled = (series - mean) / spread
    taps = 9
    columns = []
    for _ in range(kernels):
        chosen = rng.choice(rows, size=rng.integers(1, rows + 1), replace=False)
        weights = rng.normal(size=(len(chosen), taps)).astype(np.float32)
        weights -= weights.mean()
        dilation = int(2 ** rng.uniform(0, np.log2((steps - 1) / (taps - 1))))
        length = steps - dilation * (taps - 1)
        answer = np.zeros((len(series), length), dtype=np.float32)
        for row, of_row in zip(chosen, weights):
            for tap, weight in enumerate(of_row):
                at = tap * dilation
                answer += weight * scaled[:, row, at : at + length]
        bias = rng.choice(answer[rng.integers(len(answer))])
        columns += [answer.max(axis=1), (answer > bias).mean(axis=1)]
    return np.array(columns).T


def scores_elsewhere(
    scorer: Scorer, features: np.ndarray, labels: np.ndarray, runs: np.ndarray
) -> np.ndarray:
    """Scores for the windows of every second run, by a classifier that has learned from the others;
    nothing for those it has learned from.

    Not both ways round: then each line would judge those that judge it, and drawing lines again
    would promise too narrow an interval.
    """
    learned = runs % 2 == 0
    scores = np.full(len(labels), np.nan)
    if len(np.unique(labels[learned])) == 2 and not learned.all():
        scores[~learned] = scorer(features[learned], labels[learned], features[~learned])
    return scores


def auc_with_interval(
    labels: np.ndarray, scores: np.ndarray, lines: np.ndarray, rounds: int = 1_000, seed: int = 1
) -> dict | None:
    """The AUC, and its 95 % interval when whole lines are drawn again, each class by itself.

    `None` when one of the classes has no window that could be judged.
    """
    known = ~np.isnan(scores)
    labels, scores, lines = labels[known], scores[known], lines[known]
    if len(np.unique(labels)) < 2:
        return None
    by_class = [np.unique(lines[labels == label]) for label in (0, 1)]

    def drawn(rng: np.random.Generator) -> np.ndarray:
        weights = np.zeros(len(labels))
        for label, of_class in enumerate(by_class):
            inside = labels == label
            weights[inside] = _times(rng, len(of_class))[np.searchsorted(of_class, lines[inside])]
        return weights

    answer = _with_interval(labels, scores, drawn, rounds, seed)
    return answer | {"lines": [len(of_class) for of_class in by_class]}


def auc_with_interval_of_pairs(
    labels: np.ndarray, scores: np.ndarray, tables: np.ndarray, rounds: int = 1_000, seed: int = 1
) -> dict | None:
    """The same for pairs of lines, when whole tables are drawn again: `tables` names for each pair
    those of its two lines.

    A pair is no unit of its own. It shares its lines with other pairs, and what two lines have in
    common by chance, such as how their phases lie to each other, is in every window of theirs. A
    pair of strangers counts as often as both of its tables were drawn.
    """
    known = ~np.isnan(scores)
    labels, scores, tables = labels[known], scores[known], tables[known]
    if len(np.unique(labels)) < 2:
        return None
    names, places = np.unique(tables, return_inverse=True)
    places = places.reshape(-1, 2)

    def drawn(rng: np.random.Generator) -> np.ndarray:
        times = _times(rng, len(names))[places]
        return np.where(labels == 1, times[:, 0], times.prod(axis=1)).astype(float)

    answer = _with_interval(labels, scores, drawn, rounds, seed)
    return answer | {"tables": len(names)}


def _times(rng: np.random.Generator, count: int) -> np.ndarray:
    """How often each of so many is drawn when as many are drawn with putting back."""
    return np.bincount(rng.integers(count, size=count), minlength=count)


def _with_interval(
    labels: np.ndarray,
    scores: np.ndarray,
    drawn: Callable[[np.random.Generator], np.ndarray],
    rounds: int,
    seed: int,
) -> dict:
    rng = np.random.default_rng(seed)
    measure = _WeightedAuc(labels, scores)
    values: list[float] = []
    while len(values) < rounds:
        weights = drawn(rng)
        # Of few tables sometimes none are drawn that have strangers with each other.
        if weights[labels == 0].any() and weights[labels == 1].any():
            values.append(measure(weights))
    low, high = np.quantile(values, [0.025, 0.975])
    return {
        "auc": round(measure(np.ones(len(labels))), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "windows": [int((labels == 0).sum()), int((labels == 1).sum())],
    }


def lagged(a: np.ndarray, b: np.ndarray, steps: int) -> np.ndarray:
    """The correlation of two series at lags from `-steps` to `steps`; positive when `b` is later."""
    a = (a - a.mean()) / (a.std() + 1e-9)
    b = (b - b.mean()) / (b.std() + 1e-9)
    length = len(a)
    values = []
    for lag in range(-steps, steps + 1):
        here = a[max(-lag, 0) : length - max(lag, 0)]
        there = b[max(lag, 0) : length - max(-lag, 0)]
        values.append(float((here * there).mean()))
    return np.array(values)


class _WeightedAuc:
    """The AUC of scores of which some count more than once; sorts only once."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        self._positive = labels == 1
        values, self._place = np.unique(scores, return_inverse=True)
        self._length = len(values)

    def __call__(self, weights: np.ndarray) -> float:
        of_class = [
            np.bincount(self._place, weights=weights * chosen, minlength=self._length)
            for chosen in (~self._positive, self._positive)
        ]
        below = np.cumsum(of_class[0]) - of_class[0] / 2
        return float((below * of_class[1]).sum() / (of_class[0].sum() * of_class[1].sum()))
