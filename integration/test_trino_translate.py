"""Statements in Trino's SQL, as `translate` tells them: they run there and give the answer of the gateway, or are refused with
the construct that cannot be translated. None is handed on as it is. What sqlglot reads in a text is the second opinion: that it
is a query, and of which tables."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest
import requests
import sqlglot
from sqlglot import exp

from answers import QUERIES, assert_same
from gateway import Gateway, configured
from trino_server import Trino

LISTED = Path(__file__).parent / "translate.sql"
# How many of the statements are to be translated.
ACCEPTED = 0.8


def listed() -> dict[str, str | None]:
    """The statements, each with what it is refused for, or none where it is to be translated."""
    found: dict[str, str | None] = {}
    for each in LISTED.read_text().split(";\n"):
        refused = re.search(r"^-- refused: (.+)$", each, re.M)
        if statement := re.sub(r"^--.*\n", "", each, flags=re.M).strip():
            assert statement not in found, f"twice: {statement}"
            found[statement] = refused[1] if refused else None
    return found


STATEMENTS = listed()


def asked() -> Iterator[object]:
    """The statements as they are tested: of those that run at Trino only every third one, but for the full form."""
    for number, (statement, refused) in enumerate(STATEMENTS.items()):
        is_long = refused is None and number % 3 > 0
        yield pytest.param(statement, id=str(number), marks=[pytest.mark.soak] if is_long else [])


# The text of each at Trino, or none and what is said of it.
Told = dict[str, tuple[str | None, str]]


@pytest.fixture(scope="module")
def gateway(trino: Trino, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    text = '[defaults]\ncatalog = "tpch"\nschema = "tiny"\n' + trino.catalog("tpch", "tpch", schemas=["tiny"])
    with configured(tmp_path_factory.mktemp("translate"), text, replicas=1) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def cursor(gateway: Gateway) -> Iterator[flightsql.Cursor]:
    with flightsql.connect(gateway.uri, autocommit=True) as connection, connection.cursor() as cursor:
        yield cursor


@pytest.fixture(scope="module")
def told(gateway: Gateway) -> Told:
    return {statement: translated(gateway, statement) for statement in STATEMENTS}


def fetch(cursor: flightsql.Cursor, sql: str) -> list[tuple]:
    cursor.execute(sql)
    return cursor.fetchall()


def translated(gateway: Gateway, statement: str) -> tuple[str | None, str]:
    """The text at Trino, or none and what is said of it."""
    asked = f"select translate($told${statement}$told$, 'tpch') as sql"
    answer = requests.post(f"{gateway.url}/v1/sql", data=asked.encode(), timeout=60).json()
    return (None, answer["error"]["message"]) if "error" in answer else (answer["sql"], "")


def there(cursor: flightsql.Cursor, text: str) -> list[tuple]:
    """The rows of a text at Trino, as the gateway reads them."""
    names = sqlglot.parse_one(text, read="trino").named_selects
    if len(set(names)) < len(names):
        # Of two columns of one name the gateway takes none.
        columns = ", ".join(f"c{number}" for number in range(len(names)))
        text = f"select * from ({text}) as t ({columns})"
    return fetch(cursor, f"select * from native('tpch', $text${text}$text$)")


def tables(tree: exp.Expression) -> set[str]:
    """The tables that a statement reads, by their own names."""
    named = {within.alias for within in tree.find_all(exp.CTE)}
    return {table.name.lower() for table in tree.find_all(exp.Table)} - named


def assert_is_query(text: str, statement: str) -> None:
    """Fails where sqlglot reads anything else in a text than a query of the tables of the statement."""
    tree = sqlglot.parse_one(text, read="trino")
    assert isinstance(tree, exp.Query), text
    # What it does not know by its words it takes as a command.
    assert not list(tree.find_all(exp.Command)), text
    assert {(table.catalog, table.db) for table in tree.find_all(exp.Table)} <= {("tpch", "tiny")}, text
    # Of its dialects that of DuckDB knows what the gateway does: QUALIFY, SEMI JOIN, ::.
    assert tables(tree) == tables(sqlglot.parse_one(statement, read="duckdb")), text


def is_ordered(statement: str) -> bool:
    """Whether it says in which order its rows come."""
    return re.search(r"\border by [^()]*$", statement) is not None


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.stem)
def test_tpch_gives_the_answer_of_the_gateway(query: Path, gateway: Gateway, cursor: flightsql.Cursor) -> None:
    statement = query.read_text()
    text, refusal = translated(gateway, statement)
    assert text, refusal
    assert_is_query(text, statement)
    assert_same(there(cursor, text), fetch(cursor, statement))


@pytest.mark.parametrize("statement", asked())
def test_a_statement_is_the_same_or_refused(statement: str, told: Told, cursor: flightsql.Cursor) -> None:
    text, refusal = told[statement]
    if construct := STATEMENTS[statement]:
        assert text is None, text
        assert refusal.startswith(f"cannot translate {construct}"), refusal
        assert refusal.endswith(" for trino"), refusal
        return
    assert text, refusal
    assert_is_query(text, statement)
    got, expected = there(cursor, text), fetch(cursor, statement)
    if not is_ordered(statement):
        got, expected = (sorted(rows, key=repr) for rows in (got, expected))
    assert_same(got, expected)


def test_most_statements_are_translated(told: Told, figure: Callable[[str], None]) -> None:
    refused = [f"{statement}: {said}" for statement, (text, said) in told.items() if text is None]
    figure(f"translated for trino: {len(told) - len(refused)} of {len(told)} statements")
    assert len(refused) <= (1 - ACCEPTED) * len(told), "\n".join(refused)


def test_explain_shows_it(gateway: Gateway, cursor: flightsql.Cursor) -> None:
    statement = "select n_name from nation where n_regionkey = 1 order by n_name"
    shown = dict(fetch(cursor, f"explain {statement}"))
    assert shown["translation"] == translated(gateway, statement)[0]
    assert shown["translation"].startswith('SELECT t1."n_name" AS "n_name" FROM "tpch"."tiny"."nation" AS t1 WHERE ')
    refused = dict(fetch(cursor, "explain select upper(n_name) from nation"))["translation"]
    assert re.fullmatch("cannot translate the function upper.* for trino", refused)
    assert "translation" not in dict(fetch(cursor, "explain select 1 as one"))
