// @ts-check
/** The line above the candles: the figures of one of them. */

import { make } from './dom.js'
import { compact, dateTime, percent, price } from './format.js'
import { undrawn } from './bars.js'

/**
 * The figures of a bar, for the eye and for the ear.
 * @param {import('./bars.js').Candle} row
 * @param {import('./bars.js').Bar} bar
 * @param {number} power
 */
function figures(row, bar, power) {
  /** @param {number} value */
  const text = (value) => price(undrawn(value, power), 5)
  return {
    open: text(bar.open), high: text(bar.high), low: text(bar.low), close: text(bar.close),
    change: percent(bar.open ? ((bar.close - bar.open) / bar.open) * 100 : 0),
    volume: compact(row.q ?? row.v),
  }
}

/**
 * @param {HTMLElement} element
 * @param {import('./bars.js').Candle} row
 * @param {import('./bars.js').Bar} bar
 * @param {number} power
 */
export function showLegend(element, row, bar, power) {
  const { open, high, low, close, change, volume } = figures(row, bar, power)
  element.dataset.side = bar.close >= bar.open ? 'up' : 'down'
  element.dataset.time = dateTime(row.t)
  const parts = [['O', open], ['H', high], ['L', low], ['C', close], ['', change], ['Vol', volume]]
  element.replaceChildren(...parts.map(([label, value]) => {
    const part = make('span')
    part.append(label ? `${label} ` : '', make('b', '', value))
    return part
  }))
}

/**
 * A bar in words.
 * @param {import('./bars.js').Candle} row
 * @param {import('./bars.js').Bar} bar
 * @param {number} power
 */
export function spoken(row, bar, power) {
  const { open, high, low, close, change, volume } = figures(row, bar, power)
  return `${dateTime(row.t)}: open ${open}, high ${high}, low ${low}, close ${close}, ${change}, volume ${volume}`
}
