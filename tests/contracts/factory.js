"use strict";

const { expect } = require("chai");
const { ethers } = require("hardhat");
const { deployLaunchpad } = require("../../scripts/launchpad");
const { contractsOf, deployFactory, eventsOf, launch } = require("./support/launch");

const ether = ethers.parseEther;

/** Names of the launchpad events in a receipt, in log order; ERC-20 transfers left out. */
async function launchpadEvents(receipt) {
  const rogue = await ethers.getContractFactory("RogueEmitter"); // Knows all three events.
  return receipt.logs.map((log) => rogue.interface.parseLog(log)?.name).filter(Boolean);
}

describe("BondingCurveFactory", () => {
  let creator, alice;

  before(async () => {
    [creator, alice] = await ethers.getSigners();
  });

  it("announces a launch with token, curve and creator", async () => {
    const { factory } = await deployFactory();
    const receipt = await (await factory.connect(alice).createToken("Ünïcode 🚀", "🚀")).wait();
    const [created] = eventsOf(receipt, factory, "CurveCreated");
    const { token, curve } = await contractsOf(created.token, factory);

    expect(created).to.deep.equal({
      token: token.target,
      curve: curve.target,
      creator: alice.address,
      name: "Ünïcode 🚀",
      symbol: "🚀",
    });
    expect(receipt.logs.at(-1).address).to.equal(factory.target);
    expect(await curve.token()).to.equal(token.target);
    expect(await curve.factory()).to.equal(factory.target);
    expect([await token.name(), await token.symbol(), await token.decimals()]).to.deep.equal([
      "Ünïcode 🚀",
      "🚀",
      18n,
    ]);
  });

  it("lists launches in order", async () => {
    const { factory } = await deployFactory();
    const first = await launch(factory, "One", "1");
    const second = await launch(factory, "Two", "2");
    expect(await factory.count()).to.equal(2n);
    expect(await factory.tokenAt(0)).to.equal(first.token.target);
    expect(await factory.tokenAt(1)).to.equal(second.token.target);
    expect(await factory.curveOf(first.token)).to.equal(first.curve.target);
    expect(await factory.curveOf(alice)).to.equal(ethers.ZeroAddress);
  });

  it("keeps curves apart", async () => {
    const { factory } = await deployFactory();
    const one = await launch(factory);
    const two = await launch(factory);
    await one.curve.buy(0n, alice, { value: ether("3") });
    expect(await two.curve.raised()).to.equal(0n);
    expect(await ethers.provider.getBalance(two.curve)).to.equal(0n);
  });

  it("states its parameters", async () => {
    const { factory, parameters } = await deployFactory({ feeBps: 250n });
    expect((await factory.parameters()).toObject()).to.deep.equal({ ...parameters, feeBps: 250n });
  });

  for (const [reason, overrides] of Object.entries({
    "no supply": { supply: 0n },
    "fewer virtual tokens than real ones": { virtualBase: ether("999999999") },
    "no virtual coin": { virtualQuote: 0n },
    "no threshold": { graduationThreshold: 0n },
    "a threshold that needs more tokens than there are": { graduationThreshold: ether("1000") },
    "reserves that outgrow their type": { graduationThreshold: 2n ** 112n - 1n },
    "a fee above 10 %": { feeBps: 1_001n },
    "no fee recipient": { feeRecipient: ethers.ZeroAddress },
  })) {
    it(`refuses ${reason}`, async () => {
      const contract = await ethers.getContractFactory("BondingCurveFactory");
      await expect(deployFactory(overrides)).to.be.revertedWithCustomError(contract, "InvalidParameters");
    });
  }

  it("is deployed by the script with parameters from the environment", async () => {
    const { factory, helper, migrator, startBlock } = await deployLaunchpad(ethers, {
      GRADUATION_THRESHOLD: "4.25",
      LAUNCH_VIRTUAL_QUOTE: "1.5",
      LIQUIDITY_MIGRATOR: "none",
    });
    const parameters = await factory.parameters();
    expect(parameters.graduationThreshold).to.equal(ether("4.25"));
    expect(parameters.virtualQuote).to.equal(ether("1.5"));
    expect(await factory.feeRecipient()).to.equal(creator.address);
    expect(migrator).to.equal(ethers.ZeroAddress);
    expect(await helper.factory()).to.equal(factory.target);
    expect(await ethers.provider.getCode(factory, startBlock)).to.not.equal("0x");
    expect(await ethers.provider.getCode(factory, startBlock - 1)).to.equal("0x");
  });
});

describe("Launch and first buy in one transaction", () => {
  let alice;
  const launchers = {
    CreateAndBuy: {
      order: ["CurveCreated", "Trade"],
      async deploy() {
        const { factory, parameters } = await deployFactory();
        return { factory, parameters, launcher: await ethers.deployContract("CreateAndBuy", [factory]) };
      },
    },
    LateAnnouncingFactory: {
      order: ["Trade", "CurveCreated"],
      async deploy() {
        const { factory, parameters } = await deployFactory({ name: "LateAnnouncingFactory" });
        return { factory, parameters, launcher: factory };
      },
    },
  };

  before(async () => {
    [, alice] = await ethers.getSigners();
  });

  for (const [name, { order, deploy }] of Object.entries(launchers)) {
    describe(name, () => {
      let factory, parameters, launcher;

      beforeEach(async () => {
        ({ factory, parameters, launcher } = await deploy());
      });

      const createAndBuy = (value, minBaseOut = 0n) =>
        launcher.connect(alice).createAndBuy("Example", "EXM", minBaseOut, { value });

      it(`logs ${order.join(", then ")}`, async () => {
        const receipt = await (await createAndBuy(ether("1"))).wait();
        expect(await launchpadEvents(receipt)).to.deep.equal(order);
      });

      it("names the caller as creator and trader", async () => {
        const receipt = await (await createAndBuy(ether("1"))).wait();
        const [created] = eventsOf(receipt, factory, "CurveCreated");
        const { token, curve } = await contractsOf(created.token, factory);
        const [trade] = eventsOf(receipt, curve, "Trade");
        const tradeLog = receipt.logs.find((log) => log.topics[0] === curve.interface.getEvent("Trade").topicHash);
        expect(created.curve).to.equal(tradeLog.address);
        expect(created.creator).to.equal(alice.address);
        expect(trade.trader).to.equal(alice.address);
        expect(trade.token).to.equal(token.target);
        expect(await token.balanceOf(alice)).to.equal(trade.baseAmount);
        expect(await factory.count()).to.equal(1n);
      });

      it("graduates at once and refunds the caller if more than the threshold is sent", async () => {
        const transaction = await createAndBuy(ether("300"));
        const receipt = await transaction.wait();
        const fee = (parameters.graduationThreshold * 100n + 9_899n) / 9_900n;
        await expect(transaction).to.changeEtherBalance(alice, -(parameters.graduationThreshold + fee));
        expect(await ethers.provider.getBalance(launcher)).to.equal(launcher === factory ? fee : 0n);
        const events = await launchpadEvents(receipt);
        expect([...events].sort()).to.deep.equal(["CurveCreated", "Graduated", "Trade"]);
        expect(events.at(order[0] === "Trade" ? -1 : 0)).to.equal("CurveCreated");
      });

      it("launches nothing if the buy fails", async () => {
        const curve = await ethers.getContractFactory("BondingCurve");
        await expect(createAndBuy(ether("1"), ethers.MaxUint256)).to.be.revertedWithCustomError(
          curve,
          "SlippageExceeded",
        );
        await expect(createAndBuy(0n)).to.be.revertedWithCustomError(curve, "ZeroAmount");
        expect(await factory.count()).to.equal(0n);
      });
    });
  }
});
