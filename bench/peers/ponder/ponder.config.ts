import { createConfig, factory } from "ponder";
import { curveAbi, factoryAbi } from "./abis";

const curveCreated = factoryAbi[0];
const factoryAddress = process.env.FACTORY_ADDRESS as `0x${string}`;

export default createConfig({
  database: { kind: "postgres", connectionString: process.env.DATABASE_URL },
  chains: {
    replay: { id: Number(process.env.CHAIN_ID), rpc: process.env.RPC_URL },
  },
  contracts: {
    Factory: {
      chain: "replay",
      abi: factoryAbi,
      address: factoryAddress,
    },
    Curve: {
      chain: "replay",
      abi: curveAbi,
      address: factory({ address: factoryAddress, event: curveCreated, parameter: "curve" }),
    },
  },
});
