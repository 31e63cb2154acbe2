"""The least that a Flight server can do: ready batches of 8,192 rows from memory. Run as: bare.py FILE.parquet"""

import sys

import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq


class Bare(flight.FlightServerBase):
    """Serves one table whole, or its first number alone; asks for no credential and plans nothing."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.tables = {b"all": table, b"one": pa.table({"v": [1]})}

    def get_flight_info(self, _: object, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """The schema and a ticket."""
        endpoint = flight.FlightEndpoint(descriptor.command, [])
        return flight.FlightInfo(self.tables[descriptor.command].schema, descriptor, [endpoint], -1, -1)

    def do_get(self, _: object, ticket: flight.Ticket) -> flight.RecordBatchStream:
        """The batches as they lie in memory."""
        return flight.RecordBatchStream(self.tables[ticket.ticket])


if __name__ == "__main__":
    batches = list(pq.ParquetFile(sys.argv[1]).iter_batches(8_192))
    server = Bare(pa.Table.from_batches(batches))
    print(server.port, flush=True)
    server.serve()
