"""`make run`: serves the demo, shows the answer of one query fetched through its own port, and says how clients connect."""

import signal
import subprocess
import sys

from fetch import CACHE
from gateway import BINARY, serve

QUERY = """select l_returnflag, l_linestatus, count(*) as lines, sum(l_quantity) as quantity, avg(l_discount) as discount
from lineitem group by l_returnflag, l_linestatus order by 1, 2"""

CLIENTS = """
The demo runs until Ctrl-C; its log is {log}

  JDBC, DBeaver   jdbc:arrow-flight-sql://{flight}/?useEncryption=false
                  (the JVM needs --add-opens=java.base/java.nio=ALL-UNNAMED)
  ADBC            adbc_driver_flightsql.dbapi.connect("grpc://{flight}", autocommit=True)
  pyarrow         pyarrow.flight.connect("grpc://{flight}")
  nexus sql       {binary} sql --url grpc://{flight}
  curl            curl http://{http}/v1/sql --data 'select count(*) from orders'
"""


def main() -> int:
    """Serves in the foreground; returns 0 after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = CACHE / "demo.log"
    try:
        gateway = serve("--demo", log=log)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    with gateway:
        try:
            print(f"{QUERY}\n", flush=True)
            subprocess.run([BINARY, "sql", "--url", gateway.uri, "-c", QUERY], check=True)
            print(CLIENTS.format(flight=gateway.flight, http=gateway.http, binary=BINARY, log=log), flush=True)
            gateway.process.wait()
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
