// @ts-check
/** Shared by the tests: payloads, a running server, a listener and viewers. */

import { once } from 'node:events'
import { io } from 'socket.io-client'
import { createClient } from 'redis'
import { keysOf } from '../src/history.js'
import { readConfig } from '../src/config.js'
import { startServer } from '../src/server.js'

export const TOKEN = 'a-shared-secret'
export const MARKET = `0x${'ab'.repeat(20)}`
export const OTHER = `0x${'cd'.repeat(20)}`

let nextChain = 800_000 + (process.pid % 1000) * 100
/** A chain of its own for every test, so that tests share one Redis. */
export const freshChain = () => nextChain++

/** @param {number} b @param {Record<string, unknown>} [more] */
export const trade = (b, more = {}) => /** @type {any} */ ({
  id: `${b}-0`, s: MARKET, t: b * 1000, b, bh: `0x${b}`, li: 0, tx: '0x1', side: 'buy', trader: '0x2',
  p: '0.0000000015', v: '10', q: '0.000000015', ...more,
})

/** @param {number} t @param {Record<string, unknown>} [more] */
export const candle = (t, more = {}) => /** @type {any} */ ({
  t, o: '1', h: '2', l: '0.5', c: '1.5', v: '10', q: '12', V: '5', Q: '6', n: 2, f: '1-0', L: '2-0', ...more,
})

/** @param {Record<string, unknown>} [more] */
export const stats = (more = {}) => ({
  openTime: 0, closeTime: 86_400_000, openPrice: '1', highPrice: '2', lowPrice: '0.5', lastPrice: '1.5',
  priceChange: '0.5', priceChangePercent: '50', volume: '10', quoteVolume: '12', count: 2, buyCount: 1, sellCount: 1,
  buyVolume: '5', sellVolume: '5', ...more,
})

/** @param {number} createdAt @param {Record<string, unknown>} [more] */
export const record = (createdAt, more = {}) => ({
  venue: 'curve', token: MARKET, quote: '0x0', quoteSymbol: 'ETH', baseDecimals: 18, quoteDecimals: 18,
  name: 'Test Token', symbol: 'TEST', creator: '0x1', createdBlock: 1, createdAt, status: 'bonding', successor: '', ...more,
})

/** @param {Record<string, unknown>} fields */
export const asHash = (fields) => Object.fromEntries(Object.entries(fields).map(([k, v]) => [k, String(v)]))

/** A payload as the listener sends it. */
export class Envelopes {
  seq = 0
  /** @param {number} chain @param {number} [epoch] */
  constructor(chain, epoch = 1) {
    this.chain = chain
    this.epoch = epoch
  }

  /** @param {unknown[]} items @param {Record<string, unknown>} [more] */
  next(items, more = {}) {
    const first = this.seq + 1
    this.seq += Math.max(1, items.length)
    return { v: 1, chain: this.chain, stream: String(this.chain), epoch: this.epoch, first, seq: this.seq, items, ...more }
  }
}

export function redisUrl() {
  const url = process.env.TEST_REDIS_URL
  if (!url) throw new Error('TEST_REDIS_URL is not set: these tests need a Redis or Valkey server to write to')
  return url
}

/** @param {import('node:test').TestContext} t */
export async function connectRedis(t) {
  const redis = createClient({ url: redisUrl() })
  await redis.connect()
  t.after(() => redis.destroy())
  return redis
}

/**
 * A server on a free port, quiet, closed after the test.
 * @param {import('node:test').TestContext} t
 * @param {Record<string, string>} [env]
 */
export async function startBackend(t, env = {}) {
  const chain = env.CHAIN_ID ? Number(env.CHAIN_ID) : freshChain()
  const config = readConfig({
    PORT: '0', REDIS_URL: redisUrl(), BACKEND_AUTH_TOKEN: TOKEN, CHAIN_ID: String(chain), ENABLE_DEBUG: '1', ...env,
  })
  const server = await startServer(config, { log: () => {} })
  t.after(() => server.close())
  return { ...server, chain, keys: keysOf(String(chain)) }
}

/**
 * @param {import('node:test').TestContext} t
 * @param {string} url
 * @param {object} [options]
 */
export function connect(t, url, options = {}) {
  const socket = io(url, { transports: ['websocket'], forceNew: true, reconnectionDelay: 50, ...options })
  t.after(() => socket.disconnect())
  return socket
}

/** @param {import('node:test').TestContext} t @param {string} url */
export async function connectListener(t, url) {
  const socket = connect(t, url, { auth: { token: TOKEN } })
  await once(/** @type {any} */ (socket), 'connect')
  return socket
}

/** @param {import('node:test').TestContext} t @param {string} url @param {object} [options] */
export async function connectViewer(t, url, options = {}) {
  const socket = connect(t, `${url}/charts`, options)
  await once(/** @type {any} */ (socket), 'connect')
  return socket
}

/** @param {any} socket @param {string} event @param {unknown} payload */
export const send = (socket, event, payload) => socket.timeout(5_000).emitWithAck(event, payload)

/** @param {string} url @param {string} path */
export async function getJson(url, path) {
  const response = await fetch(url + path)
  return { status: response.status, body: await response.json() }
}

/**
 * Waits until something holds, or fails saying what did not.
 * @param {string} what
 * @param {() => unknown} holds
 * @param {number} [timeoutMs]
 */
export async function eventually(what, holds, timeoutMs = 5_000) {
  const end = Date.now() + timeoutMs
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** A server whose chain already has a market with some history. @param {import('node:test').TestContext} t @param {Record<string, string>} [env] */
export async function startWithHistory(t, env = {}) {
  const redis = await connectRedis(t)
  const chain = freshChain()
  const keys = keysOf(String(chain))
  await redis.zAdd(keys.markets, [{ score: 1000, value: MARKET }, { score: 2000, value: OTHER }])
  await redis.hSet(keys.market(MARKET), asHash(record(1000, { symbol: 'AAA' })))
  await redis.hSet(keys.market(OTHER), asHash(record(2000, { symbol: 'BBB', status: 'graduated' })))
  await redis.hSet(keys.stats(MARKET), asHash(stats({ quoteVolume: '900', count: 9 })))
  await redis.hSet(keys.stats(OTHER), asHash(stats({ quoteVolume: '1', priceChangePercent: '-20' })))
  for (let i = 0; i < 20; i += 1) {
    const t0 = i * 60_000
    await redis.zAdd(keys.candles(MARKET, '1m'), { score: t0, value: JSON.stringify(candle(t0, { c: String(i + 1) })) })
  }
  for (let b = 1; b <= 5; b += 1) await redis.lPush(keys.trades(MARKET), JSON.stringify(trade(b)))
  await redis.hSet(keys.head, asHash({ number: 5, hash: '0x5', timestamp: Date.now(), epoch: 1, seq: 0 }))
  const backend = await startBackend(t, { CHAIN_ID: String(chain), ...env })
  await eventually('state is read', () => backend.state.size === 2)
  return { ...backend, redis, keys, out: new Envelopes(chain) }
}
