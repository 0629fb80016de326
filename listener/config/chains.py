"""What is known of chains by their id: block time, how deep to expect reorgs, whether blooms can be trusted.

The node's own `finalized` tag is better than any number of blocks, where there is one; `finality_blocks` is
how many before-images are kept, so it bounds the reorg that can be undone. Where a sequencer orders blocks,
nothing is final before the chain below it is: reorgs are rare there, but not bounded by its own consensus, so
the window covers five minutes at least. Where each block is final at once, it covers what a node that
restarts may take back.

Sources, as of November 2026: block times from https://docs.hyperlane.xyz/docs/reference/addresses/validators/
latencies where a line says nothing else; finality from https://docs.arbitrum.io/how-arbitrum-works/reference/
finality-and-reorgs and https://docs.chain.link/ccip/concepts/execution-latency/finality-by-chain.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from listener.infrastructure.blockchain.bloom import BloomPolicy

FINALITY_BLOCKS_MAX: Final = 5_000


class ChainProfile(NamedTuple):
    """What to assume of a chain.

    Attributes:
        block_ms: usual time between blocks; some chains make none without transactions. None: unknown.
        finality_blocks: deepest reorg to be prepared for.
        bloom: whether headers' logs blooms can be held against a node's logs.
        native_symbol: of the currency that gas is paid in.
    """

    name: str
    block_ms: int | None
    finality_blocks: int
    bloom: "BloomPolicy"
    native_symbol: str


UNKNOWN: Final = ChainProfile("unknown chain", None, 64, "lenient", "ETH")
"""For chains that are not listed."""

_CHAINS: Final[dict[int, ChainProfile]] = {
    # Proof of stake: final after two epochs of 32 slots, three with bad luck. Mainnet's blooms are mostly
    # more than half full: asking for every header of history, as `strict` does, would show little.
    1: ChainProfile("Ethereum", 12_000, 96, "lenient", "ETH"),
    11155111: ChainProfile("Sepolia", 12_000, 96, "strict", "ETH"),
    # Epochs of 16 slots.
    100: ChainProfile("Gnosis", 5_000, 64, "strict", "XDAI"),
    # BEP-619: 450 ms since January 2026. Fast finality takes seconds; without its votes, many minutes' worth.
    56: ChainProfile("BNB Smart Chain", 450, 700, "lenient", "BNB"),
    # Logs of state syncs are not in the bloom (0xPolygon/bor#90). Reorgs of hundreds of blocks were seen.
    137: ChainProfile("Polygon", 2_000, 500, "lenient", "POL"),
    # Final at once: Snowman, CometBFT, Lachesis, MonadBFT, HyperBFT.
    43114: ChainProfile("Avalanche C-Chain", 2_000, 64, "lenient", "AVAX"),
    80094: ChainProfile("Berachain", 2_000, 64, "lenient", "BERA"),
    146: ChainProfile("Sonic", 1_000, 64, "lenient", "S"),
    # Measured, https://docs.monad.xyz/ai/current-facts.
    143: ChainProfile("Monad", 300, 128, "lenient", "MON"),
    # Logs of system transactions are not in the bloom, nor the transactions in the block (squid-sdk#495).
    999: ChainProfile("HyperEVM", 1_000, 64, "off", "HYPE"),
    # Blooms differ from the logs that are served (sei-protocol/sei-chain#2230, #2268, #2371).
    1329: ChainProfile("Sei", 400, 128, "lenient", "SEI"),
    # Sequencers: reorgs follow the chain below.
    10: ChainProfile("Optimism", 2_000, 300, "lenient", "ETH"),
    8453: ChainProfile("Base", 2_000, 300, "lenient", "ETH"),
    480: ChainProfile("World Chain", 2_000, 300, "lenient", "ETH"),
    81457: ChainProfile("Blast", 2_000, 300, "lenient", "ETH"),
    5000: ChainProfile("Mantle", 2_000, 300, "lenient", "MNT"),
    130: ChainProfile("Unichain", 1_000, 600, "lenient", "ETH"),
    # On Ethereum since May 2026 (smartcontractkit/chainlink-evm#468), "<1s" by www.alchemy.com/rpc/ronin.
    2020: ChainProfile("Ronin", 1_000, 600, "lenient", "RON"),
    42220: ChainProfile("Celo", 1_000, 600, "lenient", "CELO"),
    # Blocks come with transactions only.
    42161: ChainProfile("Arbitrum One", 250, 1_200, "lenient", "ETH"),
    534352: ChainProfile("Scroll", 3_000, 300, "lenient", "ETH"),
    59144: ChainProfile("Linea", 3_000, 300, "lenient", "ETH"),
    # Blooms of empty blocks that are not empty (matter-labs/zksync-era#4580).
    324: ChainProfile("zkSync Era", 1_000, 600, "lenient", "ETH"),
    2741: ChainProfile("Abstract", 1_000, 600, "lenient", "ETH"),
    # Development chains mine when told to.
    31337: ChainProfile("Anvil or Hardhat", None, 64, "lenient", "ETH"),
    1337: ChainProfile("development chain", None, 64, "lenient", "ETH"),
}


def profile(chain_id: int) -> ChainProfile:
    """What to assume of a chain; cautious for one that is not listed."""
    return _CHAINS.get(chain_id, UNKNOWN)


def known_chains() -> frozenset[int]:
    """Ids of the chains that are listed."""
    return frozenset(_CHAINS)
