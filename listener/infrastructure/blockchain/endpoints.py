"""Several endpoints of one chain: the first that works answers, and only after it has shown its chain."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from listener.application.errors import (
    ListenerError,
    NodeLimited,
    NodeSlow,
    NodeUnavailable,
    NodeUnsuitable,
    RangeTooLarge,
    WrongChain,
)
from listener.infrastructure.blockchain.rpc import HttpRpc, Reply, result, translated
from listener.infrastructure.blockchain.wire import Header
from listener.infrastructure.breaker import Breaker

T = TypeVar("T")
Call = tuple[str, Sequence[object]]

FAILURES: Final = 5
"""So many failures in a row rest an endpoint that no other can replace."""
RECOVERY_S: Final = 5.0
REST_MAX_S: Final = 300.0
"""Longest rest of an endpoint that fails each time it is tried again."""
LIMITED_S: Final = 10.0
"""Rest after a rate limit that does not say how long it lasts."""
LIMITED_LEAST_S: Final = 1.0
FOREIGN_S: Final = 60.0
"""Rest of an endpoint that serves another chain."""

_IDENTITY: Final[Sequence[Call]] = (("eth_chainId", ()), ("eth_getBlockByNumber", ("0x0", False)))
_INVALID_PARAMS: Final = -32602
_TAGS: Final = ("finalized", "safe")
"""Not every chain has them."""
_OF_STATE: Final = frozenset({"eth_call", "eth_getCode"})
"""Their errors may be a contract's, or say that old state is gone."""


class _SlowRange(RangeTooLarge):
    """No answer in time to a question about many blocks: it may be the question's fault."""


class _OtherChain(NodeUnavailable):
    """A fallback serves another chain."""


class Notices(Protocol):
    """The part of an observer that is told when an endpoint fails or works again."""

    def trouble(self, service: str, error: Exception, retry_in_s: float) -> None:
        """It is left out for so long."""
        ...

    def healthy(self, service: str) -> None:
        """It works."""
        ...


class _Endpoint:
    """One endpoint and what is known of it.

    Attributes:
        trusted: whether it has shown its chain since it last failed.
        rests: how often in a row it was left out for failing.
        missed: whether somebody was told that it fails.
    """

    def __init__(self, rpc: HttpRpc, name: str, failures: int, recovery_s: float) -> None:
        self.rpc = rpc
        self.name = name
        self.trusted = False
        self.rests = 0
        self.missed = False
        self.breaker = Breaker(
            name,
            failures=failures,
            recovery_s=recovery_s,
            counts=(NodeUnavailable,),
            refusal=NodeUnavailable,
        )

    def health(self) -> str:
        """One line, without the URL."""
        if self.breaker.state == "closed":
            return "ok"
        return self.breaker.refused()


class Endpoints:
    """Asks the first endpoint that works; looks like one endpoint to those who ask.

    An endpoint that failed where the next one could answer rests, and the next one is asked until then:
    answers of several nodes are mixed as little as possible. What a node says of a range, a block or a
    method is an answer and no failure. A single endpoint is asked once for each call, as if it stood alone,
    except that after `failures` failures in a row it rests too.

    Args:
        rpcs: the preferred one first.
        chain_id: what all of them must serve.
        notices: told when one of several begins to rest, and when it works again.
        failures: see above.
        recovery_s: how long an endpoint rests, unless it says how long it wants to.
    """

    def __init__(
        self,
        rpcs: Sequence[HttpRpc],
        chain_id: int,
        notices: Notices | None = None,
        *,
        failures: int = FAILURES,
        recovery_s: float = RECOVERY_S,
    ) -> None:
        names = _names([rpc.host for rpc in rpcs])
        pairs = zip(rpcs, names, strict=True)
        self._endpoints = [_Endpoint(rpc, name, failures, recovery_s) for rpc, name in pairs]
        self._current = self._endpoints[0]
        self._chain_id = chain_id
        self._genesis: str | None = None
        self._notices = notices
        self._recovery_s = recovery_s
        self._alone = len(self._endpoints) == 1

    @property
    def host(self) -> str:
        """The endpoint that answered last."""
        return self._current.name

    def health(self) -> Mapping[str, str]:
        """The state of each endpoint, by host: `ok`, or why and how long it is left out."""
        return {endpoint.name: endpoint.health() for endpoint in self._endpoints}

    async def close(self) -> None:
        """Close connections."""
        for endpoint in self._endpoints:
            await endpoint.rpc.close()

    async def call(self, method: str, params: Sequence[object], kind: type[T]) -> T | None:
        """See `HttpRpc.call`."""

        async def ask(rpc: HttpRpc) -> T | None:
            try:
                return await rpc.call(method, params, kind)
            except NodeSlow as error:
                if _is_range(method, params):
                    raise _SlowRange(str(error)) from error
                raise

        return await self._ask(ask)

    async def batch(self, calls: Sequence[Call]) -> list[Reply]:
        """See `HttpRpc.batch`. All replies are of one endpoint."""
        if not calls:
            return []
        refused: list[Reply] = []

        async def ask(rpc: HttpRpc) -> list[Reply]:
            try:
                replies = await rpc.batch(calls)
            except NodeSlow as error:
                if any(_is_range(*call) for call in calls):
                    raise _SlowRange(str(error)) from error
                raise
            failure = _failure(calls, replies)
            if failure is None:
                return replies
            if not refused:
                refused.extend(replies)
            raise failure

        try:
            return await self._ask(ask)
        except ListenerError:
            if refused:
                return refused
            raise

    async def _ask(self, ask: Callable[[HttpRpc], Awaitable[T]]) -> T:
        """Ask one endpoint after the other until one answers.

        Raises:
            NodeUnavailable: none could be asked.
            Exception: of the first that was asked.
        """
        failed: list[tuple[_Endpoint, ListenerError]] = []
        for endpoint in self._endpoints:
            if not endpoint.breaker.admits():
                continue
            try:
                answer = await endpoint.breaker.run(partial(self._believed, endpoint, ask))
            except (NodeUnavailable, NodeUnsuitable, _SlowRange) as error:
                self._failed(endpoint, error)
                failed.append((endpoint, error))
            else:
                self._answered(endpoint, failed)
                return answer
        if failed:
            raise failed[0][1]
        raise NodeUnavailable("; ".join(f"{name}: {health}" for name, health in self.health().items()))

    async def _believed(self, endpoint: _Endpoint, ask: Callable[[HttpRpc], Awaitable[T]]) -> T:
        """Ask an endpoint that has shown its chain."""
        if not self._alone and not endpoint.trusted:
            await self._identify(endpoint)
        return await ask(endpoint.rpc)

    async def _identify(self, endpoint: _Endpoint) -> None:
        """Check chain id and genesis.

        Raises:
            WrongChain: the preferred endpoint serves another chain than it should, from the start.
            NodeUnavailable: it cannot be said, or a fallback serves another chain.
        """
        replies = await endpoint.rpc.batch(_IDENTITY)
        chain_id = result(replies[0], "eth_chainId", str)
        header = result(replies[1], "eth_getBlockByNumber", Header)
        if chain_id is None or header is None:
            raise NodeUnavailable(f"{endpoint.name}: no chain id or no block 0")
        genesis = header.hash.lower()
        try:
            right = int(chain_id, 16) == self._chain_id and self._genesis in {None, genesis}
        except ValueError as error:
            raise NodeUnavailable(f"{endpoint.name}: not a chain id: {chain_id[:80]!r}") from error
        if not right:
            text = f"{endpoint.name} serves another chain: id {int(chain_id, 16)}, genesis {genesis}"
            if endpoint is self._endpoints[0] and self._genesis is None:
                raise WrongChain(f"{text}; CHAIN_ID says {self._chain_id}")
            raise _OtherChain(text)
        self._genesis = genesis
        endpoint.trusted = True

    def _failed(self, endpoint: _Endpoint, error: ListenerError) -> None:
        """Note a failure; an endpoint that says that it has enough, or is not ours, rests at once."""
        if isinstance(error, NodeUnavailable):
            endpoint.trusted = False
        if isinstance(error, NodeLimited):
            wait = LIMITED_S if error.retry_after_s is None else max(error.retry_after_s, LIMITED_LEAST_S)
            self._rest(endpoint, error, wait)
        elif isinstance(error, _OtherChain):
            self._rest(endpoint, error, FOREIGN_S)

    def _answered(self, endpoint: _Endpoint, failed: Sequence[tuple[_Endpoint, ListenerError]]) -> None:
        """Stay with an endpoint that answered where others failed."""
        self._current = endpoint
        endpoint.rests = 0
        if endpoint.missed and self._notices:
            self._notices.healthy(f"endpoint {endpoint.name}")
        endpoint.missed = False
        for other, error in failed:
            if not isinstance(error, NodeLimited | _OtherChain | NodeUnsuitable):
                self._rest(other, error, min(self._recovery_s * 2**other.rests, REST_MAX_S))
                other.rests = min(other.rests + 1, 30)

    def _rest(self, endpoint: _Endpoint, error: ListenerError, for_s: float) -> None:
        endpoint.breaker.trip(error, for_s)
        if self._notices and not self._alone and not endpoint.missed:
            self._notices.trouble(f"endpoint {endpoint.name}", error, for_s)
            endpoint.missed = True


def _names(hosts: Sequence[str]) -> list[str]:
    """Names that differ, for endpoints of the same host too."""
    return [
        f"{host} #{hosts[: at + 1].count(host)}" if hosts.count(host) > 1 else host
        for at, host in enumerate(hosts)
    ]


def _is_range(method: str, params: Sequence[object]) -> bool:
    """Whether logs of more than one block are asked for."""
    wanted = params[0] if method == "eth_getLogs" and params else None
    return isinstance(wanted, Mapping) and wanted.get("fromBlock") != wanted.get("toBlock")


def _failure(calls: Sequence[Call], replies: Sequence[Reply]) -> ListenerError | None:
    """The error among replies that another endpoint might not give; a rate limit before all others."""
    failure: ListenerError | None = None
    for (method, params), reply in zip(calls, replies, strict=True):
        if reply.error is None:
            continue
        error = translated(reply.error, method)
        if isinstance(error, NodeLimited):
            return error
        about_the_call = (
            method in _OF_STATE or (params and params[0] in _TAGS) or reply.error.code == _INVALID_PARAMS
        )
        if isinstance(error, NodeSlow) and _is_range(method, params):
            continue
        if isinstance(error, NodeUnavailable | NodeUnsuitable) and not about_the_call:
            failure = failure or error
    return failure
