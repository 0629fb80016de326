// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

// Tokens that answer metadata calls in ways seen on public chains, or worse. For tests only: they hold no balances.

/// @title A well-behaved answer to every metadata call, for the odd ones to deviate from
contract PlainToken {
    function name() external view virtual returns (string memory) {
        return "Plain";
    }

    function decimals() external view virtual returns (uint8) {
        return 18;
    }
}

/// @dev Adds the ordinary `symbol()`, which some of the tokens below must not have.
contract SymbolToken is PlainToken {
    function symbol() external view virtual returns (string memory) {
        return "PLAIN";
    }
}

/// @title `symbol()` reverts
contract SymbolRevertsToken is SymbolToken {
    error NoSymbol();

    function symbol() external pure override returns (string memory) {
        revert NoSymbol();
    }
}

/// @title `symbol()` returns bytes32, as tokens before the ERC-20 string convention did (MKR)
contract SymbolBytes32Token is PlainToken {
    function symbol() external pure returns (bytes32) {
        return "B32";
    }
}

/// @title `symbol()` returns bytes that are not UTF-8
contract SymbolInvalidUtf8Token is SymbolToken {
    function symbol() external pure override returns (string memory) {
        bytes memory invalid = hex"fffe80c0";
        return string(invalid);
    }
}

/// @title `symbol()` returns a chosen number of bytes of emoji
/// @notice 1 MiB costs a call 4.2 million gas. Memory is priced quadratically: 2.25 MiB is the most that fits
///         into 2^24 gas (EIP-7825), 3.25 MiB into 30 million.
contract SymbolHugeToken is PlainToken {
    uint256 private immutable _size;

    /// @param size Length of the symbol in bytes, rounded down to whole words.
    constructor(uint256 size) {
        _size = size & ~uint256(31);
    }

    function symbol() external view returns (string memory) {
        uint256 size = _size;
        // Eight rockets fill a word.
        bytes32 word = unicode"🚀🚀🚀🚀🚀🚀🚀🚀";
        // Builds the ABI encoding in place and returns it: a second copy would double the memory.
        assembly ("memory-safe") {
            let start := mload(0x40)
            mstore(start, 0x20)
            mstore(add(start, 0x20), size)
            let cursor := add(start, 0x40)
            let end := add(cursor, size)
            for {} lt(cursor, end) { cursor := add(cursor, 0x20) } { mstore(cursor, word) }
            return(start, add(size, 0x40))
        }
    }
}

/// @title `decimals()` reverts
contract DecimalsRevertsToken is SymbolToken {
    error NoDecimals();

    function decimals() external pure override returns (uint8) {
        revert NoDecimals();
    }
}

/// @title `decimals()` returns 255, the largest the type allows
contract Decimals255Token is SymbolToken {
    function decimals() external pure override returns (uint8) {
        return 255;
    }
}

/// @title `decimals()` returns 6, like most stablecoins
contract Decimals6Token is SymbolToken {
    function decimals() external pure override returns (uint8) {
        return 6;
    }
}

/// @title `decimals()` returns 2^256 - 1, which no uint8 holds
contract DecimalsWideToken {
    function symbol() external pure returns (string memory) {
        return "WIDE";
    }

    function name() external pure returns (string memory) {
        return "Wide";
    }

    function decimals() external pure returns (uint256) {
        return type(uint256).max;
    }
}

/// @title Accepts every call and returns nothing
contract SilentToken {
    fallback() external {}
}
