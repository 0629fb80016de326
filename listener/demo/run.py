"""`listener demo`: everything at once, until Ctrl-C."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from listener.demo.launchpad import ARTIFACTS, ETHER, Launchpad, Parameters
from listener.demo.processes import (
    REPOSITORY,
    Child,
    ProcessFailed,
    start_anvil,
    start_backend,
    start_listener,
    start_valkey,
)
from listener.demo.traffic import Traffic

CHAIN_ID = 31337
USUAL_PORT = 3000
FIRST_MARKETS = 5
HISTORY_S = 3 * 3600
HISTORY_STEP_S = 30
HEALTH_PORT = re.compile(r"health_port\W+(\d+)")
"""As the listener's first log line tells it."""
DEMO_CURVE = Parameters(virtual_quote=20 * ETHER, graduation_threshold=250 * ETHER)


def run_demo(port: int | None, seed: int, trades_per_s: float, seconds: float | None) -> int:
    """Start a chain, Valkey, the backend, the listener and traders; stop them in reverse.

    Args:
        port: of the chart page; 0: any free one; None: 3000 if it is free.
        seed: of the traders.
        trades_per_s: how many trades are sent.
        seconds: stop after this long; None: on Ctrl-C.
    """
    console = Console()
    port = _usual_port() if port is None else port
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have had SIGINT ignored in the background
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="0xpads-demo-")))
            try:
                traffic, listener = _start(stack, console, logs, port, seed)
                _trade(traffic, listener, trades_per_s, seconds)
            except KeyboardInterrupt:
                pass
            finally:  # a second Ctrl-C must not leave processes behind
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            console.print("Stopping…")
    except ProcessFailed as error:
        console.print(f"[red]Error:[/red] {error}")
        return 1
    return 0


def _usual_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            return 0
    return USUAL_PORT


def _start(stack: ExitStack, console: Console, logs: Path, port: int, seed: int) -> tuple[Traffic, Child]:
    if not (REPOSITORY / "contracts").is_dir():
        raise ProcessFailed("the demo needs the repository: clone it and run `make demo`")
    if not ARTIFACTS.is_dir():
        console.print("Compiling contracts…")
        hardhat = shutil.which("npx") or "npx"
        subprocess.run([hardhat, "hardhat", "compile", "--quiet"], cwd=REPOSITORY, check=True)  # noqa: S603
    valkey = stack.enter_context(start_valkey(logs / "valkey-data"))
    redis_url = f"redis://127.0.0.1:{valkey.port}/0"
    began = int(time.time()) - HISTORY_S
    chain = stack.enter_context(
        start_anvil("--timestamp", str(began), "--chain-id", str(CHAIN_ID), log=logs / "chain.log")
    )
    node = f"127.0.0.1:{chain.found}"
    console.print(f"Valkey on port {valkey.port}, chain on port {chain.found}")
    launchpad = Launchpad(f"http://{node}", DEMO_CURVE)
    traffic = Traffic(launchpad, seed, markets=12)
    console.print(f"Trading {HISTORY_S // 3600} hours of history…")
    _trade_history(launchpad, traffic)
    token = secrets.token_urlsafe(24)
    backend = stack.enter_context(
        start_backend(redis_url, CHAIN_ID, token, port=port, log=logs / "backend.log")
    )
    listener = stack.enter_context(
        start_listener(
            {
                "BLOCKCHAIN_HTTP_URL": f"http://{node}",
                "BLOCKCHAIN_WS_URL": f"ws://{node}",
                "CHAIN_ID": str(CHAIN_ID),
                "BONDING_CURVE_FACTORY_ADDRESS": launchpad.factory.address,
                "REDIS_URL": redis_url,
                "BACKEND_SOCKET_URL": backend.found,
                "BACKEND_AUTH_TOKEN": token,
                "OHLCV_INTERVALS": os.environ.get("OHLCV_INTERVALS", "1m,5m,15m,1h,4h,1d"),
                "ENVIRONMENT": "development",
            },
            ready="Following the head",
            log=logs / "listener.log",
        )
    )
    console.print(
        f"\n  Chart:  [bold cyan]{backend.found}[/bold cyan]\n  API:    {_api(listener)}\n  Logs:   {logs}\n"
        "  Ctrl-C stops everything.\n"
    )
    return traffic, listener


def _api(listener: Child) -> str:
    """Where the gateway describes itself; it starts a moment after the listener."""
    port = next((found[1] for line in listener.lines if (found := HEALTH_PORT.search(line))), "?")
    return f"http://127.0.0.1:{port}/docs"


def _trade_history(launchpad: Launchpad, traffic: Traffic) -> None:
    """Trade from the chain's first block up to now, then let it mine a block a second."""
    for _ in range(FIRST_MARKETS):
        traffic.create()
    for _ in range(HISTORY_S // HISTORY_STEP_S):
        launchpad.rpc("evm_increaseTime", HISTORY_STEP_S)
        traffic.step()
    behind = int(time.time()) - int(launchpad.web3.eth.get_block("latest")["timestamp"])
    if behind > 0:
        launchpad.rpc("evm_increaseTime", behind)
    launchpad.rpc("evm_setIntervalMining", 1)


def _trade(traffic: Traffic, listener: Child, trades_per_s: float, seconds: float | None) -> None:
    """Trade for so long, or for ever."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        time.sleep(1 / trades_per_s)
        if listener.process.poll() is not None:
            raise ProcessFailed("the listener ended:\n" + "\n".join(listener.lines[-20:]))
        traffic.step()
        if deadline is not None and time.monotonic() >= deadline:
            return
