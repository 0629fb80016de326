// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {BondingCurve} from "../BondingCurve.sol";

/// @title A receiver that refuses coins, or calls back into the curve when it gets them
/// @notice For tests only.
contract RefusingReceiver {
    error Refused();

    BondingCurve private _target;

    receive() external payable {
        if (address(_target) == address(0)) revert Refused();
        _target.buy{value: msg.value}(0, address(this));
    }

    /// @notice From now on coins are spent at `target` on arrival. Zero refuses them again.
    function reenter(BondingCurve target) external {
        _target = target;
    }

    function buy(BondingCurve curve) external payable {
        curve.buy{value: msg.value}(0, address(this));
    }

    /// @notice Sells everything this contract holds.
    function sellAll(BondingCurve curve) external {
        uint256 balance = curve.token().balanceOf(address(this));
        curve.token().approve(address(curve), balance);
        curve.sell(balance, 0, payable(address(this)));
    }
}
