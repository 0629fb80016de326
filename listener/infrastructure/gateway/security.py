"""Who may ask, and how often: keys, scopes and rates."""

import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from throttled import MemoryStore, Throttled
from throttled.rate_limiter import per_sec

from listener.infrastructure.gateway.keys import KEY_CHARACTERS_MAX, ApiKey, Scope
from listener.infrastructure.gateway.writes import by_a_stranger

CALLERS_MAX: Final = 20_000
"""Addresses, and keys, whose rates are remembered, 400 bytes each or so; those not seen longest go first."""
IPV6_PREFIX: Final = 64
"""One customer has so many leading bits, and all addresses below them."""


class Rate(NamedTuple):
    """So many requests a second on average, and so many at once. 0 a second: no limit."""

    per_s: int
    burst: int


UNLIMITED: Final = Rate(0, 0)


class Caller(NamedTuple):
    """Whoever asks.

    Attributes:
        key: id of the key; empty: none was given, and none is needed.
        address: where the request comes from.
        scopes: what they may.
    """

    key: str
    address: str
    scopes: frozenset[Scope]


class Refused(Exception):
    """A caller is not let in.

    Attributes:
        status: HTTP status.
        code: a word for programs.
        retry_after_s: when to come again, for 429.
    """

    def __init__(self, status: int, code: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


class Limiter:
    """Rates of many callers, each with a bucket of its own (GCRA: a token bucket that needs no refilling)."""

    def __init__(self, rate: Rate, callers_max: int = CALLERS_MAX) -> None:
        self._throttled: Throttled | None = None
        if rate.per_s:
            store = MemoryStore(options={"MAX_SIZE": callers_max})
            quota = per_sec(rate.per_s, burst=rate.burst)
            self._throttled = Throttled(using="gcra", quota=quota, store=store)

    def wait_s(self, caller: str) -> float:
        """Count a request; 0 if it is within the rate, otherwise the seconds until one will be."""
        if self._throttled is None:
            return 0.0
        result = self._throttled.limit(caller)
        return max(result.state.retry_after, 0.001) if result.limited else 0.0


class Security:
    """Keys, scopes and rates. With no keys everybody may do everything, within the rate of an address.

    Args:
        keys: that are accepted.
        per_address: rate of those who show no key.
        per_key: rate of each key.
        local: only this host reaches us, so that without keys everybody may change things, too.
    """

    def __init__(
        self,
        keys: Sequence[ApiKey] = (),
        per_address: Rate = UNLIMITED,
        per_key: Rate = UNLIMITED,
        *,
        local: bool = False,
    ) -> None:
        self._local = local
        self._keys = {key.id: key for key in keys}
        self._refused: Counter[str] = Counter()
        self._addresses, self._rates = Limiter(per_address), Limiter(per_key)

    @property
    def needs_key(self) -> bool:
        """Whether anybody needs one."""
        return bool(self._keys)

    def health_check(self) -> dict[str, object]:
        """How many were refused, by the word they got."""
        return {"keys": len(self._keys), "refused": dict(self._refused)}

    def authenticate(self, key: str | None, address: str) -> Caller:
        """Who is behind a key; nothing is counted.

        Raises:
            Refused: keys are needed and this is none (401).
        """
        if not self._keys:
            return Caller("", address, frozenset(Scope))
        known = self._known(key)
        if known is None:
            said = "the API key is not known" if key else "an API key is needed"
            raise Refused(401, "unauthorized", said)
        return Caller(known.id, address, known.scopes)

    def admit(self, key: str | None, address: str, scope: Scope | None) -> Caller:
        """Who asks for something that needs `scope`, counted against the rate of the key or the address.

        A key that is not known counts against the address, so that guessing is slow.

        Args:
            key: that was shown.
            address: where the request comes from.
            scope: None: anybody may, with or without a key.

        Raises:
            Refused: not known (401), not allowed (403), too often (429).
        """
        try:
            return self._admit(key, address, scope)
        except Refused as refused:
            self._refused[refused.code] += 1
            raise

    def admit_change(self, headers: Mapping[bytes, bytes]) -> None:
        """After `admit`, for a request that may change something.

        Raises:
            Refused: there are no keys, and somebody else than this host's users may be asking (403).
        """
        if self._keys or (self._local and not by_a_stranger(headers)):
            return
        self._refused["forbidden"] += 1
        raise Refused(
            403,
            "forbidden",
            "without GATEWAY_API_KEYS a gateway only lets users of its own host change something, at a "
            "loopback address, and no page of another host",
        )

    def _admit(self, key: str | None, address: str, scope: Scope | None) -> Caller:
        known = self._known(key)
        wait_s = self._rates.wait_s(known.id) if known else self._addresses.wait_s(network_of(address))
        if wait_s:
            raise Refused(429, "too_many_requests", f"too many requests, wait {wait_s:.2f} s", wait_s)
        if scope is None:
            return Caller(known.id if known else "", address, known.scopes if known else frozenset())
        caller = self.authenticate(key, address)
        if scope not in caller.scopes:
            raise Refused(403, "forbidden", f"the API key lacks the scope {scope}")
        return caller

    def _known(self, key: str | None) -> ApiKey | None:
        if not key or len(key) > KEY_CHARACTERS_MAX:
            return None
        known = self._keys.get(key.partition(".")[0])
        return known if known and known.opens(key) else None


def network_of(address: str) -> str:
    """What an address counts as: itself, or the network of an IPv6 customer."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX), strict=False))
