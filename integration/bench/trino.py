"""All of lineitem from a Trino server, which makes it as it is asked: through the gateway, by Trino's own client for Python, and
what Trino sends alone, of which nothing is made."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import duckdb
import psutil
import pyarrow.flight as flight

import s3
import trino_server
import trino_values
from bench.measure import ROUNDS, SCALE, by_default, goal, in_process, report_scans, scan, stream, turns
from fetch import wheel_folder
from trino_server import Trino
from wire import statement

TABLE = f'tpch."sf{SCALE}".lineitem'
SQL = f"select * from {TABLE}"


def measured(folder: Path) -> list[bool]:
    """Prints what each takes; whether the goals are met."""
    with ExitStack() as stack:
        bucket = stack.enter_context(s3.server(folder / "root"))
        # What it compiles is as fast as it becomes.
        server = stack.enter_context(trino_server.server(bucket, heap="2G", is_quick=False))
        gateway = stack.enter_context(by_default(folder, '[cache]\nsize = "0"\n' + server.catalog("tpch", "tpch")))
        client = stack.enter_context(flight.connect(gateway.uri))
        theirs = stack.enter_context(in_process("trino", server.http, path=wheel_folder("trino-client")))
        sent = stack.enter_context(in_process("segments", server.http))
        _hold_answer(client, server)
        scans = turns(
            {
                "gateway": lambda: scan(client, statement(SQL), psutil.Process(gateway.pid)),
                "trino's client for python": partial(theirs, SQL),
                "segments, not decoded": partial(sent, SQL),
            },
            # Its client takes more than a minute each time.
            rounds=min(ROUNDS, 3),
        )
    rates, _ = report_scans(scans)
    assert len({rounds[0][0] for rounds in scans.values()}) == 1, "not all have the same number of rows"
    print("(seconds of the processor are those of the gateway and of the clients; Trino's own are not among them)\n")
    ours, theirs, sent = scans
    return [
        goal("from Trino, rows/s / its client for Python, to Arrow", rates[ours] / rates[theirs], ">=", 2),
        goal("from Trino, rows/s / its segments, not decoded", rates[ours] / rates[sent], ">=", 0.9),
    ]


def _hold_answer(client: flight.FlightClient, server: Trino) -> None:
    """Fails where the gateway gives other rows than Trino has: of each column it is a sum, and the least and greatest value."""
    columns = [(column["name"], column["type"]) for column in server.ask(f"{SQL} limit 0").columns]
    asked = ["count(*)"]
    for name, data_type in columns:
        number = {"date": f"date_diff('day', date '1970-01-01', {name})", "varchar": f"length({name})"}
        asked += [f"sum({number.get(data_type.partition('(')[0], name)})", f"min({name})", f"max({name})"]
    answer = server.ask(f"select {', '.join(asked)} from {TABLE}")
    rows = stream(client, statement(SQL)).to_reader()
    with duckdb.connect() as connection:
        connection.register("answer", rows)
        got = connection.execute(f"select {', '.join(asked)} from answer").fetchall()
    assert got == trino_values.rows(answer.columns, answer.rows), "the answer is wrong"
