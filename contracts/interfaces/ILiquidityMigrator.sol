// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title What turns the proceeds of a finished curve into a pool
interface ILiquidityMigrator {
    /// @notice Takes over a graduated curve's liquidity: `baseAmount` tokens, transferred to the
    ///         migrator just before the call, and `msg.value` wei.
    /// @dev A revert makes the graduating buy fail. The curve then stays open, just below its threshold.
    /// @param token      The graduated token.
    /// @param baseAmount Tokens handed over, in base units.
    /// @return pool Where trading goes on.
    function migrate(address token, uint256 baseAmount) external payable returns (address pool);
}
