"""Tables in Markdown and pictures in SVG, from results only."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
ORDER = ["padded", "immediate", "adaptive", "quiet", "standard", "swift", "constant", "maximum"]
#: More would be too dense to look at.
BANDS_SECONDS = 300
WORKLOADS = ["any", "chat", "tools", "group", "file"]


def tables(results: dict, lengths: list[int]) -> str:
    modes = [mode for mode in ORDER if mode in results]
    parts = [_costs(results, modes)]
    for length in lengths:
        of_length = [mode for mode in modes if str(length) in results[mode]["windows"]]
        if of_length:
            parts += [_activity(results, of_length, length), _pairs(results, of_length, length)]
    return "\n\n".join(parts)


def write_document(path: Path, text: str) -> None:
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def pictures(results: dict, runs: Path, directory: Path) -> None:
    plt.rcParams["svg.hashsalt"] = "skytale"  # the same picture from the same figures
    plt.rcParams["svg.fonttype"] = "none"
    directory.mkdir(exist_ok=True)
    _latency_against_cost(results, directory / "traffic-cost.svg")
    _bands(runs, directory / "traffic-bands.svg")


def _row(cells: list[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _table(head: list[str], rows: list[list[object]]) -> str:
    return "\n".join([_row(head), _row(["---"] * len(head)), *map(_row, rows)])


def _costs(results: dict, modes: list[str]) -> str:
    rows = []
    for mode in modes:
        cost, waits = results[mode]["cost"], results[mode]["latency"]
        asked = cost["asked_bytes_per_hour"]
        file = waits.get("file")
        rows.append(
            [
                f"`{mode}`",
                f"{cost['idle_bytes_per_hour'] / 1e6:.2f}",
                f"{asked / 1e6:.2f}" if asked else "",
                *(_wait(waits, name) for name in ("one cell", "chat", "tools", "group")),
                f"{file['bytes_per_second'] / 1e3:.1f}" if file else "",
                f"{cost['runs']} × {cost['lines_at_once']} lines, {cost['line_hours']} h",
            ]
        )
    head = ["mode", "idle MB/h", "as computed", "one cell, s", "chat, s", "tools, s", "group, s"]
    head += ["files KB/s", "watched"]
    says = (
        "What it costs. Bytes on the wire of an idle line, both directions, acknowledgements and IPv4\n"
        "headers included; from `send` to the other application's hands, p50 / p95; median of whole files."
    )
    return f"{says}\n\n{_table(head, rows)}"


def _wait(waits: dict, name: str) -> str:
    one = waits.get(name)
    return f"{one['p50']:.2f} / {one['p95']:.2f}" if one else ""


def _activity(results: dict, modes: list[str], length: int) -> str:
    rows = []
    for mode in modes:
        activity = results[mode]["windows"][str(length)]["activity"]
        for workload in [*WORKLOADS, "idle, wrong labels"]:
            answers = activity.get(workload)
            if answers:
                windows = answers["trees"]["windows"]
                cells = [_auc(answers[name]) for name in ("boosting", "trees", "series")]
                rows.append([f"`{mode}`", workload, *cells, f"{windows[0]} / {windows[1]}"])
    head = ["mode", "against idle", "LightGBM", "ExtraTrees", "convolutions", "windows"]
    says = (
        f"Active or idle, windows of {length} s: AUC and its 95 % interval (0.5 is blind). The rows with\n"
        "wrong labels are the control that the attack sees nothing where nothing is."
    )
    return f"{says}\n\n{_table(head, rows)}"


def _pairs(results: dict, modes: list[str], length: int) -> str:
    rows = []
    for mode in modes:
        answers = results[mode]["windows"][str(length)]["pairs"]
        if answers:
            windows = answers["plain"]["windows"]
            cells = [_auc(answers[name]) for name in ("plain", "learned")]
            rows.append([f"`{mode}`", *cells, f"{windows[0]} / {windows[1]}"])
    head = ["mode", "highest correlation", "learned", "pairs"]
    says = f"Which two lines talk to each other, windows of {length} s:"
    return f"{says}\n\n{_table(head, rows)}"


def _auc(one: dict) -> str:
    return f"{one['auc']:.3f} ({one['low']:.3f}–{one['high']:.3f})"


def _latency_against_cost(results: dict, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    named: list[float] = []
    for mode in (mode for mode in ORDER if mode in results):
        known = results[mode]
        wait = known["latency"].get("one cell")
        if wait is None:
            continue
        cost = known["cost"]["idle_bytes_per_hour"] / 1e6
        axes.plot([cost, cost], [wait["p50"], wait["p95"]], color="#888", linewidth=1)
        axes.plot(cost, wait["p50"], "o", color="#2266aa")
        axes.plot(cost, wait["p95"], "_", color="#888", markersize=10)
        # Modes that cost alike have their names one below the other.
        beside = sum(abs(cost - other) < 5 for other in named)
        named.append(cost)
        place = (6, 4 - 12 * beside)
        axes.annotate(mode, (cost, wait["p50"]), xytext=place, textcoords="offset points")
    axes.set_xlabel("idle line, MB an hour")
    axes.set_ylabel("message of one cell, s (p50 to p95)")
    # Names stand to the right of their points.
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.0) * 1.15)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def _bands(runs: Path, path: Path) -> None:
    """Real, cover and the sum in the first minutes, as the busiest line that calls tools counted them."""
    found = None
    for mode in ("adaptive", "standard", "swift"):
        for manifest in sorted((runs / mode).glob("*/manifest.json")):
            of_run = json.loads(manifest.read_text())
            lines = [line for line in of_run["lines"] if line["workload"] == "tools"]
            lines = [line for line in lines if len(line["bands"]) > 60]
            if lines:
                busiest = max(lines, key=lambda line: line["bands"][-1][1])
                found = (mode, of_run["begin_us"], busiest["bands"])
                break
        if found:
            break
    if not found:
        return
    mode, begin, bands = found
    counted = np.array(bands, dtype=float)
    counted = counted[counted[:, 0] - begin < 1e6 * BANDS_SECONDS]
    times = (counted[1:, 0] - begin) / 1e6
    steps = np.maximum(np.diff(counted[:, 0]) / 1e6, 1e-3)
    real = np.diff(counted[:, 1]) / steps
    cover = np.diff(counted[:, 2]) / steps
    figure, each = plt.subplots(3, 1, figsize=(7.2, 4.6), sharex=True, sharey=True)
    bands_of = [("real", real, "#2266aa"), ("cover", cover, "#bbbbbb")]
    bands_of.append(("on the wire", real + cover, "#444444"))
    for axes, (name, values, colour) in zip(each, bands_of):
        axes.fill_between(times, values / 1e3, step="pre", color=colour, linewidth=0)
        axes.set_ylabel(f"{name}, KB/s")
    each[0].set_title(f"one line, mode {mode}, agent to relay", fontsize=10)
    each[-1].set_xlabel("s")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
