import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import org.apache.arrow.adbc.core.AdbcConnection;
import org.apache.arrow.adbc.core.AdbcDatabase;
import org.apache.arrow.adbc.core.AdbcDriver;
import org.apache.arrow.adbc.core.AdbcException;
import org.apache.arrow.adbc.core.AdbcStatement;
import org.apache.arrow.adbc.driver.flightsql.FlightSqlDriver;
import org.apache.arrow.adbc.driver.testsuite.SqlValidationQuirks;
import org.apache.arrow.adbc.sql.SqlQuirks;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.memory.RootAllocator;
import org.apache.arrow.vector.types.TimeUnit;
import org.apache.arrow.vector.types.pojo.ArrowType;

/** What is particular to the gateway: where it is, what it calls things, and how it counts time. */
final class Quirks extends SqlValidationQuirks {
    @Override
    public AdbcDatabase initDatabase(BufferAllocator allocator) throws AdbcException {
        Map<String, Object> parameters = new HashMap<>();
        AdbcDriver.PARAM_URI.set(parameters, System.getProperty("gateway"));
        // It reads every type, which its name does not tell: it is that of any client of gRPC in Java.
        parameters.put("adbc.flight.sql.rpc.call_header.x-nexus-type-profile", "native");
        parameters.put(
                AdbcDriver.PARAM_SQL_QUIRKS,
                SqlQuirks.builder().arrowToSqlTypeNameMapping(Quirks::name).build());
        return new FlightSqlDriver(allocator).open(parameters);
    }

    /** What the driver calls a type in CREATE TABLE; of itself it calls every integer INT. */
    private static String name(ArrowType type) {
        return switch (type.getTypeID()) {
            case Int -> ((ArrowType.Int) type).getBitWidth() == 64 ? "BIGINT" : "INT";
            case Utf8 -> "CLOB";
            default -> null;
        };
    }

    @Override
    public void cleanupTable(String name) throws Exception {
        try (BufferAllocator allocator = new RootAllocator();
                AdbcDatabase database = initDatabase(allocator);
                AdbcConnection connection = database.connect();
                AdbcStatement statement = connection.createStatement()) {
            statement.setSqlQuery("DROP TABLE IF EXISTS " + name);
            statement.executeUpdate();
        }
    }

    @Override
    public String defaultCatalog() {
        return "memory";
    }

    @Override
    public String defaultDbSchema() {
        return "main";
    }

    @Override
    public String caseFoldTableName(String name) {
        return name.toLowerCase(Locale.ROOT);
    }

    @Override
    public String caseFoldColumnName(String name) {
        return name.toLowerCase(Locale.ROOT);
    }

    @Override
    public TimeUnit defaultTimeUnit() {
        return TimeUnit.NANOSECOND;
    }

    @Override
    public TimeUnit defaultTimestampUnit() {
        return TimeUnit.NANOSECOND;
    }

    @Override
    public boolean supportsCurrentCatalog() {
        return true;
    }
}
