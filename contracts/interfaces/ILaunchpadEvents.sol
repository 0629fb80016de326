// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @title Events of a bonding curve
/// @notice What an indexer needs to rebuild every trade and price of a token
///         from logs alone, without a single `eth_call`.
interface IBondingCurveEvents {
    /// @notice A buy or a sell. One log per trade, never for a zero amount.
    /// @param token        The launched token (base).
    /// @param trader       Whose trade it is: receives the tokens of a buy, gives the tokens of a sell.
    ///                     Not necessarily the sender of the transaction.
    /// @param isBuy        True if native coin came in and tokens went out.
    /// @param baseAmount   Tokens that left (buy) or entered (sell) the curve, in base units.
    /// @param quoteAmount  Native coin that entered (buy) or left (sell) the curve, in wei, WITHOUT the fee.
    /// @param fee          Fee in wei. A buyer paid `quoteAmount + fee`, a seller received `quoteAmount - fee`.
    /// @param reserveBase  Virtual token reserve after the trade.
    /// @param reserveQuote Virtual native-coin reserve after the trade; spot price = reserveQuote / reserveBase.
    event Trade(
        address indexed token,
        address indexed trader,
        bool isBuy,
        uint256 baseAmount,
        uint256 quoteAmount,
        uint256 fee,
        uint256 reserveBase,
        uint256 reserveQuote
    );

    /// @notice The curve reached its threshold. Trading has stopped for good and the liquidity moved to `pool`.
    /// @param token          The launched token.
    /// @param pool           Where trading goes on; zero if the liquidity stayed in the curve.
    /// @param baseLiquidity  Unsold tokens handed to the pool.
    /// @param quoteLiquidity Raised wei handed to the pool.
    event Graduated(
        address indexed token,
        address indexed pool,
        uint256 baseLiquidity,
        uint256 quoteLiquidity
    );
}

/// @title Events of a bonding-curve factory
interface IBondingCurveFactoryEvents {
    /// @notice A token and its curve exist. May come after the curve's first `Trade`, in the same transaction.
    /// @param token   The launched token.
    /// @param curve   The contract that emits this token's `Trade` and `Graduated`.
    /// @param creator Whom the launch is attributed to.
    /// @param name    Token name, chosen by the creator: untrusted text of any length.
    /// @param symbol  Token symbol, likewise untrusted.
    event CurveCreated(
        address indexed token,
        address indexed curve,
        address indexed creator,
        string name,
        string symbol
    );
}
