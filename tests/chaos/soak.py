"""A long life under load: trades, reorgs and restarts, while memory, open files, outbox and lag stay flat.

    python -m tests.chaos.soak --minutes 60 --report soak.json

About 20 trades a second in blocks of about a second, a reorg about every 20 s, and every 150 s a restart of
the listener, the backend or Redis, by SIGTERM or SIGKILL. One listener lives through all of the second half.
Ends with 1 if something grew, if a listener ended by itself, or if Redis or the backend does not hold in the
end what the oracle says.
"""

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError

from listener.demo.launchpad import ETHER, Parameters
from tests.chaos.chain import Traffic
from tests.chaos.world import OUTBOX, Part, World

SAMPLE_S: Final = 5.0
REORG_S: Final = 20.0
REORG_MAX: Final = 8
RESTART_S: Final = 150.0
AWAY_MAX_S: Final = 3.0
OUTBOX_ROWS: Final = 5_000
TRAFFIC: Final = Traffic(
    pause_s=0.9,
    trades_max=39,
    renewal=0.002,
    jumps=False,
    curves=Parameters(virtual_quote=300 * ETHER, graduation_threshold=600 * ETHER),
)
RESTARTS: Final[tuple[tuple[Part, bool], ...]] = (
    ("listener", False), ("backend", True), ("redis", True),
    ("listener", True), ("backend", False), ("redis", False),
)  # fmt: skip
"""What is restarted in turn, and whether by SIGKILL."""
LIFE_MIN_S: Final = 240.0
"""A listener that lived so long is looked at for growth."""


class Bound(NamedTuple):
    """The median of the last quarter may be `times` the first quarter's plus `more`, and `always` so much."""

    times: float
    more: float
    always: float = 0.0


BOUNDS: Final = {
    "listener_mb": Bound(1.15, 5.0),
    "listener_files": Bound(1.0, 4.0),
    "outbox_rows": Bound(1.05, 0.0, 1.05 * OUTBOX_ROWS),
    "outbox_mb": Bound(1.2, 0.0, 0.0006 * OUTBOX_ROWS),
    "redis_mb": Bound(1.2, 5.0),
    "lag_blocks": Bound(1.0, 1.0),
    "lag_s": Bound(1.0, 1.0),
    "undelivered_rows": Bound(1.0, 200.0),
}
"""Flat is what stays in these. The outbox may fill up first, to what it is allowed to keep."""
LIFE_GROWTH_MAX_MB: Final = 8.0
"""How far a listener's memory may grow between the first and the last third of its life."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look; what could not be asked is None.

    Attributes:
        at_s: since the beginning.
        listener_pid: which listener.
        listener_mb: resident memory.
        listener_files: open files.
        lag_blocks: how far the committed head is behind the node's tip.
        lag_s: age of the oldest block that is not committed.
        undelivered_rows: rows that the backend has not acknowledged.
    """

    at_s: float
    listener_pid: int
    listener_mb: float | None
    listener_files: int | None
    outbox_rows: int | None = None
    outbox_mb: float | None = None
    redis_mb: float | None = None
    lag_blocks: int | None = None
    lag_s: float | None = None
    undelivered_rows: int | None = None


@dataclass(slots=True)
class Soak:
    """What happened in the end.

    Attributes:
        restarts: how often each part was restarted.
        growth: by figure, medians of the first and last quarter, the maximum, and what the last may be.
        lives: by listener, its age and its memory in the first and last third of it.
        failures: what grew, or was wrong.
    """

    minutes: float
    samples: list[Sample] = field(default_factory=list)
    reorgs: list[int] = field(default_factory=list)
    restarts: dict[str, int] = field(default_factory=dict)
    blocks: int = 0
    trades: int = 0
    markets: int = 0
    growth: dict[str, dict[str, float]] = field(default_factory=dict)
    lives: list[dict[str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def main() -> None:
    """Run, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--restart-every", type=float, default=RESTART_S, metavar="SECONDS")
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    with World(
        directory, arguments.seed, arguments.server, TRAFFIC, OUTBOX_MAX_ROWS=str(OUTBOX_ROWS)
    ) as world:
        soak = live(world, arguments.minutes, arguments.restart_every, random.Random(arguments.seed))
    if arguments.report:
        arguments.report.write_text(json.dumps(asdict(soak), indent=1))
    print(summary(soak))
    print(f"logs: {directory}")
    sys.exit(bool(soak.failures))


def live(world: World, minutes: float, restart_every_s: float, dice: random.Random) -> Soak:
    """Let time pass with everything that happens in it, then compare and judge."""
    soak = Soak(minutes)
    try:
        pass_time(world, soak, restart_every_s, dice)
        truth = world.settle()
        soak.trades = sum(len(trades) for trades in truth.trades.values())
        soak.markets = len(truth.markets)
    except AssertionError as error:
        soak.failures.append(str(error))
    soak.blocks = world.chain.highest
    judge(soak)
    return soak


def pass_time(world: World, soak: Soak, restart_every_s: float, dice: random.Random) -> None:
    """Samples, reorgs and restarts, each at its time."""
    began = time.monotonic()
    end = began + 60 * soak.minutes
    sample_at, reorg_at, restart_at = began, began + REORG_S, began + restart_every_s
    turns = cycle(RESTARTS)
    while (now := time.monotonic()) < end:
        if now >= sample_at:
            soak.samples.append(look(world, now - began))
            sample_at += SAMPLE_S
        if now >= reorg_at:
            soak.reorgs.append(world.chain.reorg(dice.randint(1, REORG_MAX)))
            reorg_at += REORG_S * dice.uniform(0.5, 1.5)
        if now >= restart_at:
            part, abruptly = next(turns)
            while part == "listener" and now > (began + end) / 2:
                part, abruptly = next(turns)
            restart(world, part, dice.uniform(0, AWAY_MAX_S), abruptly=abruptly)
            soak.restarts[part] = soak.restarts.get(part, 0) + 1
            restart_at += restart_every_s
        world.pause(until=min(sample_at, reorg_at, restart_at, end))


def restart(world: World, part: Part, away_s: float, *, abruptly: bool) -> None:
    """Stop a part and start it again."""
    if abruptly:
        world.kill(part)
    else:
        world.stop(part)
    world.pause(until=time.monotonic() + away_s)
    world.start(part)


def look(world: World, at_s: float) -> Sample:
    """Take one sample."""
    pid = world.child("listener").process.pid
    found: dict[str, Any] = {"at_s": round(at_s, 1), "listener_pid": pid}
    found |= {"listener_mb": resident_mb(pid), "listener_files": open_files(pid)}
    try:
        found["outbox_rows"] = world.database.xlen(OUTBOX)
        found["outbox_mb"] = (world.database.memory_usage(OUTBOX, samples=0) or 0) / 1e6
        found["redis_mb"] = world.database.info("memory")["used_memory"] / 1e6
        found["undelivered_rows"] = world.undelivered()
    except RedisError:
        return Sample(**found)
    number = int(world.head().get("number", 0))
    found["lag_blocks"] = max(world.chain.tip() - number, 0)
    found["lag_s"] = round(world.chain.age_s(number + 1), 2)
    return Sample(**found)


def resident_mb(pid: int) -> float | None:
    """Resident memory of a process; None if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), None)


def open_files(pid: int) -> int | None:
    """Open files of a process; None if it is gone."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return None


def judge(soak: Soak) -> None:
    """Compare the last quarter with the first, and each listener's end with its beginning."""
    for name, bound in BOUNDS.items():
        values = [value for sample in soak.samples if (value := getattr(sample, name)) is not None]
        quarter = max(len(values) // 4, 1)
        first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
        allowed = max(first * bound.times + bound.more, bound.always)
        figures = {"first": first, "last": last, "max": max(values), "allowed": allowed}
        soak.growth[name] = {key: round(value, 2) for key, value in figures.items()}
        if last > allowed:
            soak.failures.append(f"{name} grew from {first:.2f} to {last:.2f}, more than {allowed:.2f}")
    for pid in dict.fromkeys(sample.listener_pid for sample in soak.samples):
        soak.lives.append(life(soak.samples, pid))
    for one in soak.lives:
        if one["age_s"] >= LIFE_MIN_S and one["last_mb"] > one["first_mb"] + LIFE_GROWTH_MAX_MB:
            soak.failures.append(f"a listener grew from {one['first_mb']} to {one['last_mb']} MB")


def life(samples: Sequence[Sample], pid: int) -> dict[str, float]:
    """Age of a listener, and its memory and files in the first and last third of its life."""
    own = [sample for sample in samples if sample.listener_pid == pid]
    third = max(len(own) // 3, 1)
    found = {"age_s": round(own[-1].at_s - own[0].at_s, 1)}
    for name, part in (("first", own[:third]), ("last", own[-third:])):
        memory = [sample.listener_mb for sample in part if sample.listener_mb is not None]
        files = [sample.listener_files for sample in part if sample.listener_files is not None]
        found[f"{name}_mb"] = round(statistics.median(memory), 1) if memory else 0.0
        found[f"{name}_files"] = statistics.median(files) if files else 0
    return found


def summary(soak: Soak) -> str:
    """All that matters, for people."""
    lives = (f"{one['age_s']:.0f} s {one['first_mb']} -> {one['last_mb']} MB" for one in soak.lives)
    lines = [
        f"{soak.minutes:g} minutes, {soak.blocks} blocks, {soak.trades} trades, {soak.markets} markets",
        f"{len(soak.reorgs)} reorgs, restarts {soak.restarts}",
        f"{'':<18} {'first quarter':>14} {'last quarter':>14} {'maximum':>10} {'allowed':>10}",
        *(
            f"{name:<18} {values['first']:>14.2f} {values['last']:>14.2f} {values['max']:>10.2f}"
            f" {values['allowed']:>10.2f}"
            for name, values in soak.growth.items()
        ),
        f"listeners: {'; '.join(lives)}",
        *(["failed:", *soak.failures] if soak.failures else ["flat, and equal to the oracle"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
