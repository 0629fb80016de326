// @ts-check
/**
 * The newest values of every market, in memory and bounded: at most
 * `marketsMax` markets (least recently changed goes first), one candle an
 * interval and `tradesMax` trades each.
 */

import { dropAbove } from './consumer.js'

/**
 * @typedef {import('./consumer.js').Trade} Trade
 * @typedef {import('./consumer.js').Candle} Candle
 *
 * @typedef {object} MarketView
 * @property {Record<string, any> | null} market
 * @property {Record<string, any> | null} stats
 * @property {Map<string, Candle>} candles  Last candle by interval.
 * @property {Trade[]} trades               Newest first.
 */

/** A candle as Redis stores it. @param {Candle} candle */
const stored = ({ s: _s, i: _i, T: _T, ...candle }) => candle

/** Newest first, by place in the chain. @param {Trade} a @param {Trade} b */
const newestFirst = (a, b) => b.b - a.b || b.li - a.li

export class State {
  /** @type {Map<string, MarketView>} Least recently changed first. */
  #views = new Map()
  /** @type {Record<string, number>} Close time of the newest closed candles, by interval. */
  closedUpTo = {}
  evicted = 0

  /** @param {{marketsMax: number, tradesMax: number}} bounds */
  constructor({ marketsMax, tradesMax }) {
    this.marketsMax = marketsMax
    this.tradesMax = tradesMax
  }

  get size() {
    return this.#views.size
  }

  /** @param {string} id */
  get(id) {
    return this.#views.get(id)
  }

  /** The view of a market that is about to change. @param {string} id @returns {MarketView} */
  #touch(id) {
    const view = this.#views.get(id) ?? { market: null, stats: null, candles: new Map(), trades: [] }
    this.#views.delete(id)
    this.#views.set(id, view)
    if (this.#views.size > this.marketsMax) {
      const [oldest] = this.#views.keys()
      this.#views.delete(oldest)
      this.evicted += 1
    }
    return view
  }

  /**
   * Takes over what was read from Redis, all at once.
   * @param {Iterable<[string, MarketView]>} entries  Least interesting first.
   */
  replaceAll(entries) {
    this.#views.clear()
    for (const [id, view] of entries) Object.assign(this.#touch(id), view)
  }

  /** @param {Trade[]} trades */
  addTrades(trades) {
    for (const trade of trades) {
      const held = this.#touch(trade.s).trades
      let at = 0
      while (at < held.length && newestFirst(held[at], trade) < 0) at += 1
      const known = at < held.length && held[at].id === trade.id
      held.splice(at, known ? 1 : 0, trade)
      if (held.length > this.tradesMax) held.length = this.tradesMax
    }
  }

  /**
   * @param {Candle[]} candles
   * @returns {{market: string, interval: string}[]} Series that lost their last
   *   candle; the one before must be read from Redis.
   */
  putCandles(candles) {
    const lost = new Map()
    for (const candle of candles) {
      if (candle.deleted && !this.#views.has(candle.s)) continue
      const held = this.#touch(candle.s).candles
      const last = held.get(candle.i)
      const key = `${candle.s}:${candle.i}`
      if (candle.deleted) {
        if (last?.t !== candle.t) continue
        held.delete(candle.i)
        lost.set(key, { market: candle.s, interval: candle.i })
      } else if (!last || candle.t >= last.t) {
        held.set(candle.i, candle)
      }
    }
    return [...lost.values()]
  }

  /** @param {({s: string} & Record<string, any>)[]} items */
  putStats(items) {
    for (const { s, deleted, ...stats } of items) {
      if (!deleted) this.#touch(s).stats = stats
      else if (this.#views.has(s)) this.#touch(s).stats = null
    }
  }

  /** @param {({s: string} & Record<string, any>)[]} items */
  putMarkets(items) {
    for (const { s, deleted, ...market } of items) {
      if (deleted) this.#views.delete(s)
      else this.#touch(s).market = market
    }
  }

  /** @param {{i: string, T: number}[]} items */
  putClosed(items) {
    for (const { i, T } of items) this.closedUpTo[i] = T
  }

  /** @param {string} id @param {Trade[]} trades  Newest first. */
  setTrades(id, trades) {
    this.#touch(id).trades = trades.slice(0, this.tradesMax)
  }

  /**
   * Forgets trades of blocks that a reorg removed.
   * @param {{ancestor: {number: number}, markets: string[]}} reorg
   * @returns {string[]} Markets whose list became shorter.
   */
  applyReorg({ ancestor, markets }) {
    return markets.filter((id) => {
      const view = this.#views.get(id)
      if (!view) return false
      const kept = dropAbove(view.trades, ancestor.number)
      const shorter = kept.length < view.trades.length
      view.trades = kept
      return shorter
    })
  }

  /** Everything held, as plain data in the shape of Redis. */
  dump() {
    return {
      closedUpTo: this.closedUpTo,
      evicted: this.evicted,
      markets: Object.fromEntries(
        [...this.#views].map(([id, view]) => {
          const candles = Object.fromEntries([...view.candles].map(([interval, candle]) => [interval, stored(candle)]))
          return [id, { ...view, candles }]
        }),
      ),
    }
  }
}
