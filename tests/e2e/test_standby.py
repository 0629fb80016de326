"""Several instances on one Redis: one works, the others stand by, and nothing shows which of them worked."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from listener.demo.launchpad import ETHER, Curve, Launchpad
from listener.demo.processes import Child, free_port, start_valkey
from tests.e2e.system import System, get_json

FAST: Final = {"FINALITY_WINDOW": "20", "POLL_INTERVAL_MS": "50", "PROCESSING_INTERVAL_MS": "10"}
TAKEOVER_S: Final = 5.0


class Instances:
    """Listeners of one system, each with a health port found in its log."""

    def __init__(self, system: System, factory: str, **settings: str) -> None:
        self._system = system
        self._factory = factory
        self._settings = FAST | settings
        self.running: list[Child] = []

    def start(self) -> Child:
        """One more."""
        child = self._system.start_listener(self._factory, **self._settings)
        self.running.append(child)
        return child

    def state(self, child: Child) -> dict[str, Any]:
        """What its `/ready` says."""
        ports = [line.partition('"health_port":')[2] for line in child.lines if "health_port" in line]
        port = ports[0].partition(",")[0].partition("}")[0]
        found: dict[str, Any] = get_json(f"http://127.0.0.1:{port}/ready")[1]
        return found

    def leader(self) -> Child | None:
        """The one that works."""
        leaders = [
            child
            for child in self.running
            if child.process.poll() is None and self.state(child)["role"] == "leader"
        ]
        assert len(leaders) <= 1
        return leaders[0] if leaders else None

    def close(self) -> None:
        """Stop them all."""
        for child in self.running:
            child.stop()


@pytest.fixture
def launchpad(system: System) -> Launchpad:
    """A factory on the system's chain."""
    return system.deploy()


def trade(launchpad: Launchpad, curve: Curve, blocks: int) -> None:
    """So many blocks with a buy each."""
    for number in range(blocks):
        launchpad.buy(curve, ETHER // 10 + number, number % 9)


@pytest.mark.timeout(90)
def test_three_instances_on_one_port(system: System, launchpad: Launchpad) -> None:
    """All start with the same settings, as `--scale listener=3` does; killed leaders are followed in 5 s."""
    factory = launchpad.factory.address
    curve = launchpad.create("One", "ONE")
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    instances = Instances(system, factory, WEBSOCKET_PORT=str(free_port()))
    with ExitStack() as stack:
        stack.callback(instances.close)
        for _ in range(3):
            instances.start()
        system.wait(lambda: instances.leader() is not None, "a leader")
        trade(launchpad, curve, 5)
        system.equals_oracle(factory)
        roles = sorted(instances.state(child)["role"] for child in instances.running)
        assert roles == ["leader", "standby", "standby"]
        ports = {child.lines[0].partition('"health_port":')[2] for child in instances.running}
        assert len(ports) == 3
        for _ in range(2):
            leader = instances.leader()
            assert leader is not None
            leader.kill()
            killed_at = time.monotonic()
            instances.running.remove(leader)
            system.listener = instances.running[0]
            trade(launchpad, curve, 3)
            tip = launchpad.web3.eth.block_number
            system.wait_for_block(tip)
            assert time.monotonic() - killed_at <= TAKEOVER_S
            system.equals_oracle(factory)
            system.backend_equals_redis()


@pytest.mark.timeout(60)
def test_a_leader_that_stops_hands_over_at_once(system: System, launchpad: Launchpad) -> None:
    """A clean stop gives the lease back: nobody waits until it runs out."""
    factory = launchpad.factory.address
    curve = launchpad.create("One", "ONE")
    instances = Instances(system, factory, LEASE_MS="60000")
    with ExitStack() as stack:
        stack.callback(instances.close)
        first = instances.start()
        system.wait(lambda: instances.leader() is first, "a leader")
        second = instances.start()
        system.wait(lambda: instances.state(second)["role"] == "standby", "standing by")
        assert instances.state(second)["reasons"] == ["standing by: another instance leads"]
        assert first.stop() == 0
        instances.running.remove(first)
        system.wait(lambda: instances.leader() is second, "the second to lead")
        trade(launchpad, curve, 3)
        system.equals_oracle(factory)


@pytest.fixture
def durable(system: System, tmp_path: Path) -> Iterator[tuple[System, Path]]:
    """The system on a Redis with an append-only file, and where that is."""
    directory = tmp_path / "durable"
    server = start_valkey(directory, appendonly="yes", appendfsync="always")
    system.use_redis(server.port)
    try:
        yield system, directory
    finally:
        server.stop()


@pytest.mark.timeout(60)
def test_a_redis_that_went_back_is_replayed(durable: tuple[System, Path]) -> None:
    """Under a running listener the newest commits vanish, as after a crash without fsync or a failover."""
    system, _ = durable
    launchpad = system.deploy()
    factory = launchpad.factory.address
    curve = launchpad.create("One", "ONE")
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    system.start_listener(factory, **FAST)
    trade(launchpad, curve, 5)
    system.equals_oracle(factory)
    client = redis.Redis(port=system.redis_port)
    try:
        kept = {key: client.dump(key) for key in client.scan_iter(count=1000)}
        epoch = int(client.hget("head:{31337}", "epoch") or 0)  # type: ignore[arg-type]
        trade(launchpad, curve, 6)
        launchpad.create("Two", "TWO")
        system.equals_oracle(factory)
        system.backend_equals_redis()
        pipe = client.pipeline(transaction=True)
        pipe.flushall()
        for key, value in kept.items():
            pipe.restore(key, 0, value)
        pipe.execute()
        launchpad.rpc("anvil_reorg", 3, [])
        trade(launchpad, curve, 4)
        system.equals_oracle(factory)
        assert int(client.hget("head:{31337}", "epoch") or 0) > epoch  # type: ignore[arg-type]
        system.wait_log("Term ended, recovering")
        system.backend_equals_redis()
    finally:
        client.close()


@pytest.mark.timeout(60)
def test_a_redis_that_was_emptied_is_filled_again(system: System, launchpad: Launchpad) -> None:
    """FLUSHALL under a running listener: everything is loaded anew, and the backend is told to read again."""
    factory = launchpad.factory.address
    curve = launchpad.create("One", "ONE")
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    system.start_listener(factory, **FAST)
    trade(launchpad, curve, 5)
    system.equals_oracle(factory)
    client = redis.Redis(port=system.redis_port)
    client.flushall()
    client.close()
    trade(launchpad, curve, 2)
    system.equals_oracle(factory)
    system.backend_equals_redis()
