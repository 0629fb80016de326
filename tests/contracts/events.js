"use strict";

const { expect } = require("chai");
const { artifacts, ethers } = require("hardhat");

// Written out, not computed: indexers have these strings in their configuration.
const EVENTS = {
  Trade: {
    signature: "Trade(address,address,bool,uint256,uint256,uint256,uint256,uint256)",
    topic0: "0x2c76e7a47fd53e2854856ac3f0a5f3ee40d15cfaa82266357ea9779c486ab9c3",
    indexed: ["token", "trader"],
    emitters: ["BondingCurve", "TestCurve", "RogueEmitter"],
  },
  Graduated: {
    signature: "Graduated(address,address,uint256,uint256)",
    topic0: "0x18a56450d3c666e2bae9e0829fcada82a9ab0deef6e33c2496752c88d4155c9d",
    indexed: ["token", "pool"],
    emitters: ["BondingCurve", "TestCurve", "RogueEmitter"],
  },
  CurveCreated: {
    signature: "CurveCreated(address,address,address,string,string)",
    topic0: "0xe190ed6c0ff5074358a7d29c1e854e318bac23840399ffc2b90c206b1e7fd204",
    indexed: ["token", "curve", "creator"],
    emitters: ["BondingCurveFactory", "LateAnnouncingFactory", "OddFactory", "RogueEmitter"],
  },
};

describe("Event signatures", () => {
  for (const [name, { signature, topic0, indexed, emitters }] of Object.entries(EVENTS)) {
    for (const contract of emitters) {
      it(`${contract} emits ${name} exactly as published`, async () => {
        const { abi } = await artifacts.readArtifact(contract);
        const event = new ethers.Interface(abi).getEvent(name);
        expect(event.format("sighash")).to.equal(signature);
        expect(event.topicHash).to.equal(topic0);
        expect(event.inputs.filter((input) => input.indexed).map((input) => input.name)).to.deep.equal(indexed);
        expect(event.anonymous).to.equal(false);
      });
    }
  }
});
