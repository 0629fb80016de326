/**
 * For programs in Node that receive webhooks of the 0xPads listener. Needs nothing but Node.
 *
 *   import { verifyWebhook } from '@0xpads/chart-client/webhooks'
 *
 *   const id = verifyWebhook(secret, request.headers, rawBody)  // throws InvalidWebhook
 *
 * The body is the bytes as they arrived: one that was parsed and written again has another signature.
 */

import { createHmac, timingSafeEqual } from 'node:crypto'

/** How far a timestamp may be from our clock, either way, in seconds. */
export const TOLERANCE_S = 300

const PREFIX = 'whsec_'
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/
const SIGNATURES_MAX = 16

/** A request that is not to be trusted; the message says why. */
export class InvalidWebhook extends Error {
  /** @param {string} message why */
  constructor(message) {
    super(message)
    this.name = 'InvalidWebhook'
  }
}

/**
 * Makes sure that a request is from whoever knows a secret, whole, and fresh.
 *
 * @param {string | string[]} secrets one, or several while they are rotated: any of them will do
 * @param {Record<string, string | string[] | undefined> | Headers} headers of the request, names in any case
 * @param {Buffer | Uint8Array | string} body of the request, as it arrived
 * @param {{ toleranceS?: number, nowS?: number }} [options] `nowS`: Unix seconds, the clock's if not given
 * @returns {string} the message's id: the same for each attempt, so drop what has been handled
 * @throws {InvalidWebhook} it is not to be trusted
 * @throws {TypeError} a secret of ours is malformed, or there is none
 */
export function verifyWebhook(secrets, headers, body, { toleranceS = TOLERANCE_S, nowS = Date.now() / 1000 } = {}) {
  const keys = (Array.isArray(secrets) ? secrets : [secrets]).map(keyOf)
  if (keys.length === 0) throw new TypeError('no webhook secret')
  const found = lowered(headers)
  for (const name of ['webhook-id', 'webhook-timestamp', 'webhook-signature']) {
    if (typeof found[name] !== 'string') throw new InvalidWebhook(`no header ${name}`)
  }
  const id = found['webhook-id']
  const stamp = found['webhook-timestamp']
  if (!/^[0-9]{1,15}$/.test(stamp)) throw new InvalidWebhook('webhook-timestamp is not Unix seconds')
  if (!(Math.abs(nowS - Number(stamp)) <= toleranceS)) {
    throw new InvalidWebhook('webhook-timestamp is too far from now')
  }
  const expected = keys.map((key) => createHmac('sha256', key).update(`${id}.${stamp}.`).update(body).digest())
  const given = found['webhook-signature'].split(' ').slice(0, SIGNATURES_MAX).map(decoded)
  let known = false
  for (const one of expected) {
    for (const other of given) {
      if (other.length === one.length && timingSafeEqual(one, other)) known = true
    }
  }
  if (!known) throw new InvalidWebhook('no signature is of a secret that we know')
  return id
}

/** @param {string} secret */
function keyOf(secret) {
  if (typeof secret !== 'string' || !secret.startsWith(PREFIX)) {
    throw new TypeError('a webhook secret begins with whsec_')
  }
  const text = secret.slice(PREFIX.length)
  if (!BASE64.test(text)) throw new TypeError('a webhook secret is whsec_ and base64')
  return Buffer.from(text, 'base64')
}

/**
 * The bytes of a signature of ours; none of any other.
 * @param {string} part
 */
function decoded(part) {
  const text = part.startsWith('v1,') ? part.slice(3) : ''
  return BASE64.test(text) ? Buffer.from(text, 'base64') : Buffer.alloc(0)
}

/**
 * @param {any} headers of either kind
 * @returns {Record<string, any>}
 */
function lowered(headers) {
  const pairs = typeof headers.entries === 'function' ? [...headers.entries()] : Object.entries(headers)
  return Object.fromEntries(pairs.map(([name, value]) => [name.toLowerCase(), value]))
}
