"""The least that a Flight server can do: ready batches of 8,192 rows from memory. Run as: bare.py NAME=FILE.parquet…"""

import sys

import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq


class Bare(flight.FlightServerBase):
    """Serves tables by their names, whole, and as "one" a single row; asks for no credential and plans nothing."""

    def __init__(self, tables: dict[bytes, pa.Table]) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.tables = {b"one": pa.table({"v": [1]}), **tables}

    def get_flight_info(self, _: object, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """The schema and a ticket."""
        endpoint = flight.FlightEndpoint(descriptor.command, [])
        return flight.FlightInfo(self.tables[descriptor.command].schema, descriptor, [endpoint], -1, -1)

    def do_get(self, _: object, ticket: flight.Ticket) -> flight.RecordBatchStream:
        """The batches as they lie in memory."""
        return flight.RecordBatchStream(self.tables[ticket.ticket])


if __name__ == "__main__":
    named = (argument.split("=", 1) for argument in sys.argv[1:])
    batches = {name.encode(): list(pq.ParquetFile(file).iter_batches(8_192)) for name, file in named}
    server = Bare({name: pa.Table.from_batches(each) for name, each in batches.items()})
    print(server.port, flush=True)
    server.serve()
