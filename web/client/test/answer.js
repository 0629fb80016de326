// @ts-check
/** Reads `{chainId, calls: [[method, …arguments], …]}` from standard input and prints the reader's answers. */

import { text } from 'node:stream/consumers'
import { Reader } from '../index.js'
import { all, connectRedis } from './support.js'

const { chainId, calls } = JSON.parse(await text(process.stdin))
const redis = await connectRedis()
const reader = /** @type {any} */ (new Reader(redis, { chainId }))
const answers = []
for (const [method, ...words] of calls) {
  const answer = reader[method](...words)
  answers.push(method === 'markets' ? await all(answer) : await answer)
}
redis.destroy()
process.stdout.write(JSON.stringify(answers))
