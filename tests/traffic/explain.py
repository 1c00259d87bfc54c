"""Says by what lines are told apart, when the judge says that they are.

    explain.py RUNS/MODE [--window 300] [--lengths]

For each of the attacker's numbers, averaged over a line: how often it ranks a working line above an
idle one, in each run by itself. What is far from 0.5 in all of them, and to the same side, is no chance; the
farthest come first. With some 130 lines a class, one run by itself strays by 0.07. `--lengths` counts
the datagrams of each length instead, in ten thousand.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import features
from captures import Run, load, windows

SHOWN = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", type=Path)
    parser.add_argument("--window", type=int, default=300)
    parser.add_argument("--lengths", action="store_true")
    arguments = parser.parse_args()
    runs = load(arguments.mode)
    if arguments.lengths:
        for run in runs:
            print_lengths(run)
        return
    names = features.names()
    by_run = [ranked(run, arguments.window, len(names)) for run in runs]
    aucs = np.array(by_run).T
    same_side = np.abs(np.sign(aucs - 0.5).sum(axis=1)) == len(runs)
    sure = np.where(same_side, np.abs(aucs - 0.5).min(axis=1), 0.0)
    for place in np.argsort(-sure)[:SHOWN]:
        print(f"{names[place]:>24}", *(f"{auc:.3f}" for auc in aucs[place]))


def ranked(run: Run, length: int, count: int) -> list[float]:
    """For each number: the chance that it is higher on a working line."""
    rng = np.random.default_rng(length)
    of_line: dict[int, list[np.ndarray]] = {}
    for window in windows(run, length, rng):
        of_line.setdefault(window.line.number, []).append(features.numbers(window))
    works = {line.number: line.workload != "idle" for line in run.lines}
    labels = [works[number] for number in of_line]
    means = np.array([np.mean(several, axis=0) for several in of_line.values()])
    return [float(roc_auc_score(labels, means[:, at])) for at in range(count)]


def print_lengths(run: Run) -> None:
    for from_relay in (False, True):
        for idle in (True, False):
            counted: Counter[int] = Counter()
            for line in run.lines:
                if (line.workload == "idle") == idle:
                    inside = (line.times >= 0) & (line.times < run.seconds)
                    counted.update(line.sizes[inside & (line.down == from_relay)].tolist())
            total = sum(counted.values())
            shares = {size: round(1e4 * n / total, 1) for size, n in sorted(counted.items())}
            whose = "relay" if from_relay else "agent"
            print(run.name, whose, "idle" if idle else "working", shares)


if __name__ == "__main__":
    main()
