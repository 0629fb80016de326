import { ponder } from "ponder:registry";
import { candle, market, stats } from "ponder:schema";

const INTERVALS_S = [60, 300, 900, 3_600, 14_400, 86_400];

ponder.on("Factory:CurveCreated", async ({ event, context }) => {
  const { token, curve, name, symbol } = event.args;
  await context.db
    .insert(market)
    .values({ token, curve, name, symbol, createdAt: Number(event.block.timestamp) });
});

ponder.on("Curve:Trade", async ({ event, context }) => {
  const { token, base, quote } = event.args;
  const price = Number(quote) / Number(base);
  const time = Number(event.block.timestamp);
  for (const seconds of INTERVALS_S) {
    await context.db
      .insert(candle)
      .values({
        token,
        seconds,
        openTime: time - (time % seconds),
        open: price,
        high: price,
        low: price,
        close: price,
        volume: base,
        quoteVolume: quote,
        trades: 1,
      })
      .onConflictDoUpdate((row) => ({
        high: Math.max(row.high, price),
        low: Math.min(row.low, price),
        close: price,
        volume: row.volume + base,
        quoteVolume: row.quoteVolume + quote,
        trades: row.trades + 1,
      }));
  }
  await context.db
    .insert(stats)
    .values({ token, volume: base, quoteVolume: quote, trades: 1, lastPrice: price })
    .onConflictDoUpdate((row) => ({
      volume: row.volume + base,
      quoteVolume: row.quoteVolume + quote,
      trades: row.trades + 1,
      lastPrice: price,
    }));
});
