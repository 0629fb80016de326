"""The socket that others connect to, opened once and handed on."""

import errno
import socket
import ssl
from pathlib import Path
from typing import Final

from listener.application.errors import InvalidConfiguration

PORTS_TRIED: Final = 10
BACKLOG: Final = 2_048
"""Connections that wait to be accepted."""


def listen(host: str, port: int, *, tries: int = PORTS_TRIED) -> socket.socket:
    """A socket that listens at `port` or, where it is in use, at one of the next.

    Several instances on one host then work without settings of their own.

    Args:
        host: address or name of ours; empty: all addresses.
        port: 0: a free one.
        tries: how many ports are tried.

    Raises:
        OSError: they are all in use, or the address is not ours.
    """
    last = min(port + tries, 65_536) if port else 1
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(port, last):
        try:
            listening = socket.create_server((host, number), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or number == last - 1:
                raise
        else:
            listening.settimeout(0)
            return listening
    raise OSError(errno.EADDRINUSE, f"no port from {port} on is free")


def port_of(listening: socket.socket) -> int:
    """Where a socket listens."""
    return int(listening.getsockname()[1])


def server_tls(certificate: Path | None, private_key: Path | None) -> ssl.SSLContext | None:
    """What a server needs to speak TLS; None: it shall not.

    Raises:
        InvalidConfiguration: the files cannot be used.
    """
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, private_key)
    except OSError as error:
        raise InvalidConfiguration(f"GATEWAY_TLS_CERT, GATEWAY_TLS_KEY: cannot be used: {error}") from error
    return context
