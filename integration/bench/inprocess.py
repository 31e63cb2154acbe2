"""An engine in its own process: answers each statement that comes in, as a line of JSON, and says rows, seconds and CPU seconds.

Run over the Parquet files of a folder: inprocess.py datafusion FOLDER SETTING=VALUE…, or inprocess.py duckdb FOLDER EXTENSION…
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

Answer = Callable[[str], Iterable[pa.RecordBatch]]


def datafusion(folder: str, *settings: str) -> Answer:
    """DataFusion with these settings."""
    from datafusion import SessionConfig, SessionContext

    context = SessionContext(SessionConfig(dict(setting.split("=", 1) for setting in settings)))
    for file in Path(folder).glob("*.parquet"):
        context.register_parquet(file.stem, str(file))
    return lambda sql: (batch.to_pyarrow() for batch in context.sql(sql).execute_stream())


def duckdb(folder: str, *extensions: str) -> Answer:
    """DuckDB with these extensions, by their files."""
    import duckdb

    connection = duckdb.connect()
    for extension in extensions:
        connection.execute(f"load '{extension}'")
    for file in Path(folder).glob("*.parquet"):
        connection.execute(f"create view {file.stem} as select * from read_parquet('{file}')")
    return lambda sql: connection.sql(sql).to_arrow_reader(8_192)


if __name__ == "__main__":
    answer = {"datafusion": datafusion, "duckdb": duckdb}[sys.argv[1]](*sys.argv[2:])
    print("ready", flush=True)
    for line in sys.stdin:
        sql = json.loads(line)
        cpu, started = os.times(), time.perf_counter()
        rows = sum(batch.num_rows for batch in answer(sql))
        seconds, used = time.perf_counter() - started, os.times()
        print(rows, seconds, used.user + used.system - cpu.user - cpu.system, flush=True)
