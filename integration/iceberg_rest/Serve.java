import java.io.File;
import java.util.Map;
import org.apache.iceberg.Files;
import org.apache.iceberg.io.FileIO;
import org.apache.iceberg.io.InputFile;
import org.apache.iceberg.io.OutputFile;
import org.apache.iceberg.io.PositionOutputStream;
import org.apache.iceberg.io.SeekableInputStream;
import org.apache.iceberg.jdbc.JdbcCatalog;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.http.UriCompliance;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;

/** Serves Iceberg's REST catalog over a JDBC catalog: PORT NAME DATABASE USER WAREHOUSE ROOT, and the password in PASSWORD. */
public final class Serve {
    public static void main(String[] words) throws Exception {
        File root = new File(words[5]);
        // Neither Hadoop nor AWS is needed where the metadata files are written by what is below.
        JdbcCatalog catalog = new JdbcCatalog(properties -> new Folder(root), null, true);
        catalog.initialize(words[1], Map.of(
            "uri", words[2],
            "jdbc.user", words[3],
            "jdbc.password", System.getenv("PASSWORD"),
            "jdbc.schema-version", "V1",
            "warehouse", words[4]));

        Server server = new Server();
        // The levels of a namespace are parted by %1F in paths, which Jetty takes for ambiguous.
        HttpConfiguration http = new HttpConfiguration();
        http.setUriCompliance(UriCompliance.UNSAFE);
        ServerConnector connector = new ServerConnector(server, new HttpConnectionFactory(http));
        connector.setHost("127.0.0.1");
        connector.setPort(Integer.parseInt(words[0]));
        server.addConnector(connector);
        ServletContextHandler context = new ServletContextHandler();
        context.addServlet(new ServletHolder(new RESTCatalogServlet(new RESTCatalogAdapter(catalog))), "/*");
        context.getServletHandler().setDecodeAmbiguousURIs(true);
        server.setHandler(context);
        server.start();
        server.join();
    }

    /** A folder as an S3 server shows it, in which s3://BUCKET/KEY is BUCKET/KEY; what begins with file: is where it says. */
    private record Folder(File root) implements FileIO {
        private File at(String location) {
            return location.startsWith("s3://")
                ? new File(root, location.substring("s3://".length()))
                : new File(location.replaceFirst("^file:/+", "/"));
        }

        @Override
        public InputFile newInputFile(String location) {
            return new In(Files.localInput(at(location)), location);
        }

        @Override
        public OutputFile newOutputFile(String location) {
            return new Out(Files.localOutput(at(location)), location);
        }

        @Override
        public void deleteFile(String location) {
            at(location).delete();
        }
    }

    /** A file that goes by the location that the catalog knows it by: it is what the catalog compares, and tells its clients. */
    private record In(InputFile file, String location) implements InputFile {
        @Override
        public long getLength() {
            return file.getLength();
        }

        @Override
        public SeekableInputStream newStream() {
            return file.newStream();
        }

        @Override
        public boolean exists() {
            return file.exists();
        }
    }

    /** The same of one that is written. */
    private record Out(OutputFile file, String location) implements OutputFile {
        @Override
        public PositionOutputStream create() {
            return file.create();
        }

        @Override
        public PositionOutputStream createOrOverwrite() {
            return file.createOrOverwrite();
        }

        @Override
        public InputFile toInputFile() {
            return new In(file.toInputFile(), location);
        }
    }
}
