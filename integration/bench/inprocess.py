"""An engine in its own process: answers each statement that comes in, as a line of JSON, and says rows, seconds and CPU seconds.

Run over the Parquet files of a folder: inprocess.py datafusion FOLDER SETTING=VALUE…, or inprocess.py duckdb FOLDER EXTENSION…;
or over a Trino server: inprocess.py trino ADDRESS for its own client, and inprocess.py segments ADDRESS for what it sends alone.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

# How many rows each part of an answer has.
Answer = Callable[[str], Iterable[int]]
# The rows of a batch, and how many segments are fetched at once.
BATCH, THREADS = 8_192, 4


def datafusion(folder: str, *settings: str) -> Answer:
    """DataFusion with these settings."""
    from datafusion import SessionConfig, SessionContext

    context = SessionContext(SessionConfig(dict(setting.split("=", 1) for setting in settings)))
    for file in Path(folder).glob("*.parquet"):
        context.register_parquet(file.stem, str(file))
    return lambda sql: (batch.to_pyarrow().num_rows for batch in context.sql(sql).execute_stream())


def duckdb(folder: str, *extensions: str) -> Answer:
    """DuckDB with these extensions, by their files."""
    import duckdb

    connection = duckdb.connect()
    for extension in extensions:
        connection.execute(f"load '{extension}'")
    for file in Path(folder).glob("*.parquet"):
        connection.execute(f"create view {file.stem} as select * from read_parquet('{file}')")
    return lambda sql: (batch.num_rows for batch in connection.sql(sql).to_arrow_reader(BATCH))


def trino(address: str) -> Answer:
    """Trino's client for Python as it is by default, and Arrow made of its rows."""
    from trino.dbapi import connect

    parts = urlsplit(address)
    connection = connect(host=parts.hostname, port=parts.port, user="bench", http_scheme=parts.scheme)

    def answer(sql: str) -> Iterator[int]:
        cursor = connection.cursor()
        cursor.execute(sql)
        while rows := cursor.fetchmany(BATCH):
            arrays = map(pa.array, zip(*rows, strict=True))
            yield pa.record_batch(list(arrays), [column.name for column in cursor.description]).num_rows

    return answer


def segments(address: str) -> Answer:
    """What the server sends, fetched by several threads and decompressed, of which nothing is made."""
    import urllib3

    pool = urllib3.PoolManager(maxsize=2 * THREADS)
    headers = {"X-Trino-User": "bench", "X-Trino-Query-Data-Encoding": "json+zstd"}

    def answer(sql: str) -> Iterator[int]:
        page = pool.request("POST", f"{address}/v1/statement", body=sql.encode(), headers=headers).json()
        with ThreadPoolExecutor(THREADS) as threads:
            fetched = []
            while "nextUri" in page:
                page = pool.request("GET", page["nextUri"], headers=headers).json()
                assert "error" not in page, page["error"]["message"]
                fetched += map(partial(threads.submit, _unpacked, pool), page.get("data", {}).get("segments", []))
            for each in fetched:
                yield each.result()

    return answer


def _unpacked(pool: object, segment: dict) -> int:
    """Fetches a segment and decompresses it; how many rows it has."""
    import zstandard

    if segment["type"] == "inline":
        sent = base64.b64decode(segment["data"])
    else:
        sent = pool.request("GET", segment["uri"]).data
        pool.request("GET", segment["ackUri"])
    metadata = segment["metadata"]
    if size := metadata.get("uncompressedSize"):
        sent = zstandard.ZstdDecompressor().decompress(sent, max_output_size=size)
        assert len(sent) == size
    return metadata["rowsCount"]


if __name__ == "__main__":
    engines = {"datafusion": datafusion, "duckdb": duckdb, "trino": trino, "segments": segments}
    answer = engines[sys.argv[1]](*sys.argv[2:])
    print("ready", flush=True)
    for line in sys.stdin:
        sql = json.loads(line)
        cpu, started = os.times(), time.perf_counter()
        rows = sum(answer(sql))
        seconds, used = time.perf_counter() - started, os.times()
        print(rows, seconds, used.user + used.system - cpu.user - cpu.system, flush=True)
