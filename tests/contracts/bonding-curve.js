"use strict";

const { expect } = require("chai");
const { ethers } = require("hardhat");
const { BPS, deployFactory, eventsOf, launch, seeded } = require("./support/launch");

const ether = ethers.parseEther;

describe("BondingCurve", () => {
  let creator, alice, bob, feeRecipient;
  let factory, parameters, token, curve;

  beforeEach(async () => {
    [creator, alice, bob, feeRecipient] = await ethers.getSigners();
    ({ factory, parameters } = await deployFactory({ feeRecipient: feeRecipient.address }));
    ({ token, curve } = await launch(factory));
  });

  const buy = async (signer, value, minBaseOut = 0n, recipient = signer.address) =>
    (await curve.connect(signer).buy(minBaseOut, recipient, { value })).wait();

  const sell = async (signer, baseIn, minQuoteOut = 0n, recipient = signer.address) => {
    await (await token.connect(signer).approve(curve, baseIn)).wait();
    return (await curve.connect(signer).sell(baseIn, minQuoteOut, recipient)).wait();
  };

  const tradeOf = (receipt) => {
    const trades = eventsOf(receipt, curve, "Trade");
    expect(trades).to.have.lengthOf(1);
    return trades[0];
  };

  describe("at launch", () => {
    it("holds the whole supply at the virtual reserves", async () => {
      expect(await token.totalSupply()).to.equal(parameters.supply);
      expect(await token.balanceOf(curve)).to.equal(parameters.supply);
      expect(await curve.reserves()).to.deep.equal([parameters.virtualBase, parameters.virtualQuote]);
      expect(await curve.raised()).to.equal(0n);
      expect(await curve.graduated()).to.equal(false);
    });

    it("starts at a price of 2.8e-8", async () => {
      const [base, quote] = await curve.reserves();
      expect((quote * 10n ** 12n) / base).to.equal(27_958n);
    });
  });

  describe("buy", () => {
    it("takes the fee first and fills the rest at constant product", async () => {
      const value = ether("1");
      const fee = value / 100n;
      const quoteIn = value - fee;
      const baseOut = (parameters.virtualBase * quoteIn) / (parameters.virtualQuote + quoteIn);

      const receipt = await buy(alice, value);

      expect(tradeOf(receipt)).to.deep.equal({
        token: token.target,
        trader: alice.address,
        isBuy: true,
        baseAmount: baseOut,
        quoteAmount: quoteIn,
        fee,
        reserveBase: parameters.virtualBase - baseOut,
        reserveQuote: parameters.virtualQuote + quoteIn,
      });
      expect(await token.balanceOf(alice)).to.equal(baseOut);
      expect(await ethers.provider.getBalance(curve)).to.equal(quoteIn);
      expect(await ethers.provider.getBalance(factory)).to.equal(fee);
    });

    it("gives what quoteBuy said", async () => {
      const quoted = await curve.quoteBuy(ether("2.5"));
      const { baseAmount, fee } = tradeOf(await buy(alice, ether("2.5")));
      expect(quoted).to.deep.equal([baseAmount, fee, 0n]);
    });

    it("names the recipient as trader, not the sender", async () => {
      const receipt = await buy(alice, ether("1"), 0n, bob.address);
      const { trader, baseAmount } = tradeOf(receipt);
      expect(trader).to.equal(bob.address);
      expect(await token.balanceOf(bob)).to.equal(baseAmount);
      expect(await token.balanceOf(alice)).to.equal(0n);
    });

    it("accepts the exact minimum and refuses one unit more", async () => {
      const [baseOut] = await curve.quoteBuy(ether("1"));
      await expect(curve.connect(alice).buy(baseOut + 1n, alice, { value: ether("1") }))
        .to.be.revertedWithCustomError(curve, "SlippageExceeded")
        .withArgs(baseOut, baseOut + 1n);
      await buy(alice, ether("1"), baseOut);
    });

    it("refuses nothing", async () => {
      await expect(curve.buy(0n, alice, { value: 0n })).to.be.revertedWithCustomError(curve, "ZeroAmount");
    });

    it("refuses the zero address as recipient", async () => {
      await expect(
        curve.buy(0n, ethers.ZeroAddress, { value: ether("1") }),
      ).to.be.revertedWithCustomError(token, "ZeroAddress");
    });

    it("fills a single wei", async () => {
      const { baseAmount, quoteAmount, fee } = tradeOf(await buy(alice, 1n));
      expect(baseAmount).to.equal(parameters.virtualBase / (parameters.virtualQuote + 1n));
      expect([quoteAmount, fee]).to.deep.equal([1n, 0n]);
    });
  });

  describe("sell", () => {
    beforeEach(() => buy(alice, ether("10")));

    it("pays the proceeds minus the fee; the event states them without it", async () => {
      const [reserveBase, reserveQuote] = await curve.reserves();
      const baseIn = (await token.balanceOf(alice)) / 3n;
      const quoteGross = (reserveQuote * baseIn) / (reserveBase + baseIn);
      const fee = quoteGross / 100n;
      await token.connect(alice).approve(curve, baseIn);

      const transaction = await curve.connect(alice).sell(baseIn, 0n, bob.address);

      await expect(transaction).to.changeEtherBalances(
        [curve, factory, bob],
        [-quoteGross, fee, quoteGross - fee],
      );
      expect(tradeOf(await transaction.wait())).to.deep.equal({
        token: token.target,
        trader: alice.address,
        isBuy: false,
        baseAmount: baseIn,
        quoteAmount: quoteGross,
        fee,
        reserveBase: reserveBase + baseIn,
        reserveQuote: reserveQuote - quoteGross,
      });
    });

    it("gives what quoteSell said", async () => {
      const baseIn = (await token.balanceOf(alice)) / 2n;
      const [quoteOut, fee] = await curve.quoteSell(baseIn);
      const trade = tradeOf(await sell(alice, baseIn));
      expect([trade.quoteAmount - trade.fee, trade.fee]).to.deep.equal([quoteOut, fee]);
    });

    it("accepts the exact minimum and refuses one wei more", async () => {
      const baseIn = await token.balanceOf(alice);
      const [quoteOut] = await curve.quoteSell(baseIn);
      await token.connect(alice).approve(curve, baseIn);
      await expect(curve.connect(alice).sell(baseIn, quoteOut + 1n, alice))
        .to.be.revertedWithCustomError(curve, "SlippageExceeded")
        .withArgs(quoteOut, quoteOut + 1n);
      await sell(alice, baseIn, quoteOut);
    });

    it("needs tokens and an allowance", async () => {
      const balance = await token.balanceOf(alice);
      await expect(curve.connect(alice).sell(balance, 0n, alice)).to.be.revertedWithCustomError(
        token,
        "InsufficientAllowance",
      );
      await token.connect(alice).approve(curve, ethers.MaxUint256);
      await expect(curve.connect(alice).sell(balance + 1n, 0n, alice)).to.be.revertedWithCustomError(
        token,
        "InsufficientBalance",
      );
    });

    it("refuses an amount too small to be worth a wei", async () => {
      await token.connect(alice).approve(curve, 1n);
      await expect(curve.connect(alice).sell(1n, 0n, alice)).to.be.revertedWithCustomError(curve, "ZeroAmount");
    });

    it("fails alone if the receiver refuses coins", async () => {
      const receiver = await ethers.deployContract("RefusingReceiver");
      await receiver.buy(curve, { value: ether("1") });
      await expect(receiver.sellAll(curve))
        .to.be.revertedWithCustomError(curve, "NativeTransferFailed")
        .withArgs(receiver.target);
      await sell(alice, await token.balanceOf(alice));
    });

    it("is not fooled by a receiver that calls back", async () => {
      const receiver = await ethers.deployContract("RefusingReceiver");
      await receiver.buy(curve, { value: ether("5") });
      await receiver.reenter(curve);
      const [base, quote] = await curve.reserves();

      const receipt = await (await receiver.sellAll(curve)).wait();

      const [sold, bought] = eventsOf(receipt, curve, "Trade");
      expect([sold.isBuy, bought.isBuy]).to.deep.equal([false, true]);
      expect(bought.reserveBase).to.equal(sold.reserveBase - bought.baseAmount);
      expect(bought.reserveQuote).to.equal(sold.reserveQuote + bought.quoteAmount);
      expect(await curve.reserves()).to.deep.equal([bought.reserveBase, bought.reserveQuote]);
      expect(bought.reserveBase * bought.reserveQuote).to.be.at.least(base * quote);
      expect(await ethers.provider.getBalance(curve)).to.equal(await curve.raised());
    });
  });

  describe("any sequence of trades", () => {
    for (const seed of [1, 20_240_601, 0xdecade]) {
      it(`keeps product, balances and events consistent (seed ${seed})`, async () => {
        const random = seeded(seed);
        const traders = [alice, bob, creator];
        let [base, quote] = await curve.reserves();
        let fees = 0n;
        const held = new Map(traders.map((trader) => [trader.address, 0n]));
        for (const trader of traders) await token.connect(trader).approve(curve, ethers.MaxUint256);
        let sells = 0;

        for (let step = 0; step < 120; step++) {
          const trader = traders[Number(random(3n))];
          const holding = held.get(trader.address);
          const selling = holding > 0n && random(100n) < 48n;
          // The model: what the trade must do, computed here from nothing but the last reserves.
          let expected;
          let receipt;
          if (selling) {
            // All of it now and then, otherwise any part that is worth something.
            const baseAmount = random(5n) === 0n ? holding : 1n + random(holding);
            const quoteAmount = (quote * baseAmount) / (base + baseAmount);
            if (quoteAmount === 0n) continue;
            const fee = (quoteAmount * parameters.feeBps) / BPS;
            expected = { isBuy: false, baseAmount, quoteAmount, fee };
            receipt = await (await curve.connect(trader).sell(baseAmount, quoteAmount - fee, trader)).wait();
            base += baseAmount;
            quote -= quoteAmount;
            held.set(trader.address, holding - baseAmount);
            sells += 1;
          } else {
            // From single wei to a coin, evenly by magnitude.
            const value = 1n + random(10n ** (1n + random(18n)));
            const fee = (value * parameters.feeBps) / BPS;
            const quoteAmount = value - fee;
            const baseAmount = (base * quoteAmount) / (quote + quoteAmount);
            expected = { isBuy: true, baseAmount, quoteAmount, fee };
            receipt = await (await curve.connect(trader).buy(baseAmount, trader, { value })).wait();
            base -= baseAmount;
            quote += quoteAmount;
            held.set(trader.address, holding + baseAmount);
          }
          fees += expected.fee;

          const trade = tradeOf(receipt);
          const previousProduct =
            (expected.isBuy ? base + expected.baseAmount : base - expected.baseAmount) *
            (expected.isBuy ? quote - expected.quoteAmount : quote + expected.quoteAmount);
          expect(trade, `step ${step}`).to.deep.equal({
            token: token.target,
            trader: trader.address,
            ...expected,
            reserveBase: base,
            reserveQuote: quote,
          });
          expect(await curve.reserves()).to.deep.equal([base, quote]);
          expect(trade.reserveBase * trade.reserveQuote).to.be.at.least(previousProduct);
          expect(await ethers.provider.getBalance(curve)).to.equal(quote - parameters.virtualQuote);
          expect(await token.balanceOf(curve)).to.equal(base - (parameters.virtualBase - parameters.supply));
        }

        expect(sells).to.be.greaterThan(20);
        expect(await ethers.provider.getBalance(factory)).to.equal(fees);

        // The curve can always pay everyone out.
        for (const trader of traders) {
          const holding = await token.balanceOf(trader);
          expect(holding).to.equal(held.get(trader.address));
          if ((await curve.quoteSell(holding))[0] > 0n) await curve.connect(trader).sell(holding, 0n, trader);
        }
        const [endBase, endQuote] = await curve.reserves();
        expect(endBase * endQuote).to.be.at.least(parameters.virtualBase * parameters.virtualQuote);
        expect(endQuote).to.be.at.least(parameters.virtualQuote);
      });
    }
  });

  describe("graduation", () => {
    it("fills the last buy up to the threshold and refunds the rest", async () => {
      await buy(bob, ether("40"));
      const value = ether("500");
      const missing = parameters.graduationThreshold - (await curve.raised());
      // The smallest payment that leaves `missing` after the fee.
      const fee = (missing * parameters.feeBps + (BPS - parameters.feeBps) - 1n) / (BPS - parameters.feeBps);
      const quoted = await curve.quoteBuy(value);

      const transaction = await curve.connect(alice).buy(0n, alice, { value });

      await expect(transaction).to.changeEtherBalances([alice, factory], [-(missing + fee), fee]);
      const trade = tradeOf(await transaction.wait());
      expect([trade.quoteAmount, trade.fee]).to.deep.equal([missing, fee]);
      expect(quoted).to.deep.equal([trade.baseAmount, fee, value - missing - fee]);
      expect(await token.balanceOf(alice)).to.equal(trade.baseAmount);
      expect(await curve.graduated()).to.equal(true);
    });

    it("does not refund a buy that meets the threshold exactly", async () => {
      const free = await deployFactory({ feeBps: 0n });
      ({ token, curve } = await launch(free.factory));
      const transaction = await curve.connect(alice).buy(0n, alice, { value: parameters.graduationThreshold });
      await expect(transaction).to.changeEtherBalance(alice, -parameters.graduationThreshold);
      expect(tradeOf(await transaction.wait()).fee).to.equal(0n);
      expect(await curve.graduated()).to.equal(true);
    });

    it("refunds a single wei above the threshold", async () => {
      const free = await deployFactory({ feeBps: 0n });
      ({ token, curve } = await launch(free.factory));
      const value = parameters.graduationThreshold + 1n;
      const transaction = await curve.connect(alice).buy(0n, alice, { value });
      await expect(transaction).to.changeEtherBalance(alice, 1n - value);
      expect(await curve.graduated()).to.equal(true);
    });

    it("stays open one wei below the threshold", async () => {
      const free = await deployFactory({ feeBps: 0n });
      ({ token, curve } = await launch(free.factory));
      await buy(alice, parameters.graduationThreshold - 1n);
      expect(await curve.graduated()).to.equal(false);
      const { quoteAmount } = tradeOf(await buy(alice, ether("1")));
      expect(quoteAmount).to.equal(1n);
      expect(await curve.graduated()).to.equal(true);
    });

    it("hands all liquidity to the migrator at the curve's last price", async () => {
      const receipt = await buy(alice, ether("100"));
      const trade = tradeOf(receipt);
      const [graduated] = eventsOf(receipt, curve, "Graduated");
      const phantom = parameters.virtualBase - parameters.supply;

      expect(graduated.token).to.equal(token.target);
      expect(graduated.baseLiquidity).to.equal(trade.reserveBase - phantom);
      expect(graduated.quoteLiquidity).to.equal(parameters.graduationThreshold);
      expect(graduated.pool).to.not.equal(ethers.ZeroAddress);
      expect(await token.balanceOf(graduated.pool)).to.equal(graduated.baseLiquidity);
      expect(await ethers.provider.getBalance(graduated.pool)).to.equal(graduated.quoteLiquidity);
      expect(await token.balanceOf(curve)).to.equal(0n);
      expect(await ethers.provider.getBalance(curve)).to.equal(0n);
      // 85 / 206.9e6 against 115 / 279.9e6: within a thousandth with the default parameters.
      const scale = 10n ** 15n;
      const poolPrice = (graduated.quoteLiquidity * scale) / graduated.baseLiquidity;
      const lastPrice = (trade.reserveQuote * scale) / trade.reserveBase;
      expect(poolPrice).to.be.closeTo(lastPrice, lastPrice / 1_000n);
    });

    it("logs the trade before the graduation", async () => {
      const receipt = await buy(alice, ether("100"));
      const names = receipt.logs
        .filter((log) => log.address === curve.target)
        .map((log) => curve.interface.parseLog(log).name);
      expect(names).to.deep.equal(["Trade", "Graduated"]);
    });

    it("stops trading for good", async () => {
      await buy(alice, ether("100"));
      await token.connect(alice).approve(curve, 1_000n);
      await expect(curve.buy(0n, bob, { value: 1n })).to.be.revertedWithCustomError(curve, "TradingStopped");
      await expect(curve.connect(alice).sell(1_000n, 0n, alice)).to.be.revertedWithCustomError(
        curve,
        "TradingStopped",
      );
      expect(await curve.quoteBuy(5n)).to.deep.equal([0n, 0n, 5n]);
      expect(await curve.quoteSell(5n)).to.deep.equal([0n, 0n]);
    });

    it("keeps the liquidity in the curve without a migrator", async () => {
      const bare = await deployFactory({ migrator: ethers.ZeroAddress });
      ({ token, curve } = await launch(bare.factory));
      const receipt = await buy(alice, ether("100"));
      const [graduated] = eventsOf(receipt, curve, "Graduated");
      expect(graduated.pool).to.equal(ethers.ZeroAddress);
      expect(await token.balanceOf(curve)).to.equal(graduated.baseLiquidity);
      expect(await ethers.provider.getBalance(curve)).to.equal(graduated.quoteLiquidity);
    });

    it("waits, open, while the migrator fails", async () => {
      // Any contract without migrate() will do.
      const broken = await deployFactory({ migrator: await ethers.deployContract("PlainToken") });
      ({ token, curve } = await launch(broken.factory));
      await buy(alice, ether("10"));
      await expect(curve.connect(bob).buy(0n, bob, { value: ether("100") })).to.be.reverted;
      expect(await curve.graduated()).to.equal(false);
      await sell(alice, await token.balanceOf(alice));
    });
  });

  describe("fees", () => {
    it("reach the recipient on withdrawal, whoever calls", async () => {
      await buy(alice, ether("10"));
      const transaction = await factory.connect(bob).withdrawFees();
      await expect(transaction).to.changeEtherBalances([factory, feeRecipient], [-ether("0.1"), ether("0.1")]);
      await expect(transaction).to.emit(factory, "FeesWithdrawn").withArgs(feeRecipient.address, ether("0.1"));
    });

    it("do not stop trading when the recipient refuses them", async () => {
      const refuser = await ethers.deployContract("RefusingReceiver");
      const refusing = await deployFactory({ feeRecipient: refuser.target });
      ({ token, curve } = await launch(refusing.factory));

      await buy(alice, ether("10"));
      await sell(alice, (await token.balanceOf(alice)) / 2n);
      await buy(bob, ether("200"));

      expect(await curve.graduated()).to.equal(true);
      await expect(refusing.factory.withdrawFees()).to.be.revertedWithCustomError(
        refusing.factory,
        "FeeTransferFailed",
      );
      expect(await ethers.provider.getBalance(refusing.factory)).to.be.greaterThan(0n);
    });
  });
});
