// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

import {BondingCurve} from "./BondingCurve.sol";
import {IBondingCurveFactoryEvents} from "./interfaces/ILaunchpadEvents.sol";
import {ICurveHost} from "./interfaces/ICurveHost.sol";
import {ILiquidityMigrator} from "./interfaces/ILiquidityMigrator.sol";
import {LaunchParameters} from "./LaunchParameters.sol";

/// @title Launches tokens, each with a bonding curve of its own
/// @notice Anyone may launch. The economics are the same for all curves and fixed for ever.
/// @dev Fees are pushed here by the curves and pulled from here by the recipient, so a recipient
///      that cannot receive costs itself its fees and nobody a trade.
contract BondingCurveFactory is IBondingCurveFactoryEvents, ICurveHost {
    /// @notice The parameters do not describe a curve that can graduate.
    error InvalidParameters();
    /// @notice The fee recipient refused its fees.
    error FeeTransferFailed();

    /// @notice Fees left for the recipient.
    event FeesWithdrawn(address indexed recipient, uint256 amount);

    uint256 private constant MAX_FEE_BPS = 1_000;

    LaunchParameters private _parameters;
    address payable public immutable feeRecipient;
    ILiquidityMigrator public immutable override migrator;

    address[] private _tokens;
    /// @notice The curve of a token launched here, zero for any other.
    mapping(address token => address curve) public curveOf;

    /// @param parameters_   Economics of every curve. `feeBps` is at most 1,000 (10 %).
    /// @param feeRecipient_ Receives the fees.
    /// @param migrator_     Receives the liquidity of graduated curves. Zero leaves it in the curve, for ever:
    ///                      meant for development chains.
    constructor(LaunchParameters memory parameters_, address payable feeRecipient_, ILiquidityMigrator migrator_) {
        _check(parameters_);
        if (feeRecipient_ == address(0)) revert InvalidParameters();
        _parameters = parameters_;
        feeRecipient = feeRecipient_;
        migrator = migrator_;
    }

    /// @notice Accepts fees from the curves.
    receive() external payable override {}

    /// @notice Launches a token; the caller is its creator.
    function createToken(string calldata name, string calldata symbol)
        external
        returns (address token, address curve)
    {
        return createTokenFor(msg.sender, name, symbol);
    }

    /// @notice Launches a token on behalf of someone, as helper contracts do.
    /// @dev `creator` is what the caller says. It gives no rights, and readers should not take it as consent.
    function createTokenFor(address creator, string calldata name, string calldata symbol)
        public
        returns (address token, address curve)
    {
        (token, curve) = _deploy(name, symbol);
        emit CurveCreated(token, curve, creator, name, symbol);
    }

    /// @notice Sends all collected fees to the fee recipient. Anyone may call.
    function withdrawFees() external {
        uint256 amount = address(this).balance;
        emit FeesWithdrawn(feeRecipient, amount);
        (bool ok,) = feeRecipient.call{value: amount}("");
        if (!ok) revert FeeTransferFailed();
    }

    /// @notice The economics of every curve.
    function parameters() external view returns (LaunchParameters memory) {
        return _parameters;
    }

    /// @notice The token launched as number `index`, from 0.
    function tokenAt(uint256 index) external view returns (address) {
        return _tokens[index];
    }

    /// @notice How many tokens were launched.
    function count() external view returns (uint256) {
        return _tokens.length;
    }

    function _deploy(string calldata name, string calldata symbol) internal returns (address token, address curve) {
        BondingCurve deployed = new BondingCurve(name, symbol, _parameters);
        curve = address(deployed);
        token = address(deployed.token());
        curveOf[token] = curve;
        _tokens.push(token);
    }

    /// @dev The curve must have tokens left when it graduates, and its reserves must fit their type.
    function _check(LaunchParameters memory p) private pure {
        if (p.supply == 0 || p.virtualBase < p.supply) revert InvalidParameters();
        if (p.virtualQuote == 0 || p.graduationThreshold == 0 || p.feeBps > MAX_FEE_BPS) revert InvalidParameters();
        uint256 finalQuote = uint256(p.virtualQuote) + p.graduationThreshold;
        if (finalQuote > type(uint112).max) revert InvalidParameters();
        uint256 sold = (uint256(p.virtualBase) * p.graduationThreshold) / finalQuote;
        if (sold >= p.supply) revert InvalidParameters();
    }
}
