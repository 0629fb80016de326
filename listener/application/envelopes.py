"""What stands around the items of every outbound message."""

from typing import Final, NamedTuple

from listener.application.interfaces import Message

VERSION: Final = 1
"""Of the public contract."""


class Envelope(NamedTuple):
    """The part that is the same for all messages of a stream."""

    chain_id: int
    stream: str

    def around(self, message: Message) -> dict[str, object]:
        """The payload, see docs/contract.md; JSON-ready where the items are."""
        return {
            "v": VERSION,
            "chain": self.chain_id,
            "stream": self.stream,
            "epoch": message.epoch,
            "first": message.first,
            "seq": message.seq,
            "items": message.items,
        }
