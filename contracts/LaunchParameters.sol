// SPDX-License-Identifier: MIT
pragma solidity ^0.8.24;

/// @notice The economics that all curves of a factory share.
/// @dev uint112 holds 5.1e33, that is five quadrillion tokens of 18 decimals, and lets both
///      reserves and a flag share one storage slot. The product of two fits in 224 bits.
/// @param virtualBase         Token reserve at the start, counting `virtualBase - supply` tokens that never exist.
/// @param virtualQuote        Native-coin reserve at the start, in wei. All of it is virtual.
/// @param supply              Tokens minted to the curve.
/// @param graduationThreshold Raised wei, without fees, at which the curve graduates.
/// @param feeBps              Fee on the native-coin side of every trade, in hundredths of a percent.
struct LaunchParameters {
    uint112 virtualBase;
    uint112 virtualQuote;
    uint112 supply;
    uint112 graduationThreshold;
    uint16 feeBps;
}
