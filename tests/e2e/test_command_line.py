"""The `listener` command: what it prints, and the exit code it ends with."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from listener import __version__
from listener.cli import app
from listener.commands.terminal import console
from listener.config.settings import Settings
from listener.demo.launchpad import ETHER, Curve
from listener.demo.processes import REPOSITORY
from tests.e2e.proxy import Proxy
from tests.e2e.system import CHAIN_ID, TOKEN, System

FACTORY = "0x5fbdb2315678afecb367f032d93f642f64180aa3"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no .env of the machine's own; output wide enough not to be broken."""
    monkeypatch.chdir(tmp_path)
    for name in [*Settings.model_fields, "env"]:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(console, "width", 1000)


@pytest.fixture
def told(system: System, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """A system with a factory, a backend, and settings that name them."""
    system.start_backend()
    assert system.backend
    settings = {
        "BLOCKCHAIN_HTTP_URL": system.http,
        "BLOCKCHAIN_WS_URL": system.ws,
        "CHAIN_ID": str(CHAIN_ID),
        "BONDING_CURVE_FACTORY_ADDRESS": str(system.deploy().factory.address),
        "REDIS_URL": system.redis_url,
        "BACKEND_SOCKET_URL": system.backend.found,
        "BACKEND_AUTH_TOKEN": TOKEN,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return system


def listener(*words: str, answer: str = "") -> tuple[int, str]:
    """Exit code and output of the command, run in this process."""
    result = CliRunner().invoke(app, list(words), input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


# -------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BONDING_CURVE_FACTORY_ADDRESS", None),
        ("BONDING_CURVE_FACTORY_ADDRESS", ""),
        ("BONDING_CURVE_FACTORY_ADDRESS", "0x1234"),
        ("BONDING_CURVE_FACTORY_ADDRESS", f"{FACTORY},"),
        ("CHAIN_ID", "mainnet"),
        ("CHAIN_ID", "0"),
        ("CHAIN_ID", "-1"),
        ("CHAIN_ID", "1.5"),
        ("BLOCKCHAIN_HTTP_URL", "127.0.0.1:8545"),
        ("BLOCKCHAIN_HTTP_URL", "ws://127.0.0.1:8545"),
        ("BLOCKCHAIN_WS_URL", "http://127.0.0.1:8545"),
        ("REDIS_URL", "http://127.0.0.1:6379"),
        ("REDIS_URL", "redis"),
        ("BACKEND_SOCKET_URL", "backend:3000"),
        ("BACKEND_AUTH_TOKEN", "short"),
        ("START_BLOCK", "-5"),
        ("START_BLOCK", "latest"),
        ("OHLCV_INTERVALS", "7m"),
        ("OHLCV_INTERVALS", "1m,,5m"),
        ("OHLCV_INTERVALS", "2w"),
        ("OHLCV_INTERVALS", "sometimes"),
        ("CANDLE_RETENTION", "1m=1d"),
        ("CANDLE_RETENTION", "1m"),
        ("CANDLE_RETENTION", "5m=forever"),
        ("TRADES_RETENTION", "0"),
        ("PRICE_MODE", "mid"),
        ("FINALITY_WINDOW", "0"),
        ("FINALITY_WINDOW", "10001"),
        ("POLL_INTERVAL_MS", "often"),
        ("POLL_INTERVAL_MS", "1"),
        ("PROCESSING_INTERVAL_MS", "-1"),
        ("REDIS_TIMEOUT_MS", "0"),
        ("WEBSOCKET_PORT", "70000"),
        ("LOG_LEVEL", "LOUD"),
        ("ENVIRONMENT", "staging"),
        ("NATIVE_SYMBOL", "A-VERY-LONG-SYMBOL-OF-A-COIN"),
    ],
)
def test_wrong_setting_is_named_with_an_example(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    """A missing or malformed setting ends it with exit code 2; the message has its name and an example."""
    monkeypatch.setenv("BONDING_CURVE_FACTORY_ADDRESS", FACTORY)
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    code, output = listener("run")
    assert code == 2, output
    lines = [line for line in output.splitlines() if line.startswith(f"{name}: ")]
    assert len(lines) == 1, output
    assert re.search(rf"{name}=\S", lines[0]), output


@pytest.mark.parametrize("name", ["BLOCKCHAIN_HTTP_URL", "REDIS_URL", "CHAIN_ID"])
def test_production_assumes_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With ENVIRONMENT=production a missing URL or chain id ends it with exit code 2 and its name."""
    given = {
        "BONDING_CURVE_FACTORY_ADDRESS": FACTORY,
        "BLOCKCHAIN_HTTP_URL": "https://node.example.org",
        "REDIS_URL": "redis://redis.example.org",
        "CHAIN_ID": "1",
        "ENVIRONMENT": "production",
    }
    for key, value in given.items():
        if key != name:
            monkeypatch.setenv(key, value)
    code, output = listener("run")
    assert code == 2, output
    assert f"{name} is missing" in output
    assert re.search(rf"{name}=\S", output)


def test_backend_without_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """BACKEND_SOCKET_URL without BACKEND_AUTH_TOKEN ends it with exit code 2, which names the token."""
    monkeypatch.setenv("BONDING_CURVE_FACTORY_ADDRESS", FACTORY)
    monkeypatch.setenv("BACKEND_SOCKET_URL", "http://127.0.0.1:3000")
    code, output = listener("run")
    assert code == 2, output
    assert "BACKEND_AUTH_TOKEN=" in output


def test_all_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    """The real process names every wrong setting on standard error, ends with 2, and shows no traceback."""
    given = {"CHAIN_ID": "x", "REDIS_URL": "y", "LOG_LEVEL": "z", "OHLCV_INTERVALS": "7m"}
    done = subprocess.run(
        [sys.executable, "-m", "listener.main"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **given},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for name in (*given, "BONDING_CURVE_FACTORY_ADDRESS"):
        assert f"{name}: " in done.stderr


def test_settings_come_from_a_file_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`.env` is read, the environment wins, an empty name means the default, unknown names are ignored."""
    lines = (f"BONDING_CURVE_FACTORY_ADDRESS={FACTORY}", "CHAIN_ID=x", "START_BLOCK=", "NO_SUCH_SETTING=1")
    (tmp_path / ".env").write_text("\n".join(lines))
    code, output = listener("candles", "x", "1m")
    assert code == 2
    assert "CHAIN_ID: " in output
    monkeypatch.setenv("CHAIN_ID", "5")
    with Proxy(1, away=True) as nobody:
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{nobody.port}")
        code, output = listener("candles", "x", "1m")
    assert code == 1
    assert "Redis" in output


# -------------------------------------------------------------------------------------------- commands


def test_version_and_help() -> None:
    """`version` prints the version; without a command help is shown."""
    assert listener("version") == (0, f"{__version__}\n")
    code, output = listener()
    assert code == 2
    for command in ("run", "demo", "candles", "doctor", "health", "reset", "version"):
        assert command in output


@pytest.mark.timeout(60)
def test_candles_health_and_reset(told: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candles by id and symbol, as a table and as a chart; health of the service; reset asks first."""
    launchpad = told.deploy()
    factory = str(launchpad.factory.address)
    monkeypatch.setenv("BONDING_CURVE_FACTORY_ADDRESS", factory)
    curve: Curve = launchpad.create("Shown", "SHOWN")
    launchpad.create("Quiet", "QUIET")
    for minutes in range(4):
        launchpad.rpc("evm_increaseTime", 60 * minutes)
        launchpad.buy(curve, ETHER)
    running = told.start_listener(factory)
    truth = told.equals_oracle(factory)
    series = truth.candles[curve.token, "1m"]
    assert len(series) >= 3

    code, table = listener("candles", curve.token, "1m")
    assert code == 0, table
    rows = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d.*", table)
    assert len(rows) == len(series)
    for row, candle in zip(rows, series, strict=True):
        assert candle["c"][:8] in row
        assert row.rstrip(" │┃|").endswith(str(candle["n"]))
    assert listener("candles", "shown", "1m") == (0, table)
    code, newest = listener("candles", "SHOWN", "1m", "--limit", "1")
    assert (code, len(re.findall(r"\d{4}-\d\d-\d\d", newest))) == (0, 1)
    for interval in ("1m", "1d"):
        code, chart = listener("candles", "SHOWN", interval, "--plot")
        assert code == 0, chart
        assert f"{curve.token} {interval}" in chart
        assert len(chart.splitlines()) >= 20
    for words, message in (
        (("NOBODY", "1m"), "no market 'NOBODY'"),
        (("SHOWN", "7m"), "7m"),
        (("SHOWN", "x"), "unknown interval 'x'"),
        (("SHOWN", "2h"), "OHLCV_INTERVALS"),
        (("QUIET", "1m"), "no 1m candles"),
    ):
        code, output = listener("candles", *words)
        assert code == 1, output
        assert message in output
    assert listener("candles", "SHOWN", "1m", "--limit", "0")[0] == 2

    monkeypatch.setenv("WEBSOCKET_PORT", told.health().split(":")[2].partition("/")[0])
    code, output = listener("health")
    assert code == 0, output
    assert '"alive"' in output
    assert running.stop() == 0
    code, output = listener("health")
    assert code == 1
    assert "no answer on port" in output

    before = told.dump()
    code, output = listener("reset", answer="n\n")
    assert code == 1
    assert f"chain {CHAIN_ID}" in output
    assert told.dump() == before
    with redis.Redis(port=told.redis_port) as client:
        client.set("candles:{313370}:other", "of another chain")
        code, output = listener("reset", answer="y\n")
        assert code == 0, output
        assert f"Removed {len(before)} keys" in output
        assert client.keys() == [b"candles:{313370}:other"]


@pytest.mark.timeout(60)
def test_doctor_says_how_to_mend(told: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor ends with 0 when all is well, and with 1 and advice for each thing that is not."""
    code, output = listener("doctor")
    assert code == 0, output
    for subject in ("node", "chain", "factory", "heads", "redis", "stream", "backend"):
        assert re.search(rf"(ok|warning) +{subject}: ", output), output

    def ill(**settings: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            code, output = listener("doctor")
        assert code == 1, output
        errors = re.findall(r"error +.*", output)
        assert len(errors) == 1, output
        return str(errors[0])

    with Proxy(1, away=True) as nobody:
        away = f"127.0.0.1:{nobody.port}"
        assert "is the node running" in ill(BLOCKCHAIN_HTTP_URL=f"http://{away}")
        assert "BLOCKCHAIN_WS_URL" in ill(BLOCKCHAIN_WS_URL=f"ws://{away}")
        assert "REDIS_URL" in ill(REDIS_URL=f"redis://{away}")
        assert "is it running" in ill(BACKEND_SOCKET_URL=f"http://{away}")
    assert "CHAIN_ID=31337" in ill(CHAIN_ID="5", BLOCKCHAIN_WS_URL="")
    assert "BONDING_CURVE_FACTORY_ADDRESS" in ill(BONDING_CURVE_FACTORY_ADDRESS="0x" + "12" * 20)
    assert "BACKEND_AUTH_TOKEN" in ill(BACKEND_AUTH_TOKEN="not-the-token")
    password = ill(REDIS_URL=f"redis://:wrong-password@127.0.0.1:{told.redis_port}")
    assert "password in REDIS_URL" in password
    assert "wrong-password" not in password
    with redis.Redis(port=told.redis_port) as client:
        client.hset(
            f"head:{{{CHAIN_ID}}}",
            mapping={"schema": 99, "chainId": 1, "genesis": "x", "hash": "x", "number": 1},
        )
        assert "newer version" in ill()
        client.delete(f"head:{{{CHAIN_ID}}}")
        client.hset(f"head:{{{CHAIN_ID}}}", mapping={"theirs": 1})
        assert f"head:{{{CHAIN_ID}}}" in ill()
