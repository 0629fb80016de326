import { parseAbi } from "viem";

export const factoryAbi = parseAbi([
  "event CurveCreated(address indexed token, address indexed curve, address indexed creator, string name, string symbol)",
]);

export const curveAbi = parseAbi([
  "event Trade(address indexed token, address indexed trader, bool isBuy, uint256 base, uint256 quote, uint256 fee, uint256 reserveBase, uint256 reserveQuote)",
]);
