"""asyncpg: named statements, binary format and a pool that resets its connections."""

import asyncio
import io
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timezone
from decimal import Decimal
from uuid import uuid4

import asyncpg

import common
from common import case, raises_async


def where(user, more):
    more.setdefault("ssl", False)
    more.setdefault("password", common.PASSWORDS[user])
    return dict(host=common.HOST, port=common.PORT, database=common.DATABASE, user=user, timeout=10, **more)


@asynccontextmanager
async def connect(user="scram_user", **more):
    connection = await asyncpg.connect(**where(user, more))
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


def tls():
    return ssl.create_default_context(cafile=common.CA)


@case
async def every_way_to_log_in_works():
    for user in ("scram_user", "md5_user", "trust_user"):
        async with connect(user) as connection:
            assert await connection.fetchval("SELECT current_user") == user
    for user in common.PASSWORDS:
        async with connect(user, ssl=tls()) as connection:
            assert await connection.fetchval("SELECT current_user") == user
    # Without ALPN, as asyncpg begins it, both PostgreSQL and the proxy refuse TLS that nobody asked for.
    await raises_async((asyncpg.PostgresError, OSError), asyncpg.connect(**where("scram_user", {"ssl": tls(), "direct_tls": True})))
    for user in ("scram_user", "md5_user"):
        await raises_async(asyncpg.InvalidPasswordError, asyncpg.connect(**where(user, {"password": "wrong"})))


@case
async def prepared_statements_work_in_many_transactions_of_interleaved_connections():
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connect()) for _ in range(8)]
        prepared = [await c.prepare(f"SELECT $1::int * 1000 + {at}") for at, c in enumerate(connections)]
        for turn in range(30):
            for at, connection in enumerate(connections):
                assert await prepared[at].fetchval(turn) == turn * 1000 + at
                assert await connection.fetchval("SELECT $1::text || $2", "a", str(turn)) == f"a{turn}"

        async def work(at, connection):
            for turn in range(20):
                async with connection.transaction():
                    assert await prepared[at].fetchval(turn) == turn * 1000 + at
                    assert await connection.fetchval("SELECT $1::text", f"{at}") == f"{at}"

        await asyncio.gather(*(work(at, c) for at, c in enumerate(connections)))


@case
async def more_statements_than_the_driver_keeps_are_closed():
    async with connect(statement_cache_size=5) as one, connect(statement_cache_size=5) as two:
        for turn in range(60):
            for each in (one, two):
                assert await each.fetchval(f"SELECT {turn % 13} + $1::int", turn) == turn % 13 + turn


@case
async def a_prepared_statement_sees_a_changed_table():
    async with connect() as one, connect() as two:
        await one.execute("DROP TABLE IF EXISTS asyncpg_changed; CREATE TABLE asyncpg_changed (a int); INSERT INTO asyncpg_changed VALUES (1)")
        for each in (one, two):
            assert tuple(await each.fetchrow("SELECT * FROM asyncpg_changed WHERE a = $1", 1)) == (1,)
        await one.execute("ALTER TABLE asyncpg_changed ADD b int DEFAULT 7")
        for each in (one, two):
            assert tuple(await each.fetchrow("SELECT * FROM asyncpg_changed WHERE a = $1", 1)) == (1, 7)
        await one.execute("DROP TABLE asyncpg_changed")


@case
async def values_of_many_types_come_back_as_they_went():
    async with connect() as connection:
        for kind, each in (
            ("int8", 2**62), ("float8", 1.5), ("numeric", Decimal("123456789012345678901234567890.123456789")), ("text", "\u00e9\u4e16\U0001f418"),
            ("bytea", b"\x00\xff"), ("bool", True), ("timestamptz", datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=timezone.utc)),
            ("uuid", uuid4()), ("int[]", [1, None, 3]), ("text[]", ["a", "b,c"]), ("text", "x" * 3_000_000), ("text", None),
        ):
            assert await connection.fetchval(f"SELECT $1::{kind}", each) == each, kind
        assert len(await connection.fetch("SELECT g, repeat('y', 100) FROM generate_series(1, 20000) g")) == 20000


@case
async def types_made_by_the_user_are_looked_up():
    async with connect() as one, connect() as two:
        await one.execute("DROP TYPE IF EXISTS asyncpg_mood CASCADE; CREATE TYPE asyncpg_mood AS ENUM ('good', 'bad')")
        await one.execute("DROP TYPE IF EXISTS asyncpg_pair CASCADE; CREATE TYPE asyncpg_pair AS (a int, b asyncpg_mood)")
        for each in (one, two, one):
            assert tuple(await each.fetchval("SELECT ROW($1::int, $2::asyncpg_mood)::asyncpg_pair", 1, "good")) == (1, "good")
        await one.execute("DROP TYPE asyncpg_pair; DROP TYPE asyncpg_mood")


@case
async def executemany_is_all_or_nothing():
    async with connect() as connection:
        await connection.execute("CREATE TEMP TABLE many (a int PRIMARY KEY)")
        await connection.executemany("INSERT INTO many VALUES ($1)", [(n,) for n in range(3000)])
        await raises_async(asyncpg.UniqueViolationError, connection.executemany("INSERT INTO many VALUES ($1)", [(4000,), (4001,), (1,)]))
        assert await connection.fetchval("SELECT count(*) FROM many") == 3000
        rows = await connection.fetchmany("INSERT INTO many VALUES ($1) RETURNING a", [(n,) for n in range(5000, 5050)])
        assert [row[0] for row in rows] == list(range(5000, 5050))


@case
async def copy_goes_both_ways_and_survives_errors():
    async with connect() as connection:
        await connection.execute("CREATE TEMP TABLE copied (a int PRIMARY KEY, b text)")
        await connection.copy_records_to_table("copied", records=[(n, f"row {n}") for n in range(20000)])
        out = io.BytesIO()
        await connection.copy_from_query("SELECT * FROM copied WHERE a < $1 ORDER BY a", 3, output=out)
        assert out.getvalue() == b"0\trow 0\n1\trow 1\n2\trow 2\n"
        out = io.BytesIO()
        await connection.copy_from_table("copied", output=out, format="csv")
        assert len(out.getvalue().splitlines()) == 20000
        await raises_async(asyncpg.UniqueViolationError, connection.copy_records_to_table("copied", records=[(1, "again")]))

        async def broken():
            yield b"30000\tnever\n"
            raise KeyError("the source breaks")

        await raises_async(KeyError, connection.copy_to_table("copied", source=broken()))

        async def full(data):
            raise KeyError("the sink breaks")

        await raises_async(KeyError, connection.copy_from_table("copied", output=full))
        assert await connection.fetchval("SELECT count(*) FROM copied") == 20000


@case
async def cursors_read_in_parts():
    async with connect() as connection, connect() as other:
        async with connection.transaction():
            assert sum([row[0] async for row in connection.cursor("SELECT generate_series(1, 500)", prefetch=50)]) == 125250
            cursor = await connection.cursor("SELECT generate_series(1, $1::int)", 100)
            assert [row[0] for row in await cursor.fetch(3)] == [1, 2, 3]
            assert await other.fetchval("SELECT 1") == 1
            await cursor.forward(10)
            assert (await cursor.fetchrow())[0] == 14


@case
async def transactions_errors_and_savepoints_leave_the_state_of_postgres():
    async with connect() as connection:
        await connection.execute("CREATE TEMP TABLE saved (a int PRIMARY KEY)")
        async with connection.transaction():
            await connection.execute("INSERT INTO saved VALUES ($1)", 1)
            try:
                async with connection.transaction():
                    await connection.execute("INSERT INTO saved VALUES ($1)", 2)
                    await connection.execute("INSERT INTO saved VALUES ($1)", 1)
            except asyncpg.UniqueViolationError as error:
                assert error.constraint_name == "saved_pkey"
            await connection.execute("INSERT INTO saved VALUES ($1)", 3)
        assert [row[0] for row in await connection.fetch("SELECT a FROM saved ORDER BY a")] == [1, 3]
        transaction = connection.transaction(isolation="serializable", readonly=True)
        await transaction.start()
        await raises_async(asyncpg.ReadOnlySQLTransactionError, connection.execute("CREATE TABLE never (a int)"))
        await raises_async(asyncpg.InFailedSQLTransactionError, connection.fetchval("SELECT 1"))
        await transaction.rollback()
        await raises_async(asyncpg.PostgresSyntaxError, connection.fetchval("SELEC $1", 1))
        await raises_async(asyncpg.UndefinedTableError, connection.fetchval("SELECT * FROM no_such WHERE a = $1", 1))
        await raises_async(asyncpg.DivisionByZeroError, connection.fetchval("SELECT 1 / $1::int", 0))
        assert await connection.fetchval("SELECT $1::int", 1) == 1


@case
async def cancelled_tasks_and_timeouts_end_the_sleep_and_nothing_else():
    async with connect() as connection, connect() as other:
        for _ in range(5):
            task = asyncio.create_task(connection.fetchval("SELECT pg_sleep(30)"))
            await asyncio.sleep(0.1)
            task.cancel()
            await raises_async(asyncio.CancelledError, task)
            assert await connection.fetchval("SELECT $1::text", "alive") == "alive"
            await raises_async(asyncio.TimeoutError, connection.fetchval("SELECT pg_sleep(30)", timeout=0.1))
            assert await connection.fetchval("SELECT $1::text", "alive") == "alive"
            assert await other.fetchval("SELECT $1::text", "unhurt") == "unhurt"


@case
async def cancels_over_tls_work():
    async with connect(ssl=tls()) as connection:
        for _ in range(2):
            await raises_async(asyncio.TimeoutError, connection.fetchval("SELECT pg_sleep(30)", timeout=0.1))
            assert await connection.fetchval("SELECT 1") == 1


@case
async def settings_stay_with_their_session():
    settings = {"application_name": "started", "TimeZone": "Asia/Tokyo", "search_path": "pg_catalog"}
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connect(server_settings=settings))
        others = [await stack.enter_async_context(connect()) for _ in range(5)]
        await connection.execute("SET work_mem = '7MB'")
        for _ in range(5):
            for other in others:
                assert await other.fetchval("SHOW timezone") != "Asia/Tokyo"
                assert await other.fetchval("SHOW work_mem") == "4MB"
                assert await other.fetchval("SHOW application_name") != "started"
            assert await connection.fetchval("SHOW timezone") == "Asia/Tokyo"
            assert await connection.fetchval("SHOW work_mem") == "7MB"
            assert await connection.fetchval("SHOW application_name") == "started"
            assert await connection.fetchval("SHOW search_path") == "pg_catalog"
        await connection.reset()
        assert await connection.fetchval("SHOW work_mem") == "4MB"
        assert await connection.fetchval("SHOW timezone") == "Asia/Tokyo"


@case
async def notifications_reach_a_listening_session():
    async with connect() as listener, connect() as speaker:
        seen = asyncio.Queue()
        await listener.add_listener("asyncpg_channel", lambda c, pid, channel, payload: seen.put_nowait(payload))
        for n in range(3):
            await speaker.execute("SELECT pg_notify('asyncpg_channel', $1)", str(n))
        assert [await asyncio.wait_for(seen.get(), 5) for _ in range(3)] == ["0", "1", "2"]
        # The listener's own session goes on beside.
        assert await listener.fetchval("SELECT $1::int", 5) == 5
        await listener.execute("NOTIFY asyncpg_channel, 'own'")
        assert await asyncio.wait_for(seen.get(), 5) == "own"
        await listener.reset_query() if hasattr(listener, "reset_query") else await listener.reset()


@case
async def the_drivers_pool_shares_few_servers():
    pool = await asyncpg.create_pool(min_size=15, max_size=15, **where("scram_user", {}))
    async with pool:
        async def work(me):
            for turn in range(15):
                async with pool.acquire() as connection, connection.transaction():
                    assert await connection.fetchval("SELECT $1::text", f"{me}/{turn}") == f"{me}/{turn}"

        await asyncio.gather(*(work(n) for n in range(40)))


@case
async def sessions_go_on_after_a_restart_of_the_server():
    async with connect() as idle, connect() as busy:
        assert await idle.fetchval("SELECT $1::int", 1) == 1
        await idle.execute("SET work_mem = '8MB'")
        await busy.execute("BEGIN")
        await busy.execute("SELECT 1")
        await common.restart_postgres_async()
        await raises_async((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError), busy.fetchval("SELECT 1"))
        assert busy.is_closed()
        assert await idle.fetchval("SELECT $1::int", 2) == 2
        assert await idle.fetchval("SHOW work_mem") == "8MB"
    async with connect() as again:
        assert await again.fetchval("SELECT 1") == 1


common.run()
