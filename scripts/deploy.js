"use strict";

/**
 * Deploys the launchpad and prints the listener's settings for it.
 *
 *   npx hardhat node
 *   npx hardhat run scripts/deploy.js --network localhost
 */

const fs = require("node:fs");
const path = require("node:path");
const hre = require("hardhat");
const { deployLaunchpad } = require("./launchpad");

async function main() {
  const { ethers, network } = hre;
  const { chainId } = await ethers.provider.getNetwork();
  const { parameters, feeRecipient, migrator, factory, helper, startBlock } = await deployLaunchpad(
    ethers,
    process.env,
  );

  const record = {
    network: network.name,
    chainId: Number(chainId),
    startBlock,
    contracts: {
      BondingCurveFactory: await factory.getAddress(),
      CreateAndBuy: await helper.getAddress(),
      LiquidityMigrator: migrator,
    },
    feeRecipient,
    parameters: Object.fromEntries(Object.entries(parameters).map(([key, value]) => [key, value.toString()])),
  };

  for (const [name, address] of Object.entries(record.contracts)) {
    console.log(`${name.padEnd(20)} ${address}`);
  }

  // The in-process network ends with this script: there is nothing to connect to.
  if (network.name === "hardhat") {
    console.log("\nDeployed to the in-process network only; add --network localhost for a running node.");
    return;
  }

  const folder = path.join(hre.config.paths.root, "deployments");
  const file = path.join(folder, `${chainId}.json`);
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(file, `${JSON.stringify(record, null, 2)}\n`);

  const url = network.config.url;
  console.log(`\nWritten to ${path.relative(process.cwd(), file)}. Settings of the listener:\n`);
  console.log(`CHAIN_ID=${chainId}`);
  console.log(`BONDING_CURVE_FACTORY_ADDRESS=${record.contracts.BondingCurveFactory}`);
  console.log(`START_BLOCK=${startBlock}`);
  console.log(`BLOCKCHAIN_HTTP_URL=${url}`);
  console.log(`BLOCKCHAIN_WS_URL=${url.replace(/^http/, "ws")}`);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
