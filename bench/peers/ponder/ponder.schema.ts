import { onchainTable, primaryKey } from "ponder";

export const market = onchainTable("market", (t) => ({
  token: t.hex().primaryKey(),
  curve: t.hex().notNull(),
  name: t.text().notNull(),
  symbol: t.text().notNull(),
  createdAt: t.integer().notNull(),
}));

export const stats = onchainTable("stats", (t) => ({
  token: t.hex().primaryKey(),
  volume: t.bigint().notNull(),
  quoteVolume: t.bigint().notNull(),
  trades: t.integer().notNull(),
  lastPrice: t.doublePrecision().notNull(),
}));

export const candle = onchainTable(
  "candle",
  (t) => ({
    token: t.hex().notNull(),
    seconds: t.integer().notNull(),
    openTime: t.integer().notNull(),
    open: t.doublePrecision().notNull(),
    high: t.doublePrecision().notNull(),
    low: t.doublePrecision().notNull(),
    close: t.doublePrecision().notNull(),
    volume: t.bigint().notNull(),
    quoteVolume: t.bigint().notNull(),
    trades: t.integer().notNull(),
  }),
  (table) => ({ pk: primaryKey({ columns: [table.token, table.seconds, table.openTime] }) }),
);
