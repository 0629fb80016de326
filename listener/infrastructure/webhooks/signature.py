"""Signatures of webhooks by Standard Webhooks 1.0: HMAC-SHA256 over `<id>.<timestamp>.<body>`.

Standard library only, so that a receiver may take this file as it is. `web/client/webhooks.js` does the same.
"""

import binascii
import hashlib
import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Final

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
PREFIX: Final = "whsec_"
VERSION: Final = "v1"
TOLERANCE_S: Final = 300
"""How far a timestamp may be from our clock, either way."""
SIGNATURES_MAX: Final = 16
"""Signatures of one request that are looked at."""


class InvalidWebhook(ValueError):
    """A request that is not to be trusted; the message says why."""


def key_of(secret: str) -> bytes:
    """The key in a secret.

    Raises:
        ValueError: it is not `whsec_` and base64.
    """
    if not secret.startswith(PREFIX):
        raise ValueError("a webhook secret begins with whsec_")
    try:
        return b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is whsec_ and base64") from error


def sign(secrets: Sequence[str], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers of a request.

    Args:
        secrets: each signs.
        message_id: idempotency key.
        timestamp_s: of this attempt, Unix seconds.
        body: as it is sent.

    Raises:
        ValueError: a secret is malformed.
    """
    signatures = (f"{VERSION},{_signature(secret, message_id, str(timestamp_s), body)}" for secret in secrets)
    return {ID: message_id, TIMESTAMP: str(timestamp_s), SIGNATURE: " ".join(signatures)}


def verify(
    secrets: str | Sequence[str],
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    tolerance_s: float = TOLERANCE_S,
    now_s: float | None = None,
) -> str:
    """Make sure that a request is from whoever knows a secret, whole, and fresh.

    Args:
        secrets: one, or several while they are rotated: any of them will do.
        headers: of the request; names in any case.
        body: of the request, the very bytes that arrived.
        tolerance_s: how far its timestamp may be from now, either way.
        now_s: Unix seconds; None: the clock's.

    Returns:
        The message's id: the same for each attempt, so drop what has been handled.

    Raises:
        InvalidWebhook: it is not to be trusted.
        ValueError: a secret of ours is malformed, or there is none.
    """
    known = [secrets] if isinstance(secrets, str) else list(secrets)
    if not known:
        raise ValueError("no webhook secret")
    found = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, stamp, shown = (found[name] for name in (ID, TIMESTAMP, SIGNATURE))
    except KeyError as missing:
        raise InvalidWebhook(f"no header {missing.args[0]}") from None
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 15):
        raise InvalidWebhook("webhook-timestamp is not Unix seconds")
    if abs((time.time() if now_s is None else now_s) - int(stamp)) > tolerance_s:
        raise InvalidWebhook("webhook-timestamp is too far from now")
    raw = body.encode() if isinstance(body, str) else body
    expected = [_signature(secret, message_id, stamp, raw).encode() for secret in known]
    given = [_given(part) for part in shown.split(" ")[:SIGNATURES_MAX]]
    matches = [hmac.compare_digest(one, other) for one in expected for other in given]
    if not any(matches):
        raise InvalidWebhook("no signature is of a secret that we know")
    return message_id


def _given(part: str) -> bytes:
    version, _, signature = part.partition(",")
    return signature.encode() if version == VERSION else b""


def _signature(secret: str, message_id: str, stamp: str, body: bytes) -> str:
    signed = b".".join((message_id.encode(), stamp.encode(), body))
    return b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()
