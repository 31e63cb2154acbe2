"""The queries of TPC-H: the CPU seconds that each takes here, in DataFusion in-process with the same settings, and in DuckDB."""

from functools import partial
from pathlib import Path
from statistics import median

import psutil
import pyarrow.flight as flight

from answers import QUERIES, assert_same, judge
from bench.measure import SCALE, UNCACHED, Scan, by_default, goal, in_process, scan, stream, turns
from data import tpch_files
from wire import statement

# As the gateway has them (server/src/plan.rs, `settings`).
SETTINGS = {
    "sql_parser.parse_float_as_decimal": "true",
    "execution.time_zone": "+00:00",
    "sql_parser.collect_spans": "true",
    "sql_parser.map_string_types_to_utf8view": "false",
    "execution.parquet.schema_force_view_types": "false",
    "execution.skip_physical_aggregate_schema_check": "true",
    "optimizer.hash_join_single_partition_threshold": str(128 << 20),
    "optimizer.hash_join_single_partition_threshold_rows": "8000000",
    "optimizer.enable_topk_aggregation": "false",
    "optimizer.enable_aggregate_dynamic_filter_pushdown": "false",
}
CONTENDERS = ("gateway", "datafusion in-process", "duckdb")


def tpch(folder: Path) -> list[bool]:
    """Prints what each query takes; whether the goal is met."""
    files = tpch_files(SCALE)
    settings = [f"datafusion.{name}={value}" for name, value in SETTINGS.items()]
    with (
        by_default(folder, UNCACHED.format(folder=files)) as gateway,
        in_process("datafusion", files, *settings) as datafusion,
        in_process("duckdb", files) as duck,
        flight.connect(gateway.uri) as client,
    ):
        _hold_answers(client, files)
        process = psutil.Process(gateway.pid)

        def through(sql: str) -> Scan:
            return scan(client, statement(sql), process)

        engines = dict(zip(CONTENDERS, (through, datafusion, duck), strict=True))
        texts = {query.stem: query.read_text() for query in QUERIES}
        # Query by query, so that the contenders take turns at each.
        results = turns({(query, name): partial(run, sql) for query, sql in texts.items() for name, run in engines.items()})
    for query in texts:
        rows = {name: {result[0] for result in results[query, name]} for name in CONTENDERS}
        assert len(set.union(*rows.values())) == 1, f"{query} has different numbers of rows: {rows}"
    used = {query: [median(result[2] for result in results[query, name]) for name in CONTENDERS] for query in texts}
    print(f"{'CPU seconds, scale ' + SCALE:<22}{'gateway':>9}{'datafusion':>12}{'duckdb':>9}{'/ datafusion':>14}{'/ duckdb':>10}")
    totals = [sum(column) for column in zip(*used.values(), strict=True)]
    for query, (ours, theirs, ducks) in {**used, "all": totals}.items():
        # The system counts in hundredths of a second.
        beside = [f"{ours / other:.2f}" if other >= 0.05 else "" for other in (theirs, ducks)]
        print(f"{query:<22}{ours:>9.2f}{theirs:>12.2f}{ducks:>9.2f}{beside[0]:>14}{beside[1]:>10}")
    print()
    ours, theirs, ducks = totals
    return [
        goal("TPC-H, CPU s / DataFusion in-process", ours / theirs, "<=", 1.05),
        goal("TPC-H, CPU s / DuckDB", ours / ducks, "<=", 1.5, aim=True),
    ]


def _hold_answers(client: flight.FlightClient, files: Path) -> None:
    """Fails where an answer is not that of DuckDB."""
    with judge(files) as expected:
        for query in QUERIES:
            sql = query.read_text()
            rows = stream(client, statement(sql)).read_all()
            assert_same([tuple(row.values()) for row in rows.to_pylist()], expected.execute(sql).fetchall())
