"""Every setting, with its unit, its bounds and an example. Documented for operators in `env.example`."""

from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import (
    AliasChoices,
    AnyHttpUrl,
    AnyWebsocketUrl,
    Field,
    RedisDsn,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from listener.application.errors import InvalidConfiguration
from listener.application.rules import Finality, Rules
from listener.config.chains import ChainProfile, profile
from listener.config.gateway import GatewaySettings
from listener.config.listings import ListingSettings
from listener.config.webhooks import WebhookSettings
from listener.domain.errors import DomainError
from listener.domain.value_objects import DAY_MS, MINUTE_MS, ONE_MINUTE, Address, Interval, parse_address
from listener.infrastructure.blockchain.bloom import BloomPolicy

DEFAULT_RETENTION: Final = "1m=3d,5m=10d,15m=30d,30m=60d,1h=120d,2h=180d,4h=1y"
FOREVER: Final = "all"
EACH: Final = "*"
"""Stands for every interval: `CANDLE_RETENTION=1500` means so many buckets of each."""
_UNITS_MS: Final = {"m": MINUTE_MS, "h": 60 * MINUTE_MS, "d": DAY_MS, "w": 7 * DAY_MS, "y": 365 * DAY_MS}
LEAST_MINUTES_MS: Final = 2 * DAY_MS
"""One-minute candles must outlive the rolling day and the finality window."""
MOST_FINALITY_BLOCKS: Final = 5_000
MOST_FINALITY_S: Final = 86_400
STALL_BLOCKS: Final = 20
"""A chain whose next block takes so many times its usual pace counts as standing still."""
LEAST_STALL_S: Final = 30.0


class FinalityWindow(NamedTuple):
    """`FINALITY_WINDOW`: blocks, seconds, or a tag of the node; none: what is known of the chain."""

    blocks: int | None = None
    seconds: int = 0
    tag: Literal["finalized", "safe"] | None = None

    @classmethod
    def parse(cls, text: str) -> "FinalityWindow":
        """`64`, `300s`, `finalized` or `safe`.

        Raises:
            ValueError: it is none of these, or out of bounds.
        """
        if text in {"finalized", "safe"}:
            return cls(tag="safe" if text == "safe" else "finalized")
        number = text.removesuffix("s")
        most = MOST_FINALITY_BLOCKS if number == text else MOST_FINALITY_S
        if not number.isdecimal() or not 1 <= int(number) <= most:
            raise ValueError(
                f"write blocks (1 to {MOST_FINALITY_BLOCKS}), seconds (1s to {MOST_FINALITY_S}s), "
                "finalized or safe"
            )
        return cls(blocks=int(number)) if number == text else cls(blocks=1, seconds=int(number))


class Settings(GatewaySettings, ListingSettings, WebhookSettings):
    """Settings from the environment and `.env`. Names are the environment's, in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", populate_by_name=True
    )

    environment: Literal["development", "production", "test"] = Field(
        "development", validation_alias=AliasChoices("ENVIRONMENT", "ENV"), examples=["production"]
    )
    blockchain_http_url: AnyHttpUrl = Field(
        AnyHttpUrl("http://127.0.0.1:8545"), examples=["https://mainnet.example.org/v3/KEY"]
    )
    blockchain_fallback_urls: Annotated[tuple[AnyHttpUrl, ...], NoDecode] = Field(
        (), examples=["https://second.example.org/KEY,https://third.example.org/KEY"]
    )
    blockchain_audit_url: AnyHttpUrl | None = Field(None, examples=["https://another.example.org/KEY"])
    blockchain_ws_url: AnyWebsocketUrl | None = Field(None, examples=["wss://mainnet.example.org/ws/KEY"])
    chain_id: int = Field(31337, ge=1, examples=[1])
    bonding_curve_factory_address: Annotated[tuple[Address, ...], NoDecode] = Field(
        examples=["0x5fbdb2315678afecb367f032d93f642f64180aa3"]
    )
    start_block: int | None = Field(None, ge=0, examples=[19_000_000])
    redis_url: RedisDsn = Field(
        RedisDsn("redis://127.0.0.1:6379/0"), examples=["redis://:password@redis:6379/0"]
    )
    backend_socket_url: AnyHttpUrl | None = Field(None, examples=["http://backend:3000"])
    backend_auth_token: SecretStr | None = Field(None, min_length=8, examples=["a-long-random-text"])
    websocket_host: str = Field("127.0.0.1", examples=["0.0.0.0"])  # noqa: S104 - an example
    websocket_port: int = Field(8080, ge=0, le=65535, examples=[8080])

    ohlcv_intervals: Annotated[tuple[Interval, ...], NoDecode] = Field(
        tuple(Interval.parse(name) for name in ("1m", "5m", "15m", "1h", "4h", "1d")),
        examples=["1m,5m,15m,1h,4h,1d"],
    )
    candle_retention: Annotated[dict[str, int | None], NoDecode] = Field(
        default_factory=dict, validate_default=True, examples=["1m=3d,5m=10d,1h=all"]
    )
    trades_retention: int = Field(200, ge=1, le=5_000, examples=[200])
    price_mode: Literal["execution", "spot"] = Field("execution", examples=["spot"])
    native_symbol: str = Field("", max_length=16, examples=["BNB"])

    finality_window: Annotated[FinalityWindow, NoDecode] = Field(
        FinalityWindow(), examples=["64", "300s", "finalized"], validate_default=True
    )
    bloom_policy: Literal["strict", "lenient", "off"] | None = Field(None, examples=["lenient"])
    audit_window: int = Field(64, ge=0, le=5_000, examples=[64])
    audit_blocks_per_s: float = Field(5, gt=0, le=1_000, examples=[5])
    stall_after_ms: int | None = Field(None, ge=0, le=86_400_000, examples=[120_000])
    lease_ms: int = Field(3_000, ge=2_000, le=60_000, examples=[3_000])
    history_requests: int = Field(4, ge=1, le=64, examples=[4])
    batch_size: int = Field(40_000, ge=1, le=200_000, examples=[40_000])
    range_blocks: int = Field(1_000, ge=1, le=100_000, examples=[1_000])
    poll_interval_ms: int = Field(1_000, ge=10, le=600_000, examples=[1_000])
    processing_interval_ms: int = Field(100, ge=0, le=60_000, examples=[100])
    close_grace_ms: int = Field(5_000, ge=0, le=600_000, examples=[5_000])
    rpc_timeout_ms: int = Field(20_000, ge=100, le=600_000, examples=[20_000])
    redis_timeout_ms: int = Field(5_000, ge=100, le=600_000, examples=[5_000])
    backend_ack_timeout_ms: int = Field(10_000, ge=100, le=600_000, examples=[10_000])
    outbox_max_rows: int = Field(100_000, ge=1_000, le=10_000_000, examples=[100_000])
    outbox_max_bytes: int = Field(128_000_000, ge=1_000_000, le=8_000_000_000, examples=[128_000_000])
    market_cache: int = Field(10_000, ge=10, le=1_000_000, examples=[10_000])

    otel_traces: bool = Field(default=False, examples=["true"])

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", examples=["DEBUG"])
    log_file: str | None = Field(None, examples=["listener.log"])

    @field_validator("*", mode="before")
    @classmethod
    def _without_spaces(cls, value: object) -> object:
        return value.strip() if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _level(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("bonding_curve_factory_address", mode="before")
    @classmethod
    def _factories(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(parse_address(part.strip()) for part in value.split(","))

    @field_validator("blockchain_fallback_urls", mode="before")
    @classmethod
    def _urls(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("finality_window", mode="plain")
    @classmethod
    def _finality(cls, value: object) -> FinalityWindow:
        return value if isinstance(value, FinalityWindow) else FinalityWindow.parse(str(value).lower())

    @field_validator("ohlcv_intervals", mode="before")
    @classmethod
    def _intervals(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        intervals = {Interval.parse(part.strip()) for part in value.split(",")}
        return tuple(sorted(intervals, key=lambda interval: interval.ms))

    @field_validator("candle_retention", mode="before")
    @classmethod
    def _retention(cls, value: object) -> object:
        text = value if isinstance(value, str) else ""
        if text.isdigit():
            return {EACH: int(text)}
        return {**_parse_retention(DEFAULT_RETENTION), **(_parse_retention(text) if text else {})}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.backend_socket_url is not None and self.backend_auth_token is None:
            raise ValueError(
                "BACKEND_AUTH_TOKEN is missing: BACKEND_SOCKET_URL needs a token of at least 8 characters, "
                "e.g. BACKEND_AUTH_TOKEN=a-long-random-text"
            )
        if (self.gateway_tls_cert is None) is not (self.gateway_tls_key is None):
            raise ValueError("GATEWAY_TLS_CERT and GATEWAY_TLS_KEY belong together: set both, or neither")
        candles = self.candle_retention.pop(EACH, None)
        if candles is not None:
            for interval in (ONE_MINUTE, *self.ohlcv_intervals):
                self.candle_retention[interval.name] = max(candles * interval.ms, LEAST_MINUTES_MS)
        kept = self.candle_retention.get(ONE_MINUTE.name)
        if kept is not None and kept < LEAST_MINUTES_MS:
            raise ValueError(
                "CANDLE_RETENTION: one-minute candles are the base of the 24 h figures and must be kept "
                "for 2 days at least, e.g. CANDLE_RETENTION=1m=3d"
            )
        if self.environment == "production":
            for name in ("blockchain_http_url", "redis_url", "chain_id"):
                if name not in self.model_fields_set:
                    raise ValueError(
                        f"{name.upper()} is missing: with ENVIRONMENT=production nothing is assumed, "
                        f"e.g. {_example(name)}"
                    )
        return self

    def rules(self) -> Rules:
        """The settings that give candles their meaning."""
        published = frozenset(interval.name for interval in self.ohlcv_intervals)
        others = tuple(interval for interval in self.ohlcv_intervals if interval != ONE_MINUTE)
        intervals = (ONE_MINUTE, *others)
        retention = {
            interval.name: kept
            for interval in intervals
            if (kept := self.candle_retention.get(interval.name)) is not None
        }
        return Rules(
            intervals=intervals,
            published=published,
            price_mode=self.price_mode,
            retention_ms=retention,
            trades_kept=self.trades_retention,
            finality=Finality(
                self.profile.finality_blocks
                if self.finality_window.blocks is None
                else self.finality_window.blocks,
                self.finality_window.seconds * 1000,
            ),
            audit_blocks=self.audit_window,
            factories=frozenset(self.bonding_curve_factory_address),
            native_symbol=self.native_symbol or self.profile.native_symbol,
        )

    @property
    def profile(self) -> ChainProfile:
        """What is known of the chain."""
        return profile(self.chain_id)

    @property
    def finality_tag(self) -> Literal["finalized", "safe"] | None:
        """The block tag that bounds what is final, beside the window; None: the window alone."""
        if self.finality_window == FinalityWindow():
            return "finalized"
        return self.finality_window.tag

    @property
    def bloom(self) -> BloomPolicy:
        """How headers' blooms are used."""
        return self.bloom_policy or self.profile.bloom

    @property
    def stall_s(self) -> float:
        """When a tip that stays the same is reported; 0: never."""
        if self.stall_after_ms is not None:
            return self.stall_after_ms / 1000
        if self.profile.block_ms is None:
            return 0
        return max(STALL_BLOCKS * self.profile.block_ms / 1000, LEAST_STALL_S)

    def fingerprint(self) -> dict[str, str]:
        """Settings that stored data depends on; a change is refused."""
        return {
            "PRICE_MODE": self.price_mode,
            "OHLCV_INTERVALS": ",".join(interval.name for interval in self.ohlcv_intervals),
            "BONDING_CURVE_FACTORY_ADDRESS": ",".join(sorted(self.bonding_curve_factory_address)),
        }

    def secrets(self) -> list[str]:
        """Texts that must never be logged: tokens, passwords, and the paths of provider URLs."""
        found = [self.backend_auth_token.get_secret_value()] if self.backend_auth_token else []
        for url in (
            self.blockchain_http_url,
            *self.blockchain_fallback_urls,
            self.blockchain_audit_url,
            self.blockchain_ws_url,
            self.backend_socket_url,
            self.redis_url,
            self.gateway_redis_url,
        ):
            if url is None:
                continue
            found += [part for part in (url.path or "").split("/") if len(part) >= 8]
            values = (part.partition("=")[2] for part in (url.query or "").split("&"))
            found += [value for value in values if len(value) >= 8]
            found.append(url.password or "")
        return [text for text in found if text]


class ReaderSettings(Settings):
    """Settings of a process that reads what is stored, and follows no chain."""

    bonding_curve_factory_address: Annotated[tuple[Address, ...], NoDecode] = ()


def load_settings(
    kind: type[Settings] = Settings,
    **overrides: Any,  # noqa: ANN401 - settings of any type
) -> Settings:
    """Read and check all settings.

    Args:
        kind: for whom: what must be given differs.
        overrides: take the place of the environment's.

    Raises:
        InvalidConfiguration: names each wrong variable, what is wrong and an example.
    """
    try:
        return kind(**overrides)
    except (ValidationError, DomainError) as error:
        raise InvalidConfiguration(_explain(error)) from None


def _explain(error: ValidationError | DomainError) -> str:
    if isinstance(error, DomainError):
        return str(error)
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        if not name:
            lines.append(message)
            continue
        message = "is missing" if problem["type"] == "missing" else message
        lines.append(f"{name.upper()}: {message}; e.g. {_example(name.lower())}")
    return "\n".join(lines)


def _example(name: str) -> str:
    if name == "env":
        name = "environment"
    field = Settings.model_fields[name]
    return f"{name.upper()}={(field.examples or [''])[0]}"


def _parse_retention(text: str) -> dict[str, int | None]:
    kept: dict[str, int | None] = {}
    for part in text.split(","):
        name, _, length = (piece.strip() for piece in part.partition("="))
        Interval.parse(name)
        if length == FOREVER:
            kept[name] = None
        elif length[-1:] in _UNITS_MS and length[:-1].isdigit() and int(length[:-1]) > 0:
            kept[name] = int(length[:-1]) * _UNITS_MS[length[-1]]
        else:
            raise ValueError(
                f"{part.strip()!r}: write an interval and how long it is kept (m, h, d, w, y or all)"
            )
    return kept
