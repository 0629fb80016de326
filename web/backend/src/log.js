// @ts-check
/** One JSON object a line, on stderr; stdout is for the address line alone. */

/**
 * @param {'info' | 'warn' | 'error'} level
 * @param {string} message
 * @param {object} [fields]
 */
export function log(level, message, fields = {}) {
  process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), level, message, ...fields })}\n`)
}
