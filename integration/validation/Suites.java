import org.apache.arrow.adbc.driver.testsuite.AbstractConnectionMetadataTest;
import org.apache.arrow.adbc.driver.testsuite.AbstractConnectionTest;
import org.apache.arrow.adbc.driver.testsuite.AbstractPartitionDescriptorTest;
import org.apache.arrow.adbc.driver.testsuite.AbstractSqlTypeTest;
import org.apache.arrow.adbc.driver.testsuite.AbstractStatementTest;
import org.apache.arrow.adbc.driver.testsuite.AbstractTransactionTest;
import org.junit.jupiter.api.BeforeAll;

/** The suites, each told of the gateway's quirks; none of their tests is left out. */
final class Suites {
    static final Class<?>[] ALL = {
        Connections.class, Metadata.class, Partitions.class, Types.class, Statements.class, Transactions.class
    };

    private Suites() {}

    static class Connections extends AbstractConnectionTest {
        @BeforeAll
        static void know() {
            quirks = new Quirks();
        }
    }

    static class Metadata extends AbstractConnectionMetadataTest {
        @BeforeAll
        static void know() {
            quirks = new Quirks();
        }
    }

    static class Partitions extends AbstractPartitionDescriptorTest {
        @BeforeAll
        static void know() {
            quirks = new Quirks();
        }
    }

    /** Its table is made by the statement in Types.sql. */
    static class Types extends AbstractSqlTypeTest {
        @BeforeAll
        static void know() {
            quirks = new Quirks();
        }
    }

    static class Statements extends AbstractStatementTest {
        @BeforeAll
        static void know() {
            quirks = new Quirks();
        }
    }

    static class Transactions extends AbstractTransactionTest {
        @BeforeAll
        static void know() {
            quirks = new Quirks();
        }
    }
}
