"use strict";

/**
 * What a launchpad is made of: its parameters, read from the environment, and its deployment.
 * Used by deploy.js and by the contract tests.
 */

// Like well-known launchpads: about 79 % of the supply is sold on the curve, the price rises about
// fifteenfold, and the rest of the supply goes to the pool at the curve's last price.
const DEFAULTS = {
  LAUNCH_SUPPLY: "1000000000", // tokens
  LAUNCH_VIRTUAL_BASE: "1073000000", // tokens
  LAUNCH_VIRTUAL_QUOTE: "30", // native coins; starting price = 30 / 1.073e9 = 2.8e-8
  GRADUATION_THRESHOLD: "85", // native coins raised
  LAUNCH_FEE_BPS: "100", // 1 %
};

/** LaunchParameters of the contracts, from environment variables in whole tokens and coins. */
function launchParameters(ethers, env = {}) {
  const setting = (name) => env[name] || DEFAULTS[name];
  return {
    virtualBase: ethers.parseEther(setting("LAUNCH_VIRTUAL_BASE")),
    virtualQuote: ethers.parseEther(setting("LAUNCH_VIRTUAL_QUOTE")),
    supply: ethers.parseEther(setting("LAUNCH_SUPPLY")),
    graduationThreshold: ethers.parseEther(setting("GRADUATION_THRESHOLD")),
    feeBps: BigInt(setting("LAUNCH_FEE_BPS")),
  };
}

async function deployed(ethers, name, ...args) {
  const contract = await ethers.deployContract(name, args);
  await contract.waitForDeployment();
  return contract;
}

/**
 * Deploys migrator, factory and helper.
 *
 * FEE_RECIPIENT defaults to the deployer. LIQUIDITY_MIGRATOR is an address or "none";
 * without it a LockingMigrator is deployed, which only locks the liquidity: fit for development.
 */
async function deployLaunchpad(ethers, env = {}) {
  const [deployer] = await ethers.getSigners();
  const parameters = launchParameters(ethers, env);
  const feeRecipient = env.FEE_RECIPIENT || deployer.address;

  let migrator = env.LIQUIDITY_MIGRATOR;
  if (!migrator) {
    migrator = await (await deployed(ethers, "LockingMigrator")).getAddress();
  } else if (migrator === "none") {
    migrator = ethers.ZeroAddress;
  }

  const factory = await deployed(ethers, "BondingCurveFactory", parameters, feeRecipient, migrator);
  const helper = await deployed(ethers, "CreateAndBuy", await factory.getAddress());
  const receipt = await factory.deploymentTransaction().wait();
  return { parameters, feeRecipient, migrator, factory, helper, startBlock: receipt.blockNumber };
}

module.exports = { DEFAULTS, launchParameters, deployLaunchpad };
