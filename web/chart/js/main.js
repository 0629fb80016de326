// @ts-check
/** Wires the page together. What it shows is in the address, see `address.js`. */

import { io } from '/vendor/socket.io.mjs'
import { createAlerts } from './alerts.js'
import { readAddress, writeAddress } from './address.js'
import { BACKEND, api } from './api.js'
import { createPriceChart } from './chart.js'
import { byId, make, note, press } from './dom.js'
import { createFeed } from './feed.js'
import { createHeader } from './header.js'
import { createChartKeys, createListKeys, createShortcuts } from './keyboard.js'
import { createLaunches } from './launches.js'
import { createMarketList } from './markets.js'
import { createConnection, toast } from './notices.js'
import { recall, remember } from './storage.js'
import { createTheme } from './theme.js'
import { createTradeList } from './trades.js'

const CANDLES = 500 // in a snapshot, and in a page of history
const RETRY_MS_MAX = 10_000
const WIDE = matchMedia('(min-width: 721px)')

let market = ''
let interval = ''
/** @type {import('./address.js').OpenMode} */
let openMode = recall('open-mode') === 'continuous' ? 'continuous' : 'exchange'
let missing = false
/** @type {string[]} */
let intervals = []
/** @type {{close: () => void}[]} */
let marketTopics = []
/** @type {{close: () => void} | null} */
let candleTopic = null

// ---------------------------------------------------------------- parts

/** Links name the market alone: interval and opens stay as they are. @param {string} id */
const linkTo = (id) => writeAddress(id)

const header = createHeader()
const trades = createTradeList()
const connection = createConnection()
const alerts = createAlerts()
const launches = createLaunches(linkTo)
const markets = createMarketList({
  linkTo,
  onLoaded(first) {
    // A wide screen never shows an empty middle; a phone starts with the list.
    if (!market && first && WIDE.matches) location.replace(linkTo(first))
    else if (!market && !first) note(byId('chart-note'), 'No market selected', 'Markets appear as soon as they are created.')
  },
})
const chart = createPriceChart(byId('chart'), {
  legend: byId('legend'),
  edge: byId('edge'),
  spoken: byId('spoken'),
  page: CANDLES,
  loadOlder: async (before) => (await api.candles(market, { interval, before, limit: CANDLES })).items,
})
const theme = createTheme(() => chart.applyTheme())

// ---------------------------------------------------------------- live data

const socket = io(`${BACKEND}/charts`, { transports: ['websocket', 'polling'], reconnectionDelayMax: 5_000, randomizationFactor: 0.5 })
const feed = createFeed(socket, {
  onState: connection.show,
  onEvent(event, payload) {
    if (event === 'market_created' || event === 'market_graduated') applyRecords(event, payload)
    else if (event === 'alerts' && payload.s === market) alerts.show(payload.items)
    else if (event === 'reorg' && payload.s === market) {
      trades.dropAbove(payload.ancestor.number)
      const blocks = payload.depth === 1 ? '1 block was' : `${payload.depth} blocks were`
      toast(`${blocks} replaced by the chain. Candles and trades are corrected.`)
    }
  },
})

/** @param {string} event @param {{epoch: number, seq: number, items: any[]}} change */
function applyRecords(event, change) {
  const { items } = change
  markets.applyRecords(change, event === 'market_created')
  if (event === 'market_created') launches.applyRecords(items)
  const own = items.findLast(({ s }) => s === market)
  if (!own) return
  if (own.deleted) return showMissing()
  if (missing) return follow(true)
  header.applyRecord(own)
  if (event === 'market_graduated' && own.status === 'graduated') toast(`${own.symbol || 'This market'} has graduated.`)
}

feed.open({ topic: 'markets' }, {
  snapshot() {
    markets.load()
    launches.load()
  },
  change: markets.applyStats,
})

function showMissing() {
  missing = true
  header.show(null)
  chart.clear()
  trades.clear()
  note(byId('chart-note'), 'No such market', 'It may have been undone by a reorganisation of the chain.')
}

/** @param {string} symbol */
function nameChart(symbol) {
  const name = `Candle chart${symbol && ` of ${symbol}`}, interval ${interval}. Arrow keys read candles, plus and minus zoom.`
  byId('chart').setAttribute('aria-label', name)
}

function openCandles() {
  candleTopic?.close()
  chart.clear()
  note(byId('chart-note'), 'Loading candles')
  nameChart(markets.get(market)?.symbol ?? '')
  candleTopic = feed.open({ topic: 'candles', market, interval, limit: CANDLES }, {
    snapshot({ items }, why) {
      chart.show(items, why !== 'resync' && why !== 'open')
      showEmptyChart()
    },
    change({ items }) {
      for (const candle of items) chart.put(candle)
      showEmptyChart()
    },
    failed: (error) => { if (chart.count === 0) note(byId('chart-note'), 'Candles cannot be read', `${error}. Trying again.`) },
  })
}

function showEmptyChart() {
  if (missing) return
  const empty = chart.count === 0
  note(byId('chart-note'), empty ? 'No candles yet' : '', empty ? 'The first trade starts the chart.' : '')
}

function openMarket() {
  missing = false
  for (const topic of marketTopics) topic.close()
  header.show(markets.get(market) ? { ...markets.get(market) } : null)
  trades.clear()
  alerts.clear()
  marketTopics = [
    feed.open({ topic: 'stats', market }, {
      snapshot(answer) {
        if (!answer.market) return showMissing()
        header.show(answer.market)
        nameChart(answer.market.symbol)
        trades.setQuote(answer.market.quoteSymbol)
      },
      change({ items }) {
        const { s: _, ...stats } = items.at(-1)
        header.applyStats(stats)
      },
    }),
    feed.open({ topic: 'trades', market }, {
      snapshot: ({ items }) => trades.show(items),
      change({ items }) {
        trades.add(items)
        header.applyTrade(items.at(-1))
        markets.applyTrade(items.at(-1))
      },
    }),
  ]
}

// ---------------------------------------------------------------- address

/** @param {'markets' | 'chart' | 'trades'} view */
function showView(view) {
  document.body.dataset.view = view
  for (const tab of document.querySelectorAll('.tabs button')) {
    tab.setAttribute('aria-pressed', String(/** @type {HTMLElement} */ (tab).dataset.view === view))
  }
}

/** Shows what the address says. @param {boolean} [afresh] */
function follow(afresh = false) {
  const wanted = readAddress(location.hash)
  if (!wanted.market) return showView('markets')
  const nextInterval = [wanted.interval, interval, recall('interval') ?? ''].find((name) => intervals.includes(name)) ?? intervals[0]
  const sameMarket = wanted.market === market && !afresh
  if (wanted.openMode && wanted.openMode !== openMode) setOpenMode(wanted.openMode)
  const same = sameMarket && nextInterval === interval
  market = wanted.market
  interval = nextInterval
  history.replaceState(null, '', writeAddress(market, interval, openMode))
  if (same) return showView('chart')
  remember('interval', interval)
  press(byId('intervals'), (button) => button.textContent === interval)
  markets.select(market)
  launches.select(market)
  if (!sameMarket) openMarket()
  openCandles()
  if (!sameMarket || document.body.dataset.view === 'markets') showView('chart')
}

addEventListener('hashchange', () => follow())
document.querySelector('.markets')?.addEventListener('click', (/** @type {any} */ event) => {
  const href = event.target.closest('a')?.getAttribute('href')
  if (href && readAddress(href).market === market) showView('chart')
})
document.querySelector('.tabs')?.addEventListener('click', (/** @type {any} */ event) => {
  const view = event.target.closest('button')?.dataset.view
  if (view) showView(view)
})

// ---------------------------------------------------------------- controls

/** @param {string | undefined} name */
function chooseInterval(name) {
  if (!name || !market) return
  history.pushState(null, '', writeAddress(market, name, openMode))
  follow()
}
byId('intervals').addEventListener('click', (/** @type {any} */ event) => {
  if (event.target.matches('button')) chooseInterval(event.target.textContent)
})

/** @param {import('./address.js').OpenMode} mode */
function setOpenMode(mode) {
  openMode = mode
  press(byId('open-mode'), (button) => button.dataset.mode === mode)
  chart.setOpenMode(mode)
  remember('open-mode', mode)
  if (market) history.replaceState(null, '', writeAddress(market, interval, mode))
}
byId('open-mode').addEventListener('click', (/** @type {any} */ event) => {
  if (event.target.dataset.mode) setOpenMode(event.target.dataset.mode)
})

const isLogarithmic = () => byId('log').getAttribute('aria-pressed') === 'true'
/** @param {boolean} on */
function setLogarithmic(on) {
  byId('log').setAttribute('aria-pressed', String(on))
  chart.setLogarithmic(on)
  remember('log-scale', on ? '1' : '')
}
byId('log').addEventListener('click', () => setLogarithmic(!isLogarithmic()))
byId('latest').addEventListener('click', () => chart.toLatest())

createListKeys()
createChartKeys(byId('chart'), chart.cursor)
createShortcuts({
  market: (step) => markets.step(step),
  interval: (step) => chooseInterval(intervals[intervals.indexOf(interval) + step]),
  nthInterval: (place) => chooseInterval(intervals[place]),
  openMode: () => setOpenMode(openMode === 'continuous' ? 'exchange' : 'continuous'),
  log: () => setLogarithmic(!isLogarithmic()),
  latest: () => chart.toLatest(),
  theme: () => theme.toggle(),
  search() {
    showView(WIDE.matches ? 'chart' : 'markets')
    byId('search').focus()
  },
})

// ---------------------------------------------------------------- start

/** Asks the backend what it serves, until it answers. @param {number} [attempt] */
async function start(attempt = 1) {
  try {
    intervals = (await api.config()).intervals
  } catch (error) {
    const text = error instanceof Error ? error.message : ''
    note(byId('chart-note'), 'The backend cannot be reached', `${text}. Trying again.`)
    setTimeout(start, Math.min(500 * 2 ** attempt, RETRY_MS_MAX), attempt + 1)
    return
  }
  byId('intervals').replaceChildren(...intervals.map((name) => {
    const button = make('button', '', name)
    button.setAttribute('type', 'button')
    button.setAttribute('aria-pressed', 'false')
    return button
  }))
  setOpenMode(openMode)
  if (recall('log-scale')) setLogarithmic(true)
  note(byId('chart-note'), '')
  markets.load()
  launches.load()
  follow()
}

/**
 * Test hook: what the page shows, for browser tests.
 * @type {any}
 */
const hook = {
  candleCount: () => chart.count,
  firstCandle: () => chart.first,
  lastCandle: () => chart.last,
  drawnBars: () => chart.drawn,
  visibleRange: () => chart.visible,
  get market() { return market },
  get interval() { return interval },
  get connected() { return connection.connected },
}
Object.assign(window, { __chart: hook })

start()
