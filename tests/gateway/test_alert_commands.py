"""`listener alerts`: rules are made, listed, shown and removed on a terminal."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from listener.cli import app
from listener.commands.terminal import console
from listener.config.settings import Settings
from tests.fakes.build import CHAIN_ID, token
from tests.gateway.conftest import Data
from tests.gateway.serving import KEYS, forget_alerts


@pytest.fixture(autouse=True)
def database(data: Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[redis.Redis]:
    """Settings that name the known markets and nothing of the machine's own; no rules."""
    monkeypatch.chdir(tmp_path)
    for name in [*Settings.model_fields, "env"]:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{data.port}/0")
    monkeypatch.setenv("CHAIN_ID", str(CHAIN_ID))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(console, "width", 300)
    with redis.Redis(port=data.port) as plain:
        forget_alerts(plain)
        yield plain
        forget_alerts(plain)


def alerts(*words: str, fails: bool = False) -> str:
    """Output of the command."""
    result = CliRunner().invoke(app, ["alerts", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert (result.exit_code != 0) is fails, result.output
    return result.output


def made(*words: str) -> dict[str, Any]:
    """A rule that is made."""
    found: dict[str, Any] = json.loads(alerts("create", *words))
    return found


def test_rules_come_and_go() -> None:
    """What is asked for is made, listed as a table and as JSON, shown, and gone when removed."""
    market = token(0)
    first = made("price_above", "0.0000000015", "--repeat", "--hysteresis", "2", "--note", "a [b] *")
    fall = made("change", "--market", market, "--window", "5", "-10")
    assert first.items() >= {"kind": "price_above", "threshold": "0.0000000015", "repeat": True}.items()
    assert first.items() >= {"hysteresis": "2", "note": "a [b] *"}.items()
    asked = {"kind": "change", "market": market, "threshold": "-10", "windowMs": 300_000}
    assert fall.items() >= asked.items()
    assert [json.loads(line) for line in alerts("list", "--json").splitlines()] == [first, fall]
    assert [json.loads(line) for line in alerts("list", "--json", "--market", market).splitlines()] == [fall]
    assert made("market_created", "--market", "0xNew")["market"] == "0xnew"
    table = alerts("list")
    for text in (first["id"], fall["id"], "a [b] *", "price_above", market):
        assert text in table
    assert json.loads(alerts("show", fall["id"])) == fall
    assert alerts("delete", fall["id"]) == f"Removed {fall['id']}.\n"
    for command in ("show", "delete"):
        assert f"no rule {fall['id']}" in alerts(command, fall["id"], fails=True)
    kinds = [json.loads(line)["kind"] for line in alerts("list", "--json").splitlines()]
    assert kinds == ["price_above", "market_created"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("price_above",), "threshold"),
        (("price_above", "much"), "threshold"),
        (("change", "5"), "windowMs"),
        (("change", "5", "--window", "1441"), "windowMs"),
        (("graduated", "5"), "threshold"),
        (("price_above", "1", "--hysteresis", "2"), "hysteresis"),
        (("price_above", "1", "--market", "nowhere"), "no market 'nowhere'"),
        (("price_sideways", "1"), "price_sideways"),
        (("price_above", "1", "--repat"), "--repat"),
    ],
)
def test_what_is_no_rule_is_refused(words: tuple[str, ...], said: str) -> None:
    """The message names what is wrong, the exit code is not 0, and nothing is made."""
    assert said in alerts("create", *words, fails=True)
    assert alerts("list", "--json") == ""


def test_what_came_true_is_printed(database: redis.Redis) -> None:
    """Newest first; one that was undone says so."""
    record = {"id": "r1-5-0", "rule": "r1", "kind": "trade_size", "s": token(0), "b": 5, "bh": "0x5",
              "t": 1_700_000_000_000, "trade": "5-0", "value": "2.5", "threshold": "1"}  # fmt: skip
    later = record | {"id": "r2-6-0", "rule": "r2", "retracted": True}
    database.lpush(KEYS.fired, json.dumps(record), json.dumps(later))
    assert [json.loads(line) for line in alerts("fired", "--json").splitlines()] == [later, record]
    assert [json.loads(line) for line in alerts("fired", "--json", "--rule", "r1").splitlines()] == [record]
    lines = [line for line in alerts("fired").splitlines() if "trade_size" in line]
    assert "2023-11-14 22:13:20" in lines[0]
    assert ["yes" in line for line in lines] == [True, False]
