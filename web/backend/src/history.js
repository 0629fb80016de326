// @ts-check
/**
 * Reads what the listener keeps in Redis. Every read is bounded, and commands go
 * out in chunks, so that a large answer never holds Redis for long.
 */

import { createClient } from 'redis'

/**
 * @typedef {import('./consumer.js').Candle} Candle
 * @typedef {import('./consumer.js').Trade} Trade
 * @typedef {import('./consumer.js').Position} Position
 * @typedef {import('./state.js').MarketView} MarketView
 * @typedef {{s: string, stats: Record<string, any> | null} & Record<string, any>} MarketRow
 * @typedef {'newest' | 'volume' | 'trades' | 'gainers' | 'losers'} MarketSort
 */

export const LIMITS = Object.freeze({
  candlesMax: 1_500, // candles in one answer
  tradesMax: 200, // trades in one answer
  pageMax: 100, // markets on a page
  scanMax: 5_000, // newest markets that search and sorting look at
  chunk: 250, // commands sent together
  indexTtlMs: 2_000, // age of the list that search and sorting may use
  connectTimeoutMs: 5_000,
  idleSocketMs: 15_000, // with the ping below: a dead link is dropped after this
  pingMs: 5_000,
  retryMaxMs: 2_000,
})

export const SORTS = /** @type {MarketSort[]} */ (['newest', 'volume', 'trades', 'gainers', 'losers'])

const INTEGER_FIELDS = new Set([
  'createdBlock', 'createdAt', 'baseDecimals', 'quoteDecimals',
  'openTime', 'closeTime', 'count', 'buyCount', 'sellCount',
])

/**
 * Redis hashes hold text; counts and times become numbers, amounts stay text.
 * @param {Record<string, string>} hash
 * @returns {Record<string, any> | null}
 */
function typed(hash) {
  const entries = Object.entries(hash)
  if (entries.length === 0) return null
  return Object.fromEntries(entries.map(([k, v]) => [k, INTEGER_FIELDS.has(k) && v !== '' ? Number(v) : v]))
}

/** Names of the keys of one stream. @param {string} stream */
export const keysOf = (stream) => ({
  markets: `markets:{${stream}}`,
  head: `head:{${stream}}`,
  /** @param {string} id */
  market: (id) => `market:{${stream}}:${id}`,
  /** @param {string} id */
  stats: (id) => `stats:{${stream}}:${id}`,
  /** @param {string} id */
  trades: (id) => `trades:{${stream}}:${id}`,
  /** @param {string} id @param {string} interval */
  candles: (id, interval) => `candles:{${stream}}:${id}:${interval}`,
})

/** Numbers are good enough to sort by. @type {Record<MarketSort, (row: MarketRow) => number>} */
const RANK = {
  newest: (row) => row.createdAt ?? 0,
  volume: (row) => Number(row.stats?.quoteVolume ?? 0),
  trades: (row) => row.stats?.count ?? 0,
  gainers: (row) => Number(row.stats?.priceChangePercent ?? -Infinity),
  losers: (row) => -Number(row.stats?.priceChangePercent ?? Infinity),
}

export class History {
  #redis
  #keys
  /** @type {{at: number, mark: Position, rows: Promise<MarketRow[]>} | null} */
  #index = null

  /**
   * @param {object} options
   * @param {string} options.url
   * @param {string} options.stream
   * @param {(up: boolean, error?: Error) => void} [options.onChange]  Redis came or went.
   */
  constructor({ url, stream, onChange = () => {} }) {
    this.#keys = keysOf(stream)
    this.#redis = createClient({
      url,
      // Fail at once while Redis is away; the caller knows better than a queue when to retry.
      disableOfflineQueue: true,
      pingInterval: LIMITS.pingMs,
      socket: {
        connectTimeout: LIMITS.connectTimeoutMs,
        socketTimeout: LIMITS.idleSocketMs,
        reconnectStrategy: (retries) =>
          Math.min(50 * 2 ** Math.min(retries, 10), LIMITS.retryMaxMs) * (0.75 + Math.random() / 2),
      },
    })
    this.#redis.on('ready', () => onChange(true))
    this.#redis.on('error', (error) => onChange(false, error))
  }

  /** Starts connecting, and keeps trying. */
  start() {
    this.#redis.connect().catch(() => {}) // reported through onChange
  }

  get up() {
    return this.#redis.isReady
  }

  close() {
    if (this.#redis.isOpen) this.#redis.destroy()
  }

  /**
   * Runs a read for every item, a chunk at a time.
   * @template T, R
   * @param {T[]} items
   * @param {(item: T) => Promise<R>} read
   * @returns {Promise<R[]>}
   */
  async #each(items, read) {
    /** @type {R[]} */
    const results = []
    for (let at = 0; at < items.length; at += LIMITS.chunk) {
      // Commands issued in one turn of the event loop share a round trip.
      results.push(...(await Promise.all(items.slice(at, at + LIMITS.chunk).map(read))))
    }
    return results
  }

  /** @returns {Promise<Record<string, string> | null>} */
  async head() {
    const head = await this.#redis.hGetAll(this.#keys.head)
    return Object.keys(head).length ? { ...head } : null
  }

  /** @param {string} id @returns {Promise<MarketRow | null>} */
  async market(id) {
    const [market, stats] = await Promise.all([
      this.#redis.hGetAll(this.#keys.market(id)),
      this.#redis.hGetAll(this.#keys.stats(id)),
    ])
    const record = typed(market)
    return record && { s: id, ...record, stats: typed(stats) }
  }

  /**
   * Oldest first.
   * @param {string} id
   * @param {string} interval
   * @param {{limit: number, before?: number}} range  `before` in Unix ms, exclusive.
   * @returns {Promise<Omit<Candle, 's' | 'i'>[]>}
   */
  async candles(id, interval, { limit, before }) {
    const key = this.#keys.candles(id, interval)
    const count = Math.min(limit, LIMITS.candlesMax)
    const members = before === undefined
      ? await this.#redis.zRange(key, -count, -1)
      : (await this.#redis.zRange(key, `(${before}`, '-inf', {
          BY: 'SCORE', REV: true, LIMIT: { offset: 0, count },
        })).reverse()
    return members.map((member) => JSON.parse(member))
  }

  /** Newest first. @param {string} id @param {number} limit @returns {Promise<Trade[]>} */
  async trades(id, limit) {
    const rows = await this.#redis.lRange(this.#keys.trades(id), 0, Math.min(limit, LIMITS.tradesMax) - 1)
    return rows.map((row) => JSON.parse(row))
  }

  /**
   * A page of markets. Newest first reads exactly its page; every other order,
   * and search, looks at the newest `scanMax` markets as they were up to
   * `indexTtlMs` ago. The answer holds all changes up to its `epoch` and `seq`.
   * @param {{sort: MarketSort, offset: number, limit: number, search?: string, position: () => Position}} query
   *   `position` is what has arrived from the listener so far.
   */
  async markets({ sort, offset, limit, search = '', position }) {
    const count = Math.min(limit, LIMITS.pageMax)
    const { epoch, seq } = position() // before the read: the answer is at least this new
    if (sort === 'newest' && !search) {
      const [ids, total] = await Promise.all([
        this.#redis.zRange(this.#keys.markets, offset, offset + count - 1, { REV: true }),
        this.#redis.zCard(this.#keys.markets),
      ])
      return { total, epoch, seq, items: await this.#rows(ids) }
    }
    const needle = search.toLowerCase()
    const { mark, rows } = this.#newIndex({ epoch, seq })
    const found = (await rows).filter((row) =>
      [row.s, row.symbol, row.name, row.token, row.creator].some((text) => text?.toLowerCase().includes(needle)),
    )
    const rank = RANK[sort]
    found.sort((a, b) => rank(b) - rank(a) || RANK.newest(b) - RANK.newest(a))
    return { total: found.length, ...mark, items: found.slice(offset, offset + count) }
  }

  /** @param {string[]} ids @returns {Promise<MarketRow[]>} */
  async #rows(ids) {
    const rows = await this.#each(ids, (id) => this.market(id))
    return rows.filter((row) => row !== null)
  }

  /** One read serves everyone who asks within `indexTtlMs`. @param {Position} mark  What has arrived so far. */
  #newIndex(mark) {
    const now = Date.now()
    if (!this.#index || now - this.#index.at > LIMITS.indexTtlMs) {
      const rows = this.#redis
        .zRange(this.#keys.markets, 0, LIMITS.scanMax - 1, { REV: true })
        .then((ids) => this.#rows(ids))
      rows.catch(() => { this.#index = null })
      this.#index = { at: now, mark, rows }
    }
    return this.#index
  }

  /**
   * The last values of the newest markets, oldest market first.
   * @param {{marketsMax: number, tradesMax: number, intervals: string[]}} bounds
   * @returns {Promise<[string, MarketView][]>}
   */
  async lastValues({ marketsMax, tradesMax, intervals }) {
    const ids = await this.#redis.zRange(this.#keys.markets, 0, marketsMax - 1, { REV: true })
    return this.#each(ids.reverse(), async (id) => {
      const [row, trades, ...lasts] = await Promise.all([
        this.market(id),
        this.trades(id, tradesMax),
        ...intervals.map((interval) => this.candles(id, interval, { limit: 1 })),
      ])
      const { s: _, stats = null, ...market } = row ?? { s: id }
      /** @type {Map<string, Candle>} */
      const candles = new Map()
      intervals.forEach((i, at) => {
        const [last] = lasts[at]
        if (last) candles.set(i, { s: id, i, ...last })
      })
      return /** @type {[string, MarketView]} */ ([id, { market: row && market, stats, candles, trades }])
    })
  }
}
