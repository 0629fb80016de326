"""The gateway as the service's own process: it starts, dies and ends without the follower noticing."""

import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from websockets.sync.client import connect

from listener.demo.launchpad import ETHER
from listener.demo.processes import Child, free_port
from tests.e2e.system import CHAIN_ID, System, get_json

QUICK: Final = {"POLL_INTERVAL_MS": "50"}
GONE_S: Final = 15.0


def children(pid: int) -> set[int]:
    """Processes that a process has started."""
    found: set[int] = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            found |= {int(child) for child in (thread / "children").read_text().split()}
    return found


def priority(pid: int) -> int:
    """How nice a process is to others."""
    return os.getpriority(os.PRIO_PROCESS, pid)


def lives(pid: int) -> bool:
    """Whether a process is there and is not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gateway_of(system: System, listener: Child) -> int:
    """Process id of the gateway, once it alone serves at the public port."""
    system.wait_log("Gateway serves")
    pids: set[int] = set()

    def serving() -> bool:
        pids.clear()
        pids.update(children(listener.process.pid))
        return len(pids) == 1 and "gateway" in get_json(system.health())[1]

    system.wait(serving, "the gateway")
    return pids.pop()


def get(system: System, path: str) -> tuple[int, Any]:
    """Status and body of a GET at the public port."""
    return get_json(system.health(path))


@pytest.mark.timeout(90)
def test_the_service_serves(system: System, database: redis.Redis) -> None:
    """Without a backend as well: markets and candles at the health port, new markets within seconds."""
    launchpad = system.deploy()
    curve = launchpad.create("One", "ONE")
    launchpad.buy(curve, ETHER)
    listener = system.start_listener(launchpad.factory.address, **QUICK)
    gateway = gateway_of(system, listener)
    assert priority(gateway) > priority(listener.process.pid), "blocks come before answers"
    system.equals_oracle(launchpad.factory.address)
    market = database.zrange(f"markets:{{{CHAIN_ID}}}", 0, 0)[0]
    status, body = get(system, f"/api/v1/markets/{market}/candles?interval=1m")
    assert status == 200
    assert len(body["items"]) == database.zcard(f"candles:{{{CHAIN_ID}}}:{market}:1m") == 1
    launchpad.create("Two", "TWO")
    system.wait(lambda: get(system, "/api/v1/markets?q=two")[1]["total"] == 1, "the new market")
    assert database.xlen(f"outbox:{{{CHAIN_ID}}}") > 0
    system.wait_ready(200)
    answers = [get(system, "/health")[1] for _ in range(30)]
    assert all("gateway" in body and body["role"] == "leader" for body in answers)


@pytest.mark.timeout(90)
def test_a_gateway_that_is_killed(system: System) -> None:
    """The follower goes on, health is answered all the while, and another gateway takes the port."""
    launchpad = system.deploy()
    curve = launchpad.create("One", "ONE")
    listener = system.start_listener(launchpad.factory.address, **QUICK)
    for _ in range(3):
        first = gateway_of(system, listener)
        os.kill(first, signal.SIGKILL)
        launchpad.buy(curve, ETHER)
        deadline = time.monotonic() + GONE_S
        answered_by: list[bool] = []
        while not answered_by or not answered_by[-1]:
            status, body = get(system, "/health")
            assert status == 200
            answered_by.append("gateway" in body)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(answered_by) > 1, "the follower did not answer meanwhile"
        assert len(children(listener.process.pid) - {first}) == 1
        system.wait(lambda: get(system, "/api/v1/config")[0] == 200, "the new gateway's answer")
        system.wait_for_block(launchpad.web3.eth.block_number)
    system.equals_oracle(launchpad.factory.address)
    system.wait_log("Error in gateway")
    assert get(system, "/ready")[1]["degraded"] == []


@pytest.mark.timeout(90)
def test_a_gateway_that_cannot_start(system: System) -> None:
    """It is tried again and again, and shown; chain, health and readiness are as without it."""
    launchpad = system.deploy()
    curve = launchpad.create("One", "ONE")
    wrong = f"redis://:wrong-password@127.0.0.1:{system.redis_port}/0"
    system.start_listener(launchpad.factory.address, GATEWAY_REDIS_URL=wrong, **QUICK)
    system.wait_log("Error in gateway")
    launchpad.buy(curve, ETHER)
    system.equals_oracle(launchpad.factory.address)
    system.wait(lambda: "gateway" in get(system, "/ready")[1]["degraded"], "word of it")
    assert get(system, "/ready")[0] == 200
    assert "wrong-password" not in "\n".join(system.listener.lines if system.listener else [])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left(system: System, how: signal.Signals) -> None:
    """However the service ends, by Ctrl-C, on request or killed: its gateway does too; its port is free."""
    launchpad = system.deploy()
    listener = system.start_listener(launchpad.factory.address, **QUICK)
    gateway = gateway_of(system, listener)
    os.kill(listener.process.pid, how)
    assert listener.process.wait(GONE_S) == (0 if how is not signal.SIGKILL else -9)
    deadline = time.monotonic() + GONE_S
    while lives(gateway):
        assert time.monotonic() < deadline, "the gateway outlives the service"
        time.sleep(0.05)
    with pytest.raises(OSError, match="refused"):
        get(system, "/health")


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """Settings with a certificate of this test's own."""
    paths = {"GATEWAY_TLS_CERT": str(tmp_path / "cert.pem"), "GATEWAY_TLS_KEY": str(tmp_path / "key.pem")}
    openssl = shutil.which("openssl")
    assert openssl, "openssl is missing: install it, e.g. 'sudo apt-get install openssl'"
    words = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=a.example.org"
    )
    files = ["-out", paths["GATEWAY_TLS_CERT"], "-keyout", paths["GATEWAY_TLS_KEY"]]
    subprocess.run([openssl, *words.split(), *files], check=True, capture_output=True)
    return paths


@pytest.mark.timeout(90)
def test_tls(system: System, certificate: dict[str, str], tmp_path: Path) -> None:
    """The port speaks TLS only, whoever answers there; `listener health` finds it."""
    launchpad = system.deploy()
    port = str(free_port())
    settings = certificate | {
        "WEBSOCKET_PORT": port,
        "BONDING_CURVE_FACTORY_ADDRESS": launchpad.factory.address,
    }
    listener = system.start_listener(launchpad.factory.address, **certificate, WEBSOCKET_PORT=port, **QUICK)
    ask = [sys.executable, "-c", "from listener.cli import main; main()", "health"]

    def health() -> str:
        asked = subprocess.run(
            ask, env={**os.environ, **settings}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert asked.returncode == 0, asked.stderr
        return asked.stdout

    system.wait(lambda: '"gateway"' in health(), "the gateway")
    known = children(listener.process.pid)
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    with connect(f"wss://127.0.0.1:{port}/ws", ssl=anyone, proxy=None) as link:
        link.send('{"op":"subscribe","room":"markets"}')
        assert '"snapshot"' in str(link.recv(GONE_S))
    with pytest.raises(OSError, match=r"closed|reset|Remote"):
        get_json(f"http://127.0.0.1:{port}/health")
    for pid in known:
        os.kill(pid, signal.SIGKILL)
    assert '"alive"' in health()
    system.wait(lambda: '"gateway"' in health(), "the gateway again")
    assert children(listener.process.pid).isdisjoint(known)


@pytest.mark.timeout(60)
def test_it_can_be_switched_off(system: System, database: redis.Redis) -> None:
    """Then there is one process, health as ever, and no row is written that nobody would read."""
    launchpad = system.deploy()
    off = {"GATEWAY_ENABLED": "false", "WEBHOOKS_ENABLED": "false"}
    listener = system.start_listener(launchpad.factory.address, **off, **QUICK)
    curve = launchpad.create("One", "ONE")
    launchpad.buy(curve, ETHER)
    system.equals_oracle(launchpad.factory.address)
    assert children(listener.process.pid) == set()
    assert get(system, "/health")[0] == 200
    assert get(system, "/ready")[0] == 200
    assert database.xlen(f"outbox:{{{CHAIN_ID}}}") == 0


@pytest.mark.timeout(30)
def test_production_is_not_public_by_accident(system: System) -> None:
    """A public address in production without keys: exit code 2, both ways on are named, nothing written."""
    launchpad = system.deploy()
    settings = {"ENVIRONMENT": "production", "WEBSOCKET_HOST": "0.0.0.0"}  # noqa: S104 - what is refused
    system.start_listener(launchpad.factory.address, ready="", **settings)
    code, output = system.ended()
    assert code == 2, output
    assert "GATEWAY_API_KEYS" in output
    assert "GATEWAY_PUBLIC=true" in output
    assert system.dump() == {}
