// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {BondingCurve} from "./BondingCurve.sol";
import {BondingCurveFactory} from "./BondingCurveFactory.sol";

/// @title Launches a token and buys the first tokens in one transaction
/// @notice Nobody can buy before the creator. The factory's `CurveCreated` comes first, then the curve's `Trade`.
contract CreateAndBuy {
    /// @notice The caller refused the refund.
    error RefundFailed();

    BondingCurveFactory public immutable factory;

    constructor(BondingCurveFactory factory_) {
        factory = factory_;
    }

    /// @notice Receives refunds of the curves.
    receive() external payable {}

    /// @notice Launches a token and spends the coin sent along on it. The caller is creator and trader.
    /// @param name       Token name.
    /// @param symbol     Token symbol.
    /// @param minBaseOut Fewest tokens the caller accepts.
    function createAndBuy(string calldata name, string calldata symbol, uint256 minBaseOut)
        external
        payable
        returns (address token, address curve, uint256 baseOut)
    {
        (token, curve) = factory.createTokenFor(msg.sender, name, symbol);
        uint256 quotePaid;
        (baseOut, quotePaid) = BondingCurve(curve).buy{value: msg.value}(minBaseOut, msg.sender);
        if (quotePaid < msg.value) {
            (bool ok,) = msg.sender.call{value: msg.value - quotePaid}("");
            if (!ok) revert RefundFailed();
        }
    }
}
