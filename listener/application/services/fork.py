"""Where the node's chain and ours part."""

from listener.application.errors import (
    ChainRestarted,
    InconsistentReply,
    ListenerError,
    NodeBehind,
    ReorgTooDeep,
)
from listener.application.interfaces import ChainSource
from listener.application.services.recovery import RESET_HINT
from listener.application.state import StreamState
from listener.domain.value_objects import BlockRef


async def find_ancestor(state: StreamState, suspect: int, chain: ChainSource, highest: int) -> BlockRef:
    """The newest block that both chains have.

    Args:
        state: our blocks.
        suspect: number of the newest one that may be on the node's chain, too.
        chain: the node.
        highest: number of the highest block that any answer has shown.

    Raises:
        InconsistentReply: the node contradicts itself.
        NodeBehind: it lags behind the one that gave us our blocks.
        ChainRestarted: its chain differs where the stored data begins.
        ReorgTooDeep: its chain differs below all that can be undone.
    """
    head = state.head
    if suspect == head.number - 1 and (await chain.block(head.number)).hash == head.hash:
        raise InconsistentReply(f"block {head.number} is ours, and its successor has another parent")
    ours = {block.number: block for block in state.recent()}
    oldest = state.recent()[0]
    for number in range(suspect, oldest.number - 1, -1):
        if (await chain.block(number)).hash == ours[number].hash:
            return ours[number]
    raise await _too_deep(state, oldest, chain, highest)


async def _too_deep(state: StreamState, oldest: BlockRef, chain: ChainSource, highest: int) -> ListenerError:
    """What it means that the node's chain differs from ours at the oldest block that can be compared.

    A node that lags behind the one that gave us these blocks may still show what was there before a reorg,
    and that passes.
    """
    if oldest.number == state.base:
        return ChainRestarted(
            f"the node's chain differs from ours at block {oldest.number}, where the stored data begins: "
            f"a dev chain that was restarted or reverted; {RESET_HINT}"
        )
    tip = (await chain.tip()).number
    highest = max(highest, state.head.number)
    if tip < highest:
        return NodeBehind(
            f"the node differs from us at block {oldest.number}, and has {tip} blocks where "
            f"{highest} were seen"
        )
    if (await chain.block(oldest.number)).hash == oldest.hash:
        return InconsistentReply(f"the node has answered in two ways about block {oldest.number}")
    return ReorgTooDeep(
        f"the node's chain differs from ours at block {oldest.number} already, deeper than the "
        f"{state.head.number - oldest.number} blocks that can be undone (FINALITY_WINDOW); nothing "
        "was changed; run `listener verify --repair` to load the chain anew beside the stored data and "
        f"switch over, or `listener resync --from {state.base + 1}`"
    )
