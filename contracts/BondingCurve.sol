// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {IBondingCurveEvents} from "./interfaces/ILaunchpadEvents.sol";
import {ICurveHost} from "./interfaces/ICurveHost.sol";
import {ILiquidityMigrator} from "./interfaces/ILiquidityMigrator.sol";
import {LaunchParameters} from "./LaunchParameters.sol";
import {LaunchToken} from "./LaunchToken.sol";

/// @title The market of one launched token, until it graduates
/// @notice Constant product on virtual reserves: `reserveBase * reserveQuote` never decreases, and the
///         spot price is `reserveQuote / reserveBase`. Every division rounds in favour of the curve.
///         Fees are taken in the native coin, outside the curve.
/// @dev Reentrancy: every trade finishes its state changes and emits its event before it calls another
///      contract, and calls the one party it cannot trust, the receiver of coins, last.
contract BondingCurve is IBondingCurveEvents {
    /// @notice The curve has graduated; trade in the pool.
    error TradingStopped();
    /// @notice The trade would move no tokens or no coin.
    error ZeroAmount();
    /// @notice The trade would return less than the caller accepts.
    error SlippageExceeded(uint256 amount, uint256 minimum);
    /// @notice The receiver of coins refused them.
    error NativeTransferFailed(address receiver);

    uint256 private constant BPS = 10_000;

    /// @notice The deployer: collects fees and names the migrator.
    ICurveHost public immutable factory;
    LaunchToken public immutable token;
    /// @notice Fee in hundredths of a percent.
    uint256 public immutable feeBps;
    /// @notice Raised wei at which the curve graduates.
    uint256 public immutable graduationThreshold;

    // The part of each reserve that is only virtual.
    uint256 private immutable _phantomBase;
    uint256 private immutable _phantomQuote;

    uint112 private _reserveBase;
    uint112 private _reserveQuote;
    /// @notice True once trading has stopped.
    bool public graduated;

    /// @param name       Token name.
    /// @param symbol     Token symbol.
    /// @param parameters Validated by the factory.
    constructor(string memory name, string memory symbol, LaunchParameters memory parameters) {
        factory = ICurveHost(payable(msg.sender));
        feeBps = parameters.feeBps;
        graduationThreshold = parameters.graduationThreshold;
        _phantomBase = parameters.virtualBase - parameters.supply;
        _phantomQuote = parameters.virtualQuote;
        _reserveBase = parameters.virtualBase;
        _reserveQuote = parameters.virtualQuote;
        token = new LaunchToken(name, symbol, parameters.supply);
    }

    /// @notice Buys tokens with the coin sent along. A buy that would raise more than the threshold is
    ///         filled up to it, and the rest goes back to the caller.
    /// @param minBaseOut Fewest tokens the caller accepts.
    /// @param recipient  Receives the tokens; the event names it as the trader.
    /// @return baseOut   Tokens bought.
    /// @return quotePaid Wei kept, including the fee; `msg.value - quotePaid` was sent back.
    function buy(uint256 minBaseOut, address recipient)
        external
        payable
        returns (uint256 baseOut, uint256 quotePaid)
    {
        if (graduated) revert TradingStopped();
        uint256 quoteIn;
        uint256 fee;
        (baseOut, quoteIn, fee) = _priceBuy(msg.value);
        if (baseOut == 0) revert ZeroAmount();
        if (baseOut < minBaseOut) revert SlippageExceeded(baseOut, minBaseOut);
        quotePaid = quoteIn + fee;

        _settle(recipient, true, baseOut, quoteIn, fee, _reserveBase - baseOut, _reserveQuote + quoteIn);
        bool complete = raised() == graduationThreshold;
        if (complete) graduated = true;

        token.transfer(recipient, baseOut);
        _send(address(factory), fee);
        if (complete) _migrate();
        _send(msg.sender, msg.value - quotePaid);
    }

    /// @notice Sells tokens, which the caller has approved to this contract.
    /// @param baseIn      Tokens to sell.
    /// @param minQuoteOut Fewest wei the caller accepts, after the fee.
    /// @param recipient   Receives the coin; the event names the caller as the trader.
    /// @return quoteOut   Wei sent to the recipient.
    function sell(uint256 baseIn, uint256 minQuoteOut, address payable recipient)
        external
        returns (uint256 quoteOut)
    {
        if (graduated) revert TradingStopped();
        (uint256 quoteGross, uint256 fee) = _priceSell(baseIn);
        if (quoteGross == 0) revert ZeroAmount();
        quoteOut = quoteGross - fee;
        if (quoteOut < minQuoteOut) revert SlippageExceeded(quoteOut, minQuoteOut);

        _settle(msg.sender, false, baseIn, quoteGross, fee, _reserveBase + baseIn, _reserveQuote - quoteGross);

        token.transferFrom(msg.sender, address(this), baseIn);
        _send(address(factory), fee);
        _send(recipient, quoteOut);
    }

    /// @notice What a buy would give now. All zero after graduation.
    /// @param value Wei to send.
    /// @return baseOut Tokens bought.
    /// @return fee     Fee in wei, part of `value`.
    /// @return refund  Wei sent back because the curve graduates first.
    function quoteBuy(uint256 value) external view returns (uint256 baseOut, uint256 fee, uint256 refund) {
        if (graduated) return (0, 0, value);
        uint256 quoteIn;
        (baseOut, quoteIn, fee) = _priceBuy(value);
        refund = value - quoteIn - fee;
    }

    /// @notice What a sell would give now. All zero after graduation.
    /// @param baseIn Tokens to sell.
    /// @return quoteOut Wei received, after the fee.
    /// @return fee      Fee in wei.
    function quoteSell(uint256 baseIn) external view returns (uint256 quoteOut, uint256 fee) {
        if (graduated) return (0, 0);
        (quoteOut, fee) = _priceSell(baseIn);
        quoteOut -= fee;
    }

    /// @notice The virtual reserves, as in the last `Trade`. They stay at their last values after graduation.
    function reserves() external view returns (uint256 reserveBase, uint256 reserveQuote) {
        return (_reserveBase, _reserveQuote);
    }

    /// @notice Wei raised so far: what buyers paid minus what sellers got, without fees.
    function raised() public view returns (uint256) {
        return _reserveQuote - _phantomQuote;
    }

    function _priceBuy(uint256 value) private view returns (uint256 baseOut, uint256 quoteIn, uint256 fee) {
        fee = (value * feeBps) / BPS;
        quoteIn = value - fee;
        uint256 missing = graduationThreshold - raised();
        if (quoteIn > missing) {
            // Fee rounded up here: the smallest payment that leaves exactly `missing`, never above `value`.
            quoteIn = missing;
            fee = _divUp(missing * feeBps, BPS - feeBps);
        }
        baseOut = (_reserveBase * quoteIn) / (_reserveQuote + quoteIn);
    }

    function _priceSell(uint256 baseIn) private view returns (uint256 quoteGross, uint256 fee) {
        quoteGross = (_reserveQuote * baseIn) / (_reserveBase + baseIn);
        fee = (quoteGross * feeBps) / BPS;
    }

    /// @dev Stores the new reserves and emits the trade. The casts are safe: the quote reserve ends at
    ///      `virtualQuote + graduationThreshold`, which the factory checks, and tokens that come back
    ///      were sold before; an amount that never existed fails in `transferFrom`.
    function _settle(
        address trader,
        bool isBuy,
        uint256 baseAmount,
        uint256 quoteAmount,
        uint256 fee,
        uint256 reserveBase,
        uint256 reserveQuote
    ) private {
        _reserveBase = uint112(reserveBase);
        _reserveQuote = uint112(reserveQuote);
        emit Trade(address(token), trader, isBuy, baseAmount, quoteAmount, fee, reserveBase, reserveQuote);
    }

    function _migrate() private {
        uint256 baseLiquidity = _reserveBase - _phantomBase;
        uint256 quoteLiquidity = raised();
        ILiquidityMigrator migrator = factory.migrator();
        address pool;
        if (address(migrator) != address(0)) {
            token.transfer(address(migrator), baseLiquidity);
            pool = migrator.migrate{value: quoteLiquidity}(address(token), baseLiquidity);
        }
        emit Graduated(address(token), pool, baseLiquidity, quoteLiquidity);
    }

    function _send(address receiver, uint256 amount) private {
        if (amount == 0) return;
        (bool ok,) = receiver.call{value: amount}("");
        if (!ok) revert NativeTransferFailed(receiver);
    }

    function _divUp(uint256 a, uint256 b) private pure returns (uint256) {
        return (a + b - 1) / b;
    }
}
