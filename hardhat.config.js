"use strict";

// Nothing here asks a question or phones home: runs are often unattended.
process.env.HARDHAT_DISABLE_TELEMETRY_PROMPT ??= "true";
process.env.HARDHAT_HIDE_SOLIDITY_SURVEY_MESSAGE ??= "true";

require("@nomicfoundation/hardhat-ethers");
require("@nomicfoundation/hardhat-chai-matchers");

const { subtask } = require("hardhat/config");
const { TASK_COMPILE_SOLIDITY_GET_SOLC_BUILD } = require("hardhat/builtin-tasks/task-names");
const { version: solcVersion } = require("solc/package.json");

// The compiler is the `solc` package that package-lock.json pins, never a
// download: builds are the same everywhere and work without internet.
subtask(TASK_COMPILE_SOLIDITY_GET_SOLC_BUILD).setAction(async ({ solcVersion: wanted }) => {
  if (wanted !== solcVersion) {
    throw new Error(`Solidity ${wanted} was asked for, but the installed solc package is ${solcVersion}`);
  }
  const longVersion = require("solc").version().replace(/\.Emscripten.*$/, "");
  return {
    version: solcVersion,
    longVersion,
    compilerPath: require.resolve("solc/soljson.js"),
    isSolcJs: true,
  };
});

/** @type {import("hardhat/config").HardhatUserConfig} */
module.exports = {
  solidity: {
    version: solcVersion,
    settings: {
      optimizer: { enabled: true, runs: 800 },
      // Without PUSH0 and newer opcodes: the bytecode runs on every EVM chain.
      evmVersion: "paris",
    },
  },
  networks: {
    localhost: {
      url: process.env.HARDHAT_RPC_URL || "http://127.0.0.1:8545",
      // Fail instead of hanging when nothing answers.
      timeout: 30_000,
    },
  },
  paths: {
    sources: "contracts",
    tests: "tests/contracts",
    artifacts: "artifacts",
    cache: "cache",
  },
  mocha: { timeout: 60_000 },
};
