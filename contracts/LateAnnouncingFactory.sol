// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {BondingCurve} from "./BondingCurve.sol";
import {BondingCurveFactory} from "./BondingCurveFactory.sol";
import {ILiquidityMigrator} from "./interfaces/ILiquidityMigrator.sol";
import {LaunchParameters} from "./LaunchParameters.sol";

/// @title A factory that buys first and announces last
/// @notice Some launchpads emit the creation as the last log of the transaction, after the initial trade.
///         An indexer that registers curves in log order would miss that trade; this factory shows whether it does.
contract LateAnnouncingFactory is BondingCurveFactory {
    /// @notice The caller refused the refund.
    error RefundFailed();

    constructor(LaunchParameters memory parameters_, address payable feeRecipient_, ILiquidityMigrator migrator_)
        BondingCurveFactory(parameters_, feeRecipient_, migrator_)
    {}

    /// @notice Launches a token, spends the coin sent along on it, and only then emits `CurveCreated`.
    ///         The caller is creator and trader.
    /// @param name       Token name.
    /// @param symbol     Token symbol.
    /// @param minBaseOut Fewest tokens the caller accepts.
    function createAndBuy(string calldata name, string calldata symbol, uint256 minBaseOut)
        external
        payable
        returns (address token, address curve, uint256 baseOut)
    {
        (token, curve) = _deploy(name, symbol);
        uint256 quotePaid;
        (baseOut, quotePaid) = BondingCurve(curve).buy{value: msg.value}(minBaseOut, msg.sender);
        emit CurveCreated(token, curve, msg.sender, name, symbol);
        if (quotePaid < msg.value) {
            (bool ok,) = msg.sender.call{value: msg.value - quotePaid}("");
            if (!ok) revert RefundFailed();
        }
    }
}
