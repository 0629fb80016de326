"""Settings of the gateway: who may reach it, and how it is reached."""

import ipaddress
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, RedisDsn, field_validator
from pydantic_settings import BaseSettings, NoDecode

from listener.application.errors import InvalidConfiguration
from listener.infrastructure.gateway.keys import ApiKey
from listener.infrastructure.gateway.writes import is_loopback

KEYS_MAX: Final = 1_000


class GatewaySettings(BaseSettings):
    """A part of `Settings`."""

    gateway_enabled: bool = Field(default=True, examples=["false"])
    gateway_public: bool = Field(default=False, examples=["true"])
    gateway_api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = Field(
        (), max_length=KEYS_MAX, examples=["charts:read+stream:" + "0" * 64]
    )
    gateway_cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), examples=["https://app.example.org,https://other.example.org"]
    )
    gateway_rate_per_s: int = Field(50, ge=0, le=1_000_000, examples=[50])
    gateway_rate_burst: int = Field(200, ge=1, le=1_000_000, examples=[200])
    gateway_key_rate_per_s: int = Field(500, ge=0, le=1_000_000, examples=[500])
    gateway_key_rate_burst: int = Field(1_000, ge=1, le=1_000_000, examples=[1_000])
    gateway_connections_max: int = Field(5_000, ge=1, le=1_000_000, examples=[5_000])
    gateway_coalesce_ms: int = Field(250, ge=0, le=60_000, examples=[250])
    gateway_trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), examples=["10.0.0.1,192.168.0.0/16"]
    )
    gateway_tls_cert: Path | None = Field(None, examples=["/etc/ssl/gateway.crt"])
    gateway_tls_key: Path | None = Field(None, examples=["/etc/ssl/gateway.key"])
    gateway_redis_url: RedisDsn | None = Field(None, examples=["redis://reader:password@replica:6379/0"])

    @field_validator("gateway_api_keys", mode="before")
    @classmethod
    def _keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        keys = tuple(ApiKey.parse(part.strip()) for part in value.split(","))
        if len({key.id for key in keys}) < len(keys):
            raise ValueError("two keys have the same id")
        return keys

    @field_validator("gateway_trusted_proxies", mode="before")
    @classmethod
    def _proxies(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(str(ipaddress.ip_network(part.strip())) for part in value.split(","))

    @field_validator("gateway_cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = tuple(part.strip().rstrip("/") for part in value.split(","))
        if any(origin != "*" and not origin.startswith(("http://", "https://")) for origin in origins):
            raise ValueError("write origins: http:// or https:// and a host, or *")
        return origins


def check_exposure(settings: GatewaySettings, host: str, environment: str) -> None:
    """Refuse to open in production what nobody has said to be public.

    Args:
        settings: of the gateway.
        host: where it would listen.
        environment: that of the service.

    Raises:
        InvalidConfiguration: names the two ways on.
    """
    if environment != "production" or is_loopback(host):
        return
    if not settings.gateway_api_keys and not settings.gateway_public:
        raise InvalidConfiguration(
            f"with ENVIRONMENT=production the gateway does not listen at {host} for everybody: set "
            "GATEWAY_API_KEYS (`listener api-key` makes one), or GATEWAY_PUBLIC=true if anybody may read, "
            "or WEBSOCKET_HOST=127.0.0.1, or GATEWAY_ENABLED=false"
        )
