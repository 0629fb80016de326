"""What a webhook endpoint may be, checked where operators write it."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from listener.application.interfaces import RowId
from listener.application.webhooks import EVENTS
from listener.domain.errors import InvalidValue

URL_CHARACTERS_MAX: Final = 2_048
NOTE_CHARACTERS_MAX: Final = 200
ROW_CHARACTERS_MAX: Final = 40


def check_url(url: str, *, insecure: bool) -> str:
    """A URL that an endpoint may have. Where its host's name leads to is looked at with each request.

    Args:
        url: as an operator wrote it.
        insecure: plain HTTP is allowed.

    Raises:
        InvalidValue: it cannot be one; says why.
    """
    if len(url) > URL_CHARACTERS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidValue(f"url: at most {URL_CHARACTERS_MAX} printable ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidValue(f"url: {error}") from error
    if parts.scheme not in ("https", "http") or not host or port == 0:
        raise InvalidValue("url: write https://, a host, and a path")
    if parts.scheme == "http" and not insecure:
        raise InvalidValue("url: it must be https:// here (WEBHOOKS_ALLOW_PRIVATE=true allows http://)")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidValue("url: no user, no password and no fragment; the signature tells who sends")
    return url


def check_events(events: Sequence[str]) -> tuple[str, ...]:
    """Events to subscribe to, each once, in their usual order; none: all.

    Raises:
        InvalidValue: names one that there is not.
    """
    wanted = set(events)
    if unknown := sorted(wanted - set(EVENTS)):
        raise InvalidValue(f"events: no event {unknown[0][:40]!r}; there are {', '.join(EVENTS)}")
    return tuple(event for event in EVENTS if event in wanted)


def check_note(note: str) -> str:
    """A note.

    Raises:
        InvalidValue: it is too long, or has characters that cannot be shown.
    """
    if len(note) > NOTE_CHARACTERS_MAX or (note and not note.isprintable()):
        raise InvalidValue(f"note: at most {NOTE_CHARACTERS_MAX} printable characters")
    return note


def literal_host(url: str) -> str:
    """The address that a URL names as such; empty: it names a host."""
    host = urlsplit(url).hostname or ""
    try:
        return str(ip_address(host))
    except ValueError:
        return ""


def parse_row(text: str) -> RowId:
    """A row's number, `<epoch>-<seq>`.

    Raises:
        InvalidValue: it is none.
    """
    epoch, _, seq = text.partition("-")
    if not (epoch.isdecimal() and seq.isdecimal() and len(text) <= ROW_CHARACTERS_MAX and text.isascii()):
        raise InvalidValue("write rows as <epoch>-<seq>, e.g. 1767225600123-8")
    return RowId(int(epoch), int(seq))
