"""Who may change something: a key with the scope `admin`; without keys, whoever is on this host."""

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""


def is_loopback(host: str) -> bool:
    """Whether only this host reaches an address. A name other than `localhost` counts as one for all."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def by_a_stranger(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a page of another host asks: browsers name the page's origin with everything that changes.

    A browser on this host reaches a gateway that is open to this host only. What another site's page may not
    read it could still change, and with a name that leads here, it could do both.
    """
    origin = headers.get(b"origin", b"").decode("latin-1")
    host = headers.get(b"host", b"").decode("latin-1")
    try:
        named = [urlsplit(text).hostname or "" for text in (origin, f"//{host}" if host else "") if text]
        return not all(map(is_loopback, named))
    except ValueError:
        return True
