// @ts-check
/**
 * Reads candles, trades and 24 h statistics from Redis, by the listener's public contract.
 *
 *     const redis = await createClient({ url: 'redis://127.0.0.1:6379' }).connect()
 *     const reader = new Reader(redis, { chainId: 1 })
 *     const candles = await reader.candles('0x…', '1m', { limit: 300 })
 *
 * This file stands alone: copy it, or import it. Prices and amounts are decimal
 * strings, times are Unix milliseconds. Only reading commands are sent, every
 * answer is bounded, and timeouts are those of the connection that is passed in.
 */

/** Bounds; more is a `RangeError`, never a shorter answer. */
export const LIMITS = Object.freeze({
  candlesMax: 5_000, // candles in one answer, filled ones included
  tradesMax: 5_000, // trades in one answer
  alertsMax: 1_000, // alert records that are kept
  page: 250, // markets that are read together
  togetherMax: 10_000, // markets of one creation time
})

/**
 * A connected node-redis client, or anything with its methods.
 * @typedef {object} Connection
 * @property {(key: string) => Promise<Record<string, string>>} hGetAll
 * @property {(key: string, from: number, to: number) => Promise<string[]>} lRange
 * @property {(key: string, from: number | string, to: number | string, options?: any) => Promise<string[]>} zRange
 * @property {(key: string, from: number | string, to: number | string, options?: any)
 *   => Promise<{value: string, score: number}[]>} zRangeWithScores
 *
 * @typedef {{t: number, o: string, h: string, l: string, c: string, pc?: string, v: string, q: string,
 *   V: string, Q: string, n: number, N: number, f?: string, L?: string}} Candle
 * @typedef {{id: string, s: string, t: number, b: number, bh: string, li: number, tx: string,
 *   side: 'buy' | 'sell', trader: string, p: string, xp: string, sp?: string, v: string, q: string,
 *   fee?: string}} Trade
 * @typedef {{id: string, rule: string, kind: string, s: string, b: number, bh: string, t: number, trade?: string,
 *   value?: string, threshold?: string, windowMs?: number, retracted?: true}} Alert
 * @typedef {{market: string, record: Record<string, any>, stats: Record<string, any> | null}} MarketView
 * @typedef {object} CandleQuery
 * @property {number} [limit]  At most so many (300): the newest ones, or from `start` the first ones.
 * @property {number} [start]  Earliest open time.
 * @property {number} [end]  First open time that is not wanted.
 * @property {boolean} [fill]  Give a bucket without a trade a candle too, flat, up to the committed head.
 * @property {'first' | 'previous'} [opening]  At the first trade, or at the close before, without jumps.
 */

const INTEGERS = new Set([
  'createdBlock', 'createdAt', 'baseDecimals', 'quoteDecimals',
  'openTime', 'closeTime', 'count', 'buyCount', 'sellCount',
])
const UNITS_MS = /** @type {Record<string, number>} */ ({ m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 })
const FIRST_MONDAY_MS = 4 * 86_400_000 // 1970-01-05; the Unix epoch was a Thursday

export class Reader {
  #redis
  #tag

  /** @param {Connection} redis @param {{chainId: number}} options */
  constructor(redis, { chainId }) {
    this.#redis = redis
    this.#tag = `{${chainId}}`
  }

  /** The committed head, or null: `asOf`, `epoch` and `seq` say how new what is read afterwards is at least. */
  async head() {
    const { number, hash, timestamp, asOf, epoch, seq, chainId } = await this.#redis.hGetAll(`head:${this.#tag}`)
    if (number === undefined) return null
    return {
      number: Number(number), hash, timestamp: Number(timestamp), asOf: Number(asOf),
      epoch: Number(epoch), seq: Number(seq), chainId: Number(chainId),
    }
  }

  /** Record and 24 h figures of a market, or null. @param {string} market @returns {Promise<MarketView | null>} */
  async market(market) {
    const id = market.toLowerCase()
    const [record, stats] = await Promise.all([
      this.#redis.hGetAll(`market:${this.#tag}:${id}`),
      this.#redis.hGetAll(`stats:${this.#tag}:${id}`),
    ])
    const fields = typed(record)
    return fields && { market: id, record: fields, stats: typed(stats) }
  }

  /**
   * Markets created after an instant, oldest first, read a page at a time.
   * @param {{after?: number}} [options]
   * @returns {AsyncGenerator<MarketView>}
   */
  async *markets({ after = 0 } = {}) {
    const key = `markets:${this.#tag}`
    for (let last = after; ;) {
      const page = await this.#redis.zRangeWithScores(key, `(${last}`, '+inf', {
        BY: 'SCORE', LIMIT: { offset: 0, count: LIMITS.page },
      })
      if (page.length === 0) return
      last = page[page.length - 1].score
      // Markets of one instant may go on beyond the page.
      const ids = page.filter(({ score }) => score < last).map(({ value }) => value)
      ids.push(...(await this.#redis.zRange(key, last, last, {
        BY: 'SCORE', LIMIT: { offset: 0, count: LIMITS.togetherMax },
      })))
      for (let at = 0; at < ids.length; at += LIMITS.page) {
        const views = await Promise.all(ids.slice(at, at + LIMITS.page).map((id) => this.market(id)))
        for (const view of views) if (view) yield view
      }
    }
  }

  /**
   * Candles with `start <= t < end`, ascending.
   * @param {string} market
   * @param {string} interval  `1m`, `5m`, `1h` …
   * @param {CandleQuery} [query]
   * @returns {Promise<Candle[]>}
   */
  async candles(market, interval, { limit = 300, start, end, fill: filled = false, opening = 'first' } = {}) {
    bounded(limit, LIMITS.candlesMax)
    const read = this.#series(`candles:${this.#tag}:${market.toLowerCase()}:${interval}`)
    const candles = filled
      ? await this.#filled(read, intervalMs(interval), { limit, start, end })
      : await read({ start, end, limit, newest: start === undefined })
    return opening === 'previous' ? candles.map(continuous) : candles
  }

  /** @param {string} key @returns {ReadSeries} */
  #series(key) {
    return async ({ start, end, limit, newest }) => {
      const from = start ?? '-inf'
      const to = end === undefined ? '+inf' : `(${end}`
      const options = { BY: 'SCORE', REV: newest || undefined, LIMIT: { offset: 0, count: limit } }
      const members = newest
        ? (await this.#redis.zRange(key, to, from, options)).reverse()
        : await this.#redis.zRange(key, from, to, options)
      return members.map((member) => JSON.parse(member))
    }
  }

  /**
   * The buckets are settled first; what is stored between them is then at most `limit` candles.
   * @param {ReadSeries} read
   * @param {number} ms
   * @param {{limit: number, start?: number, end?: number}} query
   */
  async #filled(read, ms, { limit, start, end }) {
    const head = await this.head()
    if (!head) return []
    const span = (limit - 1) * ms
    let last = openTime(head.asOf, ms)
    if (end !== undefined) last = Math.min(last, firstBucket(end, ms) - ms)
    let first = start === undefined ? last - span : firstBucket(start, ms)
    const [before] = await read({ end: first, limit: 1, newest: true })
    if (start !== undefined) {
      if (!before) first = (await read({ start: first, limit: 1, newest: false }))[0]?.t ?? last + 1
      last = Math.min(last, first + span)
    }
    if (first > last) return []
    return fill(await read({ start: first, end: last + 1, limit, newest: true }), ms, first, last, before)
  }

  /**
   * Candles as ccxt's `fetchOHLCV` gives them: `[[t, open, high, low, close, base volume], …]`, numbers.
   * @param {string} market
   * @param {string} [timeframe]
   * @param {number} [since]  From there on; otherwise the newest ones.
   * @param {number} [limit]
   * @param {{fill?: boolean}} [options]
   */
  async ohlcv(market, timeframe = '1m', since = undefined, limit = 300, { fill: filled = false } = {}) {
    const candles = await this.candles(market, timeframe, { start: since, limit, fill: filled })
    return candles.map(({ t, o, h, l, c, v }) => [t, Number(o), Number(h), Number(l), Number(c), Number(v)])
  }

  /** The newest trades, newest first. @param {string} market @param {number} [limit] @returns {Promise<Trade[]>} */
  async trades(market, limit = 100) {
    bounded(limit, LIMITS.tradesMax)
    const rows = await this.#redis.lRange(`trades:${this.#tag}:${market.toLowerCase()}`, 0, limit - 1)
    return rows.map((row) => JSON.parse(row))
  }

  /**
   * The newest alerts as they stand, newest first; what a reorg has undone is `retracted`.
   * @param {number} [limit]
   * @param {{market?: string, rule?: string}} [only]
   * @returns {Promise<Alert[]>}
   */
  async alerts(limit = 100, { market, rule } = {}) {
    bounded(limit, LIMITS.alertsMax)
    const told = await this.#redis.lRange(`fired:${this.#tag}`, 0, LIMITS.alertsMax - 1)
    /** @type {Map<string, Alert>} Told last of each id. */
    const found = new Map()
    for (const alert of told.map((row) => JSON.parse(row))) {
      if ((market && alert.s !== market.toLowerCase()) || (rule && alert.rule !== rule)) continue
      if (!found.has(alert.id)) found.set(alert.id, alert)
    }
    return [...found.values()].slice(0, limit)
  }

  /** Rolling 24 h figures, or null before the first trade. @param {string} market */
  async stats(market) {
    return typed(await this.#redis.hGetAll(`stats:${this.#tag}:${market.toLowerCase()}`))
  }
}

/**
 * @typedef {(query: {start?: number, end?: number, limit: number, newest: boolean}) => Promise<Candle[]>} ReadSeries
 */

/**
 * One candle for each bucket from `first` to `last`; nothing stands before the oldest candle that is given,
 * because trades before it may no longer be kept.
 * @param {Candle[]} candles  All that are stored between the two, ascending.
 * @param {number} ms  Length of a bucket.
 * @param {number} first  Open time of the first bucket.
 * @param {number} last  Open time of the last bucket.
 * @param {Candle} [before]  The newest candle older than `first`.
 * @returns {Candle[]}
 */
export function fill(candles, ms, first, last, before) {
  /** @type {Candle[]} */
  const filled = []
  let close = before?.c
  let due = first
  /** @param {number} until */
  const fillUntil = (until) => {
    if (close === undefined) return
    for (let t = due; t < until; t += ms) {
      filled.push({ t, o: close, h: close, l: close, c: close, pc: close, v: '0', q: '0', V: '0', Q: '0', n: 0, N: 0 })
    }
  }
  for (const candle of candles) {
    fillUntil(candle.t)
    filled.push(candle)
    close = candle.c
    due = candle.t + ms
  }
  fillUntil(last + 1)
  return filled
}

/** The candle opened at the close before it, high and low widened by it. @param {Candle} candle @returns {Candle} */
export function continuous(candle) {
  const { pc, h, l } = candle
  if (pc === undefined) return candle
  return { ...candle, o: pc, h: compare(pc, h) > 0 ? pc : h, l: compare(pc, l) < 0 ? pc : l }
}

/**
 * Which of two decimals of the contract is larger: exact, whatever their size. Negative if the second is.
 * @param {string} one
 * @param {string} other
 */
export function compare(one, other) {
  const [whole, fraction = ''] = one.split('.')
  const [otherWhole, otherFraction = ''] = other.split('.')
  if (whole.length !== otherWhole.length) return whole.length - otherWhole.length
  if (whole !== otherWhole) return whole < otherWhole ? -1 : 1
  return fraction === otherFraction ? 0 : fraction < otherFraction ? -1 : 1
}

/** Length of an interval in milliseconds. @param {string} interval */
function intervalMs(interval) {
  const match = /^([1-9]\d{0,3})([mhdw])$/.exec(interval)
  const ms = match ? Number(match[1]) * UNITS_MS[match[2]] : NaN
  if (!match || (interval !== '1w' && UNITS_MS.d % ms !== 0)) {
    throw new RangeError(`unknown interval ${interval}: write 1m, 15m, 4h, 1d or 1w`)
  }
  return ms
}

/** Open time of the bucket that holds an instant; weeks open on Monday, UTC. @param {number} t @param {number} ms */
function openTime(t, ms) {
  const offset = ms === UNITS_MS.w ? FIRST_MONDAY_MS : 0
  return offset + Math.floor((t - offset) / ms) * ms
}

/** Open time of the first bucket that opens at `t` or later. @param {number} t @param {number} ms */
function firstBucket(t, ms) {
  const opened = openTime(t, ms)
  return opened === t ? opened : opened + ms
}

/** Counts and times become numbers, amounts stay text. @param {Record<string, string>} hash */
function typed(hash) {
  const entries = Object.entries(hash)
  if (entries.length === 0) return null
  return Object.fromEntries(entries.map(([name, value]) => [name, INTEGERS.has(name) ? Number(value) : value]))
}

/** @param {number} limit @param {number} most */
function bounded(limit, most) {
  if (!Number.isInteger(limit) || limit < 1 || limit > most) {
    throw new RangeError(`limit ${limit} is not between 1 and ${most}`)
  }
}
