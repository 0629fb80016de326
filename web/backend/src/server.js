// @ts-check
/** Puts the parts together: Redis, the listener's namespace, the viewers' namespace, HTTP. */

import { createServer } from 'node:http'
import { Server } from 'socket.io'
import { attachConsumer } from './consumer.js'
import { History } from './history.js'
import { createHttpApp } from './http.js'
import { log as defaultLog } from './log.js'
import { State } from './state.js'
import { attachViewers } from './viewers.js'

export const LIMITS = Object.freeze({
  messageBytesMax: 1_000_000, // one Socket.IO message, either way in
  pingIntervalMs: 10_000, // with the timeout: a dead link is noticed after 20 s
  pingTimeoutMs: 10_000,
  handshakeMs: 10_000, // to join a namespace after connecting
  headStaleMs: 120_000, // health mentions a head older than this
  warmUpRetryMs: 1_000,
})

/**
 * @param {import('./config.js').Config} config
 * @param {{log?: typeof defaultLog}} [options]
 */
export async function startServer(config, { log = defaultLog } = {}) {
  const { stream, intervals, marketsMax, tradesMax } = config
  const state = new State({ marketsMax, tradesMax })
  let closing = false
  let redisUp = false

  const history = new History({
    url: config.redisUrl,
    stream,
    onChange(up, error) {
      if (closing) return
      if (up !== redisUp || error) log(up ? 'info' : 'warn', up ? 'redis connected' : 'redis away', { error: error?.message })
      redisUp = up
      if (up) warmUp()
    },
  })

  /** @param {string} origin */
  const originAllowed = (origin) => config.corsOrigins.includes('*') || config.corsOrigins.includes(origin)

  const http = createServer(createHttpApp({
    config, history, health, log, originAllowed,
    position: () => consumer.position(stream),
    debugState: () => ({ stream, ...consumer.status(), viewers: viewers.status(), state: state.dump() }),
  }))
  const io = new Server(http, {
    serveClient: false,
    maxHttpBufferSize: LIMITS.messageBytesMax,
    pingInterval: LIMITS.pingIntervalMs,
    pingTimeout: LIMITS.pingTimeoutMs,
    connectTimeout: LIMITS.handshakeMs,
    cors: { origin: (origin, done) => done(null, origin !== undefined && originAllowed(origin)) },
    // CORS does not hold for WebSockets: a page of another site is turned away here.
    allowRequest(req, done) {
      const { origin, host } = req.headers
      const same = origin !== undefined && URL.canParse(origin) && new URL(origin).host === host
      done(null, origin === undefined || same || originAllowed(origin))
    },
  })

  const viewers = attachViewers(io.of('/charts'), {
    history, intervals, log,
    viewersMax: config.viewersMax,
    position: () => consumer.position(stream),
  })

  const consumer = attachConsumer(io.of('/'), {
    token: config.token,
    streams: [stream],
    log,
    onListeners: (connected) => viewers.feed(connected > 0),
    handlers: {
      trades(items, ctx) {
        state.addTrades(items)
        viewers.trades(items, ctx)
      },
      async candles(items, ctx) {
        const lost = state.putCandles(items)
        for (const { market: s, interval: i } of lost) {
          const [last] = await history.candles(s, i, { limit: 1 })
          if (last) state.putCandles([{ s, i, ...last }])
        }
        viewers.candles(items, ctx)
      },
      closed(items, ctx) {
        state.putClosed(items)
        viewers.closed(items, ctx)
      },
      stats(items, ctx) {
        state.putStats(items)
        viewers.stats(items, ctx)
      },
      created(items, ctx) {
        state.putMarkets(items)
        viewers.records('market_created', items, ctx)
      },
      async graduated(items, ctx) {
        // A graduation that a reorg undid leaves a market behind, unless its creation went too.
        const current = await Promise.all(items.map(async (item) => {
          if (!item.deleted) return item
          const { stats: _, ...record } = (await history.market(item.s)) ?? { ...item, stats: null }
          return record
        }))
        state.putMarkets(current)
        viewers.records('market_graduated', current, ctx)
      },
      async reorg(items, ctx) {
        for (const reorg of items) {
          for (const id of state.applyReorg(reorg)) state.setTrades(id, await history.trades(id, tradesMax))
          viewers.reorg(reorg, ctx)
        }
      },
      alert(items, ctx) {
        for (const item of items) log('info', 'alert', { alert: item })
        viewers.alerts(items, ctx)
      },
      async resync([{ reason }]) {
        state.replaceAll(await history.lastValues({ marketsMax, tradesMax, intervals }))
        log('info', 'read Redis', { reason, markets: state.size })
        viewers.resync(reason)
      },
    },
  })

  /** Fills the state whenever Redis comes (back). */
  async function warmUp() {
    try {
      await consumer.resync('redis')
    } catch (error) {
      log('warn', 'reading Redis failed', { error: String(error) })
      setTimeout(() => { if (!closing && history.up) warmUp() }, LIMITS.warmUpRetryMs).unref()
    }
  }

  async function health() {
    const head = history.up ? await history.head().catch(() => null) : null
    const ageMs = head ? Date.now() - Number(head.timestamp) : null
    return {
      status: history.up ? 'ok' : 'degraded',
      redis: history.up ? 'up' : 'down',
      listeners: consumer.status().listeners,
      viewers: viewers.status().viewers,
      markets: state.size,
      head: head && { number: Number(head.number), timestamp: Number(head.timestamp), ageMs, stale: ageMs !== null && ageMs > LIMITS.headStaleMs },
      uptimeSeconds: Math.floor(process.uptime()),
    }
  }

  await new Promise((resolve, reject) => {
    http.once('error', reject)
    http.listen(config.port, config.host, () => resolve(undefined))
  })
  history.start()

  const { port } = /** @type {import('node:net').AddressInfo} */ (http.address())
  const host = config.host.includes(':') ? `[${config.host}]` : config.host
  return {
    url: `http://${host}:${port}`,
    port,
    consumer,
    state,
    viewers,
    io,

    /** Ends every connection. */
    async close() {
      closing = true
      viewers.close()
      const closed = io.close() // closes the HTTP server too
      http.closeAllConnections()
      await closed
      history.close()
    },
  }
}
