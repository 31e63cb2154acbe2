import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.stream.IntStream;
import java.util.zip.CRC32;

/** Many connections at once, each asking questions whose answers are known by their checksums. */
final class Load {
    private Load() {
    }

    /**
     * How many answers each connection got right. `rest`: how many connections, for how many seconds, and pairs of a URL and a file
     * with a checksum, a tab and a statement a line; the connections take these in turn.
     */
    static Map<String, Object> run(List<String> rest) throws Exception {
        int connections = Integer.parseInt(rest.get(0));
        long end = System.nanoTime() + Long.parseLong(rest.get(1)) * 1_000_000_000L;
        List<String> pairs = rest.subList(2, rest.size());
        AtomicLongArray right = new AtomicLongArray(connections);
        List<String> wrong = new ArrayList<>();
        List<Thread> threads = new ArrayList<>();
        for (int number = 0; number < connections; number++) {
            int own = number;
            Random random = new Random(number);
            int pair = 2 * number % pairs.size();
            String url = pairs.get(pair);
            List<String> questions = Files.readAllLines(Path.of(pairs.get(pair + 1)));
            Thread thread = new Thread(() -> {
                try (Connection connection = DriverManager.getConnection(url)) {
                    while (System.nanoTime() < end || right.get(own) == 0) {
                        String[] question = questions.get(random.nextInt(questions.size())).split("\t", 2);
                        long sum = sum(connection, question[1]);
                        if (sum != Long.parseLong(question[0])) {
                            throw new IllegalStateException(sum + " in place of " + question[0] + ": " + question[1]);
                        }
                        right.incrementAndGet(own);
                    }
                } catch (Exception error) {
                    synchronized (wrong) {
                        wrong.add(String.valueOf(error));
                    }
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        return Map.of("right", IntStream.range(0, connections).mapToObj(right::get).toList(), "wrong", wrong);
    }

    /** Of rows of a number and a text: the sum of the CRC-32 of each `number:text`. */
    private static long sum(Connection connection, String sql) throws Exception {
        long sum = 0;
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            while (rows.next()) {
                CRC32 crc = new CRC32();
                crc.update((rows.getLong(1) + ":" + rows.getString(2)).getBytes(StandardCharsets.UTF_8));
                sum += crc.getValue();
            }
        }
        return sum;
    }
}
