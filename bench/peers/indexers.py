"""How the other indexers are started, when they begin, and where they put their tables."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peers.postgres import HOST, USER, Postgres
from bench.replay import CHAIN_ID
from bench.workload import FACTORY
from listener.demo.processes import Child, ProcessFailed, free_port

HERE: Final = Path(__file__).parent
TOOLS: Final = HERE / "node_modules" / ".bin"
PONDER: Final = HERE / "ponder"
ENVIO: Final = HERE / "envio"
PONDER_BEGINS: Final = re.compile(r'^\{.*"time":(\d+),"msg":"Started backfill indexing"')
NUMBERS: Final = ("open", "high", "low", "close", "volume", "quoteVolume", "trades")


class NotInstalled(RuntimeError):
    """The peers have not been installed."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Where an indexer keeps what we compare.

    Attributes:
        candles: selects token, seconds, open time and `NUMBERS`.
        stats: selects token, volume, quote volume, trades and last price.
        stored: selects how many trades are stored.
        markets: selects how many markets are stored.
    """

    candles: str
    stats: str
    stored: str
    markets: str


@dataclass(frozen=True, slots=True)
class Indexer:
    """One way of running a peer.

    Attributes:
        name: for people.
        start: starts it, from the addresses of the node and the database.
        tables: of its results.
        began: when it began to index in Unix seconds, from its output and the node's calls.
    """

    name: str
    start: Callable[[str, Postgres], Child]
    tables: Tables
    began: Callable[[Sequence[str], Mapping[str, Sequence[float]]], float]


def environment(**settings: str) -> dict[str, str]:
    """What a peer's process sees beside our own environment; our Node.js comes first."""
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "CHAIN_ID": str(CHAIN_ID), "FACTORY_ADDRESS": FACTORY, **settings}


def installed(program: Path) -> Path:
    """The program.

    Raises:
        NotInstalled: it is not there.
    """
    if not program.exists():
        raise NotInstalled(f"{program} is missing: run `make bench-peers` once, which installs the peers")
    return program


# ------------------------------------------------------------------------------------------------- Ponder


def ponder(name: str, schema: str) -> Indexer:
    """Ponder with its tables in a schema; it fetches from the node what is not in the database yet."""

    def start(node_url: str, postgres: Postgres) -> Child:
        program = installed(PONDER / "node_modules" / ".bin" / "ponder")
        options: list[str | Path] = [
            "--root",
            PONDER,
            "--schema",
            schema,
            "--hostname",
            HOST,
            "--port",
            str(free_port()),
        ]
        return Child(
            name,
            [program, "start", *options, "--log-format", "json"],
            environment=environment(
                RPC_URL=node_url, DATABASE_URL=postgres.url, PONDER_TELEMETRY_DISABLED="true"
            ),
        )

    columns = ", ".join(f'"{name}"' for name in _snake(NUMBERS))
    return Indexer(
        name,
        start,
        Tables(
            candles=f"SELECT token, seconds, open_time, {columns} FROM {schema}.candle",  # noqa: S608 - our names
            stats=f"SELECT token, volume, quote_volume, trades, last_price FROM {schema}.stats",  # noqa: S608
            stored=f"SELECT coalesce(sum(trades), 0) FROM {schema}.stats",  # noqa: S608
            markets=f"SELECT count(*) FROM {schema}.market",  # noqa: S608
        ),
        lambda lines, _calls: _ponder_began(lines),
    )


def _ponder_began(lines: Sequence[str]) -> float:
    for line in lines:
        if match := PONDER_BEGINS.search(line):
            return int(match[1]) / 1000
    raise ProcessFailed("Ponder did not say that it began")


def _snake(names: Sequence[str]) -> list[str]:
    return [re.sub(r"([A-Z])", r"_\1", name).lower() for name in names]


# -------------------------------------------------------------------------------------------------- Envio


def envio(name: str) -> Indexer:
    """Envio HyperIndex, from the node by RPC."""

    def start(node_url: str, postgres: Postgres) -> Child:
        return Child(
            name,
            [installed(ENVIO / "node_modules" / ".bin" / "envio"), "--directory", ENVIO, "start"],
            environment=environment(
                RPC_URL=node_url,
                ENVIO_PG_HOST=HOST,
                ENVIO_PG_PORT=str(postgres.port),
                ENVIO_PG_USER=USER,
                ENVIO_PG_DATABASE=USER,
                ENVIO_HASURA="false",
                ENVIO_INDEXER_PORT=str(free_port()),
                TUI_OFF="true",
            ),
        )

    return Indexer(
        name,
        start,
        Tables(
            candles=(
                'SELECT token, seconds, "openTime", opened, high, low, closed, volume, "quoteVolume", trades '
                'FROM "Candle"'
            ),
            stats='SELECT id, volume, "quoteVolume", trades, "lastPrice" FROM "Stats"',
            stored='SELECT coalesce(sum(trades), 0) FROM "Stats"',
            markets='SELECT count(*) FROM "Market"',
        ),
        lambda _lines, calls: calls["eth_getLogs"][1],
    )


def generate_envio(node_url: str) -> None:
    """Make Envio's code, if there is none for this address of the node, which becomes part of it.

    Raises:
        ProcessFailed: it cannot be made.
    """
    program = installed(ENVIO / "node_modules" / ".bin" / "envio")
    made = ENVIO / "build" / "generated" / "internal.config.json"
    sources = [ENVIO / name for name in ("config.yaml", "schema.graphql", "package.json")]
    if made.exists() and made.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        chains = json.loads(made.read_text())["evm"]["chains"]
        if chains[str(CHAIN_ID)]["rpcs"][0]["url"] == node_url:
            return
    command: list[str | Path] = [program, "--directory", ENVIO, "codegen"]
    variables = {**os.environ, **environment(RPC_URL=node_url)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise ProcessFailed(f"envio codegen failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
