"""The arithmetic of the benchmarks, from log lines and samples to figures and tables."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.live import latencies, rollbacks
from bench.report import Report, Target
from bench.scale import slices
from bench.stages import FUNCTIONS
from bench.system import WrongResult, events


def line(at: float, event: str, **fields: object) -> str:
    """A log line."""
    when = datetime.fromtimestamp(at, UTC).isoformat()
    return json.dumps({"event": event, "timestamp": when, **fields})


def test_a_blocks_clock_stops_at_its_own_lines() -> None:
    """It runs from the release to the first commit, and to the acknowledgement that covers its last row."""
    lines = [
        "not a log line",
        line(9.0, "Trades committed", block=1, seq=5),
        line(10.004, "Trades committed", block=2, seq=10),
        line(10.015, "Updates acknowledged", seq=9),
        line(10.020, "Updates acknowledged", seq=10),
        line(11.006, "Trades committed", block=3, seq=20),
        line(11.030, "Updates acknowledged", seq=25),
        line(11.500, "Trades committed", block=2, seq=30),
    ]
    found = latencies(lines, {1: 8.9, 2: 10.0, 3: 11.0}, first=2)
    assert found["blocks"] == 2
    assert found["to_redis_ms"]["values"] == [4, 6]
    assert found["to_node_ms"]["values"] == [20, 30]


def test_a_commit_of_several_blocks_is_the_clock_of_all() -> None:
    """A listener that has fallen behind cannot hide the blocks that it commits together."""
    lines = [line(10.0, "Trades committed", block=1, seq=5), line(12.0, "Trades committed", block=4, seq=9)]
    found = latencies(lines, {2: 10.5, 3: 11.0, 4: 11.5}, first=2)
    assert found["to_redis_ms"]["values"] == [500, 1000, 1500]


def test_no_node_latency_unless_every_block_was_acknowledged() -> None:
    """Blocks that the backend has not acknowledged cannot be left out of percentiles."""
    lines = [
        line(10.0, "Trades committed", block=2, seq=10),
        line(10.1, "Updates acknowledged", seq=10),
        line(11.0, "Trades committed", block=3, seq=20),
    ]
    assert "to_node_ms" not in latencies(lines, {2: 9.9, 3: 10.9}, first=2)


def test_too_few_blocks_are_no_result() -> None:
    """One block has no percentiles."""
    with pytest.raises(WrongResult):
        latencies([line(10.0, "Trades committed", block=2, seq=10)], {2: 9.9}, first=2)


def test_rollbacks_begin_with_the_head_that_shows_the_fork() -> None:
    """The clock runs from that head to the rollback, and to the commit of that head."""
    lines = [
        line(10.010, "Reorg rolled back", ancestor=3),
        line(10.020, "Trades committed", block=4, seq=1),
        line(10.050, "Trades committed", block=6, seq=2),
        line(20.030, "Reorg rolled back", ancestor=7),
        line(20.060, "Trades committed", block=10, seq=3),
    ]
    found = rollbacks(lines, {6: 10.0, 10: 20.0}, {4: 6, 5: 6, 8: 10, 9: 10})
    assert found["rollback_ms"]["values"] == [10, 30]
    assert found["rollback_and_follow_ms"]["values"] == [50, 60]


def test_slices_share_a_sample_between_two_of_them() -> None:
    """A boundary between two samples takes its share of what they are apart."""
    samples = [
        {"at": 0.0, "block": -1, "cpu_s": 1.0, "redis_cpu_s": 0.0, "rss_mb": 80.0},
        {"at": 1.0, "block": 0, "cpu_s": 2.0, "redis_cpu_s": 0.0, "rss_mb": 90.0},
        {"at": 3.0, "block": 8, "cpu_s": 4.0, "redis_cpu_s": 0.4, "rss_mb": 100.0},
        {"at": 5.0, "block": 12, "cpu_s": 6.0, "redis_cpu_s": 0.8, "rss_mb": 110.0},
    ]
    found = slices(samples, blocks=6, trades_per_block=100)
    assert [one["up_to_trades"] for one in found] == [600, 1200]
    assert [one["listener_us"] for one in found] == [pytest.approx(2500, rel=1e-3), pytest.approx(4166.67)]
    assert [one["trades_per_s"] for one in found] == [400, 240]


def test_events_are_found_by_name() -> None:
    """Lines of other events, and what is no log line, are passed over."""
    lines = ["", "Traceback", line(1.5, "Other"), line(2.5, "Wanted", n=1)]
    assert [(at, record["n"]) for at, record in events(lines, "Wanted")] == [(2.5, 1)]


@pytest.mark.parametrize(
    ("at_least", "found", "verdict"),
    [
        (True, [150, 200], "yes"),
        (True, [50, 200], "no, off by 2.00"),
        (False, [100, 100], "yes"),
        (False, [50, 300], "no, off by 3.00"),
    ],
)
def test_the_worst_figure_decides(at_least: bool, found: list[float], verdict: str) -> None:
    """A target with several limits is met where all are."""
    target = Target("", "", lambda _: found, [100, 100], at_least=at_least)
    assert target.verdict(found).startswith(verdict)


def test_the_document_keeps_what_was_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text by hand and tables without new figures stay; the others are replaced, and that can be repeated."""
    document = tmp_path / "benchmarks.md"
    document.write_text(
        "By hand.\n<!-- figures: machine -->\nold\n<!-- end -->\n"
        "<!-- figures: stages -->\nold stages\n<!-- end -->\nThe end.\n"
    )
    monkeypatch.setattr(report, "DOCUMENT", document)
    monkeypatch.setattr(report, "IMAGES", tmp_path)
    results: Mapping[str, Any] = {
        "backfill": {"machine": "a machine", "python": "3", "commit": "c", "median": {}, "runs": []}
    }
    for _ in range(2):
        Report(results).write()
        assert document.read_text() == (
            "By hand.\n<!-- figures: machine -->\n* a machine; Python 3; commit c\n<!-- end -->\n"
            "<!-- figures: stages -->\nold stages\n<!-- end -->\nThe end.\n"
        )


def test_every_table_of_the_document_exists() -> None:
    """The document names no table that nothing fills, and leaves none out."""
    named = [block["name"] for block in report.BLOCK.finditer(report.DOCUMENT.read_text())]
    assert sorted(named) == sorted(Report({}).tables)


def test_every_measured_stage_exists() -> None:
    """The stopwatch is put on functions by name: each of them must be there."""
    for _, owner, path in FUNCTIONS:
        assert callable(reduce(getattr, path.split("."), owner)), path
