// node-postgres: simple and extended queries, named statements, cursors, streams, COPY and its pool.
import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import pg from 'pg'
import copy from 'pg-copy-streams'
import Cursor from 'pg-cursor'
import QueryStream from 'pg-query-stream'
import { database, host, passwords, pause, port, restartPostgres, run, test, tls } from './common.mjs'

const options = (user = 'scram_user', more = {}) => ({ host, port, database, user, password: passwords[user] || undefined, ...more })

async function connect(user, more) {
  const client = new pg.Client(options(user, more))
  client.on('error', () => {})
  await client.connect()
  return client
}

/** Gives `body` this many clients, and ends them. */
async function withClients(count, body, more = {}) {
  const clients = await Promise.all(Array.from({ length: count }, () => connect('scram_user', more)))
  try {
    return await body(...clients)
  } finally {
    await Promise.all(clients.map((client) => client.end().catch(() => {})))
  }
}

const value = async (client, text, values) => Object.values((await client.query(text, values)).rows[0])[0]
const code = (wanted) => (error) => error.code === wanted

test('every way to log in works', async () => {
  for (const [user, ssl] of [['scram_user'], ['md5_user'], ['trust_user'], ['scram_user', tls], ['md5_user', tls], ['plain_user', tls], ['trust_user', tls]]) {
    const client = await connect(user, { ssl })
    assert.equal(await value(client, 'SELECT current_user'), user)
    await client.end()
  }
  await (await connect('scram_user', { ssl: tls, enableChannelBinding: true })).end()
  for (const user of ['scram_user', 'md5_user']) await assert.rejects(connect(user, { password: 'wrong' }), code('28P01'))
})

if (!process.env.DIRECT) {
  test('the admin console speaks as a server does', async () => {
    const console = new pg.Client({ host, port, database: 'admin', user: 'admin', password: 'admin secret' })
    await console.connect()
    const simple = await console.query('SHOW POOLS database, user, sv_total, paused')
    assert.ok(simple.rows.some((row) => row.database === 'drivers' && row.user === 'scram_user' && row.paused === false))
    const prepared = await console.query({ name: 'pools', text: 'SHOW POOLS database, sv_total', values: [] })
    assert.ok(prepared.rows.every((row) => /^\d+$/.test(row.sv_total)))
    await assert.rejects(console.query('SELECT * FROM pg_class'), code('0A000'))
    await console.end()
  })
}

test('named statements work in many transactions of interleaved clients', () => withClients(8, async (...clients) => {
  for (let turn = 0; turn < 30; turn += 1) {
    const found = await Promise.all(clients.map((client, at) => client.query({ name: 'same', text: `SELECT $1::int * 1000 + ${at} AS v`, values: [turn] })))
    found.forEach((result, at) => assert.equal(result.rows[0].v, turn * 1000 + at))
  }
  await Promise.all(clients.map(async (client, at) => {
    for (let turn = 0; turn < 10; turn += 1) {
      await client.query('BEGIN')
      assert.equal((await client.query({ name: 'same', text: `SELECT $1::int * 1000 + ${at} AS v`, values: [turn] })).rows[0].v, turn * 1000 + at)
      assert.equal(await value(client, 'SELECT $1::text', [`${at}/${turn}`]), `${at}/${turn}`)
      await client.query(turn % 2 ? 'COMMIT' : 'ROLLBACK')
    }
  }))
}))

test('queries that are sent without waiting are answered in order', () => withClients(2, async (one, two) => {
  const found = await Promise.all(Array.from({ length: 100 }, (_, n) => value(n % 2 ? one : two, 'SELECT $1::int', [n])))
  assert.deepEqual(found, Array.from({ length: 100 }, (_, n) => n))
}))

test('values of many types come back as they went', () => withClients(1, async (client) => {
  const large = 'x'.repeat(3000000)
  for (const [type, each] of [['int', -1], ['float8', 1.5], ['numeric', '123456789012345678901234567890.5'], ['text', 'é世🐘'], ['text', large], ['bool', true], ['jsonb', { a: [1, null] }], ['text', null], ['int[]', [1, null, 3]], ['text[]', ['a', 'b,c', '"']]]) {
    assert.deepEqual(await value(client, `SELECT $1::${type}`, [each]), each)
  }
  const bytes = Buffer.from([0, 255, 128])
  assert.deepEqual(await value(client, 'SELECT $1::bytea', [bytes]), bytes)
  assert.equal((await client.query('SELECT g, repeat(\'y\', 100) FROM generate_series(1, 20000) g')).rows.length, 20000)
  assert.deepEqual((await client.query('SELECT 1 AS a; SELECT 2 AS b')).map((result) => result.rows), [[{ a: 1 }], [{ b: 2 }]])
}))

test('copy goes both ways and survives errors', () => withClients(1, async (client) => {
  await client.query('CREATE TEMP TABLE copied (a int PRIMARY KEY, b text)')
  await pipeline(Readable.from(Array.from({ length: 20000 }, (_, n) => `${n}\trow ${n}\n`)), client.query(copy.from('COPY copied FROM STDIN')))
  let size = 0
  const out = client.query(copy.to('COPY copied TO STDOUT'))
  for await (const chunk of out) size += String(chunk).split('\n').length - 1
  assert.equal(size, 20000)
  await assert.rejects(pipeline(Readable.from(['1\tagain\n']), client.query(copy.from('COPY copied FROM STDIN'))), code('23505'))
  const broken = async function* () { yield '30000\tnever\n'; throw new Error('the source breaks') }
  await assert.rejects(pipeline(Readable.from(broken()), client.query(copy.from('COPY copied FROM STDIN'))))
  assert.equal(await value(client, 'SELECT count(*)::int FROM copied'), 20000)
}))

test('cursors and streams read in parts', () => withClients(2, async (client, other) => {
  await client.query('BEGIN')
  const cursor = client.query(new Cursor('SELECT generate_series(1, $1::int) AS n', [500]))
  assert.deepEqual((await cursor.read(3)).map((row) => row.n), [1, 2, 3])
  assert.equal(await value(other, 'SELECT 1'), 1)
  assert.equal((await cursor.read(1000)).length, 497)
  await cursor.close()
  await client.query('COMMIT')
  // Outside of a transaction block the portal lives until the Sync that closes it.
  const alone = client.query(new Cursor('SELECT generate_series(1, 500) AS n'))
  assert.equal((await alone.read(10)).length, 10)
  assert.equal(await value(other, 'SELECT 1'), 1)
  assert.equal((await alone.read(10))[0].n, 11)
  await alone.close()
  let sum = 0
  for await (const row of client.query(new QueryStream('SELECT generate_series(1, 1000) AS n', [], { batchSize: 50 }))) sum += row.n
  assert.equal(sum, 500500)
  assert.equal(await value(client, 'SELECT 1'), 1)
}))

test('transactions, errors and savepoints leave the state of Postgres', () => withClients(1, async (client) => {
  await client.query('CREATE TEMP TABLE saved (a int PRIMARY KEY)')
  await client.query('BEGIN; INSERT INTO saved VALUES (1); SAVEPOINT s')
  await assert.rejects(client.query('INSERT INTO saved VALUES ($1)', [1]), (error) => error.code === '23505' && error.constraint === 'saved_pkey')
  await assert.rejects(client.query('SELECT 1'), code('25P02'))
  await client.query('ROLLBACK TO s')
  await client.query('INSERT INTO saved VALUES ($1)', [2])
  await client.query('COMMIT')
  await client.query('BEGIN; DELETE FROM saved')
  await client.query('ROLLBACK')
  assert.equal(await value(client, 'SELECT sum(a)::int FROM saved'), 3)
  await assert.rejects(client.query('SELEC $1', [1]), code('42601'))
  await assert.rejects(client.query({ name: 'bad', text: 'SELECT * FROM no_such WHERE a = $1', values: [1] }), code('42P01'))
  await assert.rejects(client.query({ name: 'zero', text: 'SELECT 1 / $1::int', values: [0] }), code('22012'))
  assert.equal((await client.query({ name: 'zero', text: 'SELECT 1 / $1::int AS v', values: [1] }).catch(() => client.query('SELECT 1 AS v'))).rows.length, 1)
  await assert.rejects(Promise.all([client.query('SELECT 1 / 0'), client.query('SELECT 1')]), code('22012'))
  assert.equal(await value(client, 'SELECT $1::int', [5]), 5)
}))

test('a cancel ends the sleep and nothing else', () => withClients(2, async (client, other) => {
  for (let turn = 0; turn < 5; turn += 1) {
    const sleep = client.query('SELECT pg_sleep(30)')
    const refused = assert.rejects(sleep, code('57014'))
    await pause(100)
    // The cancel request of node-postgres: a second client that says which key.
    const canceller = new pg.Client(options())
    const closed = new Promise((done) => canceller.connection.once('end', done))
    canceller.connection.on('error', () => {})
    canceller.connection.once('connect', () => canceller.connection.cancel(client.processID, client.secretKey))
    canceller.connection.connect(port, host)
    await refused
    await closed
    assert.equal(await value(client, 'SELECT 1'), 1)
    assert.equal(await value(other, 'SELECT 1'), 1)
  }
}))

test('settings stay with their session', () => withClients(6, async (...others) => {
  const client = await connect('scram_user', { application_name: 'started', statement_timeout: 4321, options: '-c work_mem=7MB' })
  await client.query("SET TIME ZONE 'Asia/Tokyo'")
  for (let turn = 0; turn < 5; turn += 1) {
    for (const other of others) {
      assert.notEqual(await value(other, 'SHOW timezone'), 'Asia/Tokyo')
      assert.notEqual(await value(other, 'SHOW application_name'), 'started')
      assert.equal(await value(other, 'SHOW work_mem'), '4MB')
    }
    assert.equal(await value(client, 'SHOW timezone'), 'Asia/Tokyo')
    assert.equal(await value(client, 'SHOW application_name'), 'started')
    assert.equal(await value(client, 'SHOW statement_timeout'), '4321ms')
    assert.equal(await value(client, 'SHOW work_mem'), '7MB')
  }
  await client.end()
}))

test('notifications reach a listening session', () => withClients(2, async (listener, speaker) => {
  const seen = []
  const all = new Promise((done) => listener.on('notification', ({ payload }) => { seen.push(payload); if (seen.length === 3) done() }))
  await listener.query('LISTEN node_channel')
  for (const n of [0, 1, 2]) await speaker.query('SELECT pg_notify($1, $2)', ['node_channel', String(n)])
  await all
  assert.deepEqual(seen, ['0', '1', '2'])
  await listener.query('UNLISTEN *')
}))

test("the driver's pool shares few servers", async () => {
  const pool = new pg.Pool(options('scram_user', { max: 20 }))
  await Promise.all(Array.from({ length: 200 }, async (_, n) => {
    const client = await pool.connect()
    try {
      await client.query('BEGIN')
      assert.equal(await value(client, 'SELECT $1::text', [`of ${n}`]), `of ${n}`)
      await client.query('COMMIT')
    } finally {
      client.release()
    }
  }))
  await pool.end()
})

test('sessions go on after a restart of the server', () => withClients(2, async (idle, busy) => {
  await idle.query("SET work_mem = '8MB'")
  await idle.query({ name: 'kept', text: 'SELECT $1::int', values: [1] })
  await busy.query('BEGIN')
  await busy.query('SELECT 1')
  await restartPostgres()
  await assert.rejects(busy.query('SELECT 1'))
  assert.equal((await idle.query({ name: 'kept', text: 'SELECT $1::int', values: [2] })).rows.length, 1)
  assert.equal(await value(idle, 'SHOW work_mem'), '8MB')
  await withClients(1, async (again) => assert.equal(await value(again, 'SELECT 1'), 1))
}))

await run()
