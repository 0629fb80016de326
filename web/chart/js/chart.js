// @ts-check
/** The candle chart. It keeps candles exactly as received and turns them into numbers only for drawing. */

import {
  CandlestickSeries, ColorType, CrosshairMode, HistogramSeries, PriceScaleMode, createChart,
} from '/vendor/lightweight-charts.mjs'
import { drawn, indexOf, powerFor, toBar, undrawn } from './bars.js'
import { axisPrices, compact, price } from './format.js'
import { createCursor } from './cursor.js'
import { createOlder } from './older.js'
import { showLegend } from './legend.js'

/**
 * @typedef {import('./bars.js').Candle} Candle
 * @typedef {import('./address.js').OpenMode} OpenMode
 */

const INITIAL_BARS = 120
const DRAWN_MIN = 0.01 // outside of this range the power of ten is chosen anew
const DRAWN_MAX = 100_000

/** @param {string} name */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

/**
 * @param {HTMLElement} element
 * @param {object} options
 * @param {HTMLElement} options.legend
 * @param {HTMLElement} options.edge    Says what is left of the first candle.
 * @param {HTMLElement} options.spoken  Reads out the candle under the keyboard's cursor.
 * @param {number} options.page  Candles in one answer of `loadOlder`, and in a first snapshot.
 * @param {(oldest: number) => Promise<Candle[]>} options.loadOlder  Candles before a time, oldest first.
 */
export function createPriceChart(element, { legend, edge, spoken, page, loadOlder }) {
  /** @type {Candle[]} Oldest first. */
  let rows = []
  /** @type {OpenMode} */
  let openMode = 'exchange'
  let pricePower = 0
  let volumePower = 0
  let redrawQueued = false
  /** @type {number | null} Open time of the candle under a cursor. */
  let hovered = null
  let volumeColours = { up: '', down: '' }
  let markColours = { up: '', down: '' }

  const chart = createChart(element, {
    autoSize: true,
    layout: { attributionLogo: false, fontSize: 11, fontFamily: getComputedStyle(document.body).fontFamily },
    rightPriceScale: { scaleMargins: { top: 0.12, bottom: 0.24 }, borderVisible: false, minimumWidth: 72 },
    timeScale: { borderVisible: false, timeVisible: true, secondsVisible: false, rightOffset: 6, barSpacing: 8, minBarSpacing: 1 },
    crosshair: { mode: CrosshairMode.Normal },
    handleScroll: { vertTouchDrag: false },
  })
  const volume = chart.addSeries(HistogramSeries, {
    priceScaleId: 'volume',
    priceFormat: { type: 'custom', minMove: 0.000001, formatter: (/** @type {number} */ v) => compact(undrawn(v, volumePower)) },
    lastValueVisible: false,
    priceLineVisible: false,
  })
  volume.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } })
  const candles = chart.addSeries(CandlestickSeries, { borderVisible: false })

  /** @param {Candle} row */
  const bar = (row) => toBar(row, openMode, pricePower)

  /** Chooses how prices of this size are written and how finely the scale may step. */
  function applyPriceFormat() {
    candles.applyOptions({
      priceFormat: {
        type: 'custom',
        minMove: 0.00001, // of a drawn price between 1 and 10: about six significant digits
        formatter: (/** @type {number} */ value) => price(undrawn(value, pricePower), 5, true),
        tickmarksFormatter: (/** @type {readonly number[]} */ values) =>
          axisPrices(values.map((value) => undrawn(value, pricePower))),
      },
    })
  }

  function applyTheme() {
    const [up, down, text, line, strong] = ['--up', '--down', '--muted', '--grid', '--chip'].map(colour)
    volumeColours = { up: colour('--up-soft'), down: colour('--down-soft') }
    markColours = { up: colour('--up-mark'), down: colour('--down-mark') }
    chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: 'transparent' }, textColor: text },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      crosshair: {
        vertLine: { color: text, labelBackgroundColor: strong },
        horzLine: { color: text, labelBackgroundColor: strong },
      },
    })
    candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down })
    redraw()
  }

  /** @param {Candle} row */
  function toVolume(row) {
    const { time, open, close } = bar(row)
    return { time, value: drawn(row.q ?? row.v, volumePower), color: close >= open ? volumeColours.up : volumeColours.down }
  }

  function choosePowers() {
    pricePower = powerFor(rows.at(-1)?.c)
    const largest = rows.reduce((max, row) => (Number(row.q ?? row.v) > Number(max) ? row.q ?? row.v : max), '0')
    volumePower = powerFor(largest)
    applyPriceFormat()
  }

  function redraw() {
    candles.setData(/** @type {any[]} */ (rows.map(bar)))
    volume.setData(/** @type {any[]} */ (rows.map(toVolume)))
    markLast()
    describe()
  }

  /** Colours the label of the last price so that it can be read. */
  function markLast() {
    const row = rows.at(-1)
    const last = row && bar(row)
    candles.applyOptions({ priceLineColor: last ? markColours[last.close >= last.open ? 'up' : 'down'] : '' })
  }

  /** Several corrections of one message cost one redraw. */
  function redrawSoon() {
    if (redrawQueued) return
    redrawQueued = true
    queueMicrotask(() => {
      redrawQueued = false
      redraw()
    })
  }

  /** Writes the figures of the candle under a cursor, or of the newest. */
  function describe() {
    const row = (hovered !== null && rows[indexOf(rows, hovered)]) || rows.at(-1)
    legend.hidden = !row
    if (row) showLegend(legend, row, bar(row), pricePower)
  }

  const cursor = createCursor(chart, candles, {
    rows: () => rows,
    bar,
    power: () => pricePower,
    element: spoken,
    onMove: (row) => {
      hovered = row && row.t
      describe()
    },
  })

  const older = createOlder(chart, {
    element: edge,
    page,
    load: loadOlder,
    rows: () => rows,
    prepend(found) {
      rows = [...found, ...rows]
      redraw()
    },
  })

  chart.subscribeCrosshairMove(({ time, sourceEvent }) => {
    if (!sourceEvent) return // the keyboard's cursor, which says what it shows
    hovered = time === undefined ? null : Number(time) * 1000
    describe()
  })

  applyPriceFormat()
  applyTheme()

  return {
    applyTheme,
    cursor,
    get count() { return rows.length },
    get first() { return rows[0] ?? null },
    get last() { return rows.at(-1) ?? null },
    /** What is drawn. */
    get drawn() { return candles.data().map((item) => ({ ...item })) },
    get visible() { return chart.timeScale().getVisibleLogicalRange() },

    clear() {
      rows = []
      older.restart(true)
      cursor.hide()
      redraw()
    },

    /**
     * @param {Candle[]} fresh  The newest candles, oldest first.
     * @param {boolean} keepOlder  Keep what was loaded before them.
     */
    show(fresh, keepOlder) {
      const first = rows.length === 0
      const overlaps = keepOlder && fresh.length > 0 && !first && rows[rows.length - 1].t >= fresh[0].t
      rows = overlaps ? [...rows.slice(0, indexOf(rows, fresh[0].t)), ...fresh] : fresh
      older.restart(overlaps ? older.more : fresh.length >= page)
      choosePowers()
      redraw()
      if (first) {
        candles.priceScale().applyOptions({ autoScale: true })
        const bars = Math.min(INITIAL_BARS, Math.max(40, Math.floor(element.clientWidth / 8)))
        chart.timeScale().setVisibleLogicalRange({ from: rows.length - bars, to: rows.length + 5 })
      }
      older.look()
    },

    /** A candle that is new, changed or deleted. @param {Candle} row */
    put(row) {
      const at = indexOf(rows, row.t)
      const known = at < rows.length && rows[at].t === row.t
      if (row.deleted) {
        if (known) rows.splice(at, 1)
        return redrawSoon()
      }
      // Older than all that is loaded: it comes with the history, if asked for.
      if (at === 0 && !known && rows.length > 0 && older.more) return
      rows.splice(at, known ? 1 : 0, row)
      const size = Math.abs(drawn(row.c, pricePower))
      if (rows.length === 1 || (size > 0 && (size < DRAWN_MIN || size > DRAWN_MAX))) {
        choosePowers()
        return redrawSoon()
      }
      if (at < rows.length - 1 || redrawQueued) return redrawSoon()
      candles.update(/** @type {any} */ (bar(row)))
      volume.update(/** @type {any} */ (toVolume(row)))
      markLast()
      describe()
    },

    /** @param {OpenMode} mode */
    setOpenMode(mode) {
      openMode = mode
      redraw()
    },

    /** @param {boolean} on */
    setLogarithmic(on) {
      candles.priceScale().applyOptions({ mode: on ? PriceScaleMode.Logarithmic : PriceScaleMode.Normal, autoScale: true })
    },

    toLatest() {
      cursor.hide()
      candles.priceScale().applyOptions({ autoScale: true })
      chart.timeScale().scrollToRealTime()
    },
  }
}
