// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {IBondingCurveEvents, IBondingCurveFactoryEvents} from "../interfaces/ILaunchpadEvents.sol";

/// @title A curve that says what it is told
/// @notice For tests only: emits trades of any amounts, possible or not.
contract TestCurve is IBondingCurveEvents {
    struct TradeArguments {
        address token;
        address trader;
        bool isBuy;
        uint256 baseAmount;
        uint256 quoteAmount;
        uint256 fee;
        uint256 reserveBase;
        uint256 reserveQuote;
    }

    function emitTrade(TradeArguments calldata trade) external {
        _emitTrade(trade);
    }

    /// @notice Several trades in one transaction.
    function emitTrades(TradeArguments[] calldata trades) external {
        for (uint256 i = 0; i < trades.length; ++i) {
            _emitTrade(trades[i]);
        }
    }

    function emitGraduated(address token, address pool, uint256 baseLiquidity, uint256 quoteLiquidity) external {
        emit Graduated(token, pool, baseLiquidity, quoteLiquidity);
    }

    function _emitTrade(TradeArguments calldata t) private {
        emit Trade(
            t.token, t.trader, t.isBuy, t.baseAmount, t.quoteAmount, t.fee, t.reserveBase, t.reserveQuote
        );
    }
}

/// @title A factory that announces any pair
/// @notice For tests only: makes curves of odd tokens, under an address that an indexer was told to trust.
contract OddFactory is IBondingCurveFactoryEvents {
    function announce(
        address token,
        address curve,
        address creator,
        string calldata name,
        string calldata symbol
    ) external {
        emit CurveCreated(token, curve, creator, name, symbol);
    }

    /// @notice Makes `curve` emit trades, then announces it, all in one transaction.
    function tradeThenAnnounce(
        TestCurve curve,
        TestCurve.TradeArguments[] calldata trades,
        address token,
        address creator,
        string calldata name,
        string calldata symbol
    ) external {
        curve.emitTrades(trades);
        emit CurveCreated(token, address(curve), creator, name, symbol);
    }
}
