// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {IBondingCurveEvents, IBondingCurveFactoryEvents} from "../interfaces/ILaunchpadEvents.sol";

/// @title A stranger that emits a launchpad's events
/// @notice For tests only. An indexer that believes the topic and not the address would count these logs.
contract RogueEmitter is IBondingCurveEvents, IBondingCurveFactoryEvents {
    error TooManyTopics(uint256 count);

    function emitTrade(
        address token,
        address trader,
        bool isBuy,
        uint256 baseAmount,
        uint256 quoteAmount,
        uint256 fee,
        uint256 reserveBase,
        uint256 reserveQuote
    ) external {
        emit Trade(token, trader, isBuy, baseAmount, quoteAmount, fee, reserveBase, reserveQuote);
    }

    function emitCurveCreated(
        address token,
        address curve,
        address creator,
        string calldata name,
        string calldata symbol
    ) external {
        emit CurveCreated(token, curve, creator, name, symbol);
    }

    function emitGraduated(address token, address pool, uint256 baseLiquidity, uint256 quoteLiquidity) external {
        emit Graduated(token, pool, baseLiquidity, quoteLiquidity);
    }

    /// @notice Emits a log of 0 to 4 topics and any data: truncated, oversized, mistyped, anonymous.
    function emitRaw(bytes32[] calldata topics, bytes memory data) external {
        uint256 count = topics.length;
        if (count > 4) revert TooManyTopics(count);
        bytes32 t0 = count > 0 ? topics[0] : bytes32(0);
        bytes32 t1 = count > 1 ? topics[1] : bytes32(0);
        bytes32 t2 = count > 2 ? topics[2] : bytes32(0);
        bytes32 t3 = count > 3 ? topics[3] : bytes32(0);
        assembly ("memory-safe") {
            let start := add(data, 0x20)
            let size := mload(data)
            switch count
            case 0 { log0(start, size) }
            case 1 { log1(start, size, t0) }
            case 2 { log2(start, size, t0, t1) }
            case 3 { log3(start, size, t0, t1, t2) }
            default { log4(start, size, t0, t1, t2, t3) }
        }
    }
}
