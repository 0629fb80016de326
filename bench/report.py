"""Tables and plots of the figures that the measurements have left, in `docs/benchmarks.md`.

    .venv/bin/python -m bench.report --json-dir figures          # prints the table of targets
    .venv/bin/python -m bench.report --json-dir figures --write  # and writes the document and its images

What stands between `<!-- figures: NAME -->` and `<!-- end -->` in the document is replaced; the text around
it is written by hand. Figures that are missing leave their table as it is.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from listener.demo.processes import REPOSITORY

DOCUMENT: Final = REPOSITORY / "docs" / "benchmarks.md"
IMAGES: Final = REPOSITORY / "docs" / "images"
BLOCK: Final = re.compile(r"(<!-- figures: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PLOTS: Final = {"live": "latency", "markets": "markets", "memory": "memory"}
"""By table, the plot that stands below it."""

Figures = Mapping[str, Any]


class Missing(Exception):
    """A measurement was not run."""


class Target(NamedTuple):
    """What is wanted.

    Attributes:
        title: for people.
        wanted: for people.
        measured: the figures in the order of `limits`; raises `Missing`.
        limits: what they may be.
        unit: of the figures.
        at_least: whether more is better.
    """

    title: str
    wanted: str
    measured: Callable[["Report"], Sequence[float]]
    limits: Sequence[float]
    unit: str = "ms"
    at_least: bool = False

    def verdict(self, found: Sequence[float]) -> str:
        """Whether the figures are within the limits, or how far the worst one is off."""
        pairs = zip(found, self.limits, strict=True)
        off = max((limit / one if self.at_least else one / limit) for one, limit in pairs)
        return "yes" if off <= 1 else f"no, off by {off:.2f}×"


class Report:
    """The figures of all measurements.

    Args:
        results: by name of the measurement.
    """

    def __init__(self, results: Mapping[str, Figures]) -> None:
        self._results = results
        self.tables: dict[str, Callable[[], str]] = {
            "targets": self.targets,
            "machine": self.machine,
            "backfill": self.backfill,
            "peers": self.peers,
            "stages": self.stages,
            "live": self.live,
            "markets": self.markets,
            "growth": self.growth,
            "memory": self.memory,
            "idle": self.idle,
            "slow": self.slow,
        }

    @classmethod
    def read(cls, directory: Path) -> Self:
        """What a directory holds."""
        return cls({file.stem: json.loads(file.read_text()) for file in sorted(directory.glob("*.json"))})

    def of(self, name: str) -> Figures:
        """What a measurement has left.

        Raises:
            Missing: nothing.
        """
        if name not in self._results:
            raise Missing(name)
        return self._results[name]

    def has(self, name: str) -> bool:
        """Whether there are figures for a plot, or of a measurement."""
        parts: Figures = self._results.get("scale", {"results": {}})["results"]
        match name:
            case "latency":
                return "live" in self._results
            case "memory":
                return {"memory", "growth"} <= parts.keys()
        return name in self._results or name in parts

    def find_case(self, case: str, *, backend: bool = False) -> Figures | None:
        """A live case; None if it was not run."""
        from bench.live import CASES  # noqa: PLC0415 - it imports what starts processes

        live = self._results.get("live-backend" if backend else "live", {"results": []})
        return next((one for one in live["results"] if one["title"] == CASES[case].title), None)

    def case(self, case: str, *, backend: bool = False) -> Figures:
        """The same.

        Raises:
            Missing: it was not run.
        """
        found = self.find_case(case, backend=backend)
        if found is None:
            raise Missing(case)
        return found

    def part(self, part: str) -> Sequence[Figures]:
        """The summary of a part of `bench.scale`."""
        found = self.of("scale")["results"]
        if part not in found:
            raise Missing(part)
        summary: Sequence[Figures] = found[part]["summary"]
        return summary

    def summary(self) -> str:
        """The targets that there are figures for, as a table for a terminal."""
        rows = [row for row in self._rows() if row[-1]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        )

    def write(self) -> None:
        """Draw, and fill the document."""
        try:
            from bench.plots import draw  # noqa: PLC0415 - matplotlib may be missing

            draw(self, IMAGES)
        except ImportError:
            sys.stderr.write("No plots: matplotlib is missing, `make bench` installs it\n")
        DOCUMENT.write_text(BLOCK.sub(self._filled, DOCUMENT.read_text()))

    def _filled(self, block: "re.Match[str]") -> str:
        try:
            content = self.tables[block["name"]]()
        except Missing as error:
            sys.stderr.write(f"{block['name']} stays as it is: no figures of {error}\n")
            return block[0]
        plot = PLOTS.get(block["name"], "")
        if plot and (IMAGES / f"bench-{plot}.png").exists():
            content += f"\n\n![{block['name'].capitalize()}](images/bench-{plot}.png)"
        return f"{block[1]}{content}\n{block[3]}"

    def machine(self) -> str:
        """Where the figures come from."""
        about = {(one["machine"], one["python"], one["commit"]) for one in self._results.values()}
        if not about:
            raise Missing("anything")
        return "\n".join(
            f"* {machine}; Python {python}; commit {commit}" for machine, python, commit in sorted(about)
        )

    def targets(self) -> str:
        """Each target with what was measured."""
        return table(("what", "target", "measured", "met"), self._rows())

    def _rows(self) -> list[tuple[str, str, str, str]]:
        rows = []
        for target in TARGETS:
            try:
                found = target.measured(self)
            except (Missing, KeyError):
                rows.append((target.title, target.wanted, "not measured", ""))
                continue
            text = " / ".join(number(one) for one in found)
            rows.append((target.title, target.wanted, f"{text} {target.unit}", target.verdict(found)))
        return rows

    def backfill(self) -> str:
        """Backfills of the ordinary workload."""
        rows = [backfill_row("persistence off", self.of("backfill"))]
        if "backfill-aof" in self._results:
            rows.append(backfill_row("AOF, synced every second", self.of("backfill-aof")))
        if "anvil" in self._results:
            anvil = self.of("anvil")
            median = anvil["median"]
            waits = f"{median['waits_for_node_share']:.0%} of the time it waits for anvil"
            rows.append(
                (
                    f"from a real anvil, {number(anvil['workload']['trades'])} trades",
                    number(median["trades_per_s"]),
                    rates(anvil["runs"]),
                    waits,
                    f"{median['listener_peak_rss_mb']:.0f}",
                    "",
                )
            )
        if "baseline" in self._results:
            baseline = self.of("baseline")
            median = baseline["median"]
            rows.append(
                (
                    "straightforward web3.py code",
                    number(median["trades_per_s"]),
                    rates(baseline["runs"]),
                    f"{median['cpu_us_per_trade']:.0f} + {median['redis_command_us_per_trade']:.0f}",
                    "",
                    "",
                )
            )
        heads = ("", "trades/s", "all runs", "CPU, µs a trade: listener + Redis + node", "most memory, MB")
        return table((*heads, "Redis, a block of 200 trades"), rows)

    def peers(self) -> str:
        """The listener and other indexers."""
        peers = self.of("peers")
        rows = []
        for row in peers["medians"]:
            ratio = peers["ratios"].get(row["name"], {}).get("trades_per_s")
            cpu, memory = row["cpu_us_per_trade"], row.get("peak_mb", {})
            rows.append(
                (
                    row["name"],
                    number(row["trades_per_s"]),
                    ", ".join(map(number, row["rates"])),
                    " + ".join(f"{cpu[part]:.1f}" for part in ("indexer", "store") if part in cpu),
                    " + ".join(f"{one:.0f}" for one in memory.values()),
                    "" if ratio is None else f"{ratio:.1f}×",
                )
            )
        heads = ("", "trades/s", "all runs", "CPU, µs a trade: indexer + store", "most memory, MB")
        return table((*heads, "the listener is faster"), rows)

    def stages(self) -> str:
        """Processor time by stage."""
        stages = self.of("stages")["median"]["stages"]
        return table(("stage", "µs a trade"), [(name, f"{us:.2f}") for name, us in stages.items()])

    def live(self) -> str:
        """All live cases."""
        results = list(self.of("live")["results"])
        results += self._results.get("live-backend", {"results": []})["results"]
        return table(
            (
                "workload",
                "markets a block",
                "blocks",
                "to Redis: p50 / p95 / p99, ms",
                "acknowledged by Node",
                "CPU, ms a block: listener + Redis",
                "memory, MB",
            ),
            [live_row(result) for result in results],
        )

    def markets(self) -> str:
        """By number of markets."""
        return table(
            ("markets", "trades/s", "listener, µs a trade", "Redis, µs a trade", "most memory, MB"),
            columns(self.part("markets"), "markets", "trades_per_s", "listener_us", "redis_us", "peak_mb"),
        )

    def growth(self) -> str:
        """By what was done before."""
        return table(
            ("trades so far", "trades/s", "listener, µs a trade", "Redis, µs a trade", "memory, MB"),
            columns(self.part("growth"), "up_to_trades", "trades_per_s", "listener_us", "redis_us", "rss_mb"),
        )

    def memory(self) -> str:
        """With many active markets."""
        return table(
            ("active markets", "trades", "first round, MB", "afterwards, MB", "at the end, MB"),
            columns(self.part("memory"), "markets", "trades", "first_round_mb", "later_mb", "end_mb"),
        )

    def idle(self) -> str:
        """With idle markets."""
        return table(
            (
                "idle markets",
                "start to first commit, s",
                "of these until `Listener started`",
                "its processor time, s",
                "memory after it, MB",
                "most, MB",
                "Redis, MB",
            ),
            columns(
                self.part("idle"),
                "idle_markets",
                "to_first_commit_s",
                "of_these_imports_s",
                "cpu_to_first_commit_s",
                "rss_mb",
                "peak_mb",
                "redis_mb",
            ),
        )

    def slow(self) -> str:
        """With slow links."""
        redis = table(
            ("link to Redis, MB/s", "trades/s", "listener, µs a trade", "most memory, MB"),
            columns(self.part("slow-redis"), "mb_per_s", "trades_per_s", "listener_us", "peak_mb"),
        )
        backend = table(
            (
                "link to the backend, MB/s",
                "to Redis: p50, ms",
                "p95",
                "p99",
                "rows waiting",
                "most memory, MB",
            ),
            columns(
                self.part("slow-backend"),
                "mb_per_s",
                "to_redis_p50_ms",
                "to_redis_p95_ms",
                "to_redis_p99_ms",
                "rows_waiting",
                "peak_mb",
            ),
        )
        return f"{redis}\n\n{backend}"


def backfill_row(name: str, result: Figures) -> tuple[str, ...]:
    """A backfill in a table."""
    median = result["median"]
    cpu, commands = median["cpu_us_per_trade"], median["redis_commands"]
    script_us = commands["script_us_per_trade"] * result["workload"]["trades_per_block"]
    each = median["candles"]["bytes_each"]
    return (
        name,
        number(median["trades_per_s"]),
        rates(result["runs"]),
        f"{cpu['listener']} + {cpu['redis']} + {cpu['node']}",
        f"{median['listener_peak_rss_mb']:.0f}",
        f"{commands['calls_per_block']} commands, {script_us:.0f} µs, {each} bytes a candle",
    )


def live_row(result: Figures) -> tuple[str, ...]:
    """A live case in a table."""
    cpu = result["cpu_ms_per_block"]
    rolled = f"; rolled back {percentiles(result['rollback_ms'])}" if "rollback_ms" in result else ""
    return (
        result["title"],
        number(result["markets_per_block"]),
        str(result["blocks"]),
        percentiles(result["to_redis_ms"]) + rolled,
        percentiles(result["to_node_ms"]) if "to_node_ms" in result else "",
        f"{cpu['listener']} + {cpu['redis']}",
        f"{result['memory']['rss_mb']:.0f}",
    )


def percentiles(figures: Figures) -> str:
    """The usual three."""
    return " / ".join(f"{figures[name]:.1f}" for name in ("p50", "p95", "p99"))


def rates(runs: Iterable[Figures]) -> str:
    """Of all runs."""
    return ", ".join(number(run["trades_per_s"]) for run in runs)


def columns(rows: Iterable[Figures], *names: str) -> list[tuple[str, ...]]:
    """Some figures of each row; 0 stands for a link without a limit."""
    return [
        tuple("unlimited" if name == "mb_per_s" and not row[name] else number(row[name]) for name in names)
        for row in rows
    ]


def number(value: float) -> str:
    """A number as people read it."""
    return f"{value:,}" if isinstance(value, int) or value < 100 else f"{value:,.0f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _rate(name: str) -> Callable[[Report], Sequence[float]]:
    return lambda report: [report.of(name)["median"]["trades_per_s"]]


def _live(case: str, *names: str) -> Callable[[Report], Sequence[float]]:
    return lambda report: [report.case(case)["to_redis_ms"][name] for name in names]


def _more_to_node(report: Report) -> Sequence[float]:
    """How much later the backend acknowledges than Redis has it, in the worst of the cases."""
    cases = [report.case(name, backend=True) for name in ("few", "many", "large")]
    return [
        round(max(case["to_node_ms"][name] - case["to_redis_ms"][name] for case in cases), 2)
        for name in ("p50", "p95")
    ]


def _ratio_to_baseline(report: Report) -> Sequence[float]:
    ours, theirs = (report.of(name)["median"]["trades_per_s"] for name in ("backfill", "baseline"))
    return [round(ours / theirs, 1)]


def _ratio_to_peers(report: Report) -> Sequence[float]:
    peers = report.of("peers")["ratios"]
    return [min(one["trades_per_s"] for name, one in peers.items() if name.startswith(("Ponder", "Envio")))]


def _growth(report: Report) -> Sequence[float]:
    """By how many per cent a slice differs from the first at most, Redis included."""
    costs = [one["listener_us"] + one["redis_us"] for one in report.part("growth")]
    return [round(max(abs(cost / costs[0] - 1) for cost in costs) * 100, 1)]


def _spread(report: Report) -> Sequence[float]:
    costs = [one["listener_us"] + one["redis_us"] for one in report.part("markets")]
    return [round(costs[-1] / costs[0], 2)]


def _memory(report: Report) -> Sequence[float]:
    found = report.part("memory")[0]
    return [max(found["first_round_mb"], found["later_mb"])]


def _idle_memory(report: Report) -> Sequence[float]:
    without, with_them = report.part("idle")
    return [round(with_them["rss_mb"] - without["rss_mb"], 1)]


TARGETS: Final = (
    Target("Backfill, persistence off", "≥ 150,000", _rate("backfill"), [150_000], "trades/s", at_least=True),
    Target(
        "Backfill, AOF everysec", "≥ 100,000", _rate("backfill-aof"), [100_000], "trades/s", at_least=True
    ),
    Target("Ratio to web3.py code", "≥ 40×", _ratio_to_baseline, [40], "×", at_least=True),
    Target("Ratio to the best of Ponder and Envio", "≥ 6×", _ratio_to_peers, [6], "×", at_least=True),
    Target("Live, 100 trades over 10 markets, p50/p95", "≤ 4/8 ms", _live("few", "p50", "p95"), [4, 8]),
    Target("… over some 70 markets", "≤ 8/12 ms", _live("many", "p50", "p95"), [8, 12]),
    Target("… 500 trades over some 250 markets", "≤ 22/32 ms", _live("large", "p50", "p95"), [22, 32]),
    Target("… acknowledged by Node, later by", "≤ 4/8 ms", _more_to_node, [4, 8]),
    Target("Live, 10,000 trades/s, p99", "≤ 60 ms", _live("sustained", "p99"), [60]),
    Target("Memory, 10,000 active markets", "≤ 300 MB", _memory, [300], "MB"),
    Target("100,000 idle markets add", "≤ 30 MB", _idle_memory, [30], "MB"),
    Target("Cost per trade, first million to tenth, differs by", "≤ 15 %", _growth, [15], "%"),
    Target("Cost per trade, 100 to 10,000 markets", "≤ 3×", _spread, [3], "×"),
    Target(
        "Start with 100,000 markets to first commit",
        "≤ 2 s",
        lambda report: [report.part("idle")[-1]["to_first_commit_s"]],
        [2],
        "s",
    ),
    Target(
        "Rollback of depth 3, p50",
        "≤ 10 ms",
        lambda report: [report.case("rollback")["rollback_ms"]["p50"]],
        [10],
    ),
)


def main() -> None:
    """Print the table of targets, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json-dir", type=Path, required=True, help="where the figures are")
    parser.add_argument("--write", action="store_true", help="the document and its images")
    arguments = parser.parse_args()
    report = Report.read(arguments.json_dir)
    print(report.summary())
    if arguments.write:
        report.write()


if __name__ == "__main__":
    main()
