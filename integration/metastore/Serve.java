import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.Statement;
import org.apache.hadoop.hive.metastore.HiveMetaStore;

/**
 * Serves a metastore over a database: DATABASE USER PASSWORD. What it keeps of tables DataNucleus makes there; what it keeps of locks
 * is made by scripts that come with Hive and not with its jars, so it is made here.
 */
public final class Serve {
    private static final String[] LOCKS = {
        "create table \"NEXT_LOCK_ID\" (\"NL_NEXT\" bigint not null)",
        "insert into \"NEXT_LOCK_ID\" values (1)",
        "create table \"HIVE_LOCKS\" (\"HL_LOCK_EXT_ID\" bigint not null, \"HL_LOCK_INT_ID\" bigint not null, "
            + "\"HL_TXNID\" bigint not null, \"HL_DB\" varchar(128) not null, \"HL_TABLE\" varchar(256), "
            + "\"HL_PARTITION\" varchar(767), \"HL_LOCK_STATE\" char(1) not null, \"HL_LOCK_TYPE\" char(1) not null, "
            + "\"HL_LAST_HEARTBEAT\" bigint not null, \"HL_ACQUIRED_AT\" bigint, \"HL_USER\" varchar(128) not null, "
            + "\"HL_HOST\" varchar(128) not null, \"HL_AGENT_INFO\" varchar(128), \"HL_BLOCKEDBY_EXT_ID\" bigint, "
            + "\"HL_BLOCKEDBY_INT_ID\" bigint, primary key (\"HL_LOCK_EXT_ID\", \"HL_LOCK_INT_ID\"))",
    };

    public static void main(String[] words) throws Throwable {
        try (Connection connection = DriverManager.getConnection(words[0], words[1], words[2]);
                Statement statement = connection.createStatement()) {
            if (!connection.getMetaData().getTables(null, null, "HIVE_LOCKS", null).next()) {
                for (String made : LOCKS) {
                    statement.execute(made);
                }
            }
        }
        HiveMetaStore.main(new String[0]);
    }
}
