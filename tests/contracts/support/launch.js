"use strict";

const { ethers } = require("hardhat");
const { launchParameters } = require("../../../scripts/launchpad");

const BPS = 10_000n;

/** Deploys migrator and factory, with default parameters unless overridden. */
async function deployFactory({ name = "BondingCurveFactory", feeRecipient, migrator, ...overrides } = {}) {
  const [deployer] = await ethers.getSigners();
  const parameters = { ...launchParameters(ethers), ...overrides };
  const target = migrator ?? (await ethers.deployContract("LockingMigrator"));
  const factory = await ethers.deployContract(name, [parameters, feeRecipient ?? deployer.address, target]);
  return { factory, parameters };
}

/** Launches a token at the factory and returns its contracts. */
async function launch(factory, name = "Example", symbol = "EXM") {
  await (await factory.createToken(name, symbol)).wait();
  return contractsOf(await factory.tokenAt((await factory.count()) - 1n), factory);
}

async function contractsOf(tokenAddress, factory) {
  const token = await ethers.getContractAt("LaunchToken", tokenAddress);
  const curve = await ethers.getContractAt("BondingCurve", await factory.curveOf(tokenAddress));
  return { token, curve };
}

/** Events of one of our interfaces in a receipt, in log order, whoever emitted them. */
function eventsOf(receipt, contract, name) {
  const { topicHash } = contract.interface.getEvent(name);
  return receipt.logs
    .filter((log) => log.topics[0] === topicHash)
    .map((log) => contract.interface.parseLog(log).args.toObject());
}

/** Uniform integers in [0, below) from a seed (mulberry32). */
function seeded(seed) {
  let state = seed >>> 0;
  const next32 = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return BigInt((t ^ (t >>> 14)) >>> 0);
  };
  return (below) => {
    let value = 0n;
    for (let i = 0; i < 4; i++) value = (value << 32n) | next32();
    return value % below;
  };
}

module.exports = { BPS, deployFactory, launch, contractsOf, eventsOf, seeded };
