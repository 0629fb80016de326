// @ts-check
/** HTTP: the read API, health, and the chart page. */

import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import express from 'express'
import { isMarketId } from './consumer.js'
import { LIMITS, SORTS } from './history.js'

/**
 * @typedef {import('express').Request} Request
 * @typedef {import('express').Response} Response
 */

/** A request that the caller must correct. */
class HttpError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

const require = createRequire(import.meta.url)
const SEARCH_MAX = 80
const OFFSET_MAX = 1_000_000

/**
 * @param {unknown} text
 * @param {string} name
 * @param {{fallback?: number, max: number, min?: number}} rule  Above `max` means `max`.
 */
function whole(text, name, { fallback, max, min = 1 }) {
  if (text === undefined || text === '') return /** @type {number} */ (fallback)
  const value = typeof text === 'string' && /^\d{1,16}$/.test(text) ? Number(text) : NaN
  if (!(value >= min)) throw new HttpError(400, `${name} must be a whole number of at least ${min}`)
  return Math.min(value, max)
}

/** @param {Request} req */
function marketId(req) {
  const id = String(req.params.id).toLowerCase()
  if (!isMarketId(id)) throw new HttpError(400, 'not a market id')
  return id
}

/**
 * @param {object} options
 * @param {import('./config.js').Config} options.config
 * @param {import('./history.js').History} options.history
 * @param {() => import('./consumer.js').Position} options.position
 * @param {() => Promise<{status: string} & Record<string, unknown>>} options.health
 * @param {() => object} options.debugState
 * @param {(origin: string) => boolean} options.originAllowed
 * @param {typeof import('./log.js').log} options.log
 */
export function createHttpApp({ config, history, position, health, debugState, originAllowed, log }) {
  const app = express()
  app.disable('x-powered-by')
  app.set('query parser', 'simple')

  app.use((req, res, next) => {
    res.set({
      'X-Content-Type-Options': 'nosniff',
      'Referrer-Policy': 'no-referrer',
      'Content-Security-Policy':
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; style-src 'self' 'unsafe-inline'; " +
        "object-src 'none'; base-uri 'none'; form-action 'none'",
    })
    const { origin } = req.headers
    res.vary('Origin')
    if (origin && originAllowed(origin)) res.set('Access-Control-Allow-Origin', origin)
    next()
  })

  const api = express.Router()
  api.use((_req, res, next) => {
    res.set('Cache-Control', 'no-store')
    next()
  })

  api.get('/config', (_req, res) => {
    res.json({ chainId: config.chainId, stream: config.stream, intervals: config.intervals, candlesMax: LIMITS.candlesMax })
  })

  api.get('/markets', async (req, res) => {
    const { sort = 'newest', q = '' } = req.query
    if (!SORTS.some((known) => known === sort)) throw new HttpError(400, `sort must be one of ${SORTS.join(', ')}`)
    if (typeof q !== 'string' || q.length > SEARCH_MAX) throw new HttpError(400, `q has at most ${SEARCH_MAX} characters`)
    const offset = whole(req.query.offset, 'offset', { fallback: 0, min: 0, max: OFFSET_MAX })
    const limit = whole(req.query.limit, 'limit', { fallback: 50, max: LIMITS.pageMax })
    const { total, epoch, seq, items } = await history.markets({
      sort: /** @type {import('./history.js').MarketSort} */ (sort), offset, limit, search: q.trim(), position,
    })
    res.json({ total, offset, limit, sort, epoch, seq, items })
  })

  api.get('/markets/:id', async (req, res) => {
    const market = await history.market(marketId(req))
    if (!market) throw new HttpError(404, 'no such market')
    res.json(market)
  })

  api.get('/markets/:id/candles', async (req, res) => {
    const id = marketId(req)
    const interval = String(req.query.interval ?? config.intervals[0])
    if (!config.intervals.includes(interval)) {
      throw new HttpError(400, `interval must be one of ${config.intervals.join(', ')}`)
    }
    const limit = whole(req.query.limit, 'limit', { fallback: 500, max: LIMITS.candlesMax })
    const before = whole(req.query.before, 'before', { max: Number.MAX_SAFE_INTEGER })
    const { epoch, seq } = position()
    res.json({ s: id, i: interval, epoch, seq, items: await history.candles(id, interval, { limit, before }) })
  })

  api.get('/markets/:id/trades', async (req, res) => {
    const id = marketId(req)
    const limit = whole(req.query.limit, 'limit', { fallback: 60, max: LIMITS.tradesMax })
    const { epoch, seq } = position()
    res.json({ s: id, epoch, seq, items: await history.trades(id, limit) })
  })

  api.use(() => { throw new HttpError(404, 'no such resource') })
  app.use('/api', api)

  app.get('/health', async (_req, res) => {
    const report = await health()
    res.set('Cache-Control', 'no-store').status(report.status === 'ok' ? 200 : 503).json(report)
  })
  if (config.debug) app.get('/debug/state', (_req, res) => { res.set('Cache-Control', 'no-store').json(debugState()) })

  const vendor = { maxAge: '1d' }
  app.use('/vendor/lightweight-charts.mjs', express.static(
    join(dirname(require.resolve('lightweight-charts/package.json')), 'dist/lightweight-charts.standalone.production.mjs'), vendor))
  app.use('/vendor/socket.io.mjs', express.static(
    join(dirname(require.resolve('socket.io-client/package.json')), 'dist/socket.io.esm.min.js'), vendor))
  app.use(express.static(config.chartDir, { cacheControl: false }))

  app.use(() => { throw new HttpError(404, 'not found') })
  app.use((/** @type {any} */ error, /** @type {Request} */ req, /** @type {Response} */ res, /** @type {import('express').NextFunction} */ _next) => {
    const status = error instanceof HttpError ? error.status : error?.status >= 400 && error.status < 500 ? error.status : 503
    if (status === 503) log('warn', 'request failed', { path: req.path, error: String(error) })
    res.status(status).json({ error: status === 503 ? 'data is not available, try again' : error.message })
  })
  return app
}
