"""Figures of runs: rates, processor time, memory, ratios and a table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.peers.usage import Usage

OURS: Final = "listener"
INDEXER: Final = "indexer"
STORE: Final = "store"
NODE: Final = "node"

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment.

    Attributes:
        at: Unix seconds.
        used: by process.
    """

    at: float
    used: dict[str, Usage]


def figures_of(looks: Sequence[Look], started: float, began: float, trades: int) -> Figures:
    """Rates, processor time and memory of one run."""
    last = looks[-1]
    seconds = last.at - began
    used = {name: now.cpu_s - cpu_s_at(looks, name, began) for name, now in last.used.items()}
    return {
        "seconds": round(seconds, 3),
        "seconds_from_start": round(last.at - started, 3),
        "trades_per_s": round(trades / seconds),
        "trades_per_cpu_s": round(trades / used[INDEXER]),
        "cpu_us_per_trade": {name: round(cpu_s / trades * 1e6, 2) for name, cpu_s in used.items()},
        "peak_mb": {name: round(max(look.used[name].rss_mb for look in looks)) for name in (INDEXER, STORE)},
    }


def cpu_s_at(looks: Sequence[Look], name: str, moment: float) -> float:
    """Processor time that had been used at a moment, in a straight line between the looks around it."""
    after = next(index for index, look in enumerate(looks) if look.at >= moment)
    if after == 0:
        return looks[0].used[name].cpu_s
    (before, low), (then, high) = ((look.at, look.used[name].cpu_s) for look in looks[after - 1 : after + 1])
    return low + (high - low) * (moment - before) / (then - before)


def listener_figures(name: str, run: Mapping[str, Any]) -> Figures:
    """Of a run of bench/backfill.py, in the words of this file."""
    cpu = run["cpu_us_per_trade"]
    return {
        "name": name,
        **{name: run[name] for name in ("seconds", "seconds_from_start", "trades_per_s", "trades_per_cpu_s")},
        "cpu_us_per_trade": {INDEXER: cpu["listener"], STORE: cpu["redis"], NODE: cpu["node"]},
        "peak_mb": {INDEXER: run["listener_peak_rss_mb"], STORE: run["redis_memory_mb"]},
    }


def baseline_figures(run: Mapping[str, Any]) -> Figures:
    """Of a run of bench/baseline.py, in the words of this file."""
    names = ("seconds", "trades_per_s", "trades_per_cpu_s")
    return {
        "name": "web3.py pipeline",
        **{name: run[name] for name in names},
        "cpu_us_per_trade": {INDEXER: run["cpu_us_per_trade"]},
    }


def medians(runs: Sequence[Figures]) -> list[Figures]:
    """Of each name the median of each figure, and all rates."""
    found = []
    for name in dict.fromkeys(run["name"] for run in runs):
        own = [run for run in runs if run["name"] == name]
        found.append({**median(own), "rates": [run["trades_per_s"] for run in own]})
    return found


def median(values: Sequence[Any]) -> Any:  # noqa: ANN401 - figures are nested
    """Of numbers; of each figure, if they have names; texts are all the same."""
    match values[0]:
        case dict():
            names = [name for name in values[0] if all(name in value for value in values)]
            return {name: median([value[name] for value in values]) for name in names}
        case str():
            return values[0]
    return statistics.median(values)


def ratios(rows: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """How many times as fast the listener is: by the clock, by processor time, by the database's as well."""
    ours = next((row for row in rows if row["name"] == OURS), None)
    return {row["name"]: compared(ours, row) for row in rows if ours and row is not ours}


def compared(ours: Figures, row: Figures) -> dict[str, float]:
    """The same for one row; nobody measures the database of the baseline."""
    cpu, own = row["cpu_us_per_trade"], ours["cpu_us_per_trade"]
    found = {
        "trades_per_s": ours["trades_per_s"] / row["trades_per_s"],
        "trades_per_cpu_s": cpu[INDEXER] / own[INDEXER],
    }
    if STORE in cpu:
        found["cpu_with_store"] = (cpu[INDEXER] + cpu[STORE]) / (own[INDEXER] + own[STORE])
    return {name: round(ratio, 2) for name, ratio in found.items()}


def table(rows: Sequence[Figures], listener_is: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as a table in Markdown."""
    heads = (
        "",
        "trades/s",
        "runs",
        "s",
        "µs CPU a trade: indexer + store",
        "MB: indexer, store",
        "the listener is faster: by the clock, by CPU, by CPU with store",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cpu, memory = row["cpu_us_per_trade"], row.get("peak_mb", {})
        ratio = listener_is.get(row["name"], {})
        cells = (
            row["name"],
            f"{row['trades_per_s']:,.0f}",
            ", ".join(f"{rate:,}" for rate in row["rates"]),
            f"{row['seconds']:.1f}",
            f"{cpu[INDEXER]:.1f} + {cpu[STORE]:.1f}" if STORE in cpu else f"{cpu[INDEXER]:.1f}",
            ", ".join(f"{number:.0f}" for number in memory.values()),
            ", ".join(f"{number:.1f}" for number in ratio.values()),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
