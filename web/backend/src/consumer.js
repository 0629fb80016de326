// @ts-check
/**
 * Receives the listener's events on a Socket.IO server.
 *
 * This file stands alone: copy it into your own backend and give it a
 * namespace, the shared token and your handlers.
 *
 *     import { attachConsumer } from './consumer.js'
 *
 *     attachConsumer(io.of('/'), {
 *       token: process.env.BACKEND_AUTH_TOKEN,
 *       streams: ['31337'],
 *       handlers: {
 *         async trades(trades, { epoch, seq }) { await db.insert(trades) },
 *         async resync([{ reason }]) { await reloadFromRedis(reason) },
 *       },
 *     })
 *
 * What it promises to a handler:
 *   - messages of a stream arrive one at a time and in order;
 *   - a message seen before, by (epoch, seq), never reaches a handler again;
 *   - `resync` runs before the first message after anything was missed;
 *   - the listener gets `{ok: true}` only after the handler has finished. If the
 *     handler throws, the listener is told `{ok: false}` and sends the message
 *     again, so a handler must be idempotent (upsert by id, replace by key).
 */

import { createHash, timingSafeEqual } from 'node:crypto'

/** Version of the payload envelope that this file understands. */
export const CONTRACT_VERSION = 1

/** Bounds; a peer that exceeds one is refused, never buffered. */
export const LIMITS = Object.freeze({
  itemsMax: 20_000, // items in one message
  queuedMessagesMax: 512, // messages of one stream that wait for a handler
  handlerTimeoutMs: 30_000, // one handler call
  errorTextMax: 200, // characters of an error sent back to the listener
})

/**
 * @typedef {{epoch: number, seq: number}} Position  Grows only, within a stream.
 *
 * @typedef {object} Context  Where a batch comes from.
 * @property {string} stream
 * @property {number} chain
 * @property {number} epoch
 * @property {number} first    First row that the message covers.
 * @property {number} seq      Last row that the message covers.
 * @property {boolean} overlap Some of its rows were seen before: expect known items.
 * @property {AbortSignal} signal Aborted when the handler's time is up.
 *
 * @typedef {object} Trade  Prices and amounts are decimal strings in whole tokens.
 * @property {string} id     `<block>-<logIndex>`
 * @property {string} s      Market id.
 * @property {number} t      Block time, Unix ms.
 * @property {number} b      Block number.
 * @property {string} bh     Block hash.
 * @property {number} li     Log index.
 * @property {string} tx
 * @property {'buy'|'sell'} side  Of the base token.
 * @property {string} trader
 * @property {string} p      Price that the candles use.
 * @property {string} [xp]   Execution price.
 * @property {string} [sp]   Spot price after the trade.
 * @property {string} v      Base amount.
 * @property {string} q      Quote amount.
 * @property {string} [fee]  In quote.
 *
 * @typedef {object} Candle
 * @property {string} s      Market id.
 * @property {string} i      Interval, such as `5m`.
 * @property {number} t      Open time, Unix ms.
 * @property {number} [T]    Close time, Unix ms.
 * @property {true} [deleted] The candle no longer exists; only `s`, `i`, `t` are set.
 * @property {string} o
 * @property {string} h
 * @property {string} l
 * @property {string} c
 * @property {string} [pc]   Close of the candle before; absent on a market's first.
 * @property {string} v      Base volume.
 * @property {string} [q]    Quote volume.
 * @property {string} [V]    Bought base.
 * @property {string} [Q]    Bought quote.
 * @property {number} [n]    Trades.
 * @property {number} [N]    Buy trades.
 * @property {string} [f]    First trade id.
 * @property {string} [L]    Last trade id.
 *
 * @typedef {{s: string} & Record<string, unknown>} Stats   Rolling 24 h.
 * @typedef {{s: string, deleted?: true} & Record<string, unknown>} Market
 * @typedef {{i: string, T: number}} Closed
 *
 * @typedef {object} Alert  A rule came true. `retracted`: it did so in a block that a reorg has undone.
 * @property {string} id        `<rule>-<block>-<log index>[-<market>]`; may come again after it was retracted.
 * @property {string} rule
 * @property {string} kind      `price_above`, `price_below`, `change`, `volume_spike`, `trade_size`, `market_created`, `graduated`
 * @property {string} s         Market id.
 * @property {number} b         Block number.
 * @property {string} bh        Block hash.
 * @property {number} t         Block time, Unix ms.
 * @property {string} [trade]   Id of the trade.
 * @property {string} [value]   What was measured.
 * @property {string} [threshold]
 * @property {number} [windowMs]
 * @property {true} [retracted]
 *
 * @typedef {{reason: string}} Resync
 *
 * @typedef {object} Reorg  Trades with `b` above the ancestor never happened.
 * @property {{number: number, hash: string}} ancestor
 * @property {number} depth
 * @property {string[]} orphaned
 * @property {string[]} markets  Affected markets.
 * @property {number} [from]     Earliest time that may change, Unix ms.
 *
 * @typedef {object} Handlers
 * @property {(items: Trade[], ctx: Context) => unknown} [trades]
 * @property {(items: Candle[], ctx: Context) => unknown} [candles]
 * @property {(items: Closed[], ctx: Context) => unknown} [closed]
 * @property {(items: Stats[], ctx: Context) => unknown} [stats]
 * @property {(items: Market[], ctx: Context) => unknown} [created]
 * @property {(items: Market[], ctx: Context) => unknown} [graduated]
 * @property {(items: Reorg[], ctx: Context) => unknown} [reorg]
 * @property {(items: Alert[], ctx: Context) => unknown} [alert]
 * @property {(items: Resync[], ctx: Partial<Context>) => unknown} [resync]
 *   Read Redis again. Reasons of our own: `start`, `gap`, `epoch`; others are the listener's.
 *
 * @typedef {object} ConsumerOptions
 * @property {string} token            Shared secret; never empty.
 * @property {string[]} streams        Streams to accept; `<chain id>` with one partition.
 * @property {Handlers} handlers
 * @property {Record<string, Position>} [resumeFrom] Positions you stored yourself.
 * @property {Partial<typeof LIMITS>} [limits]
 * @property {(level: 'info'|'warn'|'error', message: string, fields: object) => void} [log]
 * @property {(connected: number) => void} [onListeners]  Authenticated listeners now connected.
 */

/** A message that breaks the contract. Its sender is told why. */
export class ContractError extends Error {}

/** A message that cannot be taken now; the sender should try again. */
class NotNow extends Error {}

// ---------------------------------------------------------------- payloads

const MARKET_ID = /^[\w.-]{1,128}$/
const INTERVAL = /^[1-9]\d{0,4}[mhdw]$/
const DECIMAL = /^\d{1,400}(\.\d{1,400})?$/

/** @param {unknown} value @returns {value is Record<string, any>} */
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)
/** @param {unknown} value */
const isCount = (value) => Number.isSafeInteger(value) && /** @type {number} */ (value) >= 0
/** @param {unknown} value */
export const isMarketId = (value) => typeof value === 'string' && MARKET_ID.test(value)
/** @param {unknown} value */
export const isInterval = (value) => typeof value === 'string' && INTERVAL.test(value)
/** @param {unknown} value */
const isDecimal = (value) => typeof value === 'string' && DECIMAL.test(value)

/**
 * What each event's items must look like. Fields that the contract may add
 * later are let through.
 * @type {Record<string, {handler: keyof Handlers, valid: (item: Record<string, any>) => boolean}>}
 */
const EVENTS = {
  trade_update: {
    handler: 'trades',
    valid: (x) =>
      typeof x.id === 'string' && isMarketId(x.s) && isCount(x.t) && isCount(x.b) && isCount(x.li) &&
      (x.side === 'buy' || x.side === 'sell') && isDecimal(x.p) && isDecimal(x.v) && isDecimal(x.q),
  },
  chart_data: {
    handler: 'candles',
    valid: (x) =>
      isMarketId(x.s) && isInterval(x.i) && isCount(x.t) &&
      (x.deleted === true || [x.o, x.h, x.l, x.c, x.v].every(isDecimal)),
  },
  candles_closed: { handler: 'closed', valid: (x) => isInterval(x.i) && isCount(x.T) },
  market_data: {
    handler: 'stats',
    valid: (x) => isMarketId(x.s) && (x.lastPrice === undefined || isDecimal(x.lastPrice)),
  },
  market_created: { handler: 'created', valid: (x) => isMarketId(x.s) },
  market_graduated: { handler: 'graduated', valid: (x) => isMarketId(x.s) },
  reorg: {
    handler: 'reorg',
    valid: (x) =>
      isObject(x.ancestor) && isCount(x.ancestor.number) &&
      Array.isArray(x.markets) && x.markets.every(isMarketId),
  },
  alert: {
    handler: 'alert',
    valid: (x) => [x.id, x.rule, x.kind].every((text) => typeof text === 'string') && isMarketId(x.s) && isCount(x.b) && isCount(x.t),
  },
  resync: { handler: 'resync', valid: (x) => x.reason === undefined || typeof x.reason === 'string' },
}

/**
 * @typedef {Position & {chain: number, stream: string, first: number, items: any[]}} Envelope
 *
 * @param {string} event
 * @param {unknown} payload
 * @param {number} itemsMax
 * @returns {Envelope}
 */
export function readEnvelope(event, payload, itemsMax = LIMITS.itemsMax) {
  if (!isObject(payload)) throw new ContractError('payload is not an object')
  const { v, chain, stream, epoch, first, seq, items } = payload
  if (v !== CONTRACT_VERSION) throw new ContractError(`contract version ${String(v)} is not ${CONTRACT_VERSION}`)
  if (!isCount(chain) || typeof stream !== 'string') throw new ContractError('chain or stream is missing')
  if (!isCount(epoch) || !isCount(first) || !isCount(seq)) {
    throw new ContractError('epoch, first and seq must be whole numbers')
  }
  if (first > seq) throw new ContractError(`first ${first} is after seq ${seq}`)
  if (!Array.isArray(items)) throw new ContractError('items is not an array')
  if (items.length > itemsMax) throw new ContractError(`${items.length} items, at most ${itemsMax}`)
  const rules = EVENTS[event]
  const bad = items.findIndex((item) => !isObject(item) || (rules && !rules.valid(item)))
  if (bad >= 0) throw new ContractError(`${event}: item ${bad} is malformed`)
  return { chain, stream, epoch, first, seq, items }
}

/**
 * Trades that remain after a reorg.
 * @template {{b: number}} T
 * @param {T[]} trades
 * @param {number} ancestorNumber
 */
export const dropAbove = (trades, ancestorNumber) => trades.filter((trade) => trade.b <= ancestorNumber)

// ---------------------------------------------------------------- token

/** @param {string} text */
const digest = (text) => createHash('sha256').update(text, 'utf8').digest()

/**
 * Compares in constant time, whatever the lengths.
 * @param {unknown} given
 * @param {string} expected
 */
export const tokenMatches = (given, expected) =>
  typeof given === 'string' && timingSafeEqual(digest(given), digest(expected))

// ---------------------------------------------------------------- one stream

/** Everything known about one stream, and the line in which its messages wait. */
class Stream {
  /** @type {Position | null} Last message whose handler finished. */
  last = null
  /** @type {{epoch: number, first: number} | null} Message that failed and must come again first. */
  failed = null
  /** @type {string | null} Why Redis must be read before the next message. */
  resyncReason = 'start'
  queued = 0
  /** @type {Promise<unknown>} */
  tail = Promise.resolve()

  /** @param {Position} message */
  hasSeen({ epoch, seq }) {
    return this.last !== null &&
      (epoch < this.last.epoch || (epoch === this.last.epoch && seq <= this.last.seq))
  }

  /**
   * A new epoch means that the listener restarted, perhaps on a store that lost
   * its newest writes: what we hold may never have happened. So it counts as a miss.
   * @param {Envelope} message
   */
  whyResync({ epoch, first }) {
    if (this.resyncReason) return this.resyncReason
    if (this.last === null) return null
    if (epoch > this.last.epoch) return 'epoch'
    return first > this.last.seq + 1 ? 'gap' : null
  }
}

// ---------------------------------------------------------------- consumer

/**
 * @param {import('socket.io').Namespace} namespace  The one that the listener connects to.
 * @param {ConsumerOptions} options
 */
export function attachConsumer(namespace, options) {
  if (!options.token) throw new Error('attachConsumer needs a token')
  const { handlers, log = () => {}, onListeners = () => {} } = options
  const limits = { ...LIMITS, ...options.limits }
  const counts = {
    received: 0, applied: 0, duplicates: 0, refused: 0, failed: 0,
    gaps: 0, epochs: 0, resyncs: 0, acksOk: 0, acksError: 0, unauthorized: 0,
  }
  let listeners = 0

  /** @type {Map<string, Stream>} */
  const streams = new Map()
  for (const name of options.streams) {
    const stream = new Stream()
    stream.last = options.resumeFrom?.[name] ?? null
    streams.set(name, stream)
  }

  /**
   * Runs a handler with a time limit.
   * @param {keyof Handlers} name
   * @param {any[]} items
   * @param {Partial<Context>} ctx
   */
  async function call(name, items, ctx) {
    const handler = handlers[name]
    if (!handler) return
    const abort = new AbortController()
    /** @type {NodeJS.Timeout | undefined} */
    let timer
    const timeout = new Promise((_, reject) => {
      timer = setTimeout(() => {
        abort.abort()
        reject(new Error(`${name} handler took more than ${limits.handlerTimeoutMs} ms`))
      }, limits.handlerTimeoutMs)
    })
    try {
      await Promise.race([handler(/** @type {any} */ (items), /** @type {any} */ ({ ...ctx, signal: abort.signal })), timeout])
    } finally {
      clearTimeout(timer)
    }
  }

  /**
   * Waits in line behind the stream's earlier messages.
   * @template T
   * @param {Stream} stream
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  function enqueue(stream, work) {
    if (stream.queued >= limits.queuedMessagesMax) throw new NotNow('busy: too many messages wait')
    stream.queued += 1
    const result = stream.tail.then(work).finally(() => { stream.queued -= 1 })
    stream.tail = result.catch(() => {})
    return result
  }

  /**
   * @param {Stream} stream
   * @param {string} event
   * @param {Envelope} message
   */
  async function take(stream, event, message) {
    if (stream.hasSeen(message)) {
      counts.duplicates += 1
      return
    }
    const { items, ...position } = message
    const { epoch, first, seq } = position
    const { failed, last } = stream
    if (failed && failed.epoch === epoch && first > failed.first && event !== 'resync') {
      throw new NotNow(`row ${failed.first} comes first`)
    }
    const overlap = last !== null && last.epoch === epoch && first <= last.seq
    const ctx = { ...position, overlap }
    try {
      if (event === 'resync') {
        const reason = items.at(-1)?.reason ?? 'listener'
        await call('resync', [{ ...items.at(-1), reason }], ctx)
        counts.resyncs += 1
      } else {
        const reason = stream.whyResync(message)
        if (reason) {
          if (reason === 'gap') counts.gaps += 1
          if (reason === 'epoch') counts.epochs += 1
          log('warn', 'reading Redis again', { reason, event, last, epoch, first })
          await call('resync', [{ reason }], ctx)
          counts.resyncs += 1
        }
        stream.resyncReason = null
        if (EVENTS[event]) await call(EVENTS[event].handler, items, ctx)
      }
    } catch (error) {
      stream.failed = { epoch, first }
      throw error
    }
    stream.resyncReason = null
    stream.failed = null
    stream.last = { epoch, seq }
    counts.applied += 1
  }

  /**
   * @param {string} event
   * @param {unknown} payload
   */
  async function receive(event, payload) {
    counts.received += 1
    const message = readEnvelope(event, payload, limits.itemsMax)
    const stream = streams.get(message.stream)
    if (!stream) throw new ContractError(`stream ${message.stream.slice(0, 40)} is not served here`)
    await enqueue(stream, () => take(stream, event, message))
  }

  namespace.use((socket, next) => {
    if (tokenMatches(socket.handshake.auth?.token, options.token)) return next()
    counts.unauthorized += 1
    log('warn', 'listener refused: wrong or missing token', { from: socket.handshake.address })
    next(new Error('unauthorized'))
  })

  namespace.on('connection', (socket) => {
    listeners += 1
    log('info', 'listener connected', { id: socket.id, listeners })
    onListeners(listeners)

    socket.onAny(async (/** @type {string} */ event, /** @type {unknown[]} */ ...args) => {
      const last = args.at(-1)
      const ack = typeof last === 'function' ? last : () => {}
      try {
        await receive(event, args[0])
        counts.acksOk += 1
        ack({ ok: true })
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error)
        const kind = error instanceof ContractError || error instanceof NotNow ? 'refused' : 'failed'
        counts[kind] += 1
        counts.acksError += 1
        log(kind === 'failed' ? 'error' : 'warn', `message ${kind}`, { event, error: text })
        ack({ ok: false, error: text.slice(0, limits.errorTextMax) })
      }
    })

    socket.on('disconnect', (reason) => {
      listeners -= 1
      log('info', 'listener disconnected', { id: socket.id, reason, listeners })
      onListeners(listeners)
    })
  })

  return {
    /** Last position handled. @param {string} name @returns {Position} */
    position: (name) => streams.get(name)?.last ?? { epoch: 0, seq: 0 },

    /** Runs the `resync` handler for every stream, in line with its messages. @param {string} reason */
    async resync(reason) {
      for (const [name, stream] of streams) {
        await enqueue(stream, async () => {
          await call('resync', [{ reason }], { stream: name, ...(stream.last ?? { epoch: 0, seq: 0 }) })
          stream.resyncReason = null
          counts.resyncs += 1
        })
      }
    },

    /** Numbers for health and debugging. */
    status: () => ({
      listeners,
      lastSeen: Object.fromEntries([...streams].map(([name, { last }]) => [name, last])),
      queued: Object.fromEntries([...streams].map(([name, { queued }]) => [name, queued])),
      counts: { ...counts },
    }),
  }
}
