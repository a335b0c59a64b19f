"""psycopg2: the simple protocol, with transactions, COPY, named cursors and poll-based notifications."""

import io
import select
import threading
import time
from contextlib import ExitStack, closing

import psycopg2
import psycopg2.extensions
import psycopg2.extras

import common
from common import case, raises


def connect(user="scram_user", autocommit=False, **more):
    more.setdefault("sslmode", "disable")
    more.setdefault("password", common.PASSWORDS[user])
    connection = psycopg2.connect(host=common.HOST, port=common.PORT, dbname=common.DATABASE, user=user, connect_timeout=10, **more)
    connection.autocommit = autocommit
    return closing(connection)


def value(connection, query, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchone()[0]


def run(connection, query, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)


@case
def every_way_to_log_in_works():
    for user in ("scram_user", "md5_user", "trust_user"):
        with connect(user) as connection:
            assert value(connection, "SELECT current_user") == user
    for user in common.PASSWORDS:
        with connect(user, sslmode="verify-full", sslrootcert=common.CA) as connection:
            assert value(connection, "SELECT current_user") == user
            assert connection.info.ssl_in_use
    for user in ("scram_user", "md5_user"):
        assert "password authentication failed" in str(raises(psycopg2.OperationalError, connect, user, password="wrong"))


@case
def transactions_of_interleaved_connections_keep_to_themselves():
    with ExitStack() as stack:
        connections = [stack.enter_context(connect()) for _ in range(8)]
        for turn in range(20):
            for at, connection in enumerate(connections):
                run(connection, "CREATE TEMP TABLE seen ON COMMIT DROP AS SELECT %s AS who, %s AS turn", (at, turn))
                with connection.cursor() as cursor:
                    cursor.execute("SELECT who, turn FROM seen")
                    assert cursor.fetchall() == [(at, turn)]
                connection.rollback() if turn % 2 else connection.commit()


@case
def statements_prepared_in_sql_stay_with_their_session():
    with connect(autocommit=True) as one, connect(autocommit=True) as two:
        run(one, "PREPARE mine (int) AS SELECT $1 + 1")
        run(two, "PREPARE mine (int) AS SELECT $1 + 2")
        for n in range(10):
            assert value(one, "EXECUTE mine (%s)", (n,)) == n + 1
            assert value(two, "EXECUTE mine (%s)", (n,)) == n + 2
        run(one, "DEALLOCATE mine")
        assert raises(psycopg2.Error, value, one, "EXECUTE mine (1)").pgcode == "26000"
        assert value(two, "EXECUTE mine (1)") == 3


@case
def several_statements_in_one_string_are_one_transaction():
    with connect(autocommit=True) as connection:
        run(connection, "CREATE TEMP TABLE several (a int); INSERT INTO several VALUES (1); INSERT INTO several VALUES (2)")
        raises(psycopg2.Error, run, connection, "INSERT INTO several VALUES (3); SELECT 1/0")
        assert value(connection, "SELECT count(*) FROM several") == 2
        raises(psycopg2.Error, run, connection, "BEGIN; INSERT INTO several VALUES (3); COMMIT; BEGIN; INSERT INTO several VALUES (4); SELECT 1/0")
        run(connection, "ROLLBACK")
        assert value(connection, "SELECT count(*) FROM several") == 3


@case
def values_lists_and_batches_arrive():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE batch (a int, b text)")
        psycopg2.extras.execute_values(cursor, "INSERT INTO batch VALUES %s", [(n, f"t{n}") for n in range(1000)])
        psycopg2.extras.execute_batch(cursor, "UPDATE batch SET b = %s WHERE a = %s", [("x", n) for n in range(300)])
        cursor.execute("SELECT count(*) FROM batch WHERE b = 'x'")
        assert cursor.fetchone()[0] == 300


@case
def copy_goes_both_ways_and_survives_errors():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE copied (a int PRIMARY KEY, b text)")
        connection.commit()
        cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("".join(f"{n}\trow {n}\n" for n in range(50000))))
        out = io.StringIO()
        cursor.copy_expert("COPY (SELECT * FROM copied ORDER BY a) TO STDOUT WITH CSV", out)
        assert out.getvalue() == "".join(f"{n},row {n}\n" for n in range(50000))
        connection.commit()
        error = raises(psycopg2.Error, cursor.copy_expert, "COPY copied FROM STDIN", io.StringIO("70000\tgood\nnot a number\tbad\n"))
        assert error.pgcode == "22P02", error
        connection.rollback()

        class Broken:
            def read(self, size):
                raise KeyError("the source breaks")

        raises(Exception, cursor.copy_expert, "COPY copied FROM STDIN", Broken())
        connection.rollback()
        assert value(connection, "SELECT count(*) FROM copied") == 50000


@case
def named_cursors_read_in_parts():
    with connect() as connection, connect() as other:
        cursor = connection.cursor("parts")
        cursor.itersize = 50
        cursor.execute("SELECT generate_series(1, 500)")
        assert value(other, "SELECT 1") == 1
        other.commit()
        assert sum(row[0] for row in cursor) == 125250
        connection.commit()
        held = connection.cursor("held", withhold=True)
        held.execute("SELECT generate_series(1, 100)")
        connection.commit()
        assert value(other, "SELECT 1") == 1
        other.commit()
        assert len(held.fetchall()) == 100
        held.close()
        connection.commit()


@case
def errors_and_savepoints_leave_the_state_of_postgres():
    with connect() as connection:
        run(connection, "CREATE TEMP TABLE saved (a int PRIMARY KEY)")
        run(connection, "SAVEPOINT one")
        run(connection, "INSERT INTO saved VALUES (1)")
        assert raises(psycopg2.Error, run, connection, "INSERT INTO saved VALUES (1)").pgcode == "23505"
        assert raises(psycopg2.Error, run, connection, "SELECT 1").pgcode == "25P02"
        run(connection, "ROLLBACK TO one")
        run(connection, "INSERT INTO saved VALUES (2)")
        run(connection, "RELEASE one")
        connection.commit()
        assert value(connection, "SELECT sum(a) FROM saved") == 2
        connection.rollback()
        assert raises(psycopg2.Error, run, connection, "SELEC").pgcode == "42601"
        connection.rollback()
        for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"):
            connection.set_session(isolation_level=level, readonly=True)
            assert value(connection, "SHOW transaction_isolation").upper() == level
            assert raises(psycopg2.Error, run, connection, "CREATE TABLE never (a int)").pgcode == "25006"
            connection.rollback()
        connection.set_session(isolation_level="DEFAULT", readonly=False)
    with connect(autocommit=True) as one, connect(autocommit=True) as two:
        one.set_session(readonly=True, autocommit=True)
        for _ in range(5):
            assert value(one, "SHOW default_transaction_read_only") == "on"
            assert value(two, "SHOW default_transaction_read_only") == "off"


@case
def a_cancel_ends_the_sleep_and_nothing_else():
    with connect(autocommit=True) as connection:
        for _ in range(5):
            timer = threading.Timer(0.1, connection.cancel)
            start = time.monotonic()
            timer.start()
            raises(psycopg2.extensions.QueryCanceledError, run, connection, "SELECT pg_sleep(30)")
            timer.join()
            assert time.monotonic() - start < 10
            assert value(connection, "SELECT 1") == 1


@case
def cancels_within_one_transaction_each_count():
    with connect() as connection:
        for _ in range(4):
            run(connection, "SAVEPOINT s")
            timer = threading.Timer(0.1, connection.cancel)
            timer.start()
            raises(psycopg2.extensions.QueryCanceledError, run, connection, "SELECT pg_sleep(30)")
            timer.join()
            run(connection, "ROLLBACK TO s")
            assert value(connection, "SELECT 'still here'") == "still here"
        connection.commit()


@case
def settings_stay_with_their_session():
    with ExitStack() as stack:
        connection = stack.enter_context(connect(application_name="started"))
        others = [stack.enter_context(connect(autocommit=True)) for _ in range(5)]
        run(connection, "SET TIME ZONE 'Asia/Tokyo'")
        run(connection, "SET work_mem = '7MB'")
        connection.rollback()
        assert value(connection, "SHOW work_mem") == "4MB"
        run(connection, "SET TIME ZONE 'Asia/Tokyo'; SET work_mem = '7MB'")
        connection.commit()
        connection.set_client_encoding("LATIN1")
        for _ in range(5):
            for other in others:
                assert value(other, "SHOW timezone") != "Asia/Tokyo"
                assert value(other, "SHOW work_mem") == "4MB"
                assert value(other, "SELECT %s", ("\u4e16",)) == "\u4e16"
            assert value(connection, "SHOW timezone") == "Asia/Tokyo"
            assert value(connection, "SHOW application_name") == "started"
            assert value(connection, "SELECT %s", ("\u00e9",)) == "\u00e9"
            connection.commit()
        connection.reset()
        assert value(connection, "SHOW work_mem") == "4MB"


@case
def notifications_reach_a_listening_session():
    with connect(autocommit=True) as listener, connect(autocommit=True) as speaker:
        run(listener, "LISTEN psycopg2_channel")
        run(speaker, "NOTIFY psycopg2_channel, 'hello'")
        end = time.monotonic() + 10
        while not listener.notifies and time.monotonic() < end:
            select.select([listener], [], [], 1)
            listener.poll()
        assert [n.payload for n in listener.notifies] == ["hello"]


@case
def large_objects_are_read_and_written():
    with connect() as connection:
        large = connection.lobject(0, "wb")
        large.write(b"0123456789" * 20000)
        oid = large.oid
        large.close()
        connection.commit()
        assert connection.lobject(oid, "rb").read() == b"0123456789" * 20000
        connection.lobject(oid).unlink()
        connection.commit()


@case
def many_clients_share_few_servers():
    failures = []

    def work(me):
        try:
            with connect() as connection:
                for turn in range(30):
                    assert value(connection, "SELECT %s", (f"{me}/{turn}",)) == f"{me}/{turn}"
                    connection.commit()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


@case
def sessions_go_on_after_a_restart_of_the_server():
    with connect(autocommit=True) as idle, connect() as busy:
        run(idle, "SET work_mem = '8MB'")
        run(busy, "SELECT 1")
        common.restart_postgres()
        raises((psycopg2.OperationalError, psycopg2.InterfaceError), run, busy, "SELECT 1")
        assert busy.closed
        assert value(idle, "SHOW work_mem") == "8MB"
    with connect() as again:
        assert value(again, "SELECT 1") == 1


common.run()
