// @ts-check
/** Shared by the tests: a connection, by the library that the backend has installed. */

import { createRequire } from 'node:module'

const load = createRequire(new URL('../../backend/package.json', import.meta.url))
const { createClient } = load('redis')

/** Connects to `TEST_REDIS_URL`. @returns {Promise<any>} */
export async function connectRedis() {
  const url = process.env.TEST_REDIS_URL
  if (!url) throw new Error('TEST_REDIS_URL is not set: these tests need a Redis or Valkey server to write to')
  const redis = createClient({ url })
  await redis.connect()
  return redis
}

/** Everything that a generator gives. @template T @param {AsyncIterable<T>} items */
export async function all(items) {
  const found = []
  for await (const item of items) found.push(item)
  return found
}
