// What the suites of the Node drivers share: where to connect, and running the tests.
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'

export const host = '127.0.0.1'
export const port = Number(process.env.PGDOG_PORT)
export const database = 'drivers'
export const passwords = { scram_user: 'scram secret', md5_user: 'md5 secret', plain_user: 'plain secret', trust_user: '' }
export const tls = { ca: readFileSync(process.env.PGDOG_CA, 'utf8'), servername: 'localhost' }

export const restartPostgres = () => promisify(execFile)(process.env.RESTART_POSTGRES)
export const pause = (ms) => new Promise((done) => setTimeout(done, ms))

const cases = []

/** Registers a test; its name is the sentence that it proves. */
export const test = (name, run) => cases.push([name, run])

/** Runs the tests one after another, each for at most 30 seconds. */
export async function run() {
  let failed = 0
  // A connection that is cut off while idle tells so by an event as well; what matters is what the next query says.
  process.on('uncaughtException', (error) => console.log('uncaught:', error))
  process.on('unhandledRejection', (error) => console.log('unhandled:', error))
  for (const [name, body] of cases) {
    if (process.argv[2] && !name.includes(process.argv[2])) continue
    let timer
    const limit = new Promise((_, fail) => { timer = setTimeout(() => fail(new Error('not within 30 s')), 30000) })
    try {
      await Promise.race([body(), limit])
      console.log('ok', name)
    } catch (error) {
      failed += 1
      console.log(`FAIL ${name}: ${error}`)
      console.log(error.stack)
    }
    clearTimeout(timer)
  }
  process.exit(failed ? 1 : 0)
}
