// @ts-check
/** Wires the page together. The address carries its state: `#/market/<id>/<interval>`. */

import { io } from '/vendor/socket.io.mjs'
import { BACKEND, api } from './api.js'
import { createPriceChart } from './chart.js'
import { byId, make, note, press, setText } from './dom.js'
import { createFeed } from './feed.js'
import { createHeader } from './header.js'
import { createMarketList } from './markets.js'
import { createTradeList } from './trades.js'

const CANDLES = 500
const WIDE = matchMedia('(min-width: 721px)')

/** @param {string} key */
const recall = (key) => { try { return localStorage.getItem(key) } catch { return null } }
/** @param {string} key @param {string} value */
const remember = (key, value) => { try { localStorage.setItem(key, value) } catch { /* storage is blocked */ } }

let market = ''
let interval = ''
let connected = false
let missing = false
/** @type {string[]} */
let intervals = []
/** @type {{close: () => void}[]} */
let marketTopics = []
/** @type {{close: () => void} | null} */
let candleTopic = null

// ---------------------------------------------------------------- parts

/** @param {string} id @param {string} [i] */
const linkTo = (id, i = interval) => `#/market/${encodeURIComponent(id)}${i ? `/${i}` : ''}`

const header = createHeader()
const trades = createTradeList()
const markets = createMarketList({
  linkTo: (id) => linkTo(id),
  onLoaded(first) {
    // A wide screen never shows an empty middle; a phone starts with the list.
    if (!market && first && WIDE.matches) location.replace(linkTo(first))
    else if (!market && !first) note(byId('chart-note'), 'No market selected', 'Markets appear as soon as they are created.')
  },
})
const chart = createPriceChart(byId('chart'), {
  legend: byId('legend'),
  loadOlder: async (before) => (await api.candles(market, { interval, before, limit: CANDLES })).items,
})

// ---------------------------------------------------------------- live data

/** @type {Record<string, string>} */
const CONNECTION = { live: 'Live', waiting: 'Waiting for data', reconnecting: 'Reconnecting' }

const socket = io(`${BACKEND}/charts`, { transports: ['websocket', 'polling'], reconnectionDelayMax: 5_000, randomizationFactor: 0.5 })
const feed = createFeed(socket, {
  onState(state) {
    connected = state !== 'reconnecting'
    const element = byId('connection')
    element.dataset.state = state
    setText(element.lastElementChild, CONNECTION[state])
  },
  onEvent(event, payload) {
    if (event === 'market_created' || event === 'market_graduated') {
      markets.applyRecords(payload.items)
      const own = payload.items.findLast((/** @type {any} */ item) => item.s === market)
      if (own?.deleted) showMissing()
      else if (own && missing) follow(true)
      else if (own) header.applyRecord(own)
    } else if (event === 'reorg' && payload.s === market) {
      trades.dropAbove(payload.ancestor.number)
    }
  },
})

feed.open({ topic: 'markets' }, { snapshot: () => markets.load(), change: markets.applyStats })

function showMissing() {
  missing = true
  header.show(null)
  chart.clear()
  trades.clear()
  note(byId('chart-note'), 'No such market', 'It may have been undone by a reorganisation of the chain.')
}

function openCandles() {
  candleTopic?.close()
  chart.clear()
  note(byId('chart-note'), 'Loading candles')
  byId('chart').setAttribute('aria-label', `Candle chart, interval ${interval}`)
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
  const empty = chart.count === 0
  note(byId('chart-note'), empty ? 'No candles yet' : '', empty ? 'The first trade starts the chart.' : '')
}

function openMarket() {
  missing = false
  for (const topic of marketTopics) topic.close()
  header.show(markets.get(market) ? { ...markets.get(market) } : null)
  trades.clear()
  marketTopics = [
    feed.open({ topic: 'stats', market }, {
      snapshot(answer) {
        if (!answer.market) return showMissing()
        header.show(answer.market)
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
  const [, kind, id = '', wanted = ''] = location.hash.split('/')
  if (kind !== 'market' || !id) return showView('markets')
  const fallback = intervals.includes(recall('interval') ?? '') ? recall('interval') ?? '' : intervals[0]
  const nextInterval = intervals.includes(wanted) ? wanted : fallback
  const nextMarket = decodeURIComponent(id)
  const sameMarket = nextMarket === market && !afresh
  if (sameMarket && nextInterval === interval) return showView('chart')
  market = nextMarket
  interval = nextInterval
  remember('interval', interval)
  press(byId('intervals'), (button) => button.textContent === interval)
  markets.select(market)
  if (!sameMarket) openMarket()
  openCandles()
  if (!sameMarket || document.body.dataset.view === 'markets') showView('chart')
}

addEventListener('hashchange', () => follow())
byId('market-list').addEventListener('click', (/** @type {any} */ event) => {
  if (event.target.closest('a')?.getAttribute('href') === location.hash) showView('chart')
})
document.querySelector('.tabs')?.addEventListener('click', (/** @type {any} */ event) => {
  const view = event.target.closest('button')?.dataset.view
  if (view) showView(view)
})

// ---------------------------------------------------------------- controls

byId('intervals').addEventListener('click', (/** @type {any} */ event) => {
  if (event.target.matches('button') && market) location.hash = linkTo(market, event.target.textContent)
})

/** @param {string} mode */
function setOpenMode(mode) {
  press(byId('open-mode'), (button) => button.dataset.mode === mode)
  chart.setOpenMode(mode === 'continuous' ? 'continuous' : 'exchange')
  remember('open-mode', mode)
}
byId('open-mode').addEventListener('click', (/** @type {any} */ event) => {
  if (event.target.dataset.mode) setOpenMode(event.target.dataset.mode)
})

/** @param {boolean} on */
function setLogarithmic(on) {
  byId('log').setAttribute('aria-pressed', String(on))
  chart.setLogarithmic(on)
  remember('log-scale', on ? '1' : '')
}
byId('log').addEventListener('click', () => setLogarithmic(byId('log').getAttribute('aria-pressed') !== 'true'))
byId('latest').addEventListener('click', () => chart.toLatest())

const light = matchMedia('(prefers-color-scheme: light)')
const isLight = () => (document.documentElement.dataset.theme ?? (light.matches ? 'light' : 'dark')) === 'light'
byId('theme').addEventListener('click', () => {
  document.documentElement.dataset.theme = isLight() ? 'dark' : 'light'
  remember('theme', document.documentElement.dataset.theme)
  chart.applyTheme()
})
light.addEventListener('change', () => chart.applyTheme())

addEventListener('keydown', (event) => {
  if (event.key !== '/' || /** @type {HTMLElement} */ (event.target).matches('input')) return
  event.preventDefault()
  byId('search').focus()
})

// ---------------------------------------------------------------- start

async function start() {
  try {
    intervals = (await api.config()).intervals
  } catch (error) {
    const text = error instanceof Error ? error.message : ''
    return note(byId('chart-note'), 'The backend cannot be reached', text, start)
  }
  byId('intervals').replaceChildren(...intervals.map((name) => {
    const button = make('button', '', name)
    button.setAttribute('type', 'button')
    button.setAttribute('aria-pressed', 'false')
    return button
  }))
  if (recall('open-mode')) setOpenMode(recall('open-mode') ?? '')
  if (recall('log-scale')) setLogarithmic(true)
  note(byId('chart-note'), '')
  markets.load()
  follow()
}

/**
 * Test hook: what the page shows, for browser tests.
 * @type {any}
 */
const hook = {
  candleCount: () => chart.count,
  lastCandle: () => chart.last,
  get market() { return market },
  get interval() { return interval },
  get connected() { return connected },
}
Object.assign(window, { __chart: hook })

start()
