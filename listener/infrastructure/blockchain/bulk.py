"""Reading trades out of a large reply without decoding it: the logs of one event differ only in their digits.

The first log of an event, decoded, is the template of the others of its length: what is not a digit of a
value must be the same byte for byte, the values are cut out by their places. Whatever differs in any other
way is decoded like every log, so that a node may write its replies as it likes.
"""

import re
from binascii import unhexlify
from collections.abc import Iterable, Mapping, Sequence
from string import hexdigits
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from listener.application.errors import InconsistentReply, NodeUnavailable
from listener.infrastructure.blockchain.venues.venue import TradeLayout
from listener.infrastructure.blockchain.wire import UNREADABLE, Log
from listener.infrastructure.columns import ADDRESS, Columns
from listener.infrastructure.exact import Bytes, Flags, Halves, Integers

Pairs = npt.NDArray[np.uint16]

WORD: Final = 64
"""Hex digits of a data word, of a topic and of a hash."""
MOST_DIGITS: Final = 12
"""Of a block number or a log's index."""
ROWS_AT_ONCE: Final = 2_048
"""Logs that fit into a processor's cache."""
MOST_TEMPLATES: Final = 64
"""So many kinds of logs in one reply, at most: each costs a look at all that are left."""

_VALUE: Final = re.compile(rb'"0x([0-9a-fA-F]*)"')
_PLAIN: Final = re.compile("0x[0-9a-fA-F]*")
_ALL_HEX: Final = re.compile(b"[0-9a-fA-F]+")
_LOG: Final = msgspec.json.Decoder(Log)
_LOGS: Final = msgspec.json.Decoder(list[Log])
_EIGHT_ZEROS: Final = np.frombuffer(b"00000000", np.uint64)[0]
_NOT_HEX: Final = 256
_TOPICS: Final = b'"topics":["'
_FIRST_BYTE: Final = ord("{")
_ZERO, _A = np.uint8(ord("0")), np.uint8(ord("a"))


def _pairs(digits: str) -> Pairs:
    """The byte that two hex digits stand for, by the two as a 16-bit integer; `_NOT_HEX` for all others."""
    table = np.full(2**16, _NOT_HEX, np.uint16)
    for high in digits:
        for low in digits:
            table[np.frombuffer((high + low).encode(), np.uint16)[0]] = int(high + low, 16)
    return table


_HEX: Final = _pairs("0123456789abcdefABCDEF")
_DIGITS: Final = np.array(
    [int(chr(one), 16) if chr(one) in hexdigits else 255 for one in range(256)], np.uint8
)


class Reading(NamedTuple):
    """What a reply holds.

    Attributes:
        hashes: of the blocks with logs, by number.
        trades: those that have their layout's form; their `refs` are still missing.
        others: all other logs.
    """

    hashes: Mapping[int, str]
    trades: Columns | None
    others: Sequence[Log]


def read(reply: bytes | memoryview, layouts: Mapping[str, TradeLayout]) -> Reading:
    """Read a list of logs.

    Raises:
        NodeUnavailable: it is none.
        InconsistentReply: logs of one block name two hashes, or one hash two numbers, or no place at all.
    """
    starts = _starts(reply)
    parts, left = _parts(reply, starts, layouts)
    if parts:
        others = _decoded(reply, starts, left)
        trades = _in_order(parts, left, others)
        if trades is not None:
            return Reading(_hashes(parts, others), trades, others)
    everything = _all(reply)
    return Reading(_hashes((), everything), None, everything)


def _starts(reply: bytes | memoryview) -> Integers:
    """Where each log begins, and where one behind the last would; nothing where that is not plain to see."""
    found = np.frombuffer(reply, np.uint8)
    starts = np.flatnonzero(found == _FIRST_BYTE)
    if (
        not len(starts)
        or starts[0] != 1
        or reply[-2:] != b"}]"
        or (found[starts[1:] - 1] != ord(",")).any()
        or (found[starts[1:] - 2] != ord("}")).any()
    ):
        return np.zeros(1, np.int64)
    return np.append(starts, len(reply))


def _decoded(reply: bytes | memoryview, starts: Integers, rows: Integers) -> list[Log]:
    try:
        return [_LOG.decode(reply[starts[row] : starts[row + 1] - 1]) for row in rows.tolist()]
    except UNREADABLE as error:
        raise NodeUnavailable(f"unreadable logs: {error}") from error


def _all(reply: bytes | memoryview) -> list[Log]:
    try:
        return _LOGS.decode(reply)
    except UNREADABLE as error:
        raise NodeUnavailable(f"unreadable logs: {error}") from error


class _Part(NamedTuple):
    """Trades that fit one template, which logs of the reply they are, and their blocks' hashes by number."""

    rows: Integers
    columns: Columns
    hashes: Mapping[int, str]


def _parts(
    reply: bytes | memoryview, starts: Integers, layouts: Mapping[str, TradeLayout]
) -> tuple[list[_Part], Integers]:
    """What fits templates, and which logs fit none."""
    lengths = np.diff(starts)
    left = np.arange(len(lengths))
    parts: list[_Part] = []
    rest: list[Integers] = []
    for _ in range(MOST_TEMPLATES):
        if not len(left):
            break
        first = left[0]
        sample = bytes(reply[starts[first] : starts[first + 1] - 1])
        template = _Template.of(sample, layouts)
        windows = sliding_window_view(np.frombuffer(reply, np.uint8), len(sample))
        alike = left[lengths[left] == lengths[first]]
        if template is None:
            alike = alike[_of_same_event(windows[starts[alike]], sample)]
            rest.append(alike)
            left = left[~np.isin(left, alike, assume_unique=True)]
            continue
        taken = [np.zeros(0, np.int64)]
        for at in range(0, len(alike), ROWS_AT_ONCE):
            rows = alike[at : at + ROWS_AT_ONCE]
            logs = np.zeros((len(rows), _whole(template.length)), np.uint8)
            logs[:, : template.length] = windows[starts[rows]]
            part = template.part(rows, logs)
            if part is not None:
                parts.append(part)
                taken.append(part.rows)
        left = left[~np.isin(left, np.concatenate(taken), assume_unique=True)]
        if len(left) and left[0] == first:
            rest.append(left[:1])
            left = left[1:]
    return parts, np.sort(np.concatenate([*rest, left]))


def _of_same_event(logs: Bytes, sample: bytes) -> Flags:
    """Which logs have the sample's first topic, in its place; only the sample itself where it has none."""
    at = sample.find(_TOPICS)
    same = np.zeros(len(logs), np.bool_)
    same[0] = True
    if at < 0:
        return same
    topic = slice(at, at + len(_TOPICS) + len("0x") + WORD)
    same |= (logs[:, topic] == np.frombuffer(sample[topic], np.uint8)).all(axis=1)
    return same


def _in_order(parts: Sequence[_Part], rows: Integers, others: Sequence[Log]) -> Columns | None:
    """All trades in the order of the reply; None if that is not the order of the chain."""
    places = [log.place() for log in others]
    row = np.concatenate([*(part.rows for part in parts), rows])
    block = np.concatenate([*(part.columns.block for part in parts), [block for block, _ in places]])
    index = np.concatenate([*(part.columns.log_index for part in parts), [index for _, index in places]])
    order = np.argsort(row)
    block, index = block[order], index[order]
    later = (block[1:] > block[:-1]) | ((block[1:] == block[:-1]) & (index[1:] > index[:-1]))
    if not later.all():
        return None
    trades = parts[0].columns.joined([part.columns for part in parts[1:]])
    return trades.rows(np.argsort(np.concatenate([part.rows for part in parts])))


def _hashes(parts: Iterable[_Part], others: Iterable[Log]) -> dict[int, str]:
    """Hashes of all blocks by number."""
    hashes: dict[int, str] = {}
    told = [pair for part in parts for pair in part.hashes.items()]
    for number, text in (*told, *((log.place()[0], log.block_hash.lower()) for log in others)):
        if hashes.setdefault(number, text) != text:
            raise InconsistentReply(f"logs of two blocks {number}")
    if len(set(hashes.values())) != len(hashes):
        raise InconsistentReply("logs of one block under two numbers")
    return hashes


class _Template:
    """Where the logs of one event and length have their values.

    Args:
        sample: one of them.
        spans: where its values' digits are, by name; topics as `topic0`, `topic1`, ….
        layout: of the event.
    """

    def __init__(self, sample: bytes, spans: Mapping[str, slice], layout: TradeLayout) -> None:
        self.length = len(sample)
        self._layout = layout
        self._spans = spans
        self._sample = np.frombuffer(sample.ljust(_whole(self.length), b"\0"), np.uint8)
        varying = np.zeros(len(self._sample), np.bool_)
        for match in _VALUE.finditer(sample):
            varying[match.start(1) : match.end(1)] = True
        addresses = [index for index in (layout.trader, layout.market) if index is not None]
        for name in ("topic0", *(f"topic{index}" for index in addresses)):
            varying[spans[name]] = False
        trader, *market = (_last(spans[f"topic{index}"], ADDRESS) for index in addresses)
        self._told = [spans["address"], trader, spans["transactionHash"], *market]
        for span in self._told:
            varying[span] = True
        self._constant = np.where(varying, 0, 255).astype(np.uint8)
        for span in (
            *self._told,
            *(spans[name] for name in ("data", "blockHash", "blockNumber", "logIndex")),
        ):
            varying[span] = False
        self._unused = np.flatnonzero(varying)

    @classmethod
    def of(cls, sample: bytes, layouts: Mapping[str, TradeLayout]) -> "_Template | None":
        """The template that a log is; None if it is no trade of a layout, or not in its plainest form."""
        try:
            log = _LOG.decode(sample)
        except UNREADABLE:
            return None
        layout = layouts.get(log.topics[0]) if log.topics else None
        if layout is None or len(log.topics) != layout.topics:
            return None
        spans = _spans(sample, log)
        digits = {"address": ADDRESS, "transactionHash": WORD, "blockHash": WORD, "data": WORD * layout.words}
        digits |= {f"topic{index}": WORD for index in range(layout.topics)}
        if any(name not in spans or _width(spans[name]) != width for name, width in digits.items()):
            return None
        for name in ("blockNumber", "logIndex"):
            if name not in spans or not 1 <= _width(spans[name]) <= MOST_DIGITS:
                return None
        padded = (index for index in (layout.trader, layout.market) if index is not None)
        if any(log.topics[index][2:26].strip("0") for index in padded):
            return None
        return cls(sample, spans, layout)

    def part(self, rows: Integers, logs: Bytes) -> _Part | None:
        """Those of some logs of the right length that fit.

        Args:
            rows: which they are in the reply.
            logs: a row of whole words for each, zero bytes at the end.
        """
        layout = self._layout
        good = _every(((logs ^ self._sample) & self._constant).view(np.uint64) == 0)
        if not good.all():  # another form: its digits are elsewhere
            rows, logs = rows[good], logs[good]
            good = np.ones(len(rows), np.bool_)
        if not len(rows):
            return None
        if len(self._unused):
            good &= _every(_DIGITS[logs[:, self._unused]] < 16)
        told = np.hstack([logs[:, span] for span in self._told])
        good &= _every((told - _ZERO <= 9) | (told - _A <= 5))
        words, whole = _halves(np.ascontiguousarray(logs[:, self._spans["data"]]))
        is_buy = words[:, layout.is_buy]
        good &= whole & (is_buy[:, 0] == 0) & (is_buy[:, 1] <= 1)
        log_index, counted = _numbers(logs[:, self._spans["logIndex"]])
        good &= counted
        blocks = self._blocks(logs, good)
        if blocks is None:
            return None
        block, hashes = blocks
        kept = np.flatnonzero(good)
        if not len(kept):
            return None
        named = told[kept, -ADDRESS:]
        if layout.market is None:
            named = np.zeros_like(named)
        reserves = layout.reserves or (0, 0)
        columns = Columns(
            {},
            block[kept],
            log_index[kept],
            np.hstack([told[kept, :ADDRESS], named]),
            told[kept, 2 * ADDRESS : 2 * ADDRESS + WORD],
            told[kept, ADDRESS : 2 * ADDRESS],
            is_buy[kept, 1] == 1,
            words[np.ix_(kept, np.array([layout.base, layout.quote, layout.fee or 0, *reserves]))],
            np.full(len(kept), layout.fee is not None),
            np.full(len(kept), layout.reserves is not None),
        )
        own = {number: hashes[number] for number in set(columns.block.tolist())}
        return _Part(rows[kept], columns, own)

    def _blocks(self, logs: Bytes, good: Flags) -> tuple[Integers, dict[int, str]] | None:
        """Each log's block number, and the hashes by number; None where a number has two."""
        told = np.hstack([logs[:, self._spans["blockNumber"]], logs[:, self._spans["blockHash"]]])
        first = np.append(True, (told[1:] != told[:-1]).any(axis=1))
        numbers: list[int] = []
        hashes: dict[int, str] = {}
        for text in told[first]:
            digits = text.tobytes()
            number = int(digits[:-WORD], 16) if _ALL_HEX.fullmatch(digits) else -1
            numbers.append(number)
            hashes.setdefault(number, "0x" + digits[-WORD:].decode("ascii", "replace").lower())
            if hashes[number][2:] != digits[-WORD:].decode("ascii", "replace").lower():
                return None
        block = np.array(numbers, np.int64)[np.cumsum(first) - 1]
        good &= block >= 0
        return block, hashes


def _spans(sample: bytes, log: Log) -> dict[str, slice]:
    """Where a log's values have their digits, if each of them is there once and in its plainest form."""
    spans: dict[str, slice] = {}
    values = {
        "address": log.address,
        "data": log.data,
        "blockNumber": log.block_number,
        "blockHash": log.block_hash,
        "transactionHash": log.transaction_hash,
        "logIndex": log.log_index,
    }
    for name, value in values.items():
        told = f'"{name}":"{value}"'.encode()
        if sample.count(f'"{name}"'.encode()) == 1 and _PLAIN.fullmatch(value) and told in sample:
            end = sample.index(told) + len(told) - 1
            spans[name] = slice(end - len(value) + 2, end)
    told = ('"topics":["' + '","'.join(log.topics) + '"]').encode()
    if sample.count(b'"topics"') == 1 and all(map(_PLAIN.fullmatch, log.topics)) and told in sample:
        start = sample.index(told) + len('"topics":["')
        for index, topic in enumerate(log.topics):
            spans[f"topic{index}"] = slice(start + 2, start + len(topic))
            start += len(topic) + len('","')
    return spans


def _last(span: slice, width: int) -> slice:
    return slice(span.stop - width, span.stop)


def _width(span: slice) -> int:
    return int(span.stop - span.start)


def _whole(length: int) -> int:
    """The next multiple of eight."""
    return -(-length // 8) * 8


def _every(flags: Flags) -> Flags:
    """Rows of which all are set; that all of all rows are is the rule, and seen at once."""
    if flags.all():
        return np.ones(len(flags), np.bool_)
    rows: Flags = np.logical_and.reduce(flags, axis=1)
    return rows


def _halves(data: Bytes) -> tuple[Halves, Flags]:
    """All data words as halves, and which rows are hex and below 2**128 throughout."""
    words = data.reshape(len(data), -1, WORD)
    upper = np.ascontiguousarray(words[:, :, : WORD // 2]).view(np.uint64).reshape(len(data), -1)
    good = _every(upper == _EIGHT_ZEROS)
    lower = np.ascontiguousarray(words[:, :, WORD // 2 :])
    try:
        told = np.frombuffer(unhexlify(lower.data), np.uint8)
    except ValueError:
        values = _HEX[lower.view(np.uint16)]
        good &= (values != _NOT_HEX).all(axis=2).all(axis=1)
        told = values.astype(np.uint8)
    return told.view(">u8").reshape(len(data), -1, 2).astype(np.uint64), good


def _numbers(digits: Bytes) -> tuple[Integers, Flags]:
    """Hex numbers, and which rows are such."""
    values = _DIGITS[digits].astype(np.int64)
    numbers = np.zeros(len(digits), np.int64)
    for column in values.T:
        numbers = numbers * 16 + column
    good: Flags = np.logical_and.reduce(values < 16, axis=1)
    return numbers, good
