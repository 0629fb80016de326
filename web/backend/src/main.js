// @ts-check
/** Entry point: `node src/main.js`. */

import { ConfigError, readConfig } from './config.js'
import { log } from './log.js'
import { startServer } from './server.js'

const SHUTDOWN_MS_MAX = 2_000

try {
  const server = await startServer(readConfig())
  process.stdout.write(`listening ${server.url}\n`)

  /** @param {NodeJS.Signals} signal */
  const stop = async (signal) => {
    log('info', 'stopping', { signal })
    setTimeout(() => process.exit(1), SHUTDOWN_MS_MAX).unref()
    await server.close()
    process.exit(0)
  }
  process.once('SIGTERM', stop)
  process.once('SIGINT', stop)
} catch (error) {
  const expected = error instanceof ConfigError
  log('error', 'cannot start', { error: expected ? error.message : String(error) })
  process.exit(expected ? 2 : 1)
}
