import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Array;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Struct;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Calendar;
import java.util.Collections;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TimeZone;
import java.util.concurrent.FutureTask;

/** What a JDBC client sees of the gateway, one JSON value a line, for the tests to judge: Probe COMMAND URL ARGUMENT... */
public final class Probe {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        for (String name : List.of("user", "password")) {
            String value = System.getenv("PROBE_" + name.toUpperCase());
            if (value != null) {
                properties.setProperty(name, value);
            }
        }
        List<String> rest = Arrays.asList(arguments).subList(2, arguments.length);
        Connection connection = DriverManager.getConnection(arguments[1], properties);
        run(arguments[0], connection, () -> DriverManager.getConnection(arguments[1], properties), rest);
        try {
            connection.close();
        } catch (SQLException error) {
            // After `catalog=` in the URL this driver closes its channel first and its session then.
            System.err.println("close: " + error.getMessage());
        }
    }

    /** Makes another connection like the first. */
    private interface Opened {
        Connection open() throws SQLException;
    }

    private static void run(String command, Connection connection, Opened other, List<String> rest) throws Exception {
        switch (command) {
            case "files" -> {
                for (String file : rest) {
                    print(Path.of(file).getFileName().toString(), query(connection, Files.readString(Path.of(file))));
                }
            }
            case "query" -> {
                for (String sql : rest) {
                    print(sql, attempt(() -> query(connection, sql)));
                }
            }
            case "update" -> {
                for (String sql : rest) {
                    print(sql, attempt(() -> update(connection, sql)));
                }
            }
            case "types" -> {
                for (String sql : rest) {
                    print(sql, attempt(() -> types(connection, sql)));
                }
            }
            case "prepared" -> prepared(connection);
            case "cast" -> cast(connection, rest);
            case "writes" -> writes(connection);
            case "batch" -> batch(connection);
            case "transactions" -> transactions(connection, other);
            case "metadata" -> metadata(connection.getMetaData());
            case "listing" -> listing(connection.getMetaData(), rest.get(0), rest.get(1), rest.get(2));
            case "cancel" -> print("cancel", cancel(connection, rest.get(0), Integer.parseInt(rest.get(1)), rest.contains("watched")));
            case "ask" -> print("ask", ask(connection, rest.get(0), Integer.parseInt(rest.get(1))));
            case "answer" -> answer(connection);
            case "follow" -> follow(connection, rest.get(0));
            case "visit" -> visit(other, rest);
            case "load" -> print("load", Load.run(rest));
            default -> throw new IllegalArgumentException(command);
        }
    }

    private static Map<String, Object> query(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            return table(rows);
        }
    }

    /** The columns and the rows, each value as `getObject` gives it, and an end of the result set. */
    private static Map<String, Object> table(ResultSet open) throws SQLException {
        try (ResultSet rows = open) {
            return read(rows);
        }
    }

    private static Map<String, Object> read(ResultSet rows) throws SQLException {
        ResultSetMetaData about = rows.getMetaData();
        List<Object> columns = new ArrayList<>();
        for (int i = 1; i <= about.getColumnCount(); i++) {
            columns.add(column(about, i));
        }
        List<Object> values = new ArrayList<>();
        while (rows.next()) {
            List<Object> row = new ArrayList<>();
            for (int i = 1; i <= about.getColumnCount(); i++) {
                row.add(text(rows.getObject(i)));
            }
            values.add(row);
        }
        return map("columns", columns, "rows", values);
    }

    private static Map<String, Object> column(ResultSetMetaData about, int i) throws SQLException {
        return map("name", about.getColumnLabel(i), "type", about.getColumnType(i), "typeName", about.getColumnTypeName(i),
            "precision", about.getPrecision(i), "scale", about.getScale(i), "nullable", about.isNullable(i));
    }

    /** Each value of each row by every getter that a client may choose: a getter that fails is an object with its error. */
    private static List<Object> types(Connection connection, String sql) throws SQLException {
        List<Object> all = new ArrayList<>();
        Calendar utc = Calendar.getInstance(TimeZone.getTimeZone("UTC"));
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            ResultSetMetaData about = rows.getMetaData();
            for (int number = 0; rows.next(); number++) {
                for (int i = 1; i <= about.getColumnCount(); i++) {
                    int at = i;
                    Map<String, Object> seen = column(about, i);
                    seen.put("row", number);
                    seen.put("object", attempt(() -> text(rows.getObject(at))));
                    seen.put("class", attempt(() -> rows.getObject(at) == null ? null : rows.getObject(at).getClass().getName()));
                    seen.put("string", attempt(() -> rows.getString(at)));
                    seen.put("wasNull", attempt(() -> rows.getObject(at) == null == rows.wasNull()));
                    seen.put("boolean", attempt(() -> text(rows.getBoolean(at))));
                    seen.put("int", attempt(() -> text(rows.getInt(at))));
                    seen.put("long", attempt(() -> text(rows.getLong(at))));
                    seen.put("float", attempt(() -> text(rows.getFloat(at))));
                    seen.put("double", attempt(() -> text(rows.getDouble(at))));
                    seen.put("decimal", attempt(() -> text(rows.getBigDecimal(at))));
                    seen.put("bytes", attempt(() -> text(rows.getBytes(at))));
                    seen.put("date", attempt(() -> text(rows.getDate(at))));
                    seen.put("time", attempt(() -> text(rows.getTime(at))));
                    seen.put("timestamp", attempt(() -> text(rows.getTimestamp(at))));
                    seen.put("timestampUtc", attempt(() -> text(rows.getTimestamp(at, utc).toInstant())));
                    seen.put("array", attempt(() -> text(rows.getArray(at))));
                    all.add(seen);
                }
            }
        }
        return all;
    }

    /** What each way to write gives, in the table that the tests look at from elsewhere. */
    private static void writes(Connection connection) throws Exception {
        String table = "demo.main.by_jdbc";
        print("drop", attempt(() -> update(connection, "drop table if exists " + table)));
        print("create", attempt(() -> update(connection, "create table " + table + " (id bigint, name varchar, price decimal(10, 2), day date)")));
        print("insert", attempt(() -> update(connection, "insert into " + table + " values (1, 'one', 1.5, date '2024-02-29'), (2, 'two', null, null)")));
        String insert = "insert into " + table + " values (?, ?, ?, ?)";
        print("prepared", attempt(() -> {
            try (PreparedStatement statement = connection.prepareStatement(insert)) {
                row(statement, 3, "three", new BigDecimal("3.25"), Date.valueOf("2024-03-01"));
                return statement.executeUpdate();
            }
        }));
        print("batch", attempt(() -> {
            try (PreparedStatement statement = connection.prepareStatement(insert)) {
                for (int id = 10; id < 15; id++) {
                    row(statement, id, id % 2 == 0 ? "even" : null, new BigDecimal(id + ".50"), null);
                    statement.addBatch();
                }
                List<Object> counts = new ArrayList<>();
                for (int count : statement.executeBatch()) {
                    counts.add(count);
                }
                return counts;
            }
        }));
        print("execute", attempt(() -> {
            try (Statement statement = connection.createStatement()) {
                boolean hasRows = statement.execute("update " + table + " set name = 'odd' where name is null");
                return map("hasRows", hasRows, "count", statement.getUpdateCount());
            }
        }));
        print("delete", attempt(() -> update(connection, "delete from " + table + " where id >= 13")));
        print("twice", attempt(() -> update(connection, "create table " + table + " (id bigint)")));
        print("rows", attempt(() -> query(connection, "select * from " + table + " order by id").get("rows")));
        String made = "demo.main.made_by_jdbc";
        print("drop made", attempt(() -> update(connection, "drop table if exists " + made)));
        print("failing", attempt(() -> update(connection, "create table " + made + " as select 1 / (id - 2) as n from " + table)));
        print("as", attempt(() -> update(connection, "create table " + made + " as select id, name from " + table)));
        print("replace", attempt(() -> update(connection, "create or replace table " + made + " as select id from " + table + " where id < 3")));
        print("failing replace", attempt(() -> update(connection, "create or replace table " + made + " as select 1 / (id - 2) as n from " + table)));
        print("made", attempt(() -> query(connection, "select * from " + made + " order by id").get("rows")));
        print("temporary", attempt(() -> update(connection, "create temporary table of_jdbc as select id from " + made)));
        print("append", attempt(() -> update(connection, "insert into of_jdbc values (7)")));
        print("of session", attempt(() -> query(connection, "select * from of_jdbc order by id").get("rows")));
    }

    /** A batch of a value and a NULL of every type that this driver binds. */
    private static void batch(Connection connection) throws Exception {
        update(connection, "create table batch (" + String.join(", ", EVERY.keySet()) + ")");
        String places = String.join(", ", Collections.nCopies(EVERY.size(), "?"));
        try (PreparedStatement statement = connection.prepareStatement("insert into batch values (" + places + ")")) {
            int at = 0;
            for (Setter setter : EVERY.values()) {
                setter.set(statement, ++at);
            }
            statement.addBatch();
            for (; at > 0; at--) {
                statement.setNull(at, Types.NULL);
            }
            statement.addBatch();
            print("counts", text(Arrays.stream(statement.executeBatch()).boxed().toList()));
        }
    }

    private static final Map<String, Setter> EVERY = new LinkedHashMap<>();

    static {
        EVERY.put("a boolean", (s, at) -> s.setBoolean(at, true));
        EVERY.put("b tinyint", (s, at) -> s.setByte(at, (byte) -128));
        EVERY.put("c smallint", (s, at) -> s.setShort(at, (short) -32768));
        EVERY.put("d int", (s, at) -> s.setInt(at, Integer.MIN_VALUE));
        EVERY.put("e bigint", (s, at) -> s.setLong(at, Long.MIN_VALUE));
        EVERY.put("f real", (s, at) -> s.setFloat(at, 1.5f));
        EVERY.put("g double", (s, at) -> s.setDouble(at, 5e-324));
        EVERY.put("h decimal(38, 9)", (s, at) -> s.setBigDecimal(at, new BigDecimal("-12345678901234567890123456789.000000001")));
        EVERY.put("i varchar", (s, at) -> s.setString(at, "中文 é 😀"));
        EVERY.put("j bytea", (s, at) -> s.setBytes(at, new byte[] {0, 1, -1}));
        EVERY.put("k date", (s, at) -> s.setDate(at, Date.valueOf("2024-02-29")));
        EVERY.put("l time", (s, at) -> s.setTime(at, java.sql.Time.valueOf("12:34:56")));
        EVERY.put("m timestamp", (s, at) -> s.setTimestamp(at, Timestamp.valueOf("2026-02-28 23:59:59.123")));
        EVERY.put("n bigint[]", (s, at) -> s.setObject(at, Arrays.asList(1L, null, Long.MAX_VALUE)));
        EVERY.put("o varchar[]", (s, at) -> s.setArray(at, s.getConnection().createArrayOf("VARCHAR", new Object[] {"a", null, ""})));
        EVERY.put("p timestamptz", (s, at) -> s.setTimestamp(at, Timestamp.valueOf("2026-02-28 23:59:59.123")));
    }


    /** What a transaction by SQL shows itself and another connection. */
    private static void transactions(Connection connection, Opened opened) throws Exception {
        String table = "demo.main.by_jdbc";
        update(connection, "drop table if exists " + table);
        update(connection, "create table " + table + " (id bigint)");
        String all = "select id from " + table + " order by id";
        try (Connection other = opened.open(); PreparedStatement insert = connection.prepareStatement("insert into " + table + " values (?)")) {
            print("begin", update(connection, "BEGIN"));
            insert.setLong(1, 1);
            print("insert", insert.executeUpdate());
            print("within", query(connection, all).get("rows"));
            print("without", query(other, all).get("rows"));
            update(connection, "SAVEPOINT s");
            update(connection, "insert into " + table + " values (2)");
            print("marked", query(connection, all).get("rows"));
            update(connection, "ROLLBACK TO SAVEPOINT s");
            print("back", query(connection, all).get("rows"));
            print("again", attempt(() -> update(connection, "BEGIN")));
            update(connection, "COMMIT");
            print("committed", query(other, all).get("rows"));
            try (Statement statement = connection.createStatement()) {
                statement.execute("START TRANSACTION");
            }
            update(connection, "insert into " + table + " values (3)");
            update(connection, "ROLLBACK");
            print("rolledBack", query(connection, all).get("rows"));
            insert.setLong(1, 4);
            insert.executeUpdate();
            print("alone", query(other, all).get("rows"));
        }
    }

    private static int update(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            return statement.executeUpdate(sql);
        }
    }

    private static void row(PreparedStatement statement, long id, String name, BigDecimal price, Date day) throws SQLException {
        statement.setLong(1, id);
        statement.setString(2, name);
        statement.setBigDecimal(3, price);
        statement.setDate(4, day);
    }

    private static final List<String> NULLS = List.of("boolean", "tinyint", "smallint", "int", "bigint", "real", "double", "decimal(38, 9)",
        "varchar", "bytea", "date", "time", "timestamp", "timestamptz", "interval", "bigint[]");
    /** Values of the types that this driver has no way to bind. */
    private static final Map<String, String> UNBOUND = Map.of("interval", "interval '1 day'", "duration", "arrow_cast(90, 'Duration(s)')",
        "struct", "named_struct('a', 1)", "map", "map(['a'], [1])");

    private static void prepared(Connection connection) throws Exception {
        bound(connection, "int", "select n_name from nation where n_nationkey = ?", s -> s.setInt(1, 7));
        bound(connection, "long", "select n_name from nation where n_nationkey = ?", s -> s.setLong(1, 7L));
        bound(connection, "string", "select n_nationkey from nation where n_name = ?", s -> s.setString(1, "GERMANY"));
        bound(connection, "quote", "select count(*) from nation where n_name = ?", s -> s.setString(1, "x' or '1'='1"));
        bound(connection, "unicode", "select cast(? as varchar) as v", s -> s.setString(1, "中文 é 😀"));
        bound(connection, "decimal", "select count(*) from lineitem where l_discount = ?", s -> s.setBigDecimal(1, new BigDecimal("0.05")));
        bound(connection, "double", "select cast(? as double) * 2 as v", s -> s.setDouble(1, 1.25));
        bound(connection, "date", "select count(*) from orders where o_orderdate < ?", s -> s.setDate(1, Date.valueOf("1995-01-01")));
        bound(connection, "timestamp", "select cast(? as timestamp) as v", s -> s.setTimestamp(1, Timestamp.valueOf("2026-02-28 23:59:59.5")));
        bound(connection, "cut", "select cast(? as timestamp) as v", s -> s.setTimestamp(1, Timestamp.valueOf("2026-02-28 23:59:59.123456")));
        bound(connection, "whole", "select cast(cast(? as varchar) as timestamp) as v", s -> s.setString(1, "2026-02-28 23:59:59.123456"));
        bound(connection, "time", "select cast(? as time) as v", s -> s.setTime(1, java.sql.Time.valueOf("12:34:56")));
        bound(connection, "boolean", "select not cast(? as boolean) as v", s -> s.setBoolean(1, true));
        bound(connection, "null", "select cast(? as bigint) is null as v", s -> s.setNull(1, Types.BIGINT));
        bound(connection, "byte", "select cast(? as tinyint) as v", s -> s.setByte(1, (byte) -5));
        bound(connection, "short", "select cast(? as smallint) as v", s -> s.setShort(1, (short) -300));
        bound(connection, "float", "select cast(? as real) as v", s -> s.setFloat(1, 1.5f));
        bound(connection, "bytes", "select encode(cast(? as bytea), 'hex') as v", s -> s.setBytes(1, new byte[] {0, 1, -1}));
        bound(connection, "exact", "select cast(? as decimal(20, 3)) as v", s -> s.setBigDecimal(1, new BigDecimal("12345678901234567.125")));
        bound(connection, "object", "select cast(? as varchar) || cast(? as varchar) as v", s -> { s.setObject(1, "a"); s.setObject(2, "b"); });
        bound(connection, "zoned", "select cast(? as timestamptz) = timestamptz '2026-02-28 23:59:59Z' as v", s -> s.setTimestamp(1, Timestamp.valueOf("2026-02-28 23:59:59")));
        bound(connection, "list", "select cast(? as bigint[]) as v", s -> s.setObject(1, Arrays.asList(1L, null, 3L)));
        bound(connection, "array", "select cast(? as varchar[]) as v", s -> s.setArray(1, connection.createArrayOf("VARCHAR", new Object[] {"a", null, ""})));
        for (Map.Entry<String, String> each : UNBOUND.entrySet()) {
            String sql = "select v from (select " + each.getValue() + " as v) where v = ?";
            bound(connection, "unbound " + each.getKey(), sql, s -> s.setObject(1, 1L));
            bound(connection, "unbound NULL " + each.getKey(), sql, s -> s.setNull(1, Types.NULL));
        }
        for (String type : NULLS) {
            bound(connection, "null " + type, "select cast(? as " + type + ") is null as v", s -> s.setNull(1, Types.NULL));
        }
        bound(connection, "two", "select count(*) from orders where o_orderkey between ? and ?", s -> { s.setLong(1, 1); s.setLong(2, 100); });
        bound(connection, "text", "select '?' as q, \"n_name\" from nation -- ?\nwhere n_nationkey = ? /* ? */", s -> s.setInt(1, 0));
        bound(connection, "limit", "select n_nationkey from nation order by n_nationkey limit ?", s -> s.setLong(1, 2));
        bound(connection, "in", "select n_nationkey from nation where n_name in (?, ?) order by 1", s -> { s.setString(1, "FRANCE"); s.setString(2, "CHINA"); });
        try (PreparedStatement again = connection.prepareStatement("select n_name from nation where n_nationkey = ?")) {
            List<Object> names = new ArrayList<>();
            for (int key = 0; key < 3; key++) {
                again.setInt(1, key);
                try (ResultSet rows = again.executeQuery()) {
                    names.add(table(rows).get("rows"));
                }
            }
            print("again", names);
            print("parameters", map("count", again.getParameterMetaData().getParameterCount(),
                "type", again.getParameterMetaData().getParameterTypeName(1), "columns", again.getMetaData().getColumnCount()));
        }
    }

    /** A text and NULL as the parameter of an expression, and the type that it has then: EXPRESSION TEXT for each. */
    private static void cast(Connection connection, List<String> rest) {
        for (int at = 0; at < rest.size(); at += 2) {
            String cast = rest.get(at);
            String text = rest.get(at + 1);
            String sql = "select v, arrow_typeof(v) as t from (select " + cast + " as v)";
            bound(connection, cast, sql, s -> s.setString(1, text));
            bound(connection, "NULL " + cast, sql, s -> s.setNull(1, Types.NULL));
        }
    }

    private static void bound(Connection connection, String name, String sql, Binding binding) {
        print(name, attempt(() -> {
            try (PreparedStatement statement = connection.prepareStatement(sql)) {
                binding.bind(statement);
                try (ResultSet rows = statement.executeQuery()) {
                    return table(rows).get("rows");
                }
            }
        }));
    }

    /** Every method of DatabaseMetaData: those without arguments by reflection, the listings with theirs. */
    private static void metadata(DatabaseMetaData about) throws Exception {
        for (Method method : DatabaseMetaData.class.getMethods()) {
            if (method.getParameterCount() == 0 && method.getDeclaringClass() == DatabaseMetaData.class) {
                print(method.getName() + "()", attempt(() -> plain(invoke(method, about))));
            }
        }
        for (int level : new int[] {0, 1, 2, 4, 8}) {
            print("supportsTransactionIsolationLevel(" + level + ")", attempt(() -> about.supportsTransactionIsolationLevel(level)));
        }
        for (int kind : new int[] {ResultSet.TYPE_FORWARD_ONLY, ResultSet.TYPE_SCROLL_INSENSITIVE}) {
            print("supportsResultSetType(" + kind + ")", attempt(() -> about.supportsResultSetType(kind)));
        }
        print("supportsConvert", attempt(() -> about.supportsConvert(Types.INTEGER, Types.VARCHAR)));
        print("getSchemas", attempt(() -> table(about.getSchemas("tpch", "%"))));
        print("getTables", attempt(() -> table(about.getTables("tpch", "main", "%", null))));
        print("getTables typed", attempt(() -> table(about.getTables("tpch", null, "line%", new String[] {"TABLE", "BASE TABLE"}))));
        print("getTables none", attempt(() -> table(about.getTables("tpch", "main", "no_such_table", null))));
        print("getColumns", attempt(() -> table(about.getColumns("tpch", "main", "orders", "%"))));
        print("getColumns one", attempt(() -> table(about.getColumns("tpch", "main", "%", "l_ship%"))));
        print("getPrimaryKeys", attempt(() -> table(about.getPrimaryKeys("tpch", "main", "partsupp"))));
        print("getImportedKeys", attempt(() -> table(about.getImportedKeys("tpch", "main", "lineitem"))));
        print("getExportedKeys", attempt(() -> table(about.getExportedKeys("tpch", "main", "orders"))));
        print("getCrossReference", attempt(() -> table(about.getCrossReference("tpch", "main", "region", "tpch", "main", "nation"))));
        print("getIndexInfo", attempt(() -> table(about.getIndexInfo("tpch", "main", "orders", false, true))));
        print("getProcedures", attempt(() -> table(about.getProcedures("tpch", "main", "%"))));
        print("getFunctions", attempt(() -> table(about.getFunctions("tpch", "main", "%"))));
        print("getUDTs", attempt(() -> table(about.getUDTs("tpch", "main", "%", null))));
        print("getBestRowIdentifier", attempt(() -> table(about.getBestRowIdentifier("tpch", "main", "orders", 0, true))));
        print("getVersionColumns", attempt(() -> table(about.getVersionColumns("tpch", "main", "orders"))));
        print("getTablePrivileges", attempt(() -> table(about.getTablePrivileges("tpch", "main", "orders"))));
        print("getColumnPrivileges", attempt(() -> table(about.getColumnPrivileges("tpch", "main", "orders", "%"))));
        print("getSuperTables", attempt(() -> table(about.getSuperTables("tpch", "main", "orders"))));
        print("getSuperTypes", attempt(() -> table(about.getSuperTypes("tpch", "main", "%"))));
        print("getAttributes", attempt(() -> table(about.getAttributes("tpch", "main", "%", "%"))));
        print("getPseudoColumns", attempt(() -> table(about.getPseudoColumns("tpch", "main", "orders", "%"))));
    }

    /** What is listed of one table. */
    private static void listing(DatabaseMetaData about, String catalog, String schema, String name) {
        print("tables", attempt(() -> table(about.getTables(catalog, schema, name, null))));
        print("columns", attempt(() -> table(about.getColumns(catalog, schema, name, "%"))));
        print("primary", attempt(() -> table(about.getPrimaryKeys(catalog, schema, name))));
        print("imported", attempt(() -> table(about.getImportedKeys(catalog, schema, name))));
        print("exported", attempt(() -> table(about.getExportedKeys(catalog, schema, name))));
    }

    /**
     * Cancels a statement once its first row is there, so many times, and runs another on the same connection. Where it is
     * watched it says `there` before it cancels and `cancelled` after it, and goes on from each when it is sent a line.
     */
    private static Object cancel(Connection connection, String sql, int times, boolean watched) throws SQLException, IOException {
        List<Object> said = new ArrayList<>();
        for (int i = 0; i < times; i++) {
            said.add(cancel(connection, sql, watched));
        }
        return map("said", said, "after", query(connection, "select 1").get("rows"));
    }

    private static String cancel(Connection connection, String sql, boolean watched) throws SQLException, IOException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            pause(watched, "there");
            statement.cancel();
            pause(watched, "cancelled");
            long seen = 1;
            while (rows.next()) {
                seen++;
            }
            return "read to the end: " + seen;
        } catch (SQLException error) {
            return "cancelled";
        }
    }

    /**
     * Cancels a statement from another thread while its first row is waited for, so many times. It says `asked`, cancels when it
     * is sent a line, says `cancelled`, and goes on when it is sent another.
     */
    private static Object ask(Connection connection, String sql, int times) throws Exception {
        List<Object> said = new ArrayList<>();
        for (int i = 0; i < times; i++) {
            try (Statement statement = connection.createStatement()) {
                FutureTask<Object> rows = new FutureTask<>(() -> attempt(() -> read(statement.executeQuery(sql)).get("rows")));
                new Thread(rows).start();
                pause(true, "asked");
                statement.cancel();
                pause(true, "cancelled");
                said.add(rows.get());
            }
        }
        return map("said", said, "after", query(connection, "select 1").get("rows"));
    }

    /** Answers each statement that it is sent, which is a line, by a line: the rows, or an error. */
    private static void answer(Connection connection) throws IOException {
        for (String line = LINES.readLine(); line != null; line = LINES.readLine()) {
            String sql = line;
            System.out.println(Json.write(attempt(() -> query(connection, sql).get("rows"))));
            System.out.flush();
        }
    }

    /** Reads a statement: says `there` at its first row, reads on when it is sent a line, and says how that ended. */
    private static void follow(Connection connection, String sql) throws SQLException, IOException {
        // Nothing is closed: where the rows broke off this driver throws the reason once more.
        ResultSet rows = connection.createStatement().executeQuery(sql);
        long seen = 0;
        try {
            for (; rows.next(); seen++) {
                pause(seen == 0, "there");
            }
            pause(true, "read to the end: " + seen);
        } catch (SQLException | RuntimeException error) {
            pause(true, "broke off");
        }
    }

    /** Connects, prepares a statement, binds 0, reads its rows and closes all, with each of the statements in turn, without an end. */
    private static void visit(Opened other, List<String> statements) throws SQLException {
        for (int i = 0;; i = (i + 1) % statements.size()) {
            try (Connection connection = other.open(); PreparedStatement statement = connection.prepareStatement(statements.get(i))) {
                statement.setLong(1, 0);
                try (ResultSet rows = statement.executeQuery()) {
                    while (rows.next()) {
                        rows.getObject(1);
                    }
                }
            }
        }
    }

    private static final BufferedReader LINES = new BufferedReader(new InputStreamReader(System.in));

    private static void pause(boolean watched, String line) throws IOException {
        if (watched) {
            System.out.println(line);
            System.out.flush();
            LINES.readLine();
        }
    }

    private static Object invoke(Method method, Object on) throws Exception {
        try {
            return method.invoke(on);
        } catch (InvocationTargetException error) {
            throw error.getCause() instanceof Exception ? (Exception) error.getCause() : error;
        }
    }

    private static Object plain(Object value) throws SQLException {
        return value instanceof ResultSet ? table((ResultSet) value) : value instanceof Boolean || value instanceof Integer ? value : text(value);
    }

    /** A value as text of one form, whatever the class it came in. */
    private static Object text(Object value) throws SQLException {
        if (value == null) {
            return null;
        } else if (value instanceof BigDecimal) {
            return ((BigDecimal) value).toPlainString();
        } else if (value instanceof byte[]) {
            return HexFormat.of().formatHex((byte[]) value);
        } else if (value instanceof Array) {
            return text(((Array) value).getArray());
        } else if (value instanceof Struct) {
            return text(((Struct) value).getAttributes());
        } else if (value instanceof Object[]) {
            return texts(Arrays.asList((Object[]) value));
        } else if (value instanceof List) {
            return texts((List<?>) value);
        } else if (value instanceof Map) {
            Map<Object, Object> all = new LinkedHashMap<>();
            for (Map.Entry<?, ?> entry : ((Map<?, ?>) value).entrySet()) {
                all.put(String.valueOf(entry.getKey()), text(entry.getValue()));
            }
            return all;
        }
        return value.toString();
    }

    private static List<Object> texts(List<?> values) throws SQLException {
        List<Object> all = new ArrayList<>();
        for (Object item : values) {
            all.add(text(item));
        }
        return all;
    }

    private static Object attempt(Call call) {
        try {
            return call.run();
        } catch (Exception error) {
            return map("error", error.getClass().getSimpleName() + ": " + error.getMessage());
        }
    }

    private static Map<String, Object> map(Object... pairs) {
        Map<String, Object> all = new LinkedHashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            all.put((String) pairs[i], pairs[i + 1]);
        }
        return all;
    }

    private static void print(String name, Object value) {
        System.out.println(Json.write(map("name", name, "value", value)));
    }

    private interface Call {
        Object run() throws Exception;
    }

    private interface Setter {
        void set(PreparedStatement statement, int at) throws SQLException;
    }

    private interface Binding {
        void bind(PreparedStatement statement) throws SQLException;
    }

    private Probe() {}
}
