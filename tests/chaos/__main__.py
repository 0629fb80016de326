"""Rounds of chaos on real processes: each part and each pair of parts is killed under load with reorgs.

    python -m tests.chaos --rounds 200 --seed 1

After each round everything in Redis must be what the oracle says of the chain, and everything that the
backend holds what Redis holds. Each ten rounds have a system of their own. Prints a line a round; seconds are
counted from the last restart.

A listener that ends by itself fails the round, with one exception: Redis 7.0, killed again while it writes
its file anew, may bring back a part of a commit. A listener that says so and ends is answered by
`listener resync`, which must put everything right; these are counted.
"""

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import closing
from pathlib import Path

from listener.demo.processes import ProcessFailed
from tests.chaos.round import HEADINGS, ROUNDS_A_SYSTEM, Outcome, run_system
from tests.chaos.world import Ended


def main() -> None:
    """Run rounds and print them; end with 1 if one failed. Its system is not used again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help=f"a multiple of {ROUNDS_A_SYSTEM}")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    outcomes: list[Outcome] = []
    print(HEADINGS, flush=True)
    number, left = arguments.first // ROUNDS_A_SYSTEM, arguments.rounds
    failed = ended = 0
    while left > 0:
        directory = Path(tempfile.mkdtemp(prefix="chaos-"))
        try:
            with closing(run_system(directory, arguments.seed, number, left)) as rounds:
                for outcome in rounds:
                    outcomes.append(outcome)
                    print(outcome.row(), flush=True)
        except (AssertionError, ProcessFailed) as error:
            failed += 1
            ended += isinstance(error.__cause__ or error, Ended)
            traceback.print_exception(error)
        else:
            shutil.rmtree(directory)
        number, left = number + 1, left - ROUNDS_A_SYSTEM
    print(f"{failed} rounds failed, unexpected exits: {ended};", totals(outcomes, time.monotonic() - started))
    sys.exit(failed > 0)


def totals(outcomes: list[Outcome], seconds: float) -> str:
    """What all rounds came to."""
    if not outcomes:
        return "no round ended"
    kills = Counter(part for outcome in outcomes for part in outcome.plan.killed)
    takeovers = [outcome.takeover_s for outcome in outcomes if outcome.takeover_s is not None]
    lost_blocks = sum(outcome.lost_blocks > 0 for outcome in outcomes)
    lost_bytes = sum(outcome.lost_bytes > 0 for outcome in outcomes)
    reorgs = sum(len(outcome.reorgs) for outcome in outcomes)
    twice = [outcome for outcome in outcomes if outcome.plan.again_s is not None]
    torn = sum(outcome.resyncs for outcome in outcomes)
    lines = [
        f"{len(outcomes)} rounds passed in {seconds:.0f} s; killed: {dict(sorted(kills.items()))}",
        f"{reorgs} reorgs; rounds where the node lost blocks: {lost_blocks}, Redis lost bytes: {lost_bytes}",
        f"rounds where Redis was killed twice: {len(twice)}; with a part of a commit, loaded anew: {torn}",
        spread("committed again", [outcome.commit_s for outcome in outcomes]),
        spread("delivered again", [outcome.deliver_s for outcome in outcomes]),
    ]
    if takeovers:
        lines.append(spread(f"{len(takeovers)} times a second listener took over", takeovers))
    return "\n".join(lines)


def spread(name: str, seconds: list[float]) -> str:
    """Median and maximum."""
    return f"{name} after: median {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s"


if __name__ == "__main__":
    main()
