// @ts-check
/** Redis that goes away, and the server as a process (TEST_REDIS_URL). */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect as connectTcp, createServer as createTcpServer } from 'node:net'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import {
  Envelopes, MARKET, TOKEN, connectListener, connectViewer, eventually, freshChain, getJson, redisUrl, send,
  startBackend, trade,
} from './helpers.js'

/** @typedef {import('node:test').TestContext} T */

test('Redis away: health says so, messages are refused, and all recovers', async (t) => {
  const target = new URL(redisUrl())
  /** @type {Set<import('node:net').Socket>} */
  const links = new Set()
  const door = createTcpServer((near) => {
    const far = connectTcp(Number(target.port || 6379), target.hostname)
    for (const [from, to] of [[near, far], [far, near]]) {
      links.add(from)
      from.pipe(to)
      from.on('error', () => {}).on('close', () => { links.delete(from); to.destroy() })
    }
  })
  const shut = () => { door.close(); for (const link of links) link.destroy() }
  /** @param {number} port */
  const open = async (port) => { door.listen(port, '127.0.0.1'); await once(door, 'listening') }
  t.after(shut)
  await open(0)
  const { port } = /** @type {import('node:net').AddressInfo} */ (door.address())
  shut()

  const { url, chain, state } = await startBackend(t, { REDIS_URL: `redis://127.0.0.1:${port}` })
  const out = new Envelopes(chain)
  const listener = await connectListener(t, url)
  const viewer = await connectViewer(t, url)
  const payload = out.next([trade(1)])
  const room = { topic: 'trades', market: MARKET }
  const { status, body } = await getJson(url, '/health')
  assert.deepEqual([status, body.status, body.redis], [503, 'degraded', 'down'])
  assert.equal((await getJson(url, '/api/markets')).status, 503)
  assert.equal((await send(listener, 'trade_update', payload)).ok, false)
  assert.match((await send(viewer, 'subscribe', room)).error, /try again/)

  for (const round of [1, 2]) {
    await open(port)
    await eventually(`health is good again, ${round}`, async () => (await getJson(url, '/health')).status === 200, 10_000)
    assert.deepEqual(await send(listener, 'trade_update', payload), { ok: true })
    assert.equal((await send(viewer, 'subscribe', room)).ok, true)
    shut()
    await eventually(`health is bad again, ${round}`, async () => (await getJson(url, '/health')).status === 503, 10_000)
  }
  assert.ok(state.size <= 1)
})

// ---------------------------------------------------------------- as a process

const MAIN = fileURLToPath(new URL('../src/main.js', import.meta.url))

/** @param {T} t @param {Record<string, string | undefined>} env */
function spawnMain(t, env) {
  const child = spawn(process.execPath, [MAIN], {
    env: { PATH: process.env.PATH, PORT: '0', REDIS_URL: redisUrl(), ...env }, stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.after(() => { child.kill('SIGKILL') })
  return child
}

test('without a token it refuses to start and names the variable', async (t) => {
  const child = spawnMain(t, {})
  let text = ''
  child.stderr.on('data', (data) => { text += data })
  const [code] = await once(child, 'close')
  assert.equal(code, 2)
  assert.match(text, /BACKEND_AUTH_TOKEN/)
})

test('it prints its address, survives a kill, and stops within two seconds', async (t) => {
  const chain = freshChain()
  const env = { BACKEND_AUTH_TOKEN: TOKEN, CHAIN_ID: String(chain) }
  /** @param {ReturnType<typeof spawnMain>} child */
  const address = async (child) => {
    const [line] = await once(child.stdout, 'data')
    const match = /^listening (http:\/\/127\.0\.0\.1:(\d+))\n$/.exec(String(line))
    assert.ok(match, String(line))
    return { url: match[1], port: match[2] }
  }
  const first = spawnMain(t, env)
  const { url, port } = await address(first)
  const listener = await connectListener(t, url)
  const out = new Envelopes(chain)
  const payload = out.next([trade(1)])
  assert.deepEqual(await send(listener, 'trade_update', payload), { ok: true })
  first.kill('SIGKILL')
  await once(/** @type {any} */ (listener), 'disconnect')

  const second = spawnMain(t, { ...env, PORT: port })
  second.stderr.resume()
  await address(second)
  if (!listener.connected) await once(/** @type {any} */ (listener), 'connect')
  assert.deepEqual(await send(listener, 'trade_update', payload), { ok: true }, 'sent again after the kill')
  const started = Date.now()
  second.kill('SIGTERM')
  const [code] = await once(second, 'exit')
  assert.equal(code, 0)
  assert.ok(Date.now() - started < 2_000)
})
