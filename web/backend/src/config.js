// @ts-check
/** Settings, from the environment. */

import { fileURLToPath } from 'node:url'

const INTERVAL = /^[1-9]\d{0,4}[mhdw]$/

/**
 * @typedef {object} Config
 * @property {string} host
 * @property {number} port            0 picks a free one.
 * @property {string} redisUrl
 * @property {number} chainId
 * @property {string} stream          Names the Redis keys.
 * @property {string} token           What the listener must present.
 * @property {string[]} corsOrigins   Other origins that may use this server; `*` for all.
 * @property {string[]} intervals
 * @property {boolean} debug          Serves `/debug/state`.
 * @property {number} marketsMax      Markets kept in memory.
 * @property {number} tradesMax       Trades kept in memory, a market.
 * @property {number} viewersMax      Browsers connected at once.
 * @property {string} chartDir
 */

export class ConfigError extends Error {}

/**
 * @param {NodeJS.ProcessEnv} env
 * @returns {Config}
 */
export function readConfig(env = process.env) {
  /** @param {string} name @param {number} fallback @param {number} min @param {number} max */
  const whole = (name, fallback, min, max) => {
    const value = env[name] ? Number(env[name]) : fallback
    if (!Number.isSafeInteger(value) || value < min || value > max) {
      throw new ConfigError(`${name} must be a whole number from ${min} to ${max}`)
    }
    return value
  }
  /** @param {string} name @param {string} fallback */
  const list = (name, fallback) =>
    (env[name] ?? fallback).split(',').map((part) => part.trim()).filter(Boolean)

  const token = env.BACKEND_AUTH_TOKEN
  if (!token) {
    throw new ConfigError('BACKEND_AUTH_TOKEN is not set: choose a secret and give the listener the same one')
  }
  const intervals = list('OHLCV_INTERVALS', '1m,5m,15m,1h,4h,1d')
  const bad = intervals.find((interval) => !INTERVAL.test(interval))
  if (bad !== undefined || intervals.length === 0) {
    throw new ConfigError(`OHLCV_INTERVALS: "${bad ?? ''}" is not an interval such as 5m`)
  }
  const chainId = whole('CHAIN_ID', 31337, 1, Number.MAX_SAFE_INTEGER)
  return {
    host: env.HOST || '127.0.0.1',
    port: whole('PORT', 3000, 0, 65_535),
    redisUrl: env.REDIS_URL || 'redis://127.0.0.1:6379',
    chainId,
    stream: String(chainId),
    token,
    corsOrigins: list('CORS_ORIGINS', ''),
    intervals,
    debug: env.ENABLE_DEBUG === '1',
    marketsMax: whole('MAX_MARKETS', 2_000, 1, 100_000),
    tradesMax: whole('MAX_TRADES_PER_MARKET', 100, 1, 200),
    viewersMax: whole('MAX_VIEWERS', 10_000, 1, 1_000_000),
    chartDir: env.CHART_DIR || fileURLToPath(new URL('../../chart', import.meta.url)),
  }
}
