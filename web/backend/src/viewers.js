// @ts-check
/**
 * Serves browsers: rooms by topic, a snapshot on joining, then the changes.
 *
 * A viewer joins the room first and reads its snapshot afterwards, so nothing
 * falls between the two. Changes and snapshots carry the listener's
 * (epoch, seq); a viewer applies the changes that are newer than its snapshot.
 *
 * Viewers only read. A viewer that asks for too much is refused, one that does
 * not read is first unsubscribed and, if that is not enough, disconnected.
 */

import { isInterval, isMarketId } from './consumer.js'

/**
 * @typedef {import('./consumer.js').Context} Context
 * @typedef {import('./consumer.js').Position} Position
 * @typedef {{topic: 'candles'|'trades'|'stats'|'markets', market: string, interval: string, limit: number}} Request
 * @typedef {Pick<Context, 'epoch' | 'seq'>} Mark
 */

export const LIMITS = Object.freeze({
  roomsMax: 16, // subscriptions of one viewer
  requestsBurst: 40, // requests at once …
  requestsPerSecond: 10, // … and after that
  abuseMax: 200, // refused requests before the viewer is disconnected
  bufferedBytesMax: 1_000_000, // unread bytes before a viewer is unsubscribed
  bufferedBytesFatal: 4_000_000, // … and disconnected
  laggingMsMax: 10_000, // an unsubscribed viewer must have read its backlog by then
  sweepMs: 500,
  marketsFlushMs: 250, // how often the market list changes on screen
  pendingMarketsMax: 5_000,
})

const TOPICS = new Set(['candles', 'trades', 'stats', 'markets'])
const SNAPSHOT_CANDLES = 500
const SNAPSHOT_TRADES = 60

/** A request that breaks the rules. */
class BadRequest extends Error {}

/** @param {Request} request */
const roomOf = ({ topic, market, interval }) =>
  topic === 'markets' ? 'markets' : topic === 'candles' ? `candles:${market}:${interval}` : `${topic}:${market}`

/** Everyone who watches a market, whatever the topic. @param {string} market */
const audience = (market) => `market:${market}`

/**
 * @param {unknown} raw
 * @param {string[]} intervals
 * @returns {Request}
 */
function readRequest(raw, intervals) {
  if (typeof raw !== 'object' || raw === null) throw new BadRequest('request is not an object')
  const { topic, market = '', interval = '', limit } = /** @type {Record<string, any>} */ (raw)
  if (!TOPICS.has(topic)) throw new BadRequest('unknown topic')
  if (topic !== 'markets' && !isMarketId(market)) throw new BadRequest('market is missing')
  if (topic === 'candles' && !(isInterval(interval) && intervals.includes(interval))) {
    throw new BadRequest('interval is not served')
  }
  const fallback = topic === 'candles' ? SNAPSHOT_CANDLES : SNAPSHOT_TRADES
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit > 0)) throw new BadRequest('limit is not a count')
  return { topic, market, interval, limit: limit ?? fallback }
}

/** Bytes that wait to be read by a viewer. @param {import('socket.io').Socket} socket */
function unreadBytes(socket) {
  const conn = /** @type {any} */ (socket.conn)
  let bytes = conn.transport?.socket?.bufferedAmount ?? 0
  for (const packet of conn.writeBuffer ?? []) bytes += packet.data?.length ?? packet.data?.byteLength ?? 0
  return bytes
}

/** What is remembered about one viewer. */
class Viewer {
  /** @type {Map<string, string>} Room -> market, for the rooms joined. */
  rooms = new Map()
  tokens = Number(LIMITS.requestsBurst)
  refilledAt = Date.now()
  abuse = 0
  /** @type {number | null} Since when it does not keep up. */
  laggingSince = null

  allow() {
    const now = Date.now()
    const earned = ((now - this.refilledAt) / 1000) * LIMITS.requestsPerSecond
    this.tokens = Math.min(LIMITS.requestsBurst, this.tokens + earned)
    this.refilledAt = now
    if (this.tokens < 1) return false
    this.tokens -= 1
    return true
  }
}

/**
 * @param {import('socket.io').Namespace} namespace
 * @param {object} options
 * @param {import('./history.js').History} options.history
 * @param {() => Position} options.position  Last position that was broadcast in full.
 * @param {string[]} options.intervals
 * @param {number} options.viewersMax
 * @param {typeof import('./log.js').log} options.log
 */
export function attachViewers(namespace, { history, position, intervals, viewersMax, log }) {
  /** @type {Map<import('socket.io').Socket, Viewer>} */
  const viewers = new Map()
  const counts = { refused: 0, unsubscribedSlow: 0, disconnectedSlow: 0, disconnectedAbuse: 0 }
  let feed = 'waiting'

  /** @param {Request} request */
  async function snapshot({ topic, market, interval, limit }) {
    switch (topic) {
      case 'candles': return { items: await history.candles(market, interval, { limit }) }
      case 'trades': return { items: await history.trades(market, limit) }
      case 'stats': return { market: await history.market(market) }
      case 'markets': return {} // read page by page over HTTP
    }
  }

  /** @param {import('socket.io').Socket} socket @param {Viewer} viewer @param {string} room */
  async function leave(socket, viewer, room) {
    const market = viewer.rooms.get(room)
    viewer.rooms.delete(room)
    await socket.leave(room)
    if (market && ![...viewer.rooms.values()].includes(market)) await socket.leave(audience(market))
  }

  /** @type {Record<string, (socket: import('socket.io').Socket, viewer: Viewer, request: Request) => Promise<object>>} */
  const REQUESTS = {
    async subscribe(socket, viewer, request) {
      if (viewer.laggingSince !== null) throw new BadRequest('read what was sent first')
      const room = roomOf(request)
      if (!viewer.rooms.has(room) && viewer.rooms.size >= LIMITS.roomsMax) {
        throw new BadRequest(`at most ${LIMITS.roomsMax} subscriptions`)
      }
      viewer.rooms.set(room, request.market)
      await socket.join(request.market ? [room, audience(request.market)] : room)
      const { epoch, seq } = position()
      try {
        return { room, epoch, seq, ...(await snapshot(request)) }
      } catch (error) {
        await leave(socket, viewer, room)
        throw error
      }
    },
    async unsubscribe(socket, viewer, request) {
      await leave(socket, viewer, roomOf(request))
      return {}
    },
  }

  namespace.use((_socket, next) => {
    if (viewers.size < viewersMax) return next()
    counts.refused += 1
    next(new Error('full'))
  })

  namespace.on('connection', (socket) => {
    const viewer = new Viewer()
    viewers.set(socket, viewer)
    socket.emit('status', { feed })

    socket.onAny(async (/** @type {string} */ event, /** @type {unknown[]} */ ...args) => {
      const last = args.at(-1)
      const ack = typeof last === 'function' ? last : () => {}
      try {
        const answer = Object.hasOwn(REQUESTS, event) ? REQUESTS[event] : null
        if (!answer) throw new BadRequest('unknown request')
        if (!viewer.allow()) throw new BadRequest('too many requests')
        ack({ ok: true, ...(await answer(socket, viewer, readRequest(args[0], intervals))) })
      } catch (error) {
        const ours = error instanceof BadRequest
        ack({ ok: false, error: ours ? error.message : 'history is not available, try again' })
        if (!ours) return log('warn', 'snapshot failed', { event, error: String(error) })
        counts.refused += 1
        viewer.abuse += 1
        if (viewer.abuse > LIMITS.abuseMax && socket.connected) {
          counts.disconnectedAbuse += 1
          socket.disconnect(true)
        }
      }
    })

    socket.on('disconnect', () => viewers.delete(socket))
  })

  /** Looks for viewers that do not read. */
  function sweep() {
    for (const [socket, viewer] of viewers) {
      const unread = unreadBytes(socket)
      const now = Date.now()
      if (viewer.laggingSince === null) {
        if (unread <= LIMITS.bufferedBytesMax) continue
        viewer.laggingSince = now
        counts.unsubscribedSlow += 1
        for (const room of [...viewer.rooms.keys()]) void leave(socket, viewer, room)
      }
      if (unread > LIMITS.bufferedBytesFatal || now - viewer.laggingSince > LIMITS.laggingMsMax) {
        counts.disconnectedSlow += 1
        log('warn', 'viewer disconnected: it does not read', { id: socket.id, unread })
        viewers.delete(socket)
        socket.conn.close(true)
      } else if (unread === 0) {
        viewer.laggingSince = null
        socket.emit('resync', { reason: 'slow' }) // it starts over from fresh snapshots
      }
    }
  }

  /** @type {Map<string, object>} Newest figures by market, for the list. */
  const pendingMarkets = new Map()
  /** @type {Mark} */
  let pendingMark = { epoch: 0, seq: 0 }
  function flushMarkets() {
    if (pendingMarkets.size === 0) return
    namespace.to('markets').emit('markets', { ...pendingMark, items: [...pendingMarkets.values()] })
    pendingMarkets.clear()
  }

  const timers = [setInterval(sweep, LIMITS.sweepMs), setInterval(flushMarkets, LIMITS.marketsFlushMs)]
  for (const timer of timers) timer.unref()

  /** @param {string} room */
  const hasViewers = (room) => namespace.adapter.rooms.has(room)

  /**
   * Sends every room its items, in one message.
   * @template {object} T
   * @param {string} event
   * @param {T[]} items
   * @param {(item: T) => string} room
   * @param {(item: T) => object} head
   * @param {Mark} mark
   */
  function broadcast(event, items, room, head, { epoch, seq }) {
    /** @type {Map<string, T[]>} */
    const byRoom = new Map()
    for (const item of items) {
      const name = room(item)
      const known = byRoom.get(name)
      if (known) known.push(item)
      else if (hasViewers(name)) byRoom.set(name, [item])
    }
    for (const [name, list] of byRoom) {
      namespace.to(name).emit(event, { ...head(list[0]), epoch, seq, items: list })
    }
  }

  return {
    /** @param {import('./consumer.js').Trade[]} items @param {Mark} mark */
    trades: (items, mark) =>
      broadcast('trades', items, (x) => `trades:${x.s}`, (x) => ({ s: x.s }), mark),

    /** @param {import('./consumer.js').Candle[]} items @param {Mark} mark */
    candles: (items, mark) =>
      broadcast('candles', items, (x) => `candles:${x.s}:${x.i}`, (x) => ({ s: x.s, i: x.i }), mark),

    /** @param {import('./consumer.js').Stats[]} items @param {Mark} mark */
    stats(items, mark) {
      broadcast('stats', items, (x) => `stats:${x.s}`, (x) => ({ s: x.s }), mark)
      if (!hasViewers('markets')) return
      for (const item of items) pendingMarkets.set(item.s, item)
      pendingMark = { epoch: mark.epoch, seq: mark.seq }
      if (pendingMarkets.size > LIMITS.pendingMarketsMax) flushMarkets()
    },

    /**
     * @param {'market_created' | 'market_graduated'} event
     * @param {import('./consumer.js').Market[]} items
     * @param {Mark} mark
     */
    records(event, items, { epoch, seq }) {
      const rooms = ['markets', ...items.map((x) => audience(x.s))].filter(hasViewers)
      if (rooms.length) namespace.to(rooms).emit(event, { epoch, seq, items })
    },

    /** @param {import('./consumer.js').Alert[]} items @param {Mark} mark */
    alerts: (items, mark) =>
      broadcast('alerts', items, (x) => audience(x.s), (x) => ({ s: x.s }), mark),

    /** @param {import('./consumer.js').Closed[]} items @param {Mark} mark */
    closed: (items, { epoch, seq }) => {
      namespace.emit('candles_closed', { epoch, seq, items })
    },

    /** @param {import('./consumer.js').Reorg} reorg @param {Mark} mark */
    reorg({ ancestor, depth, from, markets }, { epoch, seq }) {
      for (const s of markets) {
        if (hasViewers(audience(s))) {
          namespace.to(audience(s)).emit('reorg', { s, epoch, seq, ancestor, depth, from })
        }
      }
    },

    /** @param {string} reason */
    resync(reason) {
      pendingMarkets.clear()
      namespace.emit('resync', { reason })
    },

    /** Tells viewers whether a listener feeds this server. @param {boolean} live */
    feed(live) {
      const now = live ? 'live' : 'waiting'
      if (now === feed) return
      feed = now
      namespace.emit('status', { feed })
    },

    status: () => ({ viewers: viewers.size, counts: { ...counts } }),

    close() {
      for (const timer of timers) clearInterval(timer)
    },
  }
}
