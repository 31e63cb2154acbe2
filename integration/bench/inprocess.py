"""An engine in its own process: streams a whole table each time a line comes in, and says rows, seconds and CPU seconds.

Run as: inprocess.py datafusion FILE, or inprocess.py duckdb "TABLE FUNCTION" EXTENSION…
"""

import os
import sys
import time
from collections.abc import Callable, Iterable

import pyarrow as pa


def datafusion(file: str) -> Callable[[], Iterable[pa.RecordBatch]]:
    """A scan of a Parquet file."""
    from datafusion import SessionContext

    context = SessionContext()
    context.register_parquet("lineitem", file)
    return lambda: (batch.to_pyarrow() for batch in context.sql("select * from lineitem").execute_stream())


def duckdb(table: str, *extensions: str) -> Callable[[], Iterable[pa.RecordBatch]]:
    """A scan of what a table function gives, with extensions by their files."""
    import duckdb

    connection = duckdb.connect()
    for extension in extensions:
        connection.execute(f"load '{extension}'")
    return lambda: connection.execute(f"select * from {table}").to_arrow_reader(8_192)


if __name__ == "__main__":
    batches = {"datafusion": datafusion, "duckdb": duckdb}[sys.argv[1]](*sys.argv[2:])
    print("ready", flush=True)
    for _ in sys.stdin:
        cpu, started = os.times(), time.perf_counter()
        rows = sum(batch.num_rows for batch in batches())
        seconds, used = time.perf_counter() - started, os.times()
        print(rows, seconds, used.user + used.system - cpu.user - cpu.system, flush=True)
