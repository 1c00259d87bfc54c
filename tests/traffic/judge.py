"""Judges the runs of `traffic_lab`: what an attacker learns from captures, and what hiding costs.

    judge.py RUNS [--docs DIR] [--modes a,b] [--windows 60,300]

`RUNS` holds a directory for each mode with a directory for each run. Results go to
`RUNS/results.json`; a mode and length of window that stand there and whose captures have not changed
are not computed again. With `--docs` the tables of `DIR/traffic.md` are written between its
markers, and the pictures below `DIR/pictures`.

Exit code 1 means that a control failed: the attack did not see what is plainly visible, or saw
what is not there. Then no other figure means anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np

import attackers
import features
import report
from captures import UDP_AND_IP, Run, Window, load, starts, windows

WORKLOADS = ["chat", "tools", "group", "file"]
CLASSIFIERS = {"boosting": attackers.boosting, "trees": attackers.trees}
LAG_SECONDS = 5.0
LAG_STEP = 0.5


def main() -> int:
    # Names of columns, which arrays do not have.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    arguments = parsed()
    stored = arguments.runs / "results.json"
    results = json.loads(stored.read_text()) if stored.exists() else {}
    for directory in sorted(path for path in arguments.runs.iterdir() if path.is_dir()):
        mode = directory.name
        manifests = sorted(directory.glob("*/manifest.json"))
        if (arguments.modes and mode not in arguments.modes) or not manifests:
            continue
        fingerprint = [[path.parent.name, path.stat().st_mtime_ns] for path in manifests]
        known = results.get(mode, {})
        if known.get("of") != fingerprint:
            known = {"of": fingerprint, "windows": {}}
        missing = [length for length in arguments.windows if str(length) not in known["windows"]]
        if missing or "cost" not in known:
            runs = load(directory)
            check(mode, runs)
            if len(runs) < 2:
                print(f"{mode}: one run to learn from and one to judge are needed", file=sys.stderr)
                continue
            known["cost"] = cost(runs)
            known["latency"] = latency(runs)
            for length in missing:
                print(f"{mode}, windows of {length} s", file=sys.stderr, flush=True)
                known["windows"][str(length)] = judged(runs, length)
                results[mode] = known
                stored.write_text(json.dumps(results, indent=1))
        results[mode] = known
    stored.write_text(json.dumps(results, indent=1))
    tables = report.tables(results, arguments.windows)
    print(tables)
    if arguments.docs:
        report.write_document(arguments.docs / "traffic.md", tables)
        report.pictures(results, arguments.runs, arguments.docs / "pictures")
    failures = failed_controls(results, arguments.windows)
    for failure in failures:
        print(f"control failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--modes", type=lambda text: text.split(","), default=[])
    parser.add_argument(
        "--windows", type=lambda text: [int(word) for word in text.split(",")], default=[60, 300]
    )
    return parser.parse_args()


def check(mode: str, runs: list[Run]) -> None:
    """A directory whose captures are of another mode would give figures under a wrong name."""
    for run in runs:
        if run.mode != mode:
            raise SystemExit(f"{mode}/{run.name} was recorded in the mode {run.mode}")
        troubles = sum(len(line["troubles"]) for line in run.manifest["lines"])
        if troubles:
            print(f"{mode}/{run.name}: {troubles} messages were not stored", file=sys.stderr)


# ----- what an attacker learns ------------------------------------------------------------------


def judged(runs: list[Run], length: int) -> dict:
    rng = np.random.default_rng(length)
    cut = [window for run in runs for window in windows(run, length, rng)]
    workloads = np.array([window.line.workload for window in cut])
    of_line = numbered(window.line.key for window in cut)
    order = {run.name: number for number, run in enumerate(runs)}
    in_run = np.array([order[window.line.run] for window in cut])
    table = np.array([features.numbers(window) for window in cut])
    convolutions = attackers.convolved(np.array([features.series(window) for window in cut]))

    # The idle lines, half of them with a wrong label: tables as a whole, as with true labels.
    tables = numbered((window.line.run, window.line.table) for window in cut)
    mislabelled = rng.permutation(tables.max() + 1) % 2 == 0
    questions = {"any": workloads != "idle"}
    for workload in WORKLOADS:
        if (workloads == workload).any():
            questions[workload] = workloads == workload
    answers: dict[str, dict] = {}
    for name, positive in questions.items():
        chosen = positive | (workloads == "idle")
        answer = attacked(table, convolutions, positive, chosen, in_run, of_line)
        if answer:
            answers[name] = answer
    idle = workloads == "idle"
    answers["idle, wrong labels"] = attacked(
        table, convolutions, mislabelled[tables], idle, in_run, of_line
    )
    return {"activity": answers, "pairs": pairs(runs, length)}


def attacked(
    table: np.ndarray,
    convolutions: np.ndarray,
    labels: np.ndarray,
    chosen: np.ndarray,
    in_run: np.ndarray,
    of_line: np.ndarray,
) -> dict[str, dict]:
    labels, in_run, of_line = labels[chosen].astype(int), in_run[chosen], of_line[chosen]
    ways = [(name, scorer, table) for name, scorer in CLASSIFIERS.items()]
    ways.append(("series", attackers.ridge, convolutions))
    answers = {}
    for name, scorer, known in ways:
        scores = attackers.scores_elsewhere(scorer, known[chosen], labels, in_run)
        answer = attackers.auc_with_interval(labels, scores, of_line)
        if answer:
            answers[name] = answer
    return answers


def pairs(runs: list[Run], length: int) -> dict:
    """Two lines: do they talk to each other? Those that do not are working lines of other tables."""
    rng = np.random.default_rng(length)
    rows, labels, in_run, at_tables = [], [], [], []
    for number, run in enumerate(runs):
        talking: dict[float, list[Window]] = defaultdict(list)
        for start in starts(run.seconds, length, rng):
            # Both are watched at the same time.
            for line in run.lines:
                window = Window(line, start, length)
                if line.workload != "idle" and window.is_active():
                    talking[start].append(window)
        for those in talking.values():
            series = [lines_series(window) for window in those]
            together, apart = [], []
            for a, b in combinations(range(len(those)), 2):
                same = those[a].line.table == those[b].line.table
                if same or those[a].line.workload == those[b].line.workload:
                    (together if same else apart).append((a, b))
            # As many of each as there are of the rarer.
            count = min(len(together), len(apart))
            for label, found in ((1, together), (0, apart)):
                for at in rng.permutation(len(found))[:count]:
                    a, b = found[at]
                    rows.append(compared(series[a], series[b]))
                    labels.append(label)
                    in_run.append(number)
                    at_tables += [(run.name, those[it].line.table) for it in (a, b)]
    if len(set(labels)) < 2:
        return {}
    known, answers = np.array(rows), np.array(labels)
    tables = numbered(at_tables).reshape(-1, 2)
    # Without learning: the highest correlation of what one sends with what the other gets.
    plain = known[:, 0].copy()
    learned = attackers.scores_elsewhere(attackers.trees, known, answers, np.array(in_run))
    return {
        "plain": attackers.auc_with_interval_of_pairs(answers, plain, tables),
        "learned": attackers.auc_with_interval_of_pairs(answers, learned, tables),
    }


def lines_series(window: Window) -> tuple[np.ndarray, np.ndarray]:
    return (
        features.large(window, LAG_STEP, from_relay=False),
        features.large(window, LAG_STEP, from_relay=True),
    )


def compared(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The same whichever line is named first."""
    steps = int(LAG_SECONDS / LAG_STEP)
    there, back = attackers.lagged(a[0], b[1], steps), attackers.lagged(b[0], a[1], steps)
    up, down = attackers.lagged(a[0], b[0], steps), attackers.lagged(a[1], b[1], steps)
    answers = [np.maximum(there, back), np.minimum(there, back)]
    alike = [(one + one[::-1]) / 2 for one in (up, down)]
    best = max(there.max(), back.max())
    return np.concatenate([[best, min(there.max(), back.max())], *answers, *alike])


def numbered(keys) -> np.ndarray:
    numbers: dict = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


# ----- what it costs ----------------------------------------------------------------------------


def cost(runs: list[Run]) -> dict:
    """Bytes of an idle line in an hour, with IPv4 and UDP headers; what the lab's machine did."""
    rates, datagrams = [], []
    for run in runs:
        for line in run.lines:
            inside = (line.times >= 0) & (line.times < run.seconds)
            if line.workload == "idle":
                count = int(inside.sum())
                rates.append((line.sizes[inside].sum() + UDP_AND_IP * count) * 3600 / run.seconds)
                datagrams.append(count / run.seconds)
    busy = [
        run.manifest["processor_ms"] / (10 * run.seconds)
        for run in runs
        if run.manifest["processor_ms"] is not None
    ]
    return {
        "idle_bytes_per_hour": round(float(np.mean(rates))),
        "idle_spread": round(float(np.std(rates))),
        "idle_datagrams_per_second": round(float(np.mean(datagrams)), 2),
        "asked_bytes_per_hour": runs[0].manifest.get("asked_idle_bytes_per_hour"),
        "runs": len(runs),
        "line_hours": round(sum(len(run.lines) * run.seconds for run in runs) / 3600, 2),
        "lines_at_once": max(len(run.lines) for run in runs),
        "percent_of_a_core": round(float(np.mean(busy)), 1) if busy else None,
        "not_stored": sum(
            len(line["troubles"]) for run in runs for line in run.manifest["lines"]
        ),
    }


def latency(runs: list[Run]) -> dict:
    """From `send` to the other application's hands, by workload; and files by their pieces."""
    waits: dict[str, list[float]] = defaultdict(list)
    goodput = []
    for run in runs:
        workload = {line.number: line.workload for line in run.lines}
        files: dict[tuple[int, int, int], list[list[int]]] = defaultdict(list)
        for message in run.received:
            sender, sent, got, length, file, _left, to = message
            if file:
                files[sender, file, to].append(message)
                continue
            waits[workload[sender]].append((got - sent) / 1e6)
            if length <= ONE_CELL:
                waits["one cell"].append((got - sent) / 1e6)
        for pieces in files.values():
            # Whole ones only: the last piece has come and none is missing.
            lefts = {piece[5] for piece in pieces}
            if lefts != set(range(max(lefts) + 1)):
                continue
            taken = max(piece[2] for piece in pieces) - min(piece[1] for piece in pieces)
            goodput.append(sum(piece[3] for piece in pieces) / (taken / 1e6))
    answers: dict = {
        name: {
            "p50": round(float(np.quantile(all_of, 0.5)), 3),
            "p95": round(float(np.quantile(all_of, 0.95)), 3),
            "messages": len(all_of),
        }
        for name, all_of in waits.items()
    }
    if goodput:
        answers["file"] = {
            "bytes_per_second": round(float(np.median(goodput))),
            "files": len(goodput),
        }
    return answers


ONE_CELL = 400
"""A message of so many bytes fits one cell of 1,056 with all its headers."""


def failed_controls(results: dict, lengths: list[int]) -> list[str]:
    """`immediate` and `padded` must be seen through, and wrong labels must not be learned."""
    failures = []
    for mode, known in results.items():
        for length in lengths:
            seen = known["windows"].get(str(length))
            if seen is None:
                continue
            if mode in ("padded", "immediate"):
                best = max(one["auc"] for one in seen["activity"]["any"].values())
                if best <= 0.9:
                    failures.append(f"{mode}, {length} s: activity is seen with {best} only")
            wrong = seen["activity"]["idle, wrong labels"]
            for name, one in wrong.items():
                # One in twenty misses its interval by chance; a leak misses it by far.
                off = max(one["low"] - 0.5, 0.5 - one["high"], 0.0)
                if off > 0.05:
                    failures.append(f"{mode}, {length} s, {name}: wrong labels are learned")
    return failures


if __name__ == "__main__":
    sys.exit(main())
