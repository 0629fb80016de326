// @ts-check
/** The chart by keyboard: a cursor that goes from candle to candle, zoom, and both ends. */

import { indexOf } from './bars.js'
import { setText } from './dom.js'
import { spoken } from './legend.js'

const MARGIN_BARS = 3 // the cursor stays this far inside of what is seen
const BARS_SEEN_MIN = 10
const BARS_SEEN_MAX = 2_000
const ZOOM = 0.8

/** @typedef {import('./bars.js').Candle} Candle */

/**
 * @param {import('/vendor/lightweight-charts.mjs').IChartApi} chart
 * @param {import('/vendor/lightweight-charts.mjs').ISeriesApi<'Candlestick'>} series
 * @param {object} options
 * @param {() => Candle[]} options.rows
 * @param {(row: Candle) => import('./bars.js').Bar} options.bar
 * @param {() => number} options.power  By which drawn prices are moved.
 * @param {HTMLElement} options.element  What it says is read out.
 * @param {(row: Candle | null) => void} options.onMove
 */
export function createCursor(chart, series, { rows, bar, power, element, onMove }) {
  /** @type {number | null} Open time of the candle under the cursor. */
  let at = null
  const scale = chart.timeScale()

  /** @param {number} place */
  function bringIntoView(place) {
    const range = scale.getVisibleLogicalRange()
    if (!range) return
    const left = place - MARGIN_BARS - range.from
    const right = place + MARGIN_BARS - range.to
    const shift = left < 0 ? left : right > 0 ? right : 0
    if (shift) scale.setVisibleLogicalRange({ from: range.from + shift, to: range.to + shift })
  }

  /** @param {number} place */
  function put(place) {
    const row = rows()[Math.max(0, Math.min(rows().length - 1, place))]
    if (!row) return
    at = row.t
    bringIntoView(indexOf(rows(), at))
    const drawn = bar(row)
    chart.setCrosshairPosition(drawn.close, /** @type {any} */ (drawn.time), series)
    setText(element, spoken(row, drawn, power()))
    onMove(row)
  }

  return {
    get time() { return at },

    /** @param {number} step  Candles; below zero: back in time. */
    move(step) {
      put(at === null ? rows().length - 1 : indexOf(rows(), at) + step)
    },

    toFirst: () => put(0),
    toLast: () => put(rows().length - 1),

    hide() {
      if (at === null) return
      at = null
      chart.clearCrosshairPosition()
      setText(element, '')
      onMove(null)
    },

    /** @param {'in' | 'out'} way  The right end stays. */
    zoom(way) {
      const range = scale.getVisibleLogicalRange()
      if (!range) return
      const seen = (range.to - range.from) * (way === 'in' ? ZOOM : 1 / ZOOM)
      const bounded = Math.max(BARS_SEEN_MIN, Math.min(BARS_SEEN_MAX, seen))
      scale.setVisibleLogicalRange({ from: range.to - bounded, to: range.to })
    },
  }
}
