"""What an endpoint may be, which addresses are public, and secrets in rotation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.addresses import is_public
from listener.application.interfaces import Message, RowId
from listener.application.webhook_rules import check_events, check_note, check_url, parse_row
from listener.application.webhooks import EVENTS, SECRETS_MAX, Secret, message_id
from listener.domain.errors import InvalidValue
from tests.fakes.webhooks import SECRET, endpoint

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "0.1.2.3",  # noqa: S104 - an address to refuse
        "10.1.2.3", "172.16.0.1", "172.31.255.255",
        "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.7", "192.88.99.1", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1",
        "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1",
        "2002:7f00:1::1", "2002:a00:1::", "2001:0:a00:1::", "100::1",
    ],
)  # fmt: skip
def test_addresses_of_ours_are_not_public(address: str) -> None:
    """Hosts, networks and clouds of ours, and whatever stands for them in another notation."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "169.253.1.1",
     "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)  # fmt: skip
def test_addresses_of_everybody_are_public(address: str) -> None:
    """Right beside the others as well."""
    assert is_public(address)


@given(st.integers(0, 2**32 - 1))
def test_notations_agree(number: int) -> None:
    """An IPv4 address is as public as what carries it."""
    plain = ".".join(str(byte) for byte in number.to_bytes(4))
    for carried in (f"::ffff:{plain}", f"64:ff9b::{plain}"):
        assert is_public(carried) == is_public(plain), carried


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "https://"),
        ("example.org/hooks", "https://"),
        ("ftp://example.org/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("https://", "https://"),
        ("https:///path", "https://"),
        ("https://example.org:0/", "https://"),
        ("https://example.org:99999/", "url"),
        ("https://example.org:port/", "url"),
        ("https://[::1/", "url"),
        ("https://user:password@example.org/", "no user"),
        ("https://example.org/#here", "no user"),
        ("https://example.org/a b", "printable"),
        ("https://example.org/\r\nX-Evil: 1", "printable"),
        ("https://exämple.org/", "printable"),
        ("https://example.org/" + "x" * 2_048, "2048"),
        ("http://example.org/", "https"),
    ],
)
def test_urls_that_cannot_be(url: str, why: str) -> None:
    """Each says why."""
    with pytest.raises(InvalidValue, match=why):
        check_url(url, insecure=False)


def test_urls_that_can_be() -> None:
    """Any port and path; plain HTTP where that is allowed."""
    for url in ("https://example.org", "https://example.org:8443/a?b=c", "https://[2606:4700::1]/x"):
        assert check_url(url, insecure=False) == url
    assert check_url("http://example.org/", insecure=True)


def test_events_are_those_of_the_contract() -> None:
    """In their usual order, each once; an unknown one is named."""
    assert check_events(["alert", "trade_update", "alert"]) == ("trade_update", "alert")
    assert check_events(()) == ()
    with pytest.raises(InvalidValue, match="'trades'"):
        check_events(["alert", "trades"])
    assert all(endpoint("one").wants(event) for event in EVENTS)
    assert [event for event in EVENTS if endpoint("one", "alert").wants(event)] == ["alert", "resync"]


def test_notes_are_short() -> None:
    """And can be shown."""
    assert check_note("ops, ü") == "ops, ü"
    for note in ("x" * 201, "a\x1b[2J"):
        with pytest.raises(InvalidValue):
            check_note(note)


@pytest.mark.parametrize("text", ["", "8", "-", "1-", "-1", "1-2-3", "a-b", "1-²", "1" * 50 + "-1", "+1-2"])
def test_rows_that_cannot_be(text: str) -> None:
    """A row's number is two whole numbers."""
    with pytest.raises(InvalidValue):
        parse_row(text)
    assert parse_row("1767225600123-8") == RowId(1767225600123, 8)


def test_ids_tell_rows() -> None:
    """No two messages of a stream have the same."""
    assert message_id("31337", Message("alert", 5, 8, 11, ())) == "31337-5-8-11"


def test_secrets_in_rotation() -> None:
    """Both sign until the overlap is over, then the new one alone; there are never more than a few."""
    now = 1_000_000
    rotated = endpoint("one").rotated("whsec_bmV3", now, DAY_MS)
    assert rotated.signing(now + DAY_MS) == ["whsec_bmV3", SECRET]
    assert rotated.signing(now + DAY_MS + 1) == ["whsec_bmV3"]
    again = rotated.rotated("whsec_bmV3ZXI=", now + 1, 10 * DAY_MS)
    assert again.secrets[2] == Secret(SECRET, now + DAY_MS), "a later rotation prolongs nothing"
    assert endpoint("one").rotated("whsec_bmV3", now, 0).signing(now) == ["whsec_bmV3"]
    for number in range(9):
        again = again.rotated(f"whsec_{number}", now + 2, DAY_MS)
    assert len(again.secrets) == SECRETS_MAX
    assert again.signing(now + 2)[0] == "whsec_8"
