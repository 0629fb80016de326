"""API keys: made here, kept as digests only.

A key is `<id>.<secret>`: the id finds the key, the secret has 256 random bits. A password needs a slow hash
because it can be guessed; so many random bits cannot, and SHA-256 is checked in a microsecond.
"""

import hashlib
import hmac
import re
import secrets
from enum import StrEnum
from typing import Final, NamedTuple, Self

ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
KEY_CHARACTERS_MAX: Final = 128
"""A longer text is no key, and is not hashed."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Scope(StrEnum):
    """What a key is good for."""

    READ = "read"
    STREAM = "stream"
    ADMIN = "admin"


class ApiKey(NamedTuple):
    """A key as it is kept.

    Attributes:
        id: names the key in logs and limits; not secret.
        scopes: what it is good for.
        digest: SHA-256 of the whole key, hex.
    """

    id: str
    scopes: frozenset[Scope]
    digest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """`<id>:<scope>+<scope>:<digest>`.

        Raises:
            ValueError: it is something else.
        """
        name, _, rest = text.partition(":")
        scopes, _, digest = rest.partition(":")
        known = {scope.value: scope for scope in Scope}
        wanted = scopes.split("+")
        if not (_ID.fullmatch(name) and _DIGEST.fullmatch(digest) and known.keys() >= set(wanted)):
            raise ValueError(
                "write <id>:<scopes>:<SHA-256>, scopes of read, stream and admin joined by +; "
                "`listener api-key` makes one"
            )
        return cls(name, frozenset(known[scope] for scope in wanted), digest)

    def __str__(self) -> str:
        """What `parse` reads."""
        return f"{self.id}:{'+'.join(sorted(self.scopes))}:{self.digest}"

    def opens(self, key: str) -> bool:
        """Whether this is the key, in a time that does not depend on where it differs."""
        return hmac.compare_digest(digest_of(key), self.digest)


def digest_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def make_key(scopes: frozenset[Scope], name: str = "") -> tuple[str, ApiKey]:
    """A new key, and what is kept of it.

    Args:
        scopes: what it is good for.
        name: its id; empty: a random one.

    Raises:
        ValueError: the name has other characters than letters, digits, `-` and `_`, or more than 32.
    """
    name = name or secrets.token_hex(ID_BYTES)
    if not _ID.fullmatch(name):
        raise ValueError("a name has 1 to 32 letters, digits, - or _")
    key = f"{name}.{secrets.token_urlsafe(SECRET_BYTES)}"
    return key, ApiKey(name, scopes, digest_of(key))
