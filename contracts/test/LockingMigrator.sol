// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {ILiquidityMigrator} from "../interfaces/ILiquidityMigrator.sol";
import {LaunchToken} from "../LaunchToken.sol";

/// @title Liquidity of one graduated token, locked for ever
contract LockedLiquidity {
    address public immutable token;

    constructor(address token_) payable {
        token = token_;
    }
}

/// @title Gives every graduated token a "pool" that only holds its liquidity
/// @notice For tests and development chains. A production migrator would add the liquidity to a DEX,
///         and accept calls from known curves only.
contract LockingMigrator is ILiquidityMigrator {
    function migrate(address token, uint256 baseAmount) external payable override returns (address pool) {
        pool = address(new LockedLiquidity{value: msg.value}(token));
        LaunchToken(token).transfer(pool, baseAmount);
    }
}
