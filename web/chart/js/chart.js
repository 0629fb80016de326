// @ts-check
/**
 * The candle chart. It keeps candles exactly as received and turns them into
 * numbers only for drawing, moved by a power of ten: a price of 0.0000000015
 * is drawn as 1.5, which keeps the library away from the limits of floats.
 */

import {
  CandlestickSeries, ColorType, CrosshairMode, HistogramSeries, PriceScaleMode, createChart,
} from '/vendor/lightweight-charts.mjs'
import { axisPrices, compact, dateTime, percent, price } from './format.js'

/**
 * @typedef {{t: number, o: string, h: string, l: string, c: string, pc?: string, v: string, q?: string, n?: number, deleted?: true}} Candle
 * @typedef {'exchange' | 'continuous'} OpenMode
 */

const BARS_MAX = 20_000
const LEFT_EDGE_BARS = 20 // older candles are asked for this close to the left edge
const INITIAL_BARS = 120
const DRAWN_MIN = 0.01 // outside of this range the power of ten is chosen anew
const DRAWN_MAX = 100_000

/** @param {string | undefined} exact */
const powerFor = (exact) => {
  const size = Math.abs(Number(exact))
  return size > 0 && Number.isFinite(size) ? -Math.floor(Math.log10(size)) : 0
}
/** Moves the decimal point without rounding twice. @param {string} exact @param {number} power */
const drawn = (exact, power) => Number(`${exact}e${power}`)
/** @param {number} value @param {number} power */
const undrawn = (value, power) => Number(`${value.toPrecision(12)}`) * 10 ** -power

/** @param {string} name */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

/**
 * @param {HTMLElement} element
 * @param {object} options
 * @param {HTMLElement} options.legend
 * @param {(oldest: number) => Promise<Candle[]>} options.loadOlder  Candles before a time, oldest first.
 */
export function createPriceChart(element, { legend, loadOlder }) {
  /** @type {Candle[]} Oldest first. */
  let rows = []
  /** @type {OpenMode} */
  let openMode = 'exchange'
  let pricePower = 0
  let volumePower = 0
  let hasOlder = true
  let loading = false
  let generation = 0
  let redrawQueued = false
  let hovered = false

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
  function toBar({ t, o, h, l, c, pc }) {
    const time = /** @type {any} */ (t / 1000)
    const bar = { time, open: drawn(o, pricePower), high: drawn(h, pricePower), low: drawn(l, pricePower), close: drawn(c, pricePower) }
    if (openMode === 'continuous' && pc !== undefined) {
      bar.open = drawn(pc, pricePower)
      bar.high = Math.max(bar.high, bar.open)
      bar.low = Math.min(bar.low, bar.open)
    }
    return bar
  }

  /** @param {Candle} row */
  function toVolume(row) {
    const { time, open, close } = toBar(row)
    return { time, value: drawn(row.q ?? row.v, volumePower), color: colour(close >= open ? '--up-soft' : '--down-soft') }
  }

  function choosePowers() {
    pricePower = powerFor(rows.at(-1)?.c)
    const largest = rows.reduce((max, row) => (Number(row.q ?? row.v) > Number(max) ? row.q ?? row.v : max), '0')
    volumePower = powerFor(largest)
    applyPriceFormat()
  }

  function redraw() {
    candles.setData(rows.map(toBar))
    volume.setData(rows.map(toVolume))
    showLegend(rows.at(-1))
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

  /** @param {Candle | undefined} row */
  function showLegend(row) {
    legend.hidden = !row
    if (!row) return
    const bar = toBar(row)
    const change = bar.open ? ((bar.close - bar.open) / bar.open) * 100 : 0
    const side = bar.close >= bar.open ? 'up' : 'down'
    /** @param {number} value */
    const text = (value) => price(undrawn(value, pricePower), 5)
    const parts = [
      ['O', text(bar.open)], ['H', text(bar.high)], ['L', text(bar.low)], ['C', text(bar.close)],
      ['', percent(change)], ['Vol', compact(row.q ?? row.v)],
    ]
    legend.dataset.side = side
    legend.title = dateTime(row.t)
    legend.replaceChildren(...parts.map(([label, value]) => {
      const part = document.createElement('span')
      const figure = document.createElement('b')
      figure.textContent = value
      part.append(label ? `${label} ` : '', figure)
      return part
    }))
  }

  chart.subscribeCrosshairMove(({ time }) => {
    hovered = time !== undefined
    showLegend(hovered ? rows[indexOf(Number(time) * 1000)] : rows.at(-1))
  })

  chart.timeScale().subscribeVisibleLogicalRangeChange(async (range) => {
    if (!range || range.from > LEFT_EDGE_BARS || loading || !hasOlder || rows.length === 0 || rows.length >= BARS_MAX) return
    loading = true
    const mine = generation
    try {
      const oldest = rows[0].t
      const older = (await loadOlder(oldest)).filter(({ t }) => t < oldest)
      if (mine !== generation) return
      hasOlder = older.length > 0
      if (hasOlder) {
        rows = [...older, ...rows]
        redraw()
      }
    } catch {
      // The next scroll asks again.
    } finally {
      loading = false
    }
  })

  /** Place of the candle that opens at a time, or of the first after it. @param {number} t */
  function indexOf(t) {
    let low = 0
    let high = rows.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (rows[middle].t < t) low = middle + 1
      else high = middle
    }
    return low
  }

  applyPriceFormat()
  applyTheme()

  return {
    applyTheme,
    get count() { return rows.length },
    get last() { return rows.at(-1) ?? null },

    clear() {
      generation += 1
      rows = []
      hasOlder = true
      redraw()
    },

    /**
     * @param {Candle[]} fresh  The newest candles, oldest first.
     * @param {boolean} keepOlder  Keep what was loaded before them.
     */
    show(fresh, keepOlder) {
      generation += 1
      const first = rows.length === 0
      const overlaps = keepOlder && fresh.length > 0 && !first && rows[rows.length - 1].t >= fresh[0].t
      rows = overlaps ? [...rows.slice(0, indexOf(fresh[0].t)), ...fresh] : fresh
      if (!overlaps) hasOlder = true
      choosePowers()
      redraw()
      if (!first) return
      candles.priceScale().applyOptions({ autoScale: true })
      const bars = Math.min(INITIAL_BARS, Math.max(40, Math.floor(element.clientWidth / 8)))
      chart.timeScale().setVisibleLogicalRange({ from: rows.length - bars, to: rows.length + 5 })
    },

    /** A candle that is new, changed or deleted. @param {Candle} row */
    put(row) {
      const at = indexOf(row.t)
      const known = at < rows.length && rows[at].t === row.t
      if (row.deleted) {
        if (known) rows.splice(at, 1)
        return redrawSoon()
      }
      // Older than all that is loaded: it comes with the history, if asked for.
      if (at === 0 && !known && rows.length > 0) return
      rows.splice(at, known ? 1 : 0, row)
      const size = Math.abs(drawn(row.c, pricePower))
      if (rows.length === 1 || (size > 0 && (size < DRAWN_MIN || size > DRAWN_MAX))) {
        choosePowers()
        return redrawSoon()
      }
      if (at < rows.length - 1 || redrawQueued) return redrawSoon()
      candles.update(toBar(row))
      volume.update(toVolume(row))
      if (!hovered) showLegend(row)
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
      candles.priceScale().applyOptions({ autoScale: true })
      chart.timeScale().scrollToRealTime()
    },
  }
}
