"""The committed state of one stream in Redis or Valkey."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final

from listener.application.changes import BlockUndo, ChangeSet, Head, MarketState
from listener.application.errors import ForeignData, InterruptedReset, NewerSchema, Superseded, TornData
from listener.application.interfaces import ChainIdentity, RowId, StoredStream
from listener.application.rules import Rules
from listener.application.state import StreamState, Written
from listener.domain.entities import Candle
from listener.domain.rolling import RollingDay
from listener.domain.value_objects import DAY_MS, MINUTE_MS, BlockRef, MarketId, Timestamp
from listener.infrastructure.redis.client import Command, Database, Word
from listener.infrastructure.redis.codec import (
    CandleTexts,
    decode_candle,
    decode_market,
    decode_undo,
    decode_written,
    encode_undo,
)
from listener.infrastructure.redis.commands import RowData, Writes, commands, encode_told, rows
from listener.infrastructure.redis.keys import REMOVING, SCHEMA, Keys
from listener.infrastructure.redis.outbox import OutboxBounds, OutboxSize

DAYS_AT_ONCE: Final = 32
"""Markets whose minutes of a day are read in one round trip."""

APPLY = files("listener.infrastructure.redis").joinpath("apply.lua").read_text()


class RedisStore:
    """`MarketStore` on Redis 7 or Valkey.

    Args:
        database: the server.
        keys: names of the stream's keys.
        rules: intervals and retention.
        outbox: bounds of what is kept for a backend that is away.
    """

    def __init__(self, database: Database, keys: Keys, rules: Rules, outbox: OutboxBounds) -> None:
        self._database = database
        self._keys = keys
        self._rules = rules
        self._outbox_rows = outbox.rows
        self._outbox = OutboxSize(outbox)
        self._server = ""
        self._restarted = False
        self._done = ""
        self._texts = CandleTexts()

    def keep_rows(self, outbox: OutboxBounds) -> None:
        """Other bounds of the outbox, from the next commit on."""
        self._outbox_rows, self._outbox.bounds = outbox.rows, outbox

    async def load(self) -> StoredStream | None:
        """See `MarketStore.load`."""
        keys = self._keys
        head = text(await self._database.run("HGETALL", keys.head))
        if not head:
            return None
        self._check(head)
        self._server = await self._database.server()
        private = (keys.settings, keys.sources, keys.closed, keys.undo)
        answers = await self._database.run_all(
            [*(("HGETALL", key) for key in private), ("ZCARD", keys.markets)]
        )
        settings, sources, closed = (text(answer) for answer in answers[:3])
        begun, done = settings.get("begun"), settings.get("done")
        if begun != done:
            raise TornData(
                f"Redis has applied a part of a commit ({begun} begun, {done} done): after a crash it has "
                "replayed a file that it had cut inside a transaction, or a key of ours has a foreign type; "
                "run `listener resync`"
            )
        self._done = done or ""
        self._restarted |= settings.get("server") not in {None, self._server}
        window = sorted(map(decode_written, answers[3].values()), key=lambda written: written.block.number)
        if "base" not in settings or not window or window[-1].block.hash != head["hash"]:
            raise await self._incomplete(head, "the before-image of its head, or its private settings")
        if len(sources) != answers[4]:
            raise await self._incomplete(head, f"some of {answers[4]} markets or {len(sources)} emitters")
        state = StreamState(
            base=int(settings["base"]),
            head=decode_head(head),
            window=deque(window),
            sources={source: MarketId(market) for source, market in sources.items()},
            closed={interval: int(up_to) for interval, up_to in closed.items()},
            resync_owed=(
                settings.get("owed") == "1" or not self._server or settings.get("server") != self._server
            ),
            audited=_audited(settings.get("audited", ""), window),
        )
        fingerprint = {
            name.removeprefix("setting:"): value
            for name, value in settings.items()
            if name.startswith("setting:")
        }
        return StoredStream(state, int(head["chainId"]), head["genesis"], int(head["schema"]), fingerprint)

    async def _incomplete(self, head: Mapping[str, str], missing: str) -> TornData | Superseded:
        """What it means that the parts do not fit: they were not read at one moment."""
        if text(await self._database.run("HGETALL", self._keys.head)) != head:
            return Superseded("the head moved while it was read")
        return TornData(
            f"the stream {self._keys.stream} in Redis lacks {missing}: somebody has removed keys of ours; "
            "run `listener resync`"
        )

    def _check(self, head: Mapping[str, str]) -> None:
        if REMOVING in head:
            raise InterruptedReset(
                f"the data of chain {self._keys.chain_id} was being removed from Redis, and that was broken "
                "off: run `listener reset` again"
            )
        if not {"schema", "chainId", "genesis", "hash", "number"} <= head.keys():
            raise ForeignData(
                f"the key {self._keys.head} in Redis was not written by this service (fields: "
                f"{', '.join(sorted(head))[:200]}): use another Redis database or remove the key"
            )
        if int(head["schema"]) > SCHEMA:
            raise NewerSchema(
                f"Redis holds schema {head['schema']} of chain {head['chainId']}, this version knows up to "
                f"{SCHEMA}: run the newer version, or use another Redis database"
            )

    async def initialise(
        self, identity: ChainIdentity, base: BlockRef, fingerprint: Mapping[str, str], now: Timestamp
    ) -> None:
        """See `MarketStore.initialise`."""
        keys = self._keys
        settings = {f"setting:{name}": value for name, value in fingerprint.items()}
        written: list[Command] = [
            (
                "HSET", keys.head,
                "number", base.number, "hash", base.hash, "timestamp", base.timestamp,
                "asOf", base.timestamp, "gen", now, "epoch", now, "seq", 0,
                "schema", SCHEMA, "chainId", identity.chain_id, "genesis", identity.genesis,
            ),
            ("HSET", keys.settings, "base", base.number, "owed", 1, *_words(settings)),
            ("HSET", keys.undo, base.number, encode_undo(BlockUndo(base, 0, ()), {}, self._texts)),
        ]  # fmt: skip
        if not keys.generation:
            written.append(("SET", keys.partitions, 1))
        await self._run(("", "", "", "", ""), 0, [], Writes(*written))

    async def take_over(self, head: Head, floor: int, *, resync_owed: bool) -> Head:
        """See `MarketStore.take_over`.

        A server that was restarted, or another one, may have lost its tail, and outbox rows with it: whether
        it is the one that the last writer used is remembered here, together with what follows from it.
        """
        new = replace(head, gen=max(head.gen + 1, floor), epoch=max(head.epoch + 1, floor), seq=0)
        written = Writes(
            ("HSET", self._keys.settings, "server", self._server, *(("owed", 1) if resync_owed else ())),
            ("HSET", self._keys.head, "gen", new.gen, "epoch", new.epoch, "seq", 0),
        )
        await self._expect(head, new, [], written)
        if self._restarted:
            await self._database.rewrite_log()
            self._restarted = False
        self._outbox.begin(await self._database.memory(self._keys.outbox))
        return new

    async def head(self) -> Head:
        """See `MarketStore.head`."""
        head = text(await self._database.run("HGETALL", self._keys.head))
        if not head or REMOVING in head:
            raise Superseded("the stream is gone from Redis: it was flushed or reset while we ran")
        return decode_head(head)

    async def commit(self, changes: ChangeSet) -> Head:
        """See `MarketStore.commit`."""
        told = encode_told(changes)
        new_rows = rows(changes, self._rules, told)
        written = commands(changes, self._keys, self._texts, told)
        head = changes.head
        kept = self._outbox.after(RowId(head.epoch, changes.base.seq + len(new_rows)), new_rows)
        if kept is not None:
            written.commands.insert(0, ("XTRIM", self._keys.outbox, "MINID", "{}-{}".format(*kept)))
        seq = await self._expect(changes.base, head, new_rows, written)
        return replace(head, seq=seq)

    async def _expect(self, base: Head, head: Head, new_rows: list[RowData], written: Writes) -> int:
        expected = (base.hash, base.gen, base.seq, base.as_of)
        applied, found = await self._run((*expected, self._done), head.epoch, new_rows, written)
        if not applied:
            raise Superseded(
                f"expected block {base.number} {' '.join(map(str, expected))}, commits {self._done} "
                f"{self._done}, found {' '.join(found)}: "
                "another instance writes to this stream, or Redis went back in time"
            )
        seq, self._done = found
        return int(seq)

    async def _run(
        self, expected: Sequence[Word], epoch: int, new_rows: list[RowData], written: Writes
    ) -> tuple[bool, list[str]]:
        """Run the script; whether it was applied, and what it answered."""
        keys = self._keys
        words: list[Word] = [*expected, epoch, self._outbox_rows, len(new_rows)]
        for row in new_rows:
            words += row
        words += written.words()
        applied, *found = await self._database.run_script(
            APPLY, [keys.head, keys.outbox, keys.settings], words
        )
        return bool(applied), [part.decode() for part in found]

    async def load_markets(self, markets: Iterable[MarketId]) -> dict[MarketId, MarketState]:
        """See `MarketStore.load_markets`."""
        ids = list(markets)
        if not ids:
            return {}
        keys, intervals = self._keys, self._rules.intervals
        wanted: list[Command] = []
        for market_id in ids:
            wanted.append(("HGETALL", keys.market(market_id)))
            wanted.append(("HMGET", keys.stats(market_id), "closeTime", "lastPrice"))
            wanted += [("ZRANGE", keys.candles(market_id, interval.name), -1, -1) for interval in intervals]
        answers = iter(await self._database.run_all(wanted))
        found: list[MarketState] = []
        for market_id in ids:
            record, (close_time, last_price) = text(next(answers)), next(answers)
            newest = [next(answers) for _ in intervals]
            if not record:
                continue
            market = decode_market(market_id, record)
            live = tuple(
                decode_candle(members[0], market.base_decimals, market.quote_decimals) if members else None
                for members in newest
            )
            changed = int(close_time) - MINUTE_MS + 1 if close_time else 0
            price = Decimal(last_price.decode()) if last_price else None
            found.append(MarketState(market, live, RollingDay.of((), changed), price))
        for at in range(0, len(found), DAYS_AT_ONCE):
            found[at : at + DAYS_AT_ONCE] = await self._with_days(found[at : at + DAYS_AT_ONCE])
        return {state.market.id: state for state in found}

    async def _with_days(self, states: Sequence[MarketState]) -> list[MarketState]:
        """The same with the minutes that counted when the figures last changed, folded as they are read."""
        answers = await self._database.run_all(
            self._minutes(state.market.id, state.day.changed - DAY_MS + MINUTE_MS, "+inf") for state in states
        )
        return [
            state._replace(
                day=RollingDay.of(
                    (
                        decode_candle(data, state.market.base_decimals, state.market.quote_decimals)
                        for data in members
                    ),
                    state.day.changed,
                )
            )
            for state, members in zip(states, answers, strict=True)
        ]

    async def load_minutes(
        self, spans: Mapping[MarketId, tuple[Timestamp, Timestamp]]
    ) -> dict[MarketId, list[Candle]]:
        """See `MarketStore.load_minutes`. One round trip."""
        wanted: list[Command] = []
        for market_id, (first, last) in spans.items():
            wanted.append(("HMGET", self._keys.market(market_id), "baseDecimals", "quoteDecimals"))
            wanted.append(self._minutes(market_id, first, last))
        answers = iter(await self._database.run_all(wanted) if wanted else ())
        return {
            market_id: [decode_candle(data, int(base), int(quote)) for data in members]
            for market_id, (base, quote), members in zip(spans, answers, answers, strict=True)
            if base is not None and quote is not None
        }

    def _minutes(self, market_id: MarketId, first: Word, last: Word) -> Command:
        minute = self._rules.intervals[0].name
        return ("ZRANGE", self._keys.candles(market_id, minute), first, last, "BYSCORE")

    async def load_undos(self, above: int) -> list[BlockUndo]:
        """See `MarketStore.load_undos`."""
        numbers = [int(number) for number in await self._database.run("HKEYS", self._keys.undo)]
        wanted = sorted((number for number in numbers if number > above), reverse=True)
        if not wanted:
            return []
        return [decode_undo(data) for data in await self._database.run("HMGET", self._keys.undo, *wanted)]

    async def save_audited(self, block: BlockRef) -> None:
        """See `MarketStore.save_audited`."""
        await self._database.run("HSET", self._keys.settings, "audited", block.hash)

    async def due(self, as_of: Timestamp, limit: int) -> list[MarketId]:
        """See `MarketStore.due`."""
        members = await self._database.run(
            "ZRANGE", self._keys.due, "-inf", as_of, "BYSCORE", "LIMIT", 0, limit
        )
        return [MarketId(member.decode()) for member in members]


def _audited(block: str, window: Iterable[Written]) -> int:
    """Number of the block with that hash, if it is still ours."""
    return next((written.block.number for written in window if written.block.hash == block), -1)


def text(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """A HASH."""
    return {name.decode(): value.decode() for name, value in fields.items()}


def _words(fields: Mapping[str, str]) -> list[Word]:
    return [word for pair in fields.items() for word in pair]


def decode_head(fields: Mapping[str, Any]) -> Head:
    """The head from its HASH."""
    return Head(
        int(fields["number"]),
        fields["hash"],
        int(fields["timestamp"]),
        int(fields["asOf"]),
        int(fields["gen"]),
        int(fields["epoch"]),
        int(fields["seq"]),
    )
