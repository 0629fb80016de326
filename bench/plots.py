"""The plots of `docs/benchmarks.md`. They need matplotlib, which `requirements-bench.txt` pins."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import Report

SIZE_INCHES: Final = (8, 4.5)
DOTS_PER_INCH: Final = 110
MILLION: Final = 1_000_000
CASES: Final = ("few", "many", "large")


def draw(report: Report, directory: Path) -> None:
    """Draw what there are figures for."""
    plots: dict[str, Callable[[Report, Path], None]] = {
        "bench-markets.png": markets,
        "bench-latency.png": latency,
        "bench-memory.png": memory,
    }
    for name, plot in plots.items():
        if report.has(plot.__name__):
            plot(report, directory / name)


def markets(report: Report, file: Path) -> None:
    """Throughput and cost by number of markets."""
    rows = report.part("markets")
    places = [row["markets"] for row in rows]
    with figure(file, panels=2) as (rate, cost):
        rate.plot(places, [row["trades_per_s"] for row in rows], marker="o")
        rate.set(xscale="log", xlabel="markets", ylabel="trades/s", ylim=0, title="Backfill")
        for field, label in (("listener_us", "listener"), ("redis_us", "Redis")):
            cost.plot(places, [row[field] for row in rows], marker="o", label=label)
        cost.set(xscale="log", xlabel="markets", ylabel="µs CPU a trade", ylim=0, title="Processor time")
        cost.legend()


def latency(report: Report, file: Path) -> None:
    """What share of blocks is done after how long."""
    with figure(file) as (axes,):
        for place, case in enumerate(CASES):
            for backend, key, style, goal in (
                (False, "to_redis_ms", "-", "Redis"),
                (True, "to_node_ms", "--", "acknowledged by Node"),
            ):
                result = report.find_case(case, backend=backend)
                if result is None:
                    continue
                values = result[key]["values"]
                shares = [(number + 1) / len(values) for number in range(len(values))]
                axes.plot(values, shares, style, color=f"C{place}", label=f"{result['title']}: {goal}")
        axes.set(xscale="log", xlabel="ms after the node has the block", ylim=(0, 1), title="Live")
        axes.set_ylabel("share of blocks")
        axes.legend(loc="upper left", fontsize="small")


def memory(report: Report, file: Path) -> None:
    """Resident memory over time."""
    with figure(file) as (axes,):
        for part in ("memory", "growth"):
            run = report.of("scale")["results"][part]
            samples = run["run"]["samples"]
            trades = run["run"]["trades"] / MILLION
            label = f"{run['run']['markets']:,} markets, {trades:g} million trades"
            seconds = [one["at"] - samples[0]["at"] for one in samples]
            axes.plot(seconds, [one["rss_mb"] for one in samples], label=label)
        axes.set(xlabel="seconds of a backfill", ylabel="resident memory of the listener, MB", ylim=0)
        axes.legend(loc="lower right")


@contextmanager
def figure(file: Path, panels: int = 1) -> Iterator[Sequence[Axes]]:
    """Panels side by side, saved at the end."""
    whole = Figure(figsize=SIZE_INCHES)
    all_axes = list(whole.subplots(1, panels, squeeze=False)[0])
    for axes in all_axes:
        axes.grid(alpha=0.3)
    yield all_axes
    whole.tight_layout()
    whole.savefig(file, dpi=DOTS_PER_INCH, metadata={"Software": None})
