// @ts-check
/**
 * Numbers for people. Values arrive as exact decimal strings; what is shown is
 * rounded, and the exact value is kept beside it (see `showPrice`).
 */

const SUBSCRIPT = '₀₁₂₃₄₅₆₇₈₉'
const DASH = '–'

/** @param {number} count */
const subscript = (count) => [...String(count)].map((digit) => SUBSCRIPT[Number(digit)]).join('')

/** @param {number} value @param {number} max */
const grouped = (value, max) => value.toLocaleString('en-US', { maximumFractionDigits: max })

/**
 * A price of any size: `1,234.5`, `2.0312`, `0.004821`, and from four zeros after
 * the point on with the zeros counted: `0.0₈15` is 0.0000000015.
 * @param {string | number | undefined} value
 * @param {number} [digits]  Significant digits.
 * @param {boolean} [pad]    Keep trailing zeros, so that labels line up.
 */
export function price(value, digits = 4, pad = false) {
  const number = value === undefined || value === '' ? NaN : Number(value)
  if (!Number.isFinite(number)) return DASH
  if (number === 0) return '0'
  const sign = number < 0 ? '-' : ''
  const size = Math.abs(number)
  if (size >= 1e15) return sign + size.toExponential(digits - 1).replace('e+', 'e')
  const [mantissa, power] = size.toExponential(digits - 1).split('e')
  const exponent = Number(power)
  if (exponent >= 0) {
    const places = Math.min(8, Math.max(digits - 1 - exponent, exponent >= 3 ? 2 : 4))
    return sign + size.toLocaleString('en-US', { minimumFractionDigits: pad ? places : 0, maximumFractionDigits: places })
  }
  const figures = mantissa.replace('.', '')
  const shown = pad ? figures : figures.replace(/0+$/, '')
  const zeros = -exponent - 1
  return sign + (zeros < 4 ? `0.${'0'.repeat(zeros)}${shown}` : `0.0${subscript(zeros)}${shown}`)
}

/** Counts the zeros of a small plain decimal: `0.000012` becomes `0.0₄12`. @param {string} text */
const countZeros = (text) => text.replace(/^(-?)0\.(0{4,})(?=[1-9])/, (_, sign, zeros) => `${sign}0.0${subscript(zeros.length)}`)

/**
 * Labels of a price axis: all with as many places as their distance needs, none
 * below zero.
 * @param {readonly number[]} values
 */
export function axisPrices(values) {
  const steps = values.slice(1).map((value, at) => Math.abs(value - values[at])).filter((step) => step > 0)
  if (steps.length === 0) return values.map((value) => price(value, 5, true))
  const step = Math.min(...steps)
  if (Math.max(...steps) > 3 * step) return values.map((value) => price(value, 3)) // a logarithmic axis
  const places = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + 1)
  const plain = places <= 100 && values.every((value) => Math.abs(value) < 1e15)
  const fixed = values.map((value) => (plain ? value.toFixed(places) : price(value, 5, true)))
  // One place less is enough when it is zero everywhere.
  const spare = plain && places > 0 && fixed.every((text) => text.endsWith('0'))
  return values.map((value, at) => {
    if (value < -step / 1000) return ''
    if (Math.abs(value) < step / 1000) return '0'
    if (!plain) return fixed[at]
    const text = spare ? value.toFixed(places - 1) : fixed[at]
    return value < 1000 ? countZeros(text) : value.toLocaleString('en-US', { maximumFractionDigits: places, minimumFractionDigits: spare ? places - 1 : places })
  })
}

/**
 * An amount in little space: `12.3K`, `4.56M`, `0.0312`.
 * @param {string | number | undefined} value
 */
export function compact(value) {
  const number = value === undefined || value === '' ? NaN : Number(value)
  if (!Number.isFinite(number)) return DASH
  const size = Math.abs(number)
  if (size >= 1e15) return number.toExponential(2).replace('e+', 'e')
  for (const [unit, name] of /** @type {const} */ ([[1e12, 'T'], [1e9, 'B'], [1e6, 'M'], [1e3, 'K']])) {
    const part = size / unit
    if (part >= 1) return `${grouped(number / unit, part >= 100 ? 0 : part >= 10 ? 1 : 2)}${name}`
  }
  return size >= 1 ? grouped(number, size >= 100 ? 1 : 2) : price(number, 3)
}

/** @param {string | number | undefined} value */
export function percent(value) {
  const number = Number(value)
  if (value === undefined || value === '' || !Number.isFinite(number)) return DASH
  if (Math.abs(number) >= 10_000) return `${number < 0 ? '-' : '+'}${compact(Math.abs(number))}%`
  return `${number > 0 ? '+' : ''}${number.toFixed(2)}%`
}

/** `up`, `down` or `flat`. @param {string | number | undefined} value */
export const direction = (value) => (Number(value) > 0 ? 'up' : Number(value) < 0 ? 'down' : 'flat')

/** How long ago, in one unit. @param {number} thenMs @param {number} [nowMs] */
export function age(thenMs, nowMs = Date.now()) {
  const seconds = Math.max(0, Math.floor((nowMs - thenMs) / 1000))
  if (seconds < 60) return `${seconds}s`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)}m`
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)}h`
  return `${Math.floor(seconds / 86_400)}d`
}

/** @param {number} ms */
export const dateTime = (ms) => `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')} UTC`

/** @param {string} id */
export const short = (id) => (id.length > 13 ? `${id.slice(0, 6)}…${id.slice(-4)}` : id)
