// pgx: its statement caches, batches, COPY, pool and context cancellation through the proxy.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

var passwords = map[string]string{"scram_user": "scram secret", "md5_user": "md5 secret", "plain_user": "plain secret", "trust_user": ""}

// address of the proxy for a user; more is appended to the settings.
func address(user, more string) string {
	password := ""
	if passwords[user] != "" {
		password = fmt.Sprintf("password='%s' ", passwords[user])
	}
	return fmt.Sprintf("host=127.0.0.1 port=%s dbname=drivers user=%s %s%s", os.Getenv("PGDOG_PORT"), user, password, more)
}

type failure struct{ error }

// must ends a test that cannot go on.
func must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func equal[T comparable](found, wanted T) {
	if found != wanted {
		panic(failure{fmt.Errorf("found %v instead of %v", found, wanted)})
	}
}

func fails(err error, code string) *pgconn.PgError {
	var server *pgconn.PgError
	if !errors.As(err, &server) || server.Code != code {
		panic(failure{fmt.Errorf("error %s was expected, not %v", code, err)})
	}
	return server
}

func connect(ctx context.Context, user, more string) *pgx.Conn {
	connection, err := pgx.Connect(ctx, address(user, more))
	must(err)
	return connection
}

func value[T any](ctx context.Context, connection interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, query string, arguments ...any) (found T) {
	must(connection.QueryRow(ctx, query, arguments...).Scan(&found))
	return found
}

const plain = "sslmode=disable"

// several connections, and what closes them.
func several(ctx context.Context, count int, more string) ([]*pgx.Conn, func()) {
	connections := make([]*pgx.Conn, count)
	for i := range connections {
		connections[i] = connect(ctx, "scram_user", more)
	}
	return connections, func() {
		for _, each := range connections {
			each.Close(ctx)
		}
	}
}

func everyWayToLogIn(ctx context.Context) {
	for _, user := range []string{"scram_user", "md5_user", "trust_user"} {
		connection := connect(ctx, user, plain)
		equal(value[string](ctx, connection, "SELECT current_user::text"), user)
		connection.Close(ctx)
	}
	for user := range passwords {
		connection := connect(ctx, user, "sslmode=verify-full sslrootcert="+os.Getenv("PGDOG_CA"))
		equal(value[string](ctx, connection, "SELECT current_user::text"), user)
		connection.Close(ctx)
	}
	connect(ctx, "scram_user", "sslmode=require sslnegotiation=direct").Close(ctx)
	for _, user := range []string{"scram_user", "md5_user"} {
		_, err := pgx.Connect(ctx, address(user, plain)+" password=wrong")
		fails(err, "28P01")
	}
}

func everyExecModeInterleaved(ctx context.Context) {
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		connections, closeAll := several(ctx, 8, plain+" default_query_exec_mode="+mode)
		for turn := 0; turn < 15; turn++ {
			for at, each := range connections {
				equal(value[int32](ctx, each, fmt.Sprintf("SELECT $1::int4 * 1000 + %d", at), turn), int32(turn*1000+at))
				equal(value[string](ctx, each, "SELECT $1::text", fmt.Sprint(at)), fmt.Sprint(at))
			}
		}
		for at, each := range connections {
			must(pgx.BeginFunc(ctx, each, func(tx pgx.Tx) error {
				for turn := 0; turn < 5; turn++ {
					equal(value[int32](ctx, tx, fmt.Sprintf("SELECT $1::int4 * 1000 + %d", at), turn), int32(turn*1000+at))
				}
				return nil
			}))
		}
		closeAll()
	}
}

func smallCaches(ctx context.Context) {
	connections, closeAll := several(ctx, 2, plain+" statement_cache_capacity=5")
	defer closeAll()
	for turn := 0; turn < 60; turn++ {
		for _, each := range connections {
			equal(value[int32](ctx, each, fmt.Sprintf("SELECT %d + $1::int4", turn%13), turn), int32(turn%13+turn))
		}
	}
	for _, each := range connections {
		_, err := each.Prepare(ctx, "named", "SELECT $1::int4 + 1")
		must(err)
		equal(value[int32](ctx, each, "named", 1), 2)
		must(each.Deallocate(ctx, "named"))
		must(each.DeallocateAll(ctx))
		equal(value[int32](ctx, each, "SELECT $1::int4", 1), 1)
	}
}

func changedTable(ctx context.Context) {
	connections, closeAll := several(ctx, 2, plain)
	defer closeAll()
	_, err := connections[0].Exec(ctx, "DROP TABLE IF EXISTS pgx_changed; CREATE TABLE pgx_changed (a int4); INSERT INTO pgx_changed VALUES (1)")
	must(err)
	read := func(connection *pgx.Conn) (int, error) {
		rows, err := connection.Query(ctx, "SELECT * FROM pgx_changed WHERE a = $1", 1)
		if err != nil {
			return 0, err
		}
		defer rows.Close()
		for rows.Next() {
		}
		return len(rows.FieldDescriptions()), rows.Err()
	}
	for _, each := range connections {
		_, err = read(each)
		must(err)
	}
	_, err = connections[0].Exec(ctx, "ALTER TABLE pgx_changed ADD b int4")
	must(err)
	for _, each := range connections {
		// The first use of the old plan fails, as at Postgres; pgx forgets it then.
		if _, err = read(each); err != nil {
			fails(err, "0A000")
		}
		columns, err := read(each)
		must(err)
		equal(columns, 2)
	}
	_, err = connections[0].Exec(ctx, "DROP TABLE pgx_changed")
	must(err)
}

func batches(ctx context.Context) {
	connections, closeAll := several(ctx, 2, plain)
	defer closeAll()
	for round := 0; round < 5; round++ {
		for at, each := range connections {
			batch := &pgx.Batch{}
			for n := 0; n < 50; n++ {
				batch.Queue(fmt.Sprintf("SELECT $1::int4 + %d", (at+n)%7), n)
			}
			results := each.SendBatch(ctx, batch)
			for n := 0; n < 50; n++ {
				equal(value[int32](ctx, row{results}, ""), int32((at+n)%7+n))
			}
			must(results.Close())
		}
	}
	batch := &pgx.Batch{}
	batch.Queue("SELECT 1")
	batch.Queue("SELECT 1 / $1::int4", 0)
	batch.Queue("SELECT 2")
	fails(connections[0].SendBatch(ctx, batch).Close(), "22012")
	equal(value[int32](ctx, connections[0], "SELECT $1::int4", 3), 3)
	// Pipeline mode, with a Flush and no Sync for a while.
	pipeline := connections[0].PgConn().StartPipeline(ctx)
	pipeline.SendQueryParams("SELECT 'one'", nil, nil, nil, nil)
	pipeline.SendFlushRequest()
	must(pipeline.Flush())
	first, err := pipeline.GetResults()
	must(err)
	equal(string(first.(*pgconn.ResultReader).Read().Rows[0][0]), "one")
	equal(value[int32](ctx, connections[1], "SELECT 4"), 4)
	pipeline.SendQueryParams("SELECT 'two'", nil, nil, nil, nil)
	must(pipeline.Sync())
	second, err := pipeline.GetResults()
	must(err)
	equal(string(second.(*pgconn.ResultReader).Read().Rows[0][0]), "two")
	must(pipeline.Close())
	equal(value[int32](ctx, connections[0], "SELECT $1::int4", 5), 5)
}

// row makes a batch's next result look like a connection's.
type row struct{ results pgx.BatchResults }

func (r row) QueryRow(context.Context, string, ...any) pgx.Row { return r.results.QueryRow() }

func copies(ctx context.Context) {
	connection := connect(ctx, "scram_user", plain)
	defer connection.Close(ctx)
	_, err := connection.Exec(ctx, "CREATE TEMP TABLE copied (a int4 PRIMARY KEY, b text)")
	must(err)
	rows := pgx.CopyFromSlice(20000, func(n int) ([]any, error) { return []any{n, fmt.Sprintf("row %d", n)}, nil })
	count, err := connection.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"a", "b"}, rows)
	must(err)
	equal(count, 20000)
	var out strings.Builder
	_, err = connection.PgConn().CopyTo(ctx, &out, "COPY copied TO STDOUT")
	must(err)
	equal(strings.Count(out.String(), "\n"), 20000)
	_, err = connection.PgConn().CopyFrom(ctx, strings.NewReader("1\tagain\n"), "COPY copied FROM STDIN")
	fails(err, "23505")
	broken := pgx.CopyFromFunc(func() ([]any, error) { return nil, errors.New("the source breaks") })
	if _, err = connection.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"a", "b"}, broken); err == nil {
		must(errors.New("a broken source was taken"))
	}
	equal(value[int64](ctx, connection, "SELECT count(*) FROM copied"), 20000)
}

func transactions(ctx context.Context) {
	connections, closeAll := several(ctx, 2, plain)
	defer closeAll()
	connection := connections[0]
	_, err := connection.Exec(ctx, "CREATE TEMP TABLE saved (a int4 PRIMARY KEY)")
	must(err)
	tx, err := connection.Begin(ctx)
	must(err)
	_, err = tx.Exec(ctx, "INSERT INTO saved VALUES ($1)", 1)
	must(err)
	inner, err := tx.Begin(ctx)
	must(err)
	_, err = inner.Exec(ctx, "INSERT INTO saved VALUES ($1)", 1)
	equal(fails(err, "23505").ConstraintName, "saved_pkey")
	_, err = inner.Exec(ctx, "SELECT 1")
	fails(err, "25P02")
	must(inner.Rollback(ctx))
	_, err = tx.Exec(ctx, "INSERT INTO saved VALUES ($1)", 2)
	must(err)
	// A cursor of the transaction, while another connection works.
	_, err = tx.Exec(ctx, "DECLARE c CURSOR FOR SELECT generate_series(1, 100)")
	must(err)
	equal(value[int32](ctx, tx, "FETCH 1 FROM c"), 1)
	equal(value[int32](ctx, connections[1], "SELECT 1"), 1)
	equal(value[int32](ctx, tx, "FETCH 1 FROM c"), 2)
	must(tx.Commit(ctx))
	equal(value[int64](ctx, connection, "SELECT sum(a) FROM saved"), 3)
	_, err = connection.Exec(ctx, "SELEC $1", 1)
	fails(err, "42601")
	_, err = connection.Exec(ctx, "SELECT * FROM no_such WHERE a = $1", 1)
	fails(err, "42P01")
	equal(value[int32](ctx, connection, "SELECT $1::int4", 1), 1)
}

func cancels(ctx context.Context) {
	for _, more := range []string{plain, "sslmode=require"} {
		connections, closeAll := several(ctx, 2, more)
		for turn := 0; turn < 4; turn++ {
			done := make(chan error, 1)
			go func() {
				_, err := connections[0].Exec(ctx, "SELECT pg_sleep(30)")
				done <- err
			}()
			time.Sleep(100 * time.Millisecond)
			must(connections[0].PgConn().CancelRequest(ctx))
			fails(<-done, "57014")
			equal(value[int32](ctx, connections[0], "SELECT $1::int4", turn), int32(turn))
			equal(value[int32](ctx, connections[1], "SELECT $1::int4", turn), int32(turn))
		}
		closeAll()
	}
	// A context that ends closes the connection; its server must come back.
	for turn := 0; turn < 6; turn++ {
		connection := connect(ctx, "scram_user", plain)
		short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		if _, err := connection.Exec(short, "SELECT pg_sleep(30)"); err == nil {
			must(errors.New("the sleep went on"))
		}
		stop()
	}
}

func settings(ctx context.Context) {
	connections, closeAll := several(ctx, 6, plain)
	defer closeAll()
	one := connect(ctx, "scram_user", plain+" application_name=started timezone=Asia/Tokyo statement_timeout=4321")
	defer one.Close(ctx)
	_, err := one.Exec(ctx, "SET work_mem = '7MB'")
	must(err)
	show := func(connection *pgx.Conn) string {
		return value[string](ctx, connection, "SELECT concat_ws(' ', current_setting('timezone'), current_setting('work_mem'), current_setting('application_name'), current_setting('statement_timeout'))")
	}
	for turn := 0; turn < 5; turn++ {
		for _, each := range connections {
			if found := show(each); strings.Contains(found, "Tokyo") || strings.Contains(found, "7MB") || strings.Contains(found, "started") {
				must(fmt.Errorf("leaked: %s", found))
			}
		}
		equal(show(one), "Asia/Tokyo 7MB started 4321ms")
	}
}

func notifications(ctx context.Context) {
	connections, closeAll := several(ctx, 2, plain)
	defer closeAll()
	_, err := connections[0].Exec(ctx, "LISTEN pgx_channel")
	must(err)
	for n := 0; n < 3; n++ {
		_, err = connections[1].Exec(ctx, "SELECT pg_notify('pgx_channel', $1)", fmt.Sprint(n))
		must(err)
	}
	for n := 0; n < 3; n++ {
		notification, err := connections[0].WaitForNotification(ctx)
		must(err)
		equal(notification.Payload, fmt.Sprint(n))
	}
}

func pool(ctx context.Context) {
	config, err := pgxpool.ParseConfig(address("scram_user", plain+" pool_max_conns=20"))
	must(err)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	must(err)
	defer pool.Close()
	var wait sync.WaitGroup
	failed := make(chan error, 40)
	for worker := 0; worker < 40; worker++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for turn := 0; turn < 20; turn++ {
				wanted := fmt.Sprintf("%d/%d", worker, turn)
				err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
					var found string
					if err := tx.QueryRow(ctx, "SELECT $1::text", wanted).Scan(&found); err != nil {
						return err
					}
					if found != wanted {
						return fmt.Errorf("found %s instead of %s", found, wanted)
					}
					return nil
				})
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	wait.Wait()
	select {
	case err := <-failed:
		must(err)
	default:
	}
}

func restart(ctx context.Context) {
	connections, closeAll := several(ctx, 2, plain)
	defer closeAll()
	idle, busy := connections[0], connections[1]
	equal(value[int32](ctx, idle, "SELECT $1::int4", 1), 1)
	_, err := idle.Exec(ctx, "SET work_mem = '8MB'")
	must(err)
	_, err = busy.Exec(ctx, "BEGIN; SELECT 1")
	must(err)
	must(exec.Command(os.Getenv("RESTART_POSTGRES")).Run())
	if _, err = busy.Exec(ctx, "SELECT 1"); err == nil {
		must(errors.New("a transaction outlived its server"))
	}
	equal(value[int32](ctx, idle, "SELECT $1::int4", 2), 2)
	equal(value[string](ctx, idle, "SHOW work_mem"), "8MB")
	again := connect(ctx, "scram_user", plain)
	equal(value[int32](ctx, again, "SELECT 1"), 1)
	again.Close(ctx)
}

func main() {
	tests := []struct {
		name string
		run  func(context.Context)
	}{
		{"every way to log in works", everyWayToLogIn},
		{"every exec mode works on interleaved connections", everyExecModeInterleaved},
		{"statements beyond the cache are deallocated", smallCaches},
		{"a prepared statement sees a changed table", changedTable},
		{"batches and pipelines are answered in order", batches},
		{"copy goes both ways and survives errors", copies},
		{"transactions, errors and savepoints leave the state of Postgres", transactions},
		{"a cancel ends the sleep and nothing else", cancels},
		{"settings stay with their session", settings},
		{"notifications reach a listening session", notifications},
		{"the driver's pool shares few servers", pool},
		{"sessions go on after a restart of the server", restart},
	}
	status := 0
	for _, test := range tests {
		if len(os.Args) > 1 && !strings.Contains(test.name, os.Args[1]) {
			continue
		}
		func() {
			ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
			defer stop()
			defer func() {
				if caught := recover(); caught != nil {
					fmt.Printf("FAIL %s: %v\n", test.name, caught)
					if _, expected := caught.(failure); !expected {
						panic(caught)
					}
					status = 1
				}
			}()
			test.run(ctx)
			fmt.Println("ok", test.name)
		}()
	}
	os.Exit(status)
}
