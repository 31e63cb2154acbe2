"""Gateways for DataFusion's own SQL tests: each with the catalogs that the tests name, in memory and without tables."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gateway import configured

CATALOGS = ("datafusion", "my_catalog", "my_other_catalog")
TEXT = """
[defaults]
catalog = "datafusion"
schema = "public"
""" + "".join(f'\n[catalogs.{name}]\nkind = "memory"\nwritable = true\n' for name in CATALOGS)
# One for each core of the smallest machine: a file of tests has a gateway for itself.
GATEWAYS = 2


@contextmanager
def gateways(folder: Path) -> Iterator[list[str]]:
    """Where they listen, as `http://host:port`, until the block ends."""
    with ExitStack() as running:
        endpoints = []
        for number in range(GATEWAYS):
            own = folder / str(number)
            own.mkdir()
            endpoints.append(f"http://{running.enter_context(configured(own, TEXT)).flight}")
        yield endpoints
