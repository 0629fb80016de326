// @ts-check
/**
 * Candles as numbers for drawing, moved by a power of ten: a price of
 * 0.0000000015 is drawn as 1.5, which keeps the chart away from the limits of floats.
 */

/**
 * @typedef {{t: number, o: string, h: string, l: string, c: string, pc?: string, v: string, q?: string, n?: number, deleted?: true}} Candle
 * @typedef {{time: number, open: number, high: number, low: number, close: number}} Bar
 */

/** The power that brings a value between 1 and 10. @param {string | undefined} exact */
export const powerFor = (exact) => {
  const size = Math.abs(Number(exact))
  return size > 0 && Number.isFinite(size) ? -Math.floor(Math.log10(size)) : 0
}

/** Moves the decimal point without rounding twice. @param {string} exact @param {number} power */
export const drawn = (exact, power) => Number(`${exact}e${power}`)

/** The same way back. @param {number} value @param {number} power */
export function undrawn(value, power) {
  const [digits, exponent] = value.toExponential(11).split('e')
  return Number(`${digits}e${Number(exponent) - power}`)
}

/**
 * One candle as a bar, its time in seconds. A continuous one opens at the close
 * before it, and its high and low are widened by that.
 * @param {Candle} row
 * @param {import('./address.js').OpenMode} openMode
 * @param {number} power
 * @returns {Bar}
 */
export function toBar({ t, o, h, l, c, pc }, openMode, power) {
  const bar = { time: t / 1000, open: drawn(o, power), high: drawn(h, power), low: drawn(l, power), close: drawn(c, power) }
  if (openMode === 'continuous' && pc !== undefined) {
    bar.open = drawn(pc, power)
    bar.high = Math.max(bar.high, bar.open)
    bar.low = Math.min(bar.low, bar.open)
  }
  return bar
}

/** Place of the candle that opens at a time, or of the first after it. @param {Candle[]} rows @param {number} t */
export function indexOf(rows, t) {
  let low = 0
  let high = rows.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (rows[middle].t < t) low = middle + 1
    else high = middle
  }
  return low
}
