"""Makes pytest run SQLAlchemy's own tests for dialects; `test_alchemy.py` beside this folder calls it."""

import os

import pytest

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy import event  # noqa: E402
from sqlalchemy.engine import Engine  # noqa: E402
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
from sqlalchemy.testing.provision import delete_from_all_tables, temp_table_keyword_args  # noqa: E402


@delete_from_all_tables.for_db("adbc")
def _empty(connection: object, _config: object, metadata: object) -> None:
    """The dialect finds no table by listing them: it looks for the type `table`, and they have the type TABLE as in JDBC."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(table.delete())


@temp_table_keyword_args.for_db("adbc")
def _temporary(_config: object, _engine: object) -> dict[str, list[str]]:
    return {"prefixes": ["TEMPORARY"]}


if os.environ.get("NEXUS_REPLICAS", "1") != "1":

    @event.listens_for(Engine, "do_connect")
    def _connect(_dialect: object, _record: object, _arguments: object, options: dict[str, object]) -> None:
        """The dialect has no isolation level AUTOCOMMIT, and a transaction is open at one replica only."""
        options["autocommit"] = True
