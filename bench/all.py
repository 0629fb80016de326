"""Everything that `docs/benchmarks.md` shows, in one command.

    .venv/bin/python -m bench.all --json-dir figures          # a quarter of an hour; writes the document
    .venv/bin/python -m bench.all --json-dir figures --quick  # less than a minute; prints a table
    .venv/bin/python -m bench.all --json-dir figures --only live --only scale

Each measurement is a command of its own and leaves a file of JSON; those that are not run keep the file of
their last run. A measurement without a result does not stop the others, but ends this with exit code 1.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.report import Report
from listener.demo.processes import REPOSITORY


class Measurement(NamedTuple):
    """One command.

    Attributes:
        name: of its file.
        module: of `bench`.
        options: of the whole measurement.
        quick: of the short one; None: left out there.
    """

    name: str
    module: str
    options: Sequence[str]
    quick: Sequence[str] | None = None


MEASUREMENTS: Final = (
    Measurement(
        "backfill", "backfill", ("--trades=1000000", "--runs=5"), ("--trades=100000", "--runs=1", "--check=5")
    ),
    Measurement("backfill-aof", "backfill", ("--trades=1000000", "--runs=3", "--aof")),
    Measurement("stages", "backfill", ("--trades=1000000", "--runs=1", "--stages")),
    Measurement("baseline", "baseline", ("--trades=20000", "--runs=3"), ("--trades=3000", "--runs=1")),
    Measurement("anvil", "anvil", ("--trades=40000", "--runs=3")),
    Measurement("live", "live", ()),
    Measurement(
        "live-backend",
        "live",
        ("--backend", "--case=few", "--case=many", "--case=large"),
        ("--backend", "--case=few", "--blocks=20"),
    ),
    Measurement("scale", "scale", ()),
)


def run(measurement: Measurement, options: Sequence[str], directory: Path) -> bool:
    """Run one command; whether it has a result."""
    print(f"--- {measurement.name}", flush=True)
    started = time.monotonic()
    file = directory / f"{measurement.name}.json"
    command = [sys.executable, "-m", f"bench.{measurement.module}", *options, "--json", str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, check=False)  # noqa: S603 - our own
    print(f"--- {measurement.name}: {time.monotonic() - started:.0f} s", flush=True)
    return done.returncode == 0


def main() -> None:
    """Measure everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [measurement.name for measurement in MEASUREMENTS]
    parser.add_argument(
        "--json-dir", type=Path, required=True, help="where the figures are kept, in `quick` the short ones"
    )
    parser.add_argument("--quick", action="store_true", help="shorter, and the document stays as it is")
    parser.add_argument("--only", action="append", choices=names, help="leave the others out")
    arguments = parser.parse_args()
    directory: Path = arguments.json_dir.resolve() / ("quick" if arguments.quick else "")
    directory.mkdir(parents=True, exist_ok=True)
    failed = []
    for measurement in MEASUREMENTS:
        options = measurement.quick if arguments.quick else measurement.options
        if options is None or (arguments.only and measurement.name not in arguments.only):
            continue
        if not run(measurement, options, directory):
            failed.append(measurement.name)
    report = Report.read(directory)
    print(report.summary())
    if not arguments.quick:
        report.write()
    if failed:
        sys.exit(f"No result: {', '.join(failed)}")


if __name__ == "__main__":
    main()
