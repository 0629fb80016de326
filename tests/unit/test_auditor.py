"""The audit between a ledger of committed blocks, the node, and a second account of them."""

from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.application.errors import (
    InconsistentReply,
    ListenerError,
    NodeBehind,
    NodeUnavailable,
    NodeUnsuitable,
)
from listener.application.services.auditor import AuditLimits, Auditor
from listener.application.state import Written
from listener.domain.facts import BlockFacts
from listener.domain.value_objects import BlockRef
from tests.fakes.build import block, curve, digest, malformed, rules
from tests.fakes.chain import FakeChain, LocalChain
from tests.fakes.clock import Done
from tests.fakes.observer import RecordingObserver
from tests.fakes.store import FakeStore

Logs = Mapping[int, str]
"""What somebody says of a block: a content by log index."""

A_BLOCK = block(7)


def account(ref: BlockRef, logs: Logs) -> BlockFacts:
    """Facts and digest of these logs."""
    facts = tuple(malformed(curve(0))(index, "") for index in sorted(logs))
    return BlockFacts(ref, facts, digest(*sorted(logs.items())))


class Ledger:
    """Committed blocks, and what the auditor did with them."""

    def __init__(self) -> None:
        self.waiting: list[Written] = []
        self.gone: set[BlockRef] = set()
        self.confirmed: list[BlockRef] = []
        self.corrected: list[BlockFacts] = []

    def unaudited(self, limit: int) -> Sequence[Written]:
        """See `Ledger.unaudited`."""
        return self.waiting[:limit]

    def confirm(self, block: BlockRef) -> bool:
        """See `Ledger.confirm`."""
        if block in self.gone:
            return False
        self.confirmed.append(block)
        self.waiting = [written for written in self.waiting if written.block.number > block.number]
        return True

    def correct(self, facts: BlockFacts) -> bool:
        """See `Ledger.correct`."""
        self.corrected.append(facts)
        return True


class Node(FakeChain):
    """What the node says when it is asked once more."""

    def __init__(self) -> None:
        super().__init__(LocalChain())
        self.accounts: dict[BlockRef, BlockFacts] = {}

    async def facts(self, block: BlockRef) -> BlockFacts:
        """See `ChainSource.facts`."""
        self._called("facts", block.number)
        return self.accounts[block]


class SecondAccount:
    """`Witness` by a table; `meanwhile` happens while it is asked."""

    def __init__(self) -> None:
        self.accounts: dict[BlockRef, BlockFacts] = {}
        self.asked: list[list[int]] = []
        self.errors: list[ListenerError] = []
        self.meanwhile: Callable[[], object] = lambda: None

    async def facts(self, blocks: Sequence[BlockRef]) -> Sequence[BlockFacts]:
        """See `Witness.facts`."""
        self.asked.append([block.number for block in blocks])
        if self.errors:
            raise self.errors.pop(0)
        self.meanwhile()
        return [self.accounts[block] for block in blocks]


class Rounds:
    """`Signal` that ends the audit after so many rounds; how long each pause would have been at most."""

    rounds = 1

    def __init__(self) -> None:
        self.slept: list[float] = []

    def notify(self) -> None:
        """See `Signal.notify`."""

    async def wait(self, timeout_s: float) -> None:
        """See `Signal.wait`."""
        self.slept.append(timeout_s)
        if len(self.slept) >= self.rounds:
            raise Done


class Setting:
    """An auditor with everything around it."""

    def __init__(self, limit: int = 16) -> None:
        self.ledger = Ledger()
        self.node = Node()
        self.witness = SecondAccount()
        self.store = FakeStore(rules())
        self.observer = RecordingObserver()
        self.wanted = Rounds()
        self.auditor = Auditor(
            ledger=self.ledger,
            chain=self.node,
            witness=self.witness,
            store=self.store,
            wanted=self.wanted,
            observer=self.observer,
            limits=AuditLimits(limit, blocks_per_s=5),
        )

    def add(
        self, ref: BlockRef, committed: Logs, node: Logs | None = None, witness: Logs | None = None
    ) -> None:
        """A committed block, and what node and witness say of it: by default, the same."""
        self.ledger.waiting.append(Written(ref, {}, account(ref, committed).digest))
        self.node.accounts[ref] = account(ref, committed if node is None else node)
        self.witness.accounts[ref] = account(ref, committed if witness is None else witness)

    async def run(self, rounds: int = 1) -> None:
        """Look so many times."""
        self.wanted.slept.clear()
        self.wanted.rounds = rounds
        with pytest.raises(Done):
            await self.auditor.run()


async def test_blocks_that_agree_are_confirmed() -> None:
    """The witness says what was committed: the node is not asked again, and the place is remembered."""
    setting = Setting()
    for number in (5, 6, 7):
        setting.add(block(number), {0: "a"} if number == 6 else {})
    await setting.run()
    assert setting.ledger.confirmed == [block(7)]
    assert setting.store.audited == block(7).hash
    assert setting.observer.audits == [(block(7), 0)]
    assert setting.observer.health == ["audit"]
    assert setting.observer.differences == []
    assert setting.node.calls == []


async def test_it_keeps_to_its_pace() -> None:
    """Requests are of a bounded size, and the pauses between them keep the average."""
    setting = Setting(limit=4)
    for number in range(10):
        setting.add(block(number), {})
    await setting.run(rounds=4)
    assert setting.witness.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert setting.wanted.slept == pytest.approx([0.8, 0.8, 0.4, 2])


async def test_without_work_nobody_is_asked() -> None:
    """It looks for work now and then, and claims nothing about a witness that it did not ask."""
    setting = Setting()
    await setting.run(rounds=3)
    assert setting.wanted.slept == [2, 2, 2]
    assert setting.witness.asked == []
    assert setting.observer.health == []


@pytest.mark.parametrize(
    ("committed", "node", "witness", "right"),
    [
        ({0: "a"}, {0: "a"}, {0: "a", 1: "b"}, {0: "a", 1: "b"}),
        ({0: "a"}, {0: "a", 1: "b"}, {0: "a", 1: "b"}, {0: "a", 1: "b"}),
        ({0: "a"}, {0: "a", 1: "b", 2: "c"}, {0: "a", 1: "b"}, {0: "a", 1: "b", 2: "c"}),
        ({}, {}, {3: "a"}, {3: "a"}),
        ({0: "a", 1: "b"}, {0: "a"}, {0: "a"}, {0: "a"}),
        ({0: "a"}, {0: "b"}, {0: "b"}, {0: "b"}),
    ],
    ids=[
        "the witness knows more",
        "the node knows more by now, as the witness does",
        "the node knows more than the witness by now",
        "the block seemed empty",
        "both know less than was committed",
        "both say another thing than was committed",
    ],
)
async def test_a_block_is_folded_anew(committed: Logs, node: Logs, witness: Logs, right: Logs) -> None:
    """Where the fuller account, or both accounts, differ from what was committed, that counts."""
    setting = Setting()
    setting.add(A_BLOCK, committed, node, witness)
    await setting.run()
    assert setting.ledger.corrected == [account(A_BLOCK, right)]
    assert [(ref, repaired) for ref, _, repaired in setting.observer.differences] == [(A_BLOCK, True)]
    assert setting.ledger.confirmed == []
    assert setting.store.audited == ""
    assert setting.observer.audits == []


@pytest.mark.parametrize(
    ("committed", "node", "witness", "said"),
    [
        ({0: "a"}, {0: "a"}, {0: "b"}, "logs [0], the witness [0]"),
        ({0: "a"}, {0: "a"}, {1: "b"}, "logs [0], the witness [1]"),
        ({0: "a"}, {0: "a", 1: "b"}, {1: "b", 2: "c"}, "logs [0, 1], the witness [1, 2]"),
        ({0: "a", 1: "b", 2: "c"}, {0: "a", 1: "b", 2: "c"}, {1: "b"}, "lacks 2 logs"),
        ({0: "a"}, {0: "a"}, {}, "lacks 1 logs"),
    ],
    ids=["same places, other contents", "strangers", "overlapping", "the witness lacks some", "and all"],
)
async def test_a_difference_that_nobody_can_settle_is_told(
    committed: Logs, node: Logs, witness: Logs, said: str
) -> None:
    """Nothing is changed on the word of an account that does not contain the other; the audit goes on."""
    setting = Setting()
    setting.add(A_BLOCK, committed, node, witness)
    setting.add(block(8), {})
    await setting.run()
    assert setting.ledger.corrected == []
    ((ref, detail, repaired),) = setting.observer.differences
    assert (ref, repaired) == (A_BLOCK, False)
    assert said in detail
    assert setting.ledger.confirmed == [block(8)]
    assert setting.observer.audits == [(block(8), 1)]


async def test_it_stops_at_the_first_block_to_repair() -> None:
    """What was looked at before is confirmed; what follows is folded anew too, and looked at then."""
    setting = Setting()
    for number in range(5):
        repair = number in {2, 3}
        setting.add(block(number), {0: "a"}, witness={0: "a", 1: "b"} if repair else None)
    await setting.run()
    assert setting.ledger.confirmed == [block(1)]
    assert setting.store.audited == block(1).hash
    assert [facts.block.number for facts in setting.ledger.corrected] == [2]
    assert setting.observer.audits == [(block(1), 1)]
    assert setting.node.calls == [("facts", 2)]


async def test_it_goes_on_after_a_repair() -> None:
    """Once the ledger holds what is right, the rest is looked at, from the repaired block on."""
    setting = Setting()
    for number in range(4):
        setting.add(block(number), {0: "a"}, witness={0: "a", 1: "b"} if number == 1 else None)
    await setting.run()
    (right,) = setting.ledger.corrected
    setting.ledger.waiting[0] = setting.ledger.waiting[0]._replace(digest=right.digest)
    await setting.run()
    assert setting.witness.asked[-1] == [1, 2, 3]
    assert setting.ledger.confirmed == [block(0), block(3)]
    assert len(setting.ledger.corrected) == 1


async def test_a_repair_that_was_not_made_yet_is_asked_for_again() -> None:
    """The auditor remembers nothing: a block that still differs is judged anew."""
    setting = Setting()
    setting.add(A_BLOCK, {}, witness={0: "a"})
    await setting.run(rounds=2)
    assert [facts.block for facts in setting.ledger.corrected] == [A_BLOCK, A_BLOCK]
    assert setting.ledger.confirmed == []


async def test_a_block_that_is_no_longer_ours_is_not_confirmed() -> None:
    """The follower rolled back while the witness was asked: the place of the audit does not move."""
    setting = Setting()
    setting.add(A_BLOCK, {0: "a"})
    setting.ledger.gone.add(A_BLOCK)
    await setting.run()
    assert setting.ledger.confirmed == []
    assert setting.store.audited == ""
    assert setting.observer.audits == []


@pytest.mark.parametrize("differs", [False, True])
async def test_blocks_that_were_rolled_back_meanwhile_are_not_judged(*, differs: bool) -> None:
    """What lies below them is confirmed; of what is no longer ours nothing is said, whatever it held."""
    setting = Setting()
    for number in range(4):
        setting.add(block(number), {0: "a"}, witness={0: "a", 1: "b"} if differs and number > 1 else None)
    setting.witness.meanwhile = lambda: setting.ledger.waiting.__delitem__(slice(2, None))
    await setting.run()
    assert setting.ledger.confirmed == [block(1)]
    assert setting.observer.audits == [(block(1), 0)]
    assert (setting.ledger.corrected, setting.observer.differences, setting.node.calls) == ([], [], [])


async def test_a_block_that_was_folded_anew_meanwhile_is_not_judged_by_its_old_logs() -> None:
    """The same block with other logs than were looked at: it is left for the next look."""
    setting = Setting()
    setting.add(A_BLOCK, {}, witness={0: "a"})

    def fold_anew() -> None:
        setting.ledger.waiting[0] = Written(A_BLOCK, {}, account(A_BLOCK, {0: "a"}).digest)

    setting.witness.meanwhile = fold_anew
    await setting.run()
    assert (setting.ledger.confirmed, setting.ledger.corrected) == ([], [])
    await setting.run()
    assert (setting.ledger.confirmed, setting.ledger.corrected) == ([A_BLOCK], [])


@pytest.mark.parametrize("error", [NodeBehind("unknown"), InconsistentReply("?"), NodeUnavailable("away")])
@pytest.mark.parametrize("who", ["witness", "node"])
async def test_an_error_confirms_nothing(error: ListenerError, who: str) -> None:
    """Whoever fails, the same blocks are looked at by the next run."""
    setting = Setting()
    setting.add(block(6), {})
    setting.add(A_BLOCK, {}, witness={0: "a"})
    if who == "witness":
        setting.witness.errors.append(error)
    else:
        setting.node.errors.append(error)
    with pytest.raises(type(error)):
        await setting.auditor.run()
    assert (setting.ledger.confirmed, setting.ledger.corrected) == ([], [])
    assert setting.observer.health == []
    await setting.run()
    assert setting.witness.asked == [[6, 7], [6, 7]]
    assert (setting.ledger.confirmed, len(setting.ledger.corrected)) == ([block(6)], 1)


async def test_an_unsuitable_witness_does_not_stop_the_service() -> None:
    """The audit is dispensable: what would be fatal elsewhere is tried again here, and told."""
    setting = Setting()
    setting.add(A_BLOCK, {})
    error = NodeUnsuitable("no eth_getBlockReceipts")
    setting.witness.errors.append(error)
    with pytest.raises(NodeUnavailable, match="no audit: no eth_getBlockReceipts") as raised:
        await setting.auditor.run()
    assert raised.value.__cause__ is error


SAID = st.dictionaries(st.integers(0, 3), st.sampled_from("ab"), max_size=3)


@given(st.lists(st.tuples(SAID, SAID, SAID), min_size=1, max_size=6))
async def test_no_account_is_believed_alone_unless_it_is_the_fuller(
    blocks: list[tuple[Logs, Logs, Logs]],
) -> None:
    """Whatever the three say: what is confirmed is a beginning, and a correction follows it at once.

    A correction has every log that node and witness have, or is what both of them say.
    """
    setting = Setting()
    for number, (committed, node, witness) in enumerate(blocks):
        setting.add(block(number), committed, node, witness)
    await setting.run()
    confirmed = setting.ledger.confirmed[-1].number if setting.ledger.confirmed else -1
    for number, (committed, node, witness) in enumerate(blocks[: confirmed + 1]):
        agree = node == witness != committed
        fuller = node.keys() != witness.keys() and (
            witness.keys() > node.keys() or (node.keys() > witness.keys() and node != committed)
        )
        assert witness == committed or not (agree or fuller), number
    if not setting.ledger.corrected:
        assert confirmed == len(blocks) - 1
        return
    (right,) = setting.ledger.corrected
    assert right.block.number == confirmed + 1
    committed, node, witness = blocks[confirmed + 1]
    places = {fact.log_index for fact in right.facts}
    assert node == witness or places == {*node, *witness}
    assert right.digest != account(right.block, committed).digest
