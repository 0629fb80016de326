"use strict";

const { expect } = require("chai");
const { ethers } = require("hardhat");

describe("LaunchToken", () => {
  let owner, alice, bob, token;

  beforeEach(async () => {
    [owner, alice, bob] = await ethers.getSigners();
    token = await ethers.deployContract("LaunchToken", ["Example", "EXM", 1_000n]);
  });

  it("mints the supply to its deployer, once", async () => {
    expect(await token.balanceOf(owner)).to.equal(1_000n);
    expect(await token.totalSupply()).to.equal(1_000n);
    await expect(token.deploymentTransaction())
      .to.emit(token, "Transfer")
      .withArgs(ethers.ZeroAddress, owner.address, 1_000n);
  });

  it("moves balances and says so", async () => {
    await expect(token.transfer(alice, 300n)).to.emit(token, "Transfer").withArgs(owner.address, alice.address, 300n);
    expect([await token.balanceOf(owner), await token.balanceOf(alice)]).to.deep.equal([700n, 300n]);
  });

  it("survives a transfer to oneself", async () => {
    await token.transfer(owner, 400n);
    expect(await token.balanceOf(owner)).to.equal(1_000n);
  });

  it("refuses more than the balance, and the zero address", async () => {
    await expect(token.transfer(alice, 1_001n))
      .to.be.revertedWithCustomError(token, "InsufficientBalance")
      .withArgs(owner.address, 1_000n, 1_001n);
    await expect(token.transfer(ethers.ZeroAddress, 1n)).to.be.revertedWithCustomError(token, "ZeroAddress");
    await expect(token.approve(ethers.ZeroAddress, 1n)).to.be.revertedWithCustomError(token, "ZeroAddress");
  });

  it("uses up an allowance, except an unlimited one", async () => {
    await expect(token.approve(alice, 500n)).to.emit(token, "Approval").withArgs(owner.address, alice.address, 500n);
    await token.connect(alice).transferFrom(owner, bob, 200n);
    expect(await token.allowance(owner, alice)).to.equal(300n);
    await expect(token.connect(alice).transferFrom(owner, bob, 301n))
      .to.be.revertedWithCustomError(token, "InsufficientAllowance")
      .withArgs(alice.address, 300n, 301n);

    await token.approve(alice, ethers.MaxUint256);
    await token.connect(alice).transferFrom(owner, bob, 100n);
    expect(await token.allowance(owner, alice)).to.equal(ethers.MaxUint256);
    expect(await token.balanceOf(bob)).to.equal(300n);
  });
});
