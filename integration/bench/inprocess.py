"""DataFusion in its own process: streams a whole file each time a line comes in, and says rows, seconds and CPU seconds."""

import os
import sys
import time

from datafusion import SessionContext

if __name__ == "__main__":
    context = SessionContext()
    context.register_parquet("lineitem", sys.argv[1])
    print("ready", flush=True)
    for _ in sys.stdin:
        cpu, started = os.times(), time.perf_counter()
        rows = sum(batch.to_pyarrow().num_rows for batch in context.sql("select * from lineitem").execute_stream())
        seconds, used = time.perf_counter() - started, os.times()
        print(rows, seconds, used.user + used.system - cpu.user - cpu.system, flush=True)
