import java.io.IOException;
import java.util.Arrays;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.FileFormat;
import org.apache.iceberg.PartitionKey;
import org.apache.iceberg.Schema;
import org.apache.iceberg.Table;
import org.apache.iceberg.data.GenericAppenderFactory;
import org.apache.iceberg.data.GenericRecord;
import org.apache.iceberg.data.Record;
import org.apache.iceberg.deletes.EqualityDeleteWriter;
import org.apache.iceberg.encryption.EncryptedOutputFile;
import org.apache.iceberg.hadoop.HadoopTables;
import org.apache.iceberg.io.OutputFileFactory;
import org.apache.iceberg.types.Conversions;
import org.apache.iceberg.types.Type;

/**
 * Deletes rows of an Iceberg table by equality, which Spark reads and does not write: Equality TABLE PARTITION COLUMNS ROW...
 * COLUMNS and each ROW are lists with commas; the value `null` is NULL. PARTITION has the values of one partition, and is empty for a
 * table without any. All goes into one file and one snapshot.
 */
public final class Equality {
    public static void main(String[] arguments) throws IOException {
        Table table = new HadoopTables(new Configuration()).load(arguments[0]);
        PartitionKey partition = table.spec().isPartitioned() ? new PartitionKey(table.spec(), table.schema()) : null;
        if (partition != null) {
            String[] values = arguments[1].split(",");
            for (int i = 0; i < values.length; i++) {
                partition.set(i, value(table.spec().partitionType().fields().get(i).type(), values[i]));
            }
        }
        String[] columns = arguments[2].split(",");
        Schema keys = table.schema().select(columns);
        int[] ids = Arrays.stream(columns).mapToInt(column -> keys.findField(column).fieldId()).toArray();
        var writers = new GenericAppenderFactory(table, table.schema(), table.spec(), Map.of(), ids, keys, null);
        OutputFileFactory files = OutputFileFactory.builderFor(table, 0, 0).format(FileFormat.PARQUET).build();
        EncryptedOutputFile file = partition == null ? files.newOutputFile() : files.newOutputFile(table.spec(), partition);
        EqualityDeleteWriter<Record> writer = writers.newEqDeleteWriter(file, FileFormat.PARQUET, partition);
        try (writer) {
            for (String row : Arrays.asList(arguments).subList(3, arguments.length)) {
                String[] values = row.split(",");
                Record record = GenericRecord.create(keys);
                for (int i = 0; i < columns.length; i++) {
                    record.setField(columns[i], value(keys.findType(columns[i]), values[i]));
                }
                writer.write(record);
            }
        }
        table.newRowDelta().addDeletes(writer.toDeleteFile()).commit();
    }

    private static Object value(Type type, String text) {
        return text.equals("null") ? null : Conversions.fromPartitionString(type, text);
    }

    private Equality() {}
}
