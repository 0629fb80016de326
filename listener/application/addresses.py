"""Which addresses are public: everybody's, and nobody's own network, host or cloud."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_NAT64: Final = IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = IPv6Network("::/96")
_NOT_PUBLIC: Final = tuple(
    map(
        ip_network,
        (
            "100.64.0.0/10",  # carrier-grade NAT (RFC 6598), and metadata of a cloud
            "168.63.129.16/32",  # a cloud's own services, at an address that looks public
            "192.0.0.0/24",  # protocol assignments (RFC 6890), and metadata of a cloud
            "192.88.99.0/24",  # former 6to4 relays (RFC 7526)
            "64:ff9b:1::/48",  # local NAT64 (RFC 8215)
            "fec0::/10",  # former site-local addresses (RFC 3879)
        ),
    )
)


def is_public(address: str) -> bool:
    """Whether an address is a public one. What it carries in itself, as mapped ones do, counts as well.

    Args:
        address: in the usual notation, with or without a zone.

    Raises:
        ValueError: it is none.
    """
    return all(map(_alone, _carried(ip_address(address.partition("%")[0]))))


def _alone(address: IPv4Address | IPv6Address) -> bool:
    if address.is_multicast or address.is_reserved or address.is_unspecified or not address.is_global:
        return False
    return not any(address.version == net.version and address in net for net in _NOT_PUBLIC)


def _carried(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """An address, or the IPv4 ones that it stands for."""
    if isinstance(address, IPv4Address):
        yield address
        return
    last = IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.ipv4_mapped or (address in _COMPATIBLE and int(address) > 1) or address in _NAT64:
        yield last
        return
    yield address
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
