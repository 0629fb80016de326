"use strict";

const { expect } = require("chai");
const { ethers } = require("hardhat");
const { deployFactory, eventsOf, launch } = require("./support/launch");

// The contracts the listener is attacked with must themselves do what they claim.

describe("RogueEmitter", () => {
  let rogue, stranger;

  beforeEach(async () => {
    [, stranger] = await ethers.getSigners();
    rogue = await ethers.deployContract("RogueEmitter");
  });

  it("forges a trade that differs from a real one in nothing but its address", async () => {
    const { factory } = await deployFactory();
    const { curve } = await launch(factory);
    const receipt = await (await curve.buy(0n, stranger, { value: 10n ** 18n })).wait();
    const real = receipt.logs.find((log) => log.address === curve.target);
    const [trade] = eventsOf(receipt, curve, "Trade");

    const forged = (await (await rogue.emitTrade(...Object.values(trade))).wait()).logs[0];

    expect(forged.topics).to.deep.equal(real.topics);
    expect(forged.data).to.equal(real.data);
    expect(forged.address).to.equal(rogue.target);
  });

  it("forges creations and graduations", async () => {
    await expect(rogue.emitCurveCreated(stranger, rogue, stranger, "Fake", "FAKE"))
      .to.emit(rogue, "CurveCreated")
      .withArgs(stranger.address, rogue.target, stranger.address, "Fake", "FAKE");
    await expect(rogue.emitGraduated(stranger, rogue, 1n, ethers.MaxUint256))
      .to.emit(rogue, "Graduated")
      .withArgs(stranger.address, rogue.target, 1n, ethers.MaxUint256);
  });

  for (let count = 0; count <= 4; count++) {
    it(`emits a raw log of ${count} topics`, async () => {
      const topics = Array.from({ length: count }, (_, i) => ethers.id(`topic ${i}`));
      for (const data of ["0x", "0xff", `0x${"ab".repeat(33)}`]) {
        const { logs } = await (await rogue.emitRaw(topics, data)).wait();
        expect(logs).to.have.lengthOf(1);
        expect(logs[0].topics).to.deep.equal(topics);
        expect(logs[0].data).to.equal(data);
      }
    });
  }

  it("refuses a fifth topic", async () => {
    await expect(rogue.emitRaw(Array(5).fill(ethers.ZeroHash), "0x")).to.be.revertedWithCustomError(
      rogue,
      "TooManyTopics",
    );
  });
});

describe("OddFactory and TestCurve", () => {
  const amounts = [0n, 1n, ethers.MaxUint256];
  let factory, curve, token, trader;
  const trade = (amount, isBuy = true) => ({
    token: token.target,
    trader: trader.address,
    isBuy,
    baseAmount: amount,
    quoteAmount: amount,
    fee: amount,
    reserveBase: amount,
    reserveQuote: amount,
  });

  beforeEach(async () => {
    [, trader] = await ethers.getSigners();
    factory = await ethers.deployContract("OddFactory");
    curve = await ethers.deployContract("TestCurve");
    token = await ethers.deployContract("Decimals6Token");
  });

  it("announce any pair", async () => {
    await expect(factory.announce(token, curve, trader, "Odd", "ODD"))
      .to.emit(factory, "CurveCreated")
      .withArgs(token.target, curve.target, trader.address, "Odd", "ODD");
  });

  it("emit trades of any amounts, in order", async () => {
    const trades = amounts.map((amount, i) => trade(amount, i % 2 === 0));
    const receipt = await (await curve.emitTrades(trades)).wait();
    expect(eventsOf(receipt, curve, "Trade")).to.deep.equal(trades);
    const single = await (await curve.emitTrade(trades[2])).wait();
    expect(eventsOf(single, curve, "Trade")).to.deep.equal([trades[2]]);
  });

  it("trade first and announce last in one transaction", async () => {
    const trades = [trade(1n), trade(2n)];
    const receipt = await (await factory.tradeThenAnnounce(curve, trades, token, trader, "Odd", "ODD")).wait();
    expect(receipt.logs.map((log) => log.address)).to.deep.equal([curve.target, curve.target, factory.target]);
    expect(eventsOf(receipt, curve, "Trade")).to.deep.equal(trades);
  });

  it("graduate a curve that never traded", async () => {
    await expect(curve.emitGraduated(token, trader, 0n, 0n)).to.emit(curve, "Graduated");
  });
});

describe("Odd tokens", () => {
  const call = async (contract, signature) => {
    const { target } = await ethers.deployContract(contract);
    return ethers.provider.call({ to: target, data: ethers.id(signature).slice(0, 10) });
  };
  const decode = (type, data) => ethers.AbiCoder.defaultAbiCoder().decode([type], data)[0];

  it("revert on symbol() or decimals()", async () => {
    await expect(call("SymbolRevertsToken", "symbol()")).to.be.rejected;
    await expect(call("DecimalsRevertsToken", "decimals()")).to.be.rejected;
    expect(decode("uint8", await call("SymbolRevertsToken", "decimals()"))).to.equal(18n);
    expect(decode("string", await call("DecimalsRevertsToken", "symbol()"))).to.equal("PLAIN");
  });

  it("answer with bytes32 where a string is expected", async () => {
    const data = await call("SymbolBytes32Token", "symbol()");
    expect(data).to.equal(ethers.encodeBytes32String("B32"));
    expect(() => decode("string", data)).to.throw();
  });

  it("answer with bytes that are not UTF-8", async () => {
    expect(decode("bytes", await call("SymbolInvalidUtf8Token", "symbol()"))).to.equal("0xfffe80c0");
  });

  it("answer with 255, 6 and 2^256 - 1 decimals", async () => {
    expect(decode("uint8", await call("Decimals255Token", "decimals()"))).to.equal(255n);
    expect(decode("uint8", await call("Decimals6Token", "decimals()"))).to.equal(6n);
    expect(decode("uint256", await call("DecimalsWideToken", "decimals()"))).to.equal(ethers.MaxUint256);
  });

  it("answer with nothing", async () => {
    expect(await call("SilentToken", "symbol()")).to.equal("0x");
  });

  it("answer with a mebibyte of emoji within the gas limit of a single transaction", async () => {
    const size = 2 ** 20;
    const token = await ethers.deployContract("SymbolHugeToken", [size]);
    // EIP-7825; some nodes hold calls to it as well.
    const symbol = await token.symbol({ gasLimit: 2 ** 24 });
    expect(Buffer.byteLength(symbol)).to.equal(size);
    expect(symbol).to.equal("🚀".repeat(size / 4));
    const short = await ethers.deployContract("SymbolHugeToken", [100]);
    expect(await short.symbol()).to.equal("🚀".repeat(24));
  });
});
