// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {ILiquidityMigrator} from "./ILiquidityMigrator.sol";

/// @title What a curve expects of the contract that deploys it
interface ICurveHost {
    /// @notice Where the liquidity goes on graduation; zero leaves it in the curve.
    function migrator() external view returns (ILiquidityMigrator);

    /// @notice Accepts trading fees. Must not revert, or trading stops.
    receive() external payable;
}
