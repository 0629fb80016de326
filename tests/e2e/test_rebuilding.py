"""`listener verify` and `listener resync`, beside a running service."""

import subprocess
import sys
from typing import Final

import pytest
import redis

from listener.demo.launchpad import ETHER, Curve, Launchpad
from tests.e2e.system import CHAIN_ID, System

FAST: Final = {"FINALITY_WINDOW": "20", "POLL_INTERVAL_MS": "50", "PROCESSING_INTERVAL_MS": "10"}
TAG: Final = f"{{{CHAIN_ID}}}"


def command(system: System, factory: str, *words: str, **settings: str) -> tuple[int, str]:
    """Run `listener …`; exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "listener.cli", *words],
        env={
            "PATH": "/usr/bin:/bin",
            "BLOCKCHAIN_HTTP_URL": system.http,
            "CHAIN_ID": str(CHAIN_ID),
            "BONDING_CURVE_FACTORY_ADDRESS": factory,
            "REDIS_URL": system.redis_url,
            **FAST,
            **settings,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def trade(launchpad: Launchpad, curves: list[Curve], blocks: int, seconds: int = 40) -> None:
    """So many blocks with a buy each."""
    for number in range(blocks):
        launchpad.rpc("evm_increaseTime", seconds)
        launchpad.buy(curves[number % len(curves)], ETHER // 10 + number, number % 9)


def trading(system: System) -> tuple[Launchpad, str, list[Curve]]:
    """Two markets that have traded, a backend and a listener: launchpad, factory, curves."""
    launchpad = system.deploy()
    factory = launchpad.factory.address
    curves = [launchpad.create(name, name) for name in ("ONE", "TWO")]
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    system.start_listener(factory, **FAST)
    trade(launchpad, curves, 30)
    system.equals_oracle(factory)
    return launchpad, factory, curves


def beside(database: redis.Redis) -> list[str]:
    """Keys of a generation that is not the live one."""
    return [key for key in database.scan_iter(count=1000) if key.startswith(("verify:", "resync:"))]


@pytest.mark.timeout(120)
def test_verify_finds_what_differs_and_repairs_it(system: System, database: redis.Redis) -> None:
    """Beside a running service: nothing at first, then each planted damage, by name, then nothing again."""
    launchpad, factory, curves = trading(system)
    code, said = command(system, factory, "verify")
    assert (code, said.splitlines()[-1]) == (0, "No differences.")
    assert beside(database) == []

    one, two = (curve.token.lower() for curve in curves)
    newest = database.zrange(f"candles:{TAG}:{one}:5m", -1, -1, withscores=True)[0]
    database.zremrangebyscore(f"candles:{TAG}:{one}:5m", newest[1], newest[1])
    database.hset(f"stats:{TAG}:{two}", "count", "12345")
    database.lpop(f"trades:{TAG}:{two}")
    code, said = command(system, factory, "verify")
    assert code == 1
    assert f"{one} candle 5m {int(newest[1])}" in said
    assert f"{two} 24 h" in said
    assert f"{two} trade " in said
    assert "3 differences." in said
    code, said = command(system, factory, "verify", "ONE")
    assert code == 1
    assert "1 difference." in said
    assert two not in said

    code, said = command(system, factory, "verify", "--repair")
    assert code == 0, said
    assert "Repaired" in said
    trade(launchpad, curves, 3)
    system.equals_oracle(factory)
    system.backend_equals_redis()
    assert command(system, factory, "verify")[0] == 0
    assert beside(database) == []


@pytest.mark.timeout(120)
def test_resync_gives_candles_another_meaning(system: System, database: redis.Redis) -> None:
    """Other settings are refused with the way out; the way works; readers see old or new, never a mixture."""
    launchpad, factory, curves = trading(system)
    spot = {"PRICE_MODE": "spot"}
    code, said = command(system, factory, "resync", **spot)
    assert code == 0, said
    exit_code, log = system.ended()
    assert exit_code == 4
    assert "PRICE_MODE was 'spot', is 'execution'" in log
    assert "listener resync" in log
    trade(launchpad, curves, 5)
    system.start_listener(factory, **FAST, **spot)
    system.equals_oracle(factory, price_mode="spot")
    system.backend_equals_redis()
    assert beside(database) == []


@pytest.mark.timeout(120)
def test_resync_from_an_earlier_block(system: System, database: redis.Redis) -> None:
    """A lower START_BLOCK is refused; `resync --from` loads it beside a service that goes on."""
    launchpad = system.deploy()
    factory = launchpad.factory.address
    curves = [launchpad.create("ONE", "ONE")]
    trade(launchpad, curves, 10)
    start = launchpad.web3.eth.block_number + 1
    curves.append(launchpad.create("TWO", "TWO"))
    system.start_listener(factory, START_BLOCK=str(start), **FAST)
    trade(launchpad, curves, 10)
    system.equals_oracle(factory, start_block=start)
    code, said = command(system, factory, "resync", "--from", "2")
    assert code == 0, said
    trade(launchpad, curves, 5)
    system.equals_oracle(factory)
    assert beside(database) == []
    assert system.listener
    assert system.listener.stop() == 0
    system.start_listener(factory, ready="resync --from 1", START_BLOCK="1", **FAST)
    assert system.ended()[0] == 4


@pytest.mark.timeout(120)
def test_a_reorg_too_deep_is_repaired(system: System, database: redis.Redis) -> None:
    """Deeper than can be undone: exit code 5, untouched; `verify --repair` loads the new chain."""
    launchpad = system.deploy()
    factory = launchpad.factory.address
    curves = [launchpad.create("ONE", "ONE")]
    system.start_listener(factory, **FAST | {"FINALITY_WINDOW": "3", "AUDIT_WINDOW": "0"})
    trade(launchpad, curves, 20)
    system.equals_oracle(factory)
    launchpad.rpc("anvil_reorg", 10, [])
    trade(launchpad, curves, 1)
    code, log = system.ended()
    assert code == 5
    assert "listener verify --repair" in log
    code, said = command(system, factory, "verify", "--repair")
    assert code == 0, said
    assert "Repaired" in said
    system.start_listener(factory, **FAST)
    trade(launchpad, curves, 3)
    system.equals_oracle(factory)
    assert beside(database) == []
