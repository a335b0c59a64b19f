import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/** pgjdbc: its threshold for named statements, fetch sizes, batches, COPY and autosave through the proxy. */
public final class Suite {
    private interface Test {
        void run() throws Exception;
    }

    private static final String PORT = System.getenv("PGDOG_PORT");

    private static Connection connect(String user, String... more) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", user);
        if (!user.equals("trust_user")) properties.setProperty("password", user.replace("_user", " secret"));
        properties.setProperty("sslmode", "disable");
        properties.setProperty("loginTimeout", "10");
        properties.setProperty("prepareThreshold", "2");
        for (int at = 0; at < more.length; at += 2) properties.setProperty(more[at], more[at + 1]);
        return DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + PORT + "/drivers", properties);
    }

    private static Connection connect() throws SQLException {
        return connect("scram_user");
    }

    private static String value(Connection connection, String query, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            for (int at = 0; at < parameters.length; at++) statement.setObject(at + 1, parameters[at]);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                return rows.getString(1);
            }
        }
    }

    private static void execute(Connection connection, String query) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(query);
        }
    }

    private static void equal(Object found, Object wanted) {
        if (!found.equals(wanted)) throw new AssertionError("found " + found + " instead of " + wanted);
    }

    private static void fails(String state, Test test) throws Exception {
        try {
            test.run();
        } catch (SQLException error) {
            if (state == null || state.equals(error.getSQLState())) return;
            throw error;
        }
        throw new AssertionError("an error " + state + " was expected");
    }

    private static List<Connection> several(int count) throws SQLException {
        List<Connection> connections = new ArrayList<>();
        for (int n = 0; n < count; n++) connections.add(connect());
        return connections;
    }

    private static void close(List<Connection> connections) throws SQLException {
        for (Connection each : connections) each.close();
    }

    private static void everyWayToLogIn() throws Exception {
        for (String user : List.of("scram_user", "md5_user", "trust_user")) {
            try (Connection connection = connect(user)) {
                equal(value(connection, "SELECT current_user"), user);
            }
        }
        for (String user : List.of("scram_user", "md5_user", "trust_user", "plain_user")) {
            try (Connection connection = connect(user, "sslmode", "verify-full", "sslrootcert", System.getenv("PGDOG_CA"))) {
                equal(value(connection, "SELECT current_user"), user);
            }
        }
        fails("28P01", () -> connect("scram_user", "password", "wrong"));
        fails("28P01", () -> connect("md5_user", "password", "wrong"));
    }

    private static void preparedStatements() throws Exception {
        for (String mode : List.of("extended", "extendedForPrepared", "extendedCacheEverything", "simple")) {
            List<Connection> connections = new ArrayList<>();
            List<PreparedStatement> statements = new ArrayList<>();
            for (int at = 0; at < 8; at++) {
                connections.add(connect("scram_user", "preferQueryMode", mode));
                statements.add(connections.get(at).prepareStatement("SELECT ?::int * 1000 + " + at));
            }
            for (int turn = 0; turn < 20; turn++) {
                for (int at = 0; at < 8; at++) {
                    statements.get(at).setInt(1, turn);
                    try (ResultSet rows = statements.get(at).executeQuery()) {
                        rows.next();
                        equal(rows.getInt(1), turn * 1000 + at);
                    }
                    equal(value(connections.get(at), "SELECT ?::text", "of " + at), "of " + at);
                }
            }
            close(connections);
        }
    }

    private static void changedTable() throws Exception {
        List<Connection> connections = several(2);
        execute(connections.get(0), "DROP TABLE IF EXISTS jdbc_changed");
        execute(connections.get(0), "CREATE TABLE jdbc_changed (a int)");
        execute(connections.get(0), "INSERT INTO jdbc_changed VALUES (1)");
        for (int turn = 0; turn < 5; turn++) {
            for (Connection each : connections) equal(value(each, "SELECT * FROM jdbc_changed WHERE a = ?", 1), "1");
        }
        execute(connections.get(0), "ALTER TABLE jdbc_changed ALTER a TYPE text");
        for (int turn = 0; turn < 5; turn++) {
            for (Connection each : connections) equal(value(each, "SELECT * FROM jdbc_changed WHERE a::int = ?", 1), "1");
        }
        execute(connections.get(0), "DROP TABLE jdbc_changed");
        close(connections);
    }

    private static void batches() throws Exception {
        try (Connection connection = connect("scram_user", "reWriteBatchedInserts", "true")) {
            execute(connection, "CREATE TEMP TABLE batch (a int PRIMARY KEY, b text)");
            connection.setAutoCommit(false);
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO batch VALUES (?, ?)")) {
                for (int n = 0; n < 2000; n++) {
                    insert.setInt(1, n);
                    insert.setString(2, "t" + n);
                    insert.addBatch();
                }
                equal(insert.executeBatch().length, 2000);
                connection.commit();
                insert.setInt(1, 1);
                insert.setString(2, "again");
                insert.addBatch();
                fails("23505", insert::executeBatch);
                connection.rollback();
            }
            try (PreparedStatement update = connection.prepareStatement("UPDATE batch SET b = ? WHERE a = ? RETURNING a", Statement.RETURN_GENERATED_KEYS)) {
                for (int n = 0; n < 200; n++) {
                    update.setString(1, "x");
                    update.setInt(2, n);
                    update.addBatch();
                }
                update.executeBatch();
            }
            connection.commit();
            equal(value(connection, "SELECT count(*) FROM batch WHERE b = 'x'"), "200");
            connection.commit();
        }
    }

    private static void fetchSizes() throws Exception {
        try (Connection connection = connect(); Connection other = connect()) {
            connection.setAutoCommit(false);
            try (PreparedStatement statement = connection.prepareStatement("SELECT generate_series(1, 1000)")) {
                statement.setFetchSize(50);
                for (int turn = 0; turn < 4; turn++) {
                    int sum = 0;
                    try (ResultSet rows = statement.executeQuery()) {
                        while (rows.next()) {
                            sum += rows.getInt(1);
                            if (sum % 100 == 0) value(other, "SELECT 1");
                        }
                    }
                    equal(sum, 500500);
                    connection.commit();
                }
            }
        }
    }

    private static void copies() throws Exception {
        try (Connection connection = connect()) {
            execute(connection, "CREATE TEMP TABLE copied (a int PRIMARY KEY, b text)");
            var copies = connection.unwrap(PGConnection.class).getCopyAPI();
            String rows = IntStream.range(0, 20000).mapToObj(n -> n + "\trow " + n + "\n").collect(Collectors.joining());
            equal(copies.copyIn("COPY copied FROM STDIN", new StringReader(rows)), 20000L);
            StringWriter out = new StringWriter();
            copies.copyOut("COPY (SELECT * FROM copied ORDER BY a) TO STDOUT", out);
            equal(out.toString(), rows);
            fails("23505", () -> copies.copyIn("COPY copied FROM STDIN", new StringReader("1\tagain\n")));
            var given = copies.copyIn("COPY copied FROM STDIN");
            given.cancelCopy();
            equal(value(connection, "SELECT count(*) FROM copied"), "20000");
        }
    }

    private static void transactions() throws Exception {
        try (Connection connection = connect()) {
            execute(connection, "CREATE TEMP TABLE saved (a int PRIMARY KEY)");
            connection.setAutoCommit(false);
            execute(connection, "INSERT INTO saved VALUES (1)");
            Savepoint savepoint = connection.setSavepoint("one");
            fails("23505", () -> execute(connection, "INSERT INTO saved VALUES (1)"));
            fails("25P02", () -> execute(connection, "SELECT 1"));
            connection.rollback(savepoint);
            execute(connection, "INSERT INTO saved VALUES (2)");
            connection.commit();
            execute(connection, "DELETE FROM saved");
            connection.rollback();
            equal(value(connection, "SELECT sum(a) FROM saved"), "3");
            connection.rollback();
            fails("42601", () -> execute(connection, "SELEC 1"));
            connection.rollback();
            connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            connection.setReadOnly(true);
            equal(value(connection, "SHOW transaction_isolation"), "serializable");
            fails("25006", () -> execute(connection, "CREATE TABLE never (a int)"));
            connection.rollback();
        }
        try (Connection connection = connect("scram_user", "autosave", "always")) {
            connection.setAutoCommit(false);
            for (int turn = 0; turn < 5; turn++) {
                equal(value(connection, "SELECT ?::int", turn), String.valueOf(turn));
                fails("22012", () -> value(connection, "SELECT 1 / ?::int", 0));
            }
            connection.commit();
        }
    }

    private static void cancels() throws Exception {
        for (String mode : List.of("disable", "require")) {
            try (Connection connection = connect("scram_user", "sslmode", mode); Statement statement = connection.createStatement()) {
                for (int turn = 0; turn < 4; turn++) {
                    var timer = CompletableFuture.runAsync(() -> {
                        try {
                            statement.cancel();
                        } catch (SQLException error) {
                            throw new IllegalStateException(error);
                        }
                    }, CompletableFuture.delayedExecutor(150, TimeUnit.MILLISECONDS));
                    fails("57014", () -> statement.execute("SELECT pg_sleep(30)"));
                    timer.get();
                    equal(value(connection, "SELECT 1"), "1");
                }
                statement.setQueryTimeout(1);
                fails("57014", () -> statement.execute("SELECT pg_sleep(30)"));
                equal(value(connection, "SELECT 1"), "1");
            }
        }
    }

    private static void settings() throws Exception {
        List<Connection> others = several(5);
        try (Connection one = connect("scram_user", "ApplicationName", "started", "options", "-c work_mem=7MB", "currentSchema", "pg_catalog")) {
            execute(one, "SET TIME ZONE 'Asia/Tokyo'");
            for (int turn = 0; turn < 5; turn++) {
                for (Connection other : others) {
                    equal(value(other, "SHOW work_mem"), "4MB");
                    equal(value(other, "SHOW application_name"), "PostgreSQL JDBC Driver");
                    equal(value(other, "SHOW search_path"), "\"$user\", public");
                }
                equal(value(one, "SHOW work_mem"), "7MB");
                equal(value(one, "SHOW application_name"), "started");
                equal(value(one, "SHOW search_path"), "pg_catalog");
                equal(value(one, "SHOW timezone"), "Asia/Tokyo");
            }
            one.setClientInfo("ApplicationName", "renamed");
            equal(value(one, "SHOW application_name"), "renamed");
            one.setSchema("public");
            equal(value(one, "SHOW search_path"), "'public'".replace("'", ""));
        }
        close(others);
    }

    private static void notifications() throws Exception {
        try (Connection listener = connect(); Connection speaker = connect()) {
            execute(listener, "LISTEN jdbc_channel");
            for (int n = 0; n < 3; n++) execute(speaker, "NOTIFY jdbc_channel, '" + n + "'");
            List<String> seen = new ArrayList<>();
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
            while (seen.size() < 3 && System.nanoTime() < end) {
                PGNotification[] found = listener.unwrap(PGConnection.class).getNotifications(500);
                if (found != null) for (PGNotification each : found) seen.add(each.getParameter());
            }
            equal(seen, List.of("0", "1", "2"));
        }
    }

    private static void metadata() throws Exception {
        try (Connection connection = connect()) {
            execute(connection, "CREATE TEMP TABLE described (a int PRIMARY KEY, b text NOT NULL)");
            try (ResultSet columns = connection.getMetaData().getColumns(null, null, "described", null)) {
                List<String> names = new ArrayList<>();
                while (columns.next()) names.add(columns.getString("COLUMN_NAME"));
                equal(names, List.of("a", "b"));
            }
            try (PreparedStatement statement = connection.prepareStatement("SELECT ?::int AS a, ?::text AS b")) {
                equal(statement.getMetaData().getColumnCount(), 2);
                equal(statement.getParameterMetaData().getParameterTypeName(2), "text");
            }
        }
    }

    private static void manyClients() throws Exception {
        List<CompletableFuture<Void>> all = new ArrayList<>();
        for (int worker = 0; worker < 20; worker++) {
            int me = worker;
            CompletableFuture<Void> done = new CompletableFuture<>();
            all.add(done);
            new Thread(() -> {
                try (Connection connection = connect()) {
                    connection.setAutoCommit(false);
                    for (int turn = 0; turn < 20; turn++) {
                        equal(value(connection, "SELECT ?::text", me + "/" + turn), me + "/" + turn);
                        connection.commit();
                    }
                    done.complete(null);
                } catch (Throwable error) {
                    done.completeExceptionally(error);
                }
            }).start();
        }
        for (CompletableFuture<Void> each : all) each.get(25, TimeUnit.SECONDS);
    }

    private static void restart() throws Exception {
        try (Connection idle = connect(); Connection busy = connect()) {
            for (int turn = 0; turn < 4; turn++) equal(value(idle, "SELECT ?::int", 1), "1");
            execute(idle, "SET work_mem = '8MB'");
            busy.setAutoCommit(false);
            execute(busy, "SELECT 1");
            equal(new ProcessBuilder(System.getenv("RESTART_POSTGRES")).inheritIO().start().waitFor(), 0);
            fails(null, () -> execute(busy, "SELECT 1"));
            equal(busy.isValid(5), false);
            equal(value(idle, "SELECT ?::int", 1), "1");
            equal(value(idle, "SHOW work_mem"), "8MB");
        }
        try (Connection again = connect()) {
            equal(value(again, "SELECT 1"), "1");
        }
    }

    private static boolean test(String name, Test test) {
        CompletableFuture<Void> done = new CompletableFuture<>();
        Thread thread = new Thread(() -> {
            try {
                test.run();
                done.complete(null);
            } catch (Throwable error) {
                done.completeExceptionally(error);
            }
        });
        thread.setDaemon(true);
        thread.start();
        try {
            done.get(30, TimeUnit.SECONDS);
            System.out.println("ok " + name);
            return true;
        } catch (Exception error) {
            Throwable cause = error.getCause() == null ? error : error.getCause();
            System.out.println("FAIL " + name + ": " + cause);
            cause.printStackTrace(System.out);
            return false;
        }
    }

    /** Runs all tests. */
    public static void main(String[] arguments) {
        boolean good = test("every way to log in works", Suite::everyWayToLogIn);
        good &= test("every query mode works on interleaved connections", Suite::preparedStatements);
        good &= test("a prepared statement sees a changed table", Suite::changedTable);
        good &= test("batches arrive", Suite::batches);
        good &= test("a fetch size reads in parts", Suite::fetchSizes);
        good &= test("copy goes both ways and survives errors", Suite::copies);
        good &= test("transactions, errors and savepoints leave the state of Postgres", Suite::transactions);
        good &= test("cancels and query timeouts end the sleep and nothing else", Suite::cancels);
        good &= test("settings stay with their session", Suite::settings);
        good &= test("notifications reach a listening session", Suite::notifications);
        good &= test("statements and tables are described", Suite::metadata);
        good &= test("many clients share few servers", Suite::manyClients);
        good &= test("sessions go on after a restart of the server", Suite::restart);
        System.exit(good ? 0 : 1);
    }
}
