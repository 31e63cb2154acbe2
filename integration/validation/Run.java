import static org.junit.platform.engine.discovery.DiscoverySelectors.selectClass;

import java.util.Arrays;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.support.descriptor.MethodSource;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/** Runs all suites and prints a line for each test: its name, how it ended, and what was wrong, with tabs between. */
public final class Run implements TestExecutionListener {
    private Run() {}

    /** Runs against the gateway that the system property of that name is the address of. */
    public static void main(String[] arguments) {
        LauncherDiscoveryRequestBuilder request = LauncherDiscoveryRequestBuilder.request();
        Arrays.stream(Suites.ALL).forEach(suite -> request.selectors(selectClass(suite)));
        LauncherDiscoveryRequest built = request.build();
        LauncherFactory.create().execute(built, new Run());
        // The driver leaves threads behind.
        System.exit(0);
    }

    @Override
    public void executionFinished(TestIdentifier test, TestExecutionResult result) {
        String why = result.getThrowable().map(Throwable::toString).orElse("");
        tell(test, result.getStatus().name(), why);
    }

    @Override
    public void executionSkipped(TestIdentifier test, String reason) {
        tell(test, "SKIPPED", reason);
    }

    private static void tell(TestIdentifier test, String outcome, String why) {
        test.getSource()
                .filter(MethodSource.class::isInstance)
                .map(MethodSource.class::cast)
                .ifPresent(
                        source -> {
                            String suite = source.getClassName().replaceAll(".*[.$]", "");
                            String line = why.replaceAll("\\s+", " ");
                            System.out.println(suite + "." + source.getMethodName() + "\t" + outcome + "\t" + line);
                        });
    }
}
