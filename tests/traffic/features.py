"""What an attacker computes from a window: numbers for trees, series for convolutions."""

from __future__ import annotations

import numpy as np

from captures import Window

SIZE_EDGES = np.array([0, 30, 34, 36, 38, 40, 44, 60, 100, 200, 300, 600, 1_050, 1_085, 1_095, 1_150, 1_201, 65_536])
BINS = (0.05, 0.25, 1.0, 5.0)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def numbers(window: Window) -> np.ndarray:
    """Counts, bytes, sizes, pauses, burstiness and memory, of each direction and of both."""
    times, sizes, down = window.cut()
    parts = [
        _of_direction(times[chosen], sizes[chosen], window.seconds)
        for chosen in (~down, down, np.ones_like(down))
    ]
    parts.append(_between(times, down, window.seconds))
    return np.nan_to_num(np.concatenate(parts), nan=-1.0, posinf=-1.0, neginf=-1.0)


def names() -> list[str]:
    """What the numbers are, in their order."""
    of_one = ["datagrams", "bytes"]
    of_one += [f"lengths from {edge}" for edge in SIZE_EDGES[:-1]]
    of_one += ["mean length", "spread of lengths", "longest"]
    of_one += ["mean pause", "spread of pauses", "spread by mean of pauses"]
    of_one += [f"pause at {quantile}" for quantile in QUANTILES] + ["pauses in a row"]
    for step in BINS:
        of_one += [f"{what} in {step} s" for what in ("most", "burstiness", "nothing")]
        of_one += [f"memory of {lag} x {step} s" for lag in (1, 2, 3, 5)]
    between = [f"{way}: wait at {q}" for way in ("up, down", "down, up") for q in QUANTILES]
    between += [f"both in {step} s" for step in BINS[1:]]
    return [f"{way}: {one}" for way in ("up", "down", "all") for one in of_one] + between


def series(window: Window, step: float = 0.25) -> np.ndarray:
    """Datagrams and bytes by direction in steps of time: four rows."""
    times, sizes, down = window.cut()
    edges = np.arange(0, window.seconds + step / 2, step)
    rows = []
    for chosen in (~down, down):
        rows.append(np.histogram(times[chosen], edges)[0])
        rows.append(np.histogram(times[chosen], edges, weights=sizes[chosen])[0])
    return np.array(rows, dtype=np.float32)


def large(window: Window, step: float, from_relay: bool) -> np.ndarray:
    """Bytes of one direction in steps of time."""
    times, sizes, down = window.cut()
    edges = np.arange(0, window.seconds + step / 2, step)
    chosen = down == from_relay
    return np.histogram(times[chosen], edges, weights=sizes[chosen])[0]


def _of_direction(times: np.ndarray, sizes: np.ndarray, seconds: float) -> np.ndarray:
    histogram = np.histogram(sizes, SIZE_EDGES)[0] / max(len(sizes), 1)
    values = [len(times), sizes.sum(), *histogram]
    values += [sizes.mean(), sizes.std(), sizes.max()] if len(sizes) else [0, 0, 0]
    pauses = np.diff(times)
    if len(pauses) < 2:
        pauses = np.array([seconds, seconds])
    values += [pauses.mean(), pauses.std(), pauses.std() / max(pauses.mean(), 1e-9)]
    values += list(np.quantile(pauses, QUANTILES))
    # Pauses that follow each other.
    values.append(_correlation(pauses[:-1], pauses[1:]))
    for step in BINS:
        counts = np.histogram(times, np.arange(0, seconds + step / 2, step))[0].astype(float)
        values += [counts.max(), counts.var() / max(counts.mean(), 1e-9), (counts == 0).mean()]
        values += [_correlation(counts[:-lag], counts[lag:]) for lag in (1, 2, 3, 5)]
    return np.array(values, dtype=float)


def _between(times: np.ndarray, down: np.ndarray, seconds: float) -> np.ndarray:
    """How the directions answer each other."""
    up, back = times[~down], times[down]
    values: list[float] = []
    for first, then in ((up, back), (back, up)):
        place = np.searchsorted(then, first)
        inside = place < len(then)
        waits = then[place[inside]] - first[inside]
        values += list(np.quantile(waits, QUANTILES)) if len(waits) else [-1.0] * len(QUANTILES)
    for step in BINS[1:]:
        edges = np.arange(0, seconds + step / 2, step)
        values.append(_correlation(np.histogram(up, edges)[0], np.histogram(back, edges)[0]))
    return np.array(values, dtype=float)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 3 or a.std() < 1e-12 or b.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
