// @ts-check
/**
 * Live topics without a hole between snapshot and changes.
 *
 * Changes that arrive while a snapshot is on its way are kept; once it is here,
 * those that are newer, by (epoch, seq), are applied on top. After a reconnect,
 * a `resync` or a `reorg`, a topic takes a fresh snapshot the same way.
 */

const ACK_TIMEOUT_MS = 10_000
const RETRY_MS_MAX = 10_000
const BUFFER_MAX = 2_000
/** Spreads the requests of many viewers after an event that concerns all of them. */
const JITTER_MS = 800

/**
 * @typedef {{epoch: number, seq: number}} Position
 * @typedef {{topic: string, market?: string, interval?: string, limit?: number}} Request
 * @typedef {object} Handlers
 * @property {(snapshot: any, why: string) => void} snapshot
 * @property {(change: any) => void} change
 * @property {(error: string) => void} [failed]
 */

/** @param {Position} a @param {Position} b */
export const isNewer = (a, b) => a.epoch > b.epoch || (a.epoch === b.epoch && a.seq > b.seq)

/** Server event that carries the changes of a topic. @type {Record<string, string>} */
const EVENT_OF = { candles: 'candles', trades: 'trades', stats: 'stats', markets: 'markets' }

class Topic {
  /** @type {any[] | null} Changes kept until the snapshot is here. */
  buffer = []
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer
  attempt = 0
  run = 0
  closed = false

  /** @param {any} socket @param {Request} request @param {Handlers} handlers */
  constructor(socket, request, handlers) {
    this.socket = socket
    this.request = request
    this.handlers = handlers
  }

  /** @param {any} change */
  concerns(change) {
    const { market, interval } = this.request
    return (market === undefined || change.s === market) && (interval === undefined || change.i === interval)
  }

  /** @param {any} change */
  receive(change) {
    if (!this.buffer) return this.handlers.change(change)
    if (this.buffer.length < BUFFER_MAX) this.buffer.push(change)
    else this.refresh('overflow')
  }

  /** Takes a fresh snapshot. @param {string} why @param {number} [delayMs] */
  refresh(why, delayMs = 0) {
    clearTimeout(this.timer)
    const run = ++this.run
    this.buffer = []
    if (this.closed || !this.socket.connected) return // on connect, every topic starts over
    this.timer = setTimeout(async () => {
      try {
        const answer = await this.socket.timeout(ACK_TIMEOUT_MS).emitWithAck('subscribe', this.request)
        if (run !== this.run || this.closed) return
        if (!answer.ok) throw new Error(answer.error)
        this.attempt = 0
        const kept = this.buffer ?? []
        this.buffer = null
        this.handlers.snapshot(answer, why)
        for (const change of kept) if (isNewer(change, answer)) this.handlers.change(change)
      } catch (error) {
        if (run !== this.run || this.closed) return
        this.attempt += 1
        this.handlers.failed?.(error instanceof Error ? error.message : String(error))
        this.refresh(why, Math.min(500 * 2 ** this.attempt, RETRY_MS_MAX))
      }
    }, delayMs)
  }
}

/**
 * @param {any} socket  A Socket.IO client.
 * @param {object} [listeners]
 * @param {(state: 'live' | 'waiting' | 'reconnecting') => void} [listeners.onState]
 * @param {(event: string, payload: any) => void} [listeners.onEvent]
 *   `market_created`, `market_graduated`, `reorg`, `resync`, `candles_closed`, `alerts`.
 */
export function createFeed(socket, { onState = () => {}, onEvent = () => {} } = {}) {
  /** @type {Set<Topic>} */
  const topics = new Set()
  let feeding = false

  socket.on('connect', () => {
    for (const topic of topics) topic.refresh('connect')
    onState(feeding ? 'live' : 'waiting')
  })
  for (const event of ['disconnect', 'connect_error']) socket.on(event, () => onState('reconnecting'))
  socket.on('status', (/** @type {{feed: string}} */ { feed }) => {
    feeding = feed === 'live'
    if (socket.connected) onState(feeding ? 'live' : 'waiting')
  })

  for (const [name, event] of Object.entries(EVENT_OF)) {
    socket.on(event, (/** @type {any} */ change) => {
      for (const topic of topics) if (topic.request.topic === name && topic.concerns(change)) topic.receive(change)
    })
  }
  for (const event of ['market_created', 'market_graduated', 'candles_closed', 'alerts']) {
    socket.on(event, (/** @type {any} */ payload) => onEvent(event, payload))
  }
  socket.on('reorg', (/** @type {any} */ reorg) => {
    onEvent('reorg', reorg)
    for (const topic of topics) if (topic.request.market === reorg.s) topic.refresh('reorg', Math.random() * JITTER_MS)
  })
  socket.on('resync', (/** @type {any} */ payload) => {
    onEvent('resync', payload)
    for (const topic of topics) topic.refresh('resync', Math.random() * JITTER_MS)
  })

  return {
    /**
     * @param {Request} request
     * @param {Handlers} handlers
     */
    open(request, handlers) {
      const topic = new Topic(socket, request, handlers)
      topics.add(topic)
      topic.refresh('open')
      return {
        close() {
          topic.closed = true
          clearTimeout(topic.timer)
          topics.delete(topic)
          if (socket.connected) socket.emit('unsubscribe', request)
        },
      }
    },
  }
}
