"""From a trade on a real chain to Redis and the Node backend, against the oracle."""

import signal

import pytest
import redis

from listener.demo.launchpad import ETHER, Launchpad, Parameters
from tests import oracle
from tests.e2e.scenario import Scenario
from tests.e2e.system import CHAIN_ID, System

INTERVALS = ("1m", "5m", "15m", "1h", "4h", "1d", "1w")
DAY_MS = 86_400_000
RETENTION = {"1m": 3 * DAY_MS, "5m": 10 * DAY_MS, "15m": 30 * DAY_MS, "1h": 120 * DAY_MS, "4h": 365 * DAY_MS}
SMALL_CURVES = Parameters(graduation_threshold=12 * ETHER, virtual_quote=3 * ETHER)


def expected(system: System, launchpad: Launchpad, price_mode: str = "execution") -> oracle.Expected:
    """What the oracle says of the whole chain."""
    factory = launchpad.factory.address.lower()
    call = oracle.http_rpc(system.http)
    chain = oracle.read_chain(call, 0, launchpad.web3.eth.block_number, [factory])
    settings = oracle.Settings(
        factories=[factory], intervals=INTERVALS, price_mode=price_mode, retention=RETENTION
    )
    return oracle.compute(chain, settings)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("seed", "price_mode", "websocket"), [(1, "execution", True), (2, "spot", False)])
def test_redis_and_backend_equal_the_oracle(
    system: System, database: redis.Redis, seed: int, price_mode: str, websocket: bool
) -> None:
    """Days of random trades, with the listener stopped and killed in between, end in the oracle's Redis."""
    launchpad = system.deploy(SMALL_CURVES)
    scenario = Scenario(launchpad, seed)
    for _ in range(12):
        scenario.create()
    scenario.set_mining(automatic=False)
    system.start_backend(OHLCV_INTERVALS=",".join(INTERVALS), MAX_TRADES_PER_MARKET="200")
    settings = {
        "OHLCV_INTERVALS": ",".join(INTERVALS),
        "PRICE_MODE": price_mode,
        "FINALITY_WINDOW": "20",
        "PROCESSING_INTERVAL_MS": "10",
        "POLL_INTERVAL_MS": "50",
        "CANDLE_RETENTION": "1m=3d,5m=10d,15m=30d,1h=120d,4h=1y,1d=all,1w=all",
    }
    if not websocket:
        settings["BLOCKCHAIN_WS_URL"] = ""
    factory = launchpad.factory.address
    scenario.life(blocks=60, most_trades=12)
    for phase in range(6):
        listener = system.start_listener(factory, **settings)
        scenario.life(blocks=18, most_trades=18)
        if phase % 3 == 0:
            listener.kill()
        elif phase % 3 == 1:
            assert listener.stop() == 0
        else:
            system.wait_for_block(scenario.random.randrange(scenario.tip() - 10, scenario.tip()))
            listener.process.send_signal(signal.SIGINT)
            assert listener.process.wait(5) == 0
            listener.stop()
        scenario.life(blocks=scenario.random.choice((2, 15, 40)), most_trades=12)
    while len(scenario.curves) < 20 or scenario.trade_logs() < 2_100:
        scenario.life(blocks=5, most_trades=20)
    scenario.close()
    system.start_listener(factory, **settings)
    system.wait_for_block(scenario.tip())

    truth = expected(system, launchpad, price_mode)
    assert len(truth.markets) >= 20
    assert sum(len(trades) for trades in truth.trades.values()) >= 2000
    assert any(record["status"] == "graduated" for record in truth.records.values())
    system.settle(lambda: oracle.compare_redis(database, CHAIN_ID, truth))
    system.wait_delivered()
    view = oracle.compare_node_view(
        database,
        CHAIN_ID,
        system.backend_view(),
        intervals=INTERVALS,
        must_exist_from=truth.must_exist_from,
    )
    assert view == [], "\n".join(view[:30])
