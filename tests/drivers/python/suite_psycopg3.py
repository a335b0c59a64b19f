"""psycopg 3: server-side prepared statements, pipeline mode, COPY, named cursors."""

import asyncio
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

import common
from common import case, raises


def connect(user="scram_user", **more):
    more.setdefault("sslmode", "disable")
    more.setdefault("password", common.PASSWORDS[user])
    return psycopg.connect(host=common.HOST, port=common.PORT, dbname=common.DATABASE, user=user, connect_timeout=10, **more)


def value(connection, query, *parameters):
    return connection.execute(query, parameters or None).fetchone()[0]


@case
def every_way_to_log_in_works():
    for user in ("scram_user", "md5_user", "trust_user"):
        with connect(user) as connection:
            assert value(connection, "SELECT current_user") == user
    for user in common.PASSWORDS:
        with connect(user, sslmode="verify-full", sslrootcert=common.CA) as connection:
            assert value(connection, "SELECT current_user") == user
            assert connection.pgconn.ssl_in_use
    with connect(sslmode="require", channel_binding="require") as connection:
        assert value(connection, "SELECT 1") == 1


@case
def wrong_logins_are_refused():
    for user in ("scram_user", "md5_user"):
        error = raises(psycopg.OperationalError, connect, user, password="wrong")
        assert "password authentication failed" in str(error), error
    raises(psycopg.OperationalError, connect, "plain_user")
    raises(psycopg.OperationalError, connect, "scram_user", password=None)


@case
def the_admin_console_speaks_as_a_server_does():
    if common.DIRECT:
        return
    options = dict(host=common.HOST, port=common.PORT, dbname="admin", user="admin", password="admin secret", connect_timeout=10)
    with psycopg.connect(**options, prepare_threshold=0) as console:
        for binary in (False, True):
            with console.cursor(binary=binary) as cursor:
                rows = cursor.execute("SHOW POOLS database, user, sv_total, paused").fetchall()
                assert ("drivers", "scram_user") in [row[:2] for row in rows], rows
                assert all(isinstance(row[2], int) and row[3] is False for row in rows), rows
        console.commit()
        raises(psycopg.errors.FeatureNotSupported, console.execute, "SELECT * FROM pg_class")
        console.rollback()
        assert value(console, "SELECT 1") == 1
    raises(psycopg.OperationalError, psycopg.connect, **{**options, "password": "wrong"})


@case
def prepared_statements_work_in_many_transactions_of_interleaved_connections():
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(prepare_threshold=0, autocommit=True)) for _ in range(8)]
        for turn in range(30):
            for at, connection in enumerate(connections):
                assert value(connection, "SELECT %s::int * 1000 + %s::int", at, turn) == at * 1000 + turn
                assert value(connection, f"SELECT %s::text || '{at}'", "of ") == f"of {at}"
        for at, connection in enumerate(connections):
            with connection.transaction():
                for turn in range(5):
                    assert value(connection, "SELECT %s::int * 1000 + %s::int", at, turn) == at * 1000 + turn


@case
def more_statements_than_the_driver_keeps_are_deallocated():
    with connect(prepare_threshold=0, autocommit=True) as connection, connect(prepare_threshold=0, autocommit=True) as other:
        connection.prepared_max = other.prepared_max = 5
        for turn in range(60):
            for each in (connection, other):
                assert value(each, f"SELECT {turn % 13} + %s::int", turn) == turn % 13 + turn


@case
def a_prepared_statement_sees_a_changed_table():
    with connect(autocommit=True, prepare_threshold=0) as connection, connect(autocommit=True, prepare_threshold=0) as other:
        connection.execute("DROP TABLE IF EXISTS psycopg_changed")
        connection.execute("CREATE TABLE psycopg_changed (a int)")
        connection.execute("INSERT INTO psycopg_changed VALUES (1)")
        for each in (connection, other):
            assert value(each, "SELECT a FROM psycopg_changed WHERE a = %s", 1) == 1
        connection.execute("ALTER TABLE psycopg_changed ADD b int DEFAULT 7")
        for each in (connection, other):
            assert value(each, "SELECT b FROM psycopg_changed WHERE a = %s", 1) == 7
        connection.execute("DROP TABLE psycopg_changed")


@case
def values_of_many_types_come_back_as_they_went():
    values = [
        0, -1, 2**62, 1.5, Decimal("123456789012345678901234567890.123456789"), "text \u00e9\u4e16\U0001f418", b"\x00\xff\x80", True, None,
        datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=timezone.utc), timedelta(days=3, seconds=5), uuid4(), [1, 2, None, 4],
    ]
    with connect() as connection:
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            for each in values:
                assert cursor.execute("SELECT %s", (each,)).fetchone()[0] == each, each
            texts = ["a", "b,c", '"', "", "NULL"]
            assert cursor.execute("SELECT %s::text[]", (texts,)).fetchone()[0] == texts
            assert cursor.execute("SELECT %s", (Jsonb({"a": [1, {"b": None}]}),)).fetchone()[0] == {"a": [1, {"b": None}]}
            large = "x" * 3_000_000
            assert cursor.execute("SELECT %s::text, length(%s)", (large, large)).fetchone() == (large, 3_000_000)
            assert len(cursor.execute("SELECT g, repeat('y', 100) FROM generate_series(1, 20000) g").fetchall()) == 20000


@case
def a_pipeline_answers_in_order_and_its_error_aborts_the_rest():
    with connect(autocommit=True) as connection, connect(autocommit=True) as other:
        for _ in range(10):
            with connection.pipeline():
                cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(50)]
                assert value(other, "SELECT 'between'") == "between"
                assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))
        broken = connection.pgconn
        broken.enter_pipeline_mode()
        for query in (b"SELECT 'before'", b"SELECT 1 / 0", b"SELECT 'after'"):
            broken.send_query_params(query, None)
        broken.pipeline_sync()
        broken.send_query_params(b"SELECT 'afterwards'", None)
        broken.pipeline_sync()
        seen = results(broken, 6)
        assert seen == ["TUPLES_OK", "FATAL_ERROR", "PIPELINE_ABORTED", "PIPELINE_SYNC", "TUPLES_OK", "PIPELINE_SYNC"], seen
        broken.exit_pipeline_mode()
        assert value(connection, "SELECT 2") == 2
        with connection.pipeline(), connection.transaction():
            connection.execute("CREATE TEMP TABLE piped (a int) ON COMMIT DROP")
            connection.cursor().executemany("INSERT INTO piped VALUES (%s)", [(n,) for n in range(100)])
            assert value(connection, "SELECT sum(a) FROM piped") == 4950


def results(pgconn, count):
    """The states of this many results of a pipeline."""
    seen = []
    while len(seen) < count:
        result = pgconn.get_result()
        if result is not None:
            seen.append(psycopg.pq.ExecStatus(result.status).name)
    return seen


@case
def executemany_fills_a_table():
    with connect() as connection:
        connection.execute("CREATE TEMP TABLE many (a int, b text)")
        connection.cursor().executemany("INSERT INTO many VALUES (%s, %s)", [(n, str(n)) for n in range(1000)])
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO many VALUES (%s, 'r') RETURNING a", [(n,) for n in range(20)], returning=True)
        seen = [cursor.fetchone()[0]]
        while cursor.nextset():
            seen.append(cursor.fetchone()[0])
        assert seen == list(range(20))
        assert value(connection, "SELECT count(*) FROM many") == 1020


@case
def copy_goes_both_ways_and_survives_errors():
    with connect(autocommit=True) as connection, connect(autocommit=True) as other:
        other.execute("DROP TABLE IF EXISTS psycopg_copied")
        other.execute("CREATE TABLE psycopg_copied (a int PRIMARY KEY, b text)")
        with connection.cursor().copy("COPY psycopg_copied FROM STDIN") as copy:
            for n in range(20000):
                copy.write_row((n, f"row {n}\twith\\tricks\n"))
        assert value(other, "SELECT count(*) FROM psycopg_copied") == 20000
        with connection.cursor().copy("COPY (SELECT a, b FROM psycopg_copied ORDER BY a) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == [(n, f"row {n}\twith\\tricks\n") for n in range(20000)]

        def twice():
            with connection.cursor().copy("COPY psycopg_copied FROM STDIN") as copy:
                copy.write_row((1, "again"))

        raises(psycopg.errors.UniqueViolation, twice)

        def given_up():
            with connection.cursor().copy("COPY psycopg_copied FROM STDIN") as copy:
                copy.write_row((100000, "never"))
                raise KeyError("the client gives up")

        raises(KeyError, given_up)
        assert value(connection, "SELECT count(*) FROM psycopg_copied") == 20000

        def read_in_part():
            with connection.cursor().copy("COPY (SELECT generate_series(1, 1000000)) TO STDOUT") as copy:
                copy.read()
                raise KeyError("the client has seen enough")

        raises(KeyError, read_in_part)
        assert value(connection, "SELECT 'after a broken-off copy'") == "after a broken-off copy"
        connection.execute("DROP TABLE psycopg_copied")


@case
def server_side_cursors_read_in_parts():
    with connect() as connection, connect() as other:
        with connection.cursor("named", scrollable=True) as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT generate_series(1, 1000)")
            other.execute("SELECT 1")
            other.commit()
            assert cursor.fetchmany(10) == [(n,) for n in range(1, 11)]
            cursor.scroll(-5)
            assert cursor.fetchone() == (6,)
            assert sum(row[0] for row in cursor) == 500500 - 21
        connection.commit()
        with connection.cursor("held", withhold=True) as cursor:
            cursor.execute("SELECT generate_series(1, 100)")
            connection.commit()
            for _ in range(5):
                other.execute("SELECT 1")
                other.commit()
                connection.commit()
            assert len(cursor.fetchall()) == 100


@case
def transactions_roll_back_and_savepoints_nest():
    with connect(autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS psycopg_saved")
        connection.execute("CREATE TABLE psycopg_saved (a int PRIMARY KEY)")
        with connection.transaction():
            connection.execute("INSERT INTO psycopg_saved VALUES (1)")
            try:
                with connection.transaction():
                    connection.execute("INSERT INTO psycopg_saved VALUES (1)")
            except psycopg.errors.UniqueViolation:
                pass
            with connection.transaction():
                connection.execute("INSERT INTO psycopg_saved VALUES (2)")
            with connection.transaction(force_rollback=True):
                connection.execute("INSERT INTO psycopg_saved VALUES (3)")
        with connection.transaction(force_rollback=True):
            connection.execute("DELETE FROM psycopg_saved")
        assert connection.execute("SELECT a FROM psycopg_saved ORDER BY a").fetchall() == [(1,), (2,)]
        connection.execute("DROP TABLE psycopg_saved")


@case
def errors_carry_their_code_and_leave_the_state_of_postgres():
    with connect() as connection:
        connection.execute("CREATE TEMP TABLE unique_one (a int PRIMARY KEY CHECK (a > 0))")
        connection.commit()
        for query, state in (
            ("SELEC 1", "42601"), ("SELECT * FROM no_such", "42P01"), ("SELECT 1/0", "22012"),
            ("INSERT INTO unique_one VALUES (0)", "23514"), ("INSERT INTO unique_one VALUES (NULL)", "23502"),
        ):
            error = raises(psycopg.Error, connection.execute, query)
            assert error.sqlstate == state, error
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
            assert raises(psycopg.Error, connection.execute, "SELECT 1").sqlstate == "25P02"
            connection.rollback()
            assert value(connection, "SELECT 1") == 1
            connection.rollback()
        error = raises(psycopg.Error, connection.execute, "INSERT INTO unique_one VALUES (1), (1)")
        assert (error.sqlstate, error.diag.constraint_name, error.diag.table_name) == ("23505", "unique_one_pkey", "unique_one")


@case
def notices_reach_the_client_they_are_for():
    with connect(autocommit=True) as connection, connect(autocommit=True) as other:
        seen, others = [], []
        connection.add_notice_handler(lambda d: seen.append(d.message_primary))
        other.add_notice_handler(lambda d: others.append(d.message_primary))
        connection.execute("DO $$ BEGIN RAISE NOTICE 'to one'; END $$")
        other.execute("SELECT 1")
        assert (seen, others) == (["to one"], [])


@case
def a_cancel_ends_the_sleep_and_nothing_else():
    with connect(autocommit=True) as connection, connect(autocommit=True) as other:
        for _ in range(8):
            timer = threading.Timer(0.2, connection.cancel_safe)
            start = time.monotonic()
            timer.start()
            raises(psycopg.errors.QueryCanceled, connection.execute, "SELECT pg_sleep(30)")
            timer.join()
            assert time.monotonic() - start < 10
            assert value(connection, "SELECT 'alive'") == "alive"
            assert value(other, "SELECT 'unhurt'") == "unhurt"
        connection.cancel_safe()
        assert value(connection, "SELECT 'an idle cancel does nothing'")


@case
def settings_stay_with_their_session():
    names = {"timezone": "Asia/Tokyo", "work_mem": "7MB", "application_name": "mine", "statement_timeout": "12345ms", "search_path": "pg_catalog"}
    with ExitStack() as stack:
        connection = stack.enter_context(connect(autocommit=True, application_name="started", options="-c lock_timeout=4321"))
        others = [stack.enter_context(connect(autocommit=True)) for _ in range(5)]
        assert value(connection, "SHOW application_name") == "started"
        for name, setting in names.items():
            connection.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(setting)))
        assert connection.info.parameter_status("TimeZone") == "Asia/Tokyo"
        before = {name: value(others[0], f"SHOW {name}") for name in names}
        for _ in range(6):
            for other in others:
                with other.transaction():
                    assert {name: value(other, f"SHOW {name}") for name in names} == before
            with connection.transaction():
                found = {name: value(connection, f"SHOW {name}") for name in names}
            assert found["timezone"] == "Asia/Tokyo" and found["work_mem"] == "7MB" and found["application_name"] == "mine", found
            assert found["statement_timeout"] == "12345ms" and found["search_path"] == "pg_catalog", found
            assert value(connection, "SHOW lock_timeout") == "4321ms"
        connection.execute("SELECT set_config('work_mem', '9MB', false)")
        assert value(connection, "SHOW work_mem") == "9MB"
        with raises_inside(connection):
            connection.execute("SET work_mem = '11MB'")
            connection.execute("SELECT 1/0")
        assert value(connection, "SHOW work_mem") == "9MB"
        with connection.transaction():
            connection.execute("SET LOCAL work_mem = '13MB'")
            assert value(connection, "SHOW work_mem") == "13MB"
        assert value(connection, "SHOW work_mem") == "9MB"
        connection.execute("RESET ALL")
        assert value(connection, "SHOW application_name") == "started"
        assert value(connection, "SHOW work_mem") == before["work_mem"]


class raises_inside:
    """A transaction that ends by its own error."""

    def __init__(self, connection):
        self.transaction = connection.transaction()

    def __enter__(self):
        self.transaction.__enter__()

    def __exit__(self, kind, error, trace):
        assert kind is not None, "an error was expected"
        self.transaction.__exit__(kind, error, trace)
        return True


@case
def the_client_encoding_is_the_sessions_own():
    with connect(autocommit=True, client_encoding="latin1") as connection, connect(autocommit=True) as other:
        for _ in range(4):
            assert value(connection, "SELECT %s::text", "\u00e9") == "\u00e9"
            assert value(other, "SELECT %s::text", "\u4e16") == "\u4e16"
        assert connection.info.encoding == "iso8859-1"


@case
def notifications_reach_a_listening_session():
    with connect(autocommit=True) as listener, connect(autocommit=True) as speaker:
        listener.execute("LISTEN psycopg_channel")
        for n in range(5):
            speaker.execute("SELECT pg_notify('psycopg_channel', %s)", (str(n),))
        seen = [n.payload for n in listener.notifies(timeout=5, stop_after=5)]
        assert seen == ["0", "1", "2", "3", "4"], seen
        listener.execute("UNLISTEN *")
        speaker.execute("NOTIFY psycopg_channel, 'late'")
        assert list(listener.notifies(timeout=0.2)) == []


@case
def temporary_tables_and_advisory_locks_are_the_sessions():
    with connect(autocommit=True) as connection, connect(autocommit=True) as other:
        connection.execute("CREATE TEMP TABLE mine (a int)")
        assert value(connection, "SELECT pg_try_advisory_lock(77)")
        for _ in range(5):
            assert value(other, "SELECT to_regclass('pg_temp.mine')") is None
            assert not value(other, "SELECT pg_try_advisory_lock(77)")
            connection.execute("INSERT INTO mine VALUES (1)")
        assert value(connection, "SELECT count(*) FROM mine") == 5
        assert value(connection, "SELECT pg_advisory_unlock(77)")
        connection.execute("DISCARD ALL")
        assert value(connection, "SELECT to_regclass('pg_temp.mine')") is None
        assert value(other, "SELECT pg_try_advisory_lock(77)")


@case
def many_clients_share_few_servers():
    failures = []

    def work(me):
        try:
            with connect(autocommit=True, prepare_threshold=1) as connection:
                for turn in range(40):
                    with connection.transaction():
                        assert value(connection, "SELECT %s::text", f"{me}/{turn}") == f"{me}/{turn}"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


@case
async def the_async_client_works_and_cancels_its_tasks():
    connection = await psycopg.AsyncConnection.connect(
        host=common.HOST, port=common.PORT, dbname=common.DATABASE, user="scram_user", password="scram secret", autocommit=True)
    async with connection:
        task = asyncio.create_task(connection.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.3)
        task.cancel()
        await common.raises_async(asyncio.CancelledError, task)
        cursor = await connection.execute("SELECT %s::int", (5,))
        assert await cursor.fetchone() == (5,)


@case
def sessions_go_on_after_a_restart_of_the_server():
    with connect(autocommit=True, prepare_threshold=0, application_name="survivor") as idle, connect() as busy:
        assert value(idle, "SELECT %s::int", 1) == 1
        idle.execute("SET work_mem = '8MB'")
        busy.execute("SELECT 1")
        common.restart_postgres()
        error = raises(psycopg.Error, busy.execute, "SELECT 1")
        assert isinstance(error, psycopg.OperationalError), error
        assert value(idle, "SELECT %s::int", 2) == 2
        assert value(idle, "SHOW work_mem") == "8MB"
        assert value(idle, "SHOW application_name") == "survivor"
    with connect() as again:
        assert value(again, "SELECT 1") == 1


common.run()
