import { Curve, Factory } from "generated";

const INTERVALS_S = [60, 300, 900, 3_600, 14_400, 86_400];

Factory.CurveCreated.contractRegister(({ event, context }) => {
  context.addCurve(event.params.curve);
});

Factory.CurveCreated.handler(async ({ event, context }) => {
  const { token, curve, name, symbol } = event.params;
  context.Market.set({ id: token, curve, name, symbol, createdAt: event.block.timestamp });
});

Curve.Trade.handler(async ({ event, context }) => {
  const { token, base, quote } = event.params;
  const price = Number(quote) / Number(base);
  const time = event.block.timestamp;
  const keys = INTERVALS_S.map((seconds) => {
    const openTime = time - (time % seconds);
    return { id: `${token}-${seconds}-${openTime}`, seconds, openTime };
  });
  const [stats, ...candles] = await Promise.all([
    context.Stats.get(token),
    ...keys.map(({ id }) => context.Candle.get(id)),
  ]);
  if (context.isPreload) return;

  keys.forEach((key, index) => {
    const candle = candles[index];
    context.Candle.set(
      candle
        ? {
            ...candle,
            high: Math.max(candle.high, price),
            low: Math.min(candle.low, price),
            closed: price,
            volume: candle.volume + base,
            quoteVolume: candle.quoteVolume + quote,
            trades: candle.trades + 1,
          }
        : {
            ...key,
            token,
            opened: price,
            high: price,
            low: price,
            closed: price,
            volume: base,
            quoteVolume: quote,
            trades: 1,
          },
    );
  });
  context.Stats.set({
    id: token,
    volume: (stats?.volume ?? 0n) + base,
    quoteVolume: (stats?.quoteVolume ?? 0n) + quote,
    trades: (stats?.trades ?? 0) + 1,
    lastPrice: price,
  });
});
