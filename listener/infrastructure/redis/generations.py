"""The live keys of a stream, and those of another generation that is built beside them."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import orjson

from listener.application.changes import Head
from listener.application.errors import InconsistentReply, Superseded
from listener.application.interfaces import Contents
from listener.application.rules import Rules
from listener.domain.value_objects import ONE_MINUTE, MarketId
from listener.infrastructure.redis.alert_codec import carry_alerts
from listener.infrastructure.redis.client import Command, Database, Word
from listener.infrastructure.redis.keys import REMOVING, Keys
from listener.infrastructure.redis.maintenance import reset_stream
from listener.infrastructure.redis.store import decode_head, text

SWITCH: Final = files("listener.infrastructure.redis").joinpath("switch.lua").read_text()
READ_TRIES: Final = 50


class RedisGenerations:
    """`Generations` on Redis 7 or Valkey.

    Args:
        database: the server.
        keys: of the live generation.
        beside: of the other one.
        rules: intervals and retention, by which the other one is made.
    """

    def __init__(self, database: Database, keys: Keys, beside: Keys, rules: Rules) -> None:
        self._database = database
        self._live = keys
        self._beside = beside
        self._rules = rules
        self._switching = False

    async def head(self) -> Head | None:
        """See `Generations.head`."""
        return await self._head(self._live)

    async def _head(self, keys: Keys) -> Head | None:
        fields = text(await self._database.run("HGETALL", keys.head))
        return decode_head(fields) if fields and REMOVING not in fields else None

    async def markets(self, *, live: bool) -> set[MarketId]:
        """See `Generations.markets`."""
        members = await self._database.run("ZRANGE", self._keys(live=live).markets, 0, -1)
        return {MarketId(member.decode()) for member in members}

    def _keys(self, *, live: bool) -> Keys:
        return self._live if live else self._beside

    async def contents(
        self, markets: Sequence[MarketId], *, live: bool
    ) -> tuple[Head, Mapping[MarketId, Contents]]:
        """See `Generations.contents`. Read again until the head did not move meanwhile."""
        keys = self._keys(live=live)
        for _ in range(READ_TRIES):
            before = await self._head(keys)
            found = await self._read(keys, markets)
            if before is not None and before == await self._head(keys):
                return before, {market: self._comparable(before, pieces) for market, pieces in found.items()}
        raise InconsistentReply("the stored head moves faster than the data can be read")

    async def _read(self, keys: Keys, markets: Sequence[MarketId]) -> dict[MarketId, dict[str, object]]:
        names = [interval.name for interval in self._rules.intervals]
        wanted: list[Command] = []
        for market in markets:
            wanted.append(("HGETALL", keys.market(market)))
            wanted.append(("HGETALL", keys.stats(market)))
            wanted.append(("LRANGE", keys.trades(market), 0, self._rules.trades_kept - 1))
            wanted += [("ZRANGE", keys.candles(market, name), 0, -1, "WITHSCORES") for name in names]
        answers = iter(await self._database.run_all(wanted))
        found: dict[MarketId, dict[str, object]] = {}
        for market in markets:
            pieces: dict[str, object] = {"record": text(next(answers)), "24 h": text(next(answers))}
            for trade in next(answers):
                pieces[f"trade {orjson.loads(trade)['id']}"] = trade
            for name in names:
                for member, score in _pairs(next(answers)):
                    pieces[f"candle {name} {int(score)}"] = member
            found[market] = {piece: value for piece, value in pieces.items() if value}
        return found

    def _comparable(self, head: Head, pieces: dict[str, object]) -> Contents:
        """Without candles that retention lets go at some time: when, depends on how the data came in."""
        kept = self._rules.retention_ms

        def stays(piece: str) -> bool:
            kind, *rest = piece.split(" ")
            if kind != "candle" or rest[0] not in kept:
                return True
            return int(rest[1]) >= head.timestamp - kept[rest[0]]

        return {piece: value for piece, value in pieces.items() if stays(piece)}

    async def clear(self) -> None:
        """See `Generations.clear`."""
        self._switching = False
        await reset_stream(self._database, self._beside)

    async def watched(self) -> bool:
        """See `Generations.watched`."""
        return bool(await self._database.run("EXISTS", self._live.alerts))

    async def switch(self, floor: int, *, in_step: bool = False) -> Head:
        """See `Generations.switch`. Holds Redis for some microseconds for each key.

        The server is asked for a new append-only file, since the old one may hold what made this necessary.
        """
        live, new = await self._head(self._live), await self._head(self._beside)
        if new is None:
            if live is None or not self._switching:
                raise Superseded("the generation to switch to is gone")
            await self._database.rewrite_log()
            return live  # an earlier call has switched, its answer was lost
        if live and in_step and live.hash != new.hash:
            raise Superseded("the live head has moved on")
        if live:
            await self._carry_alerts()
        number = max(floor, new.gen + 1, *((live.gen + 1, live.epoch + 1) if live else ()))
        expected: list[Word] = [live.hash, live.gen, live.seq] if live else ["", "", ""]
        stored = await self._intervals()
        intervals = [interval.name for interval in self._rules.intervals]
        await self._database.run("HSET", self._beside.settings, "owed", 1)
        tag = self._live.stats("").removeprefix("stats")
        self._switching = True
        done = await self._database.run_script(
            SWITCH,
            [key for pair in zip(_places(self._live), _places(self._beside), strict=True) for key in pair],
            [
                *expected, new.hash, new.gen, number,
                _prefix(self._live), _prefix(self._beside), tag,
                len(stored), *stored, *intervals,
            ],
        )  # fmt: skip
        if not done[0]:
            raise Superseded("the live head moved while the generations were switched")
        await self._database.rewrite_log()
        switched = await self._head(self._live)
        return switched or new

    async def _carry_alerts(self) -> None:
        """Give the before-images beside the alerts of the same blocks in the live ones."""
        live, beside = await self._database.run_all(
            [("HGETALL", keys.undo) for keys in (self._live, self._beside)]
        )
        told = {number: carry_alerts(live[number], undo) for number, undo in beside.items() if number in live}
        words = [word for number, undo in told.items() if undo for word in (number, undo)]
        if words:
            await self._database.run("HSET", self._beside.undo, *words)

    async def _intervals(self) -> list[str]:
        """Names of the intervals that the live generation was made with."""
        names = await self._database.run("HGET", self._live.settings, "setting:OHLCV_INTERVALS")
        return sorted({ONE_MINUTE.name, *(names.decode().split(",") if names else ())})


def _places(keys: Keys) -> list[str]:
    """Keys that change place, the head and the registry first."""
    return [keys.head, keys.markets, keys.sources, keys.undo, keys.due, keys.closed, keys.settings]


def _prefix(keys: Keys) -> str:
    return f"{keys.generation}:" if keys.generation else ""


def _pairs(answer: Sequence[Any]) -> list[tuple[bytes, float]]:
    """Members and scores, whether the client pairs them or not."""
    if answer and isinstance(answer[0], tuple | list):
        return [(member, float(score)) for member, score in answer]
    return [(answer[at], float(answer[at + 1])) for at in range(0, len(answer), 2)]
