"""Settings: every mistake names its variable and shows an example; secrets stay secret."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from listener.application.errors import InvalidConfiguration
from listener.config.settings import ReaderSettings, Settings, load_settings
from listener.domain.value_objects import DAY_MS, MINUTE_MS, ONE_MINUTE, Interval
from listener.infrastructure.observability.logs import MASK, SecretMask, configure

FACTORY = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
PRODUCTION = {
    "ENVIRONMENT": "production",
    "BLOCKCHAIN_HTTP_URL": "https://node.example.org/v3/0123456789abcdef",
    "REDIS_URL": "redis://:hunter2-hunter2@redis:6379/0",
    "CHAIN_ID": "1",
}
WITH_BACKEND = {"BACKEND_SOCKET_URL": "http://backend:3000", "BACKEND_AUTH_TOKEN": "correct-horse-battery"}


class Environment:
    """The environment of one test: nothing in it but what the test sets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
            patch.delenv(name, raising=False)
        patch.delenv("ENV", raising=False)
        self.set(BONDING_CURVE_FACTORY_ADDRESS=FACTORY)

    def set(self, **values: str) -> None:
        """Set variables."""
        for name, value in values.items():
            self._patch.setenv(name, value)

    def unset(self, name: str) -> None:
        """Remove a variable."""
        self._patch.delenv(name)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Environment:
    """An empty environment in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Environment(monkeypatch)


def refusal() -> str:
    """What is said when settings are refused."""
    with pytest.raises(InvalidConfiguration) as refused:
        load_settings()
    assert refused.value.exit_code == 2
    return str(refused.value)


MALFORMED = [
    ("ENVIRONMENT", "staging"),
    ("BLOCKCHAIN_HTTP_URL", "127.0.0.1:8545"),
    ("BLOCKCHAIN_HTTP_URL", "ws://127.0.0.1:8545"),
    ("BLOCKCHAIN_HTTP_URL", "http://"),
    ("BLOCKCHAIN_FALLBACK_URLS", "http://127.0.0.1:8545,second"),
    ("BLOCKCHAIN_AUDIT_URL", "ws://127.0.0.1:8545"),
    ("BLOCKCHAIN_WS_URL", "http://127.0.0.1:8545"),
    ("BLOCKCHAIN_WS_URL", "socket"),
    ("CHAIN_ID", "mainnet"),
    ("CHAIN_ID", "0"),
    ("CHAIN_ID", "-1"),
    ("BONDING_CURVE_FACTORY_ADDRESS", "0x12"),
    ("BONDING_CURVE_FACTORY_ADDRESS", FACTORY + ",nobody"),
    ("BONDING_CURVE_FACTORY_ADDRESS", ","),
    ("START_BLOCK", "-1"),
    ("START_BLOCK", "latest"),
    ("REDIS_URL", "http://redis"),
    ("REDIS_URL", "redis"),
    ("BACKEND_SOCKET_URL", "backend:3000"),
    ("BACKEND_AUTH_TOKEN", "short"),
    ("WEBSOCKET_PORT", "65536"),
    ("WEBSOCKET_PORT", "http"),
    ("OHLCV_INTERVALS", "1m,7m"),
    ("OHLCV_INTERVALS", "1 minute"),
    ("OHLCV_INTERVALS", "1m,,5m"),
    ("CANDLE_RETENTION", "1m"),
    ("CANDLE_RETENTION", "1m=3"),
    ("CANDLE_RETENTION", "1m=0d"),
    ("CANDLE_RETENTION", "7m=3d"),
    ("CANDLE_RETENTION", "1m=1d"),
    ("CANDLE_RETENTION", "1m=-3d"),
    ("TRADES_RETENTION", "0"),
    ("TRADES_RETENTION", "many"),
    ("PRICE_MODE", "last"),
    ("NATIVE_SYMBOL", "A" * 17),
    ("FINALITY_WINDOW", "0"),
    ("FINALITY_WINDOW", "1000000"),
    ("FINALITY_WINDOW", "0s"),
    ("FINALITY_WINDOW", "5 minutes"),
    ("FINALITY_WINDOW", "latest"),
    ("BLOOM_POLICY", "paranoid"),
    ("AUDIT_WINDOW", "-1"),
    ("AUDIT_BLOCKS_PER_S", "0"),
    ("STALL_AFTER_MS", "-1"),
    ("LEASE_MS", "100"),
    ("HISTORY_REQUESTS", "0"),
    ("OUTBOX_MAX_BYTES", "1"),
    ("BATCH_SIZE", "0"),
    ("RANGE_BLOCKS", "0"),
    ("POLL_INTERVAL_MS", "1"),
    ("PROCESSING_INTERVAL_MS", "-1"),
    ("CLOSE_GRACE_MS", "-1"),
    ("RPC_TIMEOUT_MS", "1"),
    ("REDIS_TIMEOUT_MS", "soon"),
    ("BACKEND_ACK_TIMEOUT_MS", "0.5"),
    ("OUTBOX_MAX_ROWS", "1"),
    ("MARKET_CACHE", "1"),
    ("GATEWAY_COALESCE_MS", "-1"),
    ("LISTINGS_ENABLED", "perhaps"),
    ("LISTING_RETENTION_HOURS", "0"),
    ("LISTING_INTERVAL_MS", "1"),
    ("LISTING_MAX_BYTES", "1"),
    ("LOG_LEVEL", "LOUD"),
    ("OTEL_TRACES", "perhaps"),
    ("GATEWAY_ENABLED", "perhaps"),
    ("GATEWAY_PUBLIC", "perhaps"),
    ("WEBHOOKS_ENABLED", "perhaps"),
    ("WEBHOOKS_ALLOW_PRIVATE", "perhaps"),
    ("GATEWAY_API_KEYS", "a-key-in-the-clear"),
    ("GATEWAY_API_KEYS", "charts:write:" + "0" * 64),
    ("GATEWAY_API_KEYS", "charts:read:" + "0" * 63),
    ("GATEWAY_API_KEYS", ",".join(["charts:read:" + "0" * 64] * 2)),
    ("GATEWAY_CORS_ORIGINS", "app.example.org"),
    ("GATEWAY_RATE_PER_S", "-1"),
    ("GATEWAY_RATE_BURST", "0"),
    ("GATEWAY_KEY_RATE_PER_S", "often"),
    ("GATEWAY_KEY_RATE_BURST", "0"),
    ("GATEWAY_CONNECTIONS_MAX", "0"),
    ("GATEWAY_TRUSTED_PROXIES", "proxy.example.org"),
    ("GATEWAY_REDIS_URL", "http://redis"),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_a_malformed_setting_is_named(env: Environment, name: str, value: str) -> None:
    """The error has the variable's name and a line that could be put into `.env`."""
    env.set(**{name: value})
    said = refusal()
    assert name in said
    assert f"e.g. {name}=" in said
    others = {field.upper() for field in Settings.model_fields} - {name}
    assert not [line for line in said.splitlines() if line.partition(":")[0] in others]


def test_every_setting_has_a_malformed_example() -> None:
    """The table above forgets none; the texts that may be anything are excused."""
    free = {"WEBSOCKET_HOST", "LOG_FILE", "GATEWAY_TLS_CERT", "GATEWAY_TLS_KEY"}
    assert {name for name, _ in MALFORMED} | free == {name.upper() for name in Settings.model_fields}


def test_every_setting_has_an_example_that_works(env: Environment) -> None:
    """What the errors recommend is accepted."""
    for name, field in Settings.model_fields.items():
        assert field.examples, name
        env.set(**{name.upper(): str(field.examples[0])})
    assert load_settings().environment == "production"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_factory_is_named(env: Environment, value: str | None) -> None:
    """The one setting that cannot be guessed: absent or empty, it is asked for with an example."""
    if value is None:
        env.unset("BONDING_CURVE_FACTORY_ADDRESS")
    else:
        env.set(BONDING_CURVE_FACTORY_ADDRESS=value)
    assert "e.g. BONDING_CURVE_FACTORY_ADDRESS=0x" in refusal()


def test_all_mistakes_are_told_at_once(env: Environment) -> None:
    """One line for each."""
    env.set(CHAIN_ID="x", PRICE_MODE="y", LOG_LEVEL="z")
    said = refusal()
    assert [line.partition(":")[0] for line in said.splitlines()] == ["CHAIN_ID", "PRICE_MODE", "LOG_LEVEL"]


@pytest.mark.parametrize("name", ["BLOCKCHAIN_HTTP_URL", "REDIS_URL", "CHAIN_ID"])
@pytest.mark.parametrize("empty", [False, True])
def test_production_assumes_nothing(env: Environment, name: str, *, empty: bool) -> None:
    """What a developer's machine has by default must be said in production; an empty value says nothing."""
    env.set(**PRODUCTION)
    if empty:
        env.set(**{name: ""})
    else:
        env.unset(name)
    said = refusal()
    assert said.startswith(f"{name} is missing")
    assert f"e.g. {name}=" in said


def test_a_reader_needs_no_factory(env: Environment) -> None:
    """Who follows a chain must know whose announcements count; who reads what is stored need not."""
    env.unset("BONDING_CURVE_FACTORY_ADDRESS")
    assert refusal().startswith("BONDING_CURVE_FACTORY_ADDRESS: is missing")
    assert load_settings(ReaderSettings).bonding_curve_factory_address == ()


@pytest.mark.parametrize("name", ["ENVIRONMENT", "ENV"])
def test_production_is_called_by_either_name(env: Environment, name: str) -> None:
    """`ENVIRONMENT` and `ENV` mean the same."""
    env.set(**{name: "production"})
    assert "is missing" in refusal()


def test_production_works_when_all_is_said(env: Environment) -> None:
    """With the URLs and the chain given it starts."""
    env.set(**PRODUCTION)
    assert load_settings().chain_id == 1


def test_a_backend_needs_a_token(env: Environment) -> None:
    """A URL without a token is refused; both together, or neither, are fine."""
    assert load_settings().backend_socket_url is None
    env.set(BACKEND_SOCKET_URL=WITH_BACKEND["BACKEND_SOCKET_URL"])
    assert "e.g. BACKEND_AUTH_TOKEN=" in refusal()
    env.set(**WITH_BACKEND)
    assert load_settings().backend_auth_token is not None


def test_empty_means_default(env: Environment) -> None:
    """`NAME=` in a file is no value."""
    before = load_settings()
    env.set(**{name.upper(): "" for name in Settings.model_fields if name != "bonding_curve_factory_address"})
    assert load_settings() == before


def test_spaces_around_values_do_not_matter(env: Environment) -> None:
    """Nor does the case of a level or of an address."""
    env.set(CHAIN_ID=" 5 ", LOG_LEVEL="debug", OHLCV_INTERVALS=" 1h, 5m ", CANDLE_RETENTION=" 1m = 4d ")
    settings = load_settings()
    assert (settings.chain_id, settings.log_level) == (5, "DEBUG")
    assert settings.bonding_curve_factory_address == (FACTORY.lower(),)
    assert [interval.name for interval in settings.ohlcv_intervals] == ["5m", "1h"]
    assert settings.candle_retention["1m"] == 4 * DAY_MS


def test_a_file_is_read_and_the_environment_wins(env: Environment, tmp_path: Path) -> None:
    """`.env` in the working folder, overridden by the environment."""
    (tmp_path / ".env").write_text("CHAIN_ID=5\nNATIVE_SYMBOL=BNB\nUNKNOWN=1\n")
    env.set(CHAIN_ID="6")
    settings = load_settings()
    assert (settings.chain_id, settings.native_symbol) == (6, "BNB")


def test_minutes_are_folded_though_not_listed(env: Environment) -> None:
    """Rules begin with one minute always; only what is listed is told of."""
    env.set(OHLCV_INTERVALS="4h,5m")
    rules = load_settings().rules()
    assert [interval.name for interval in rules.intervals] == ["1m", "5m", "4h"]
    assert rules.published == {"5m", "4h"}
    assert rules.intervals[0] == ONE_MINUTE
    env.set(OHLCV_INTERVALS="5m,1m")
    assert [interval.name for interval in load_settings().rules().intervals] == ["1m", "5m"]


def test_retention_is_merged_with_the_default(env: Environment) -> None:
    """What is given replaces the default for its interval; `all` keeps for ever; days are kept for ever."""
    env.set(CANDLE_RETENTION="5m=2d,1h=all", OHLCV_INTERVALS="1m,5m,15m,1h,1d")
    rules = load_settings().rules()
    assert rules.retention_ms == {"1m": 3 * DAY_MS, "5m": 2 * DAY_MS, "15m": 30 * DAY_MS}


def test_retention_may_be_a_number_of_candles(env: Environment) -> None:
    """A bare number keeps so many buckets of each interval, but never too few minutes for a day."""
    env.set(CANDLE_RETENTION="1500", OHLCV_INTERVALS="5m,1d")
    kept = load_settings().rules().retention_ms
    assert kept == {"1m": 2 * DAY_MS, "5m": 1500 * 5 * MINUTE_MS, "1d": 1500 * DAY_MS}


def test_the_fingerprint_is_of_what_gives_meaning(env: Environment) -> None:
    """Price mode, intervals and factories, in an order that does not depend on how they were written."""
    other = "0x" + "AB" * 20
    env.set(OHLCV_INTERVALS="1h,5m", BONDING_CURVE_FACTORY_ADDRESS=f"{other},{FACTORY}")
    one = load_settings().fingerprint()
    env.set(OHLCV_INTERVALS="5m,1h", BONDING_CURVE_FACTORY_ADDRESS=f"{FACTORY.lower()}, {other.lower()}")
    assert load_settings().fingerprint() == one
    for change in {"PRICE_MODE": "spot"}, {"OHLCV_INTERVALS": "5m"}, {"BONDING_CURVE_FACTORY_ADDRESS": other}:
        env.set(**change)
        assert load_settings().fingerprint() != one
    env.set(FINALITY_WINDOW="7", TRADES_RETENTION="9")
    assert set(load_settings().fingerprint()) == set(one)


def secrets_of(env: Environment) -> list[str]:
    """Secrets of settings with one in every place."""
    env.set(**PRODUCTION, **WITH_BACKEND)
    env.set(
        BLOCKCHAIN_HTTP_URL="https://node.example.org/v3/0123456789abcdef?apikey=query-key-1234",
        BLOCKCHAIN_WS_URL="wss://user:socket-password@node.example.org/ws/fedcba9876543210",
        BACKEND_SOCKET_URL="http://user:backend-password@backend:3000",
    )
    return load_settings().secrets()


PLACES = [
    "0123456789abcdef",
    "query-key-1234",
    "socket-password",
    "fedcba9876543210",
    "backend-password",
    "hunter2-hunter2",
    "correct-horse-battery",
]


@pytest.mark.parametrize("secret", PLACES)
def test_every_secret_is_known(env: Environment, secret: str) -> None:
    """Tokens, passwords, and keys in paths and queries of provider URLs."""
    assert secret in secrets_of(env)


def test_nothing_short_is_a_secret(env: Environment) -> None:
    """Masking `1` or `v3` everywhere would make logs unreadable: options of a URL are no secrets."""
    env.set(
        REDIS_URL="redis://:hunter2-hunter2@redis:6379/0?db=0&protocol=2",
        BLOCKCHAIN_HTTP_URL="https://node.example.org/v3/0123456789abcdef?chain=1",
    )
    masked = SecretMask(load_settings().secrets()).text("block 12 of chain 1, v3, at 10:20")
    assert masked == "block 12 of chain 1, v3, at 10:20"


def test_a_token_does_not_show(env: Environment) -> None:
    """Printing the settings does not print the token."""
    env.set(**WITH_BACKEND)
    assert WITH_BACKEND["BACKEND_AUTH_TOKEN"] not in repr(load_settings())


def test_a_refusal_does_not_show_secrets(env: Environment) -> None:
    """An error about a URL or a token does not repeat it."""
    env.set(
        BLOCKCHAIN_HTTP_URL="ftp://node.example.org/v3/0123456789abcdef",
        REDIS_URL="redis://:hunter2-hunter2@redis:port/0",
        BACKEND_AUTH_TOKEN="s3cr3t",
    )
    said = refusal()
    assert {line.partition(":")[0] for line in said.splitlines()} == {
        "BLOCKCHAIN_HTTP_URL",
        "REDIS_URL",
        "BACKEND_AUTH_TOKEN",
    }
    for secret in ("0123456789abcdef", "hunter2", "s3cr3t"):
        assert secret not in said


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Where log lines go; logging is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_secrets_are_masked_in_logs(env: Environment, logged: io.StringIO, tmp_path: Path) -> None:
    """In messages, in fields, in tracebacks and in other libraries' lines, on the stream and in the file."""
    secrets = secrets_of(env)
    path = tmp_path / "listener.log"
    configure("INFO", str(path), secrets, logged)
    text = " ".join(PLACES)
    structlog.get_logger("listener").info(text, url=text)
    logging.getLogger("other").warning("%s", text)
    try:
        int(text)
    except ValueError:
        structlog.get_logger("listener").exception("failed")
    for handler in logging.getLogger().handlers:
        handler.flush()
        if isinstance(handler, logging.FileHandler):
            handler.close()
    for lines in logged.getvalue(), path.read_text():
        assert lines.count(MASK) >= 4 * len(PLACES)
        assert not [secret for secret in PLACES if secret in lines]
        assert all(json.loads(line) for line in lines.splitlines())


def test_secrets_inside_fields_are_masked(env: Environment, logged: io.StringIO) -> None:
    """A secret in a list or a mapping of a log line is masked like one in a text."""
    configure("INFO", None, secrets_of(env), logged)
    structlog.get_logger("listener").info("x", urls=[PLACES[0]], by={"key": PLACES[1]})
    assert PLACES[0] not in logged.getvalue()
    assert PLACES[1] not in logged.getvalue()


def test_a_longer_secret_is_masked_whole() -> None:
    """Where one secret is part of another, nothing of the longer one is left."""
    assert SecretMask(["abc", "abcdef", ""]).text("abcdef abc") == f"{MASK} {MASK}"


def test_intervals_of_settings_are_intervals() -> None:
    """Programs may pass values instead of texts."""
    settings = load_settings(
        bonding_curve_factory_address=(FACTORY.lower(),),
        ohlcv_intervals=(Interval.parse("5m"),),
        _env_file=None,
    )
    assert settings.ohlcv_intervals == (Interval.parse("5m"),)
