"""What a policy hides is in no byte of an answer: not beneath a null, nor in a dictionary, nor between the values of views."""

import decimal
import re
import struct
from collections.abc import Callable, Collection, Iterator

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import requests

from gateway import Gateway, configured, users
from wire import Client, statement

COUNT = 30
# Each value says in eight bytes of which column and row it is, whether it is a text or a number.
ARROW = "application/vnd.apache.arrow.stream"
WAYS = ("native", "lowered", "http")
COUNTED = re.compile(r"(\w*(?:rows|bytes|batches)\w*(?:\{[^}]*\})?)=([^,\]]*)")
CANARY = re.compile(rb"cnr(\d\d)(\d\d)7")


def union(texts: list[str], numbers: list[int], dense: bool) -> pa.Array:
    """A text and a number by turns."""
    types = pa.array([row % 2 for row in range(COUNT)], pa.int8())
    if dense:
        offsets = pa.array([row // 2 for row in range(COUNT)], pa.int32())
        return pa.UnionArray.from_dense(types, offsets, [pa.array(texts[::2]), pa.array(numbers[1::2])], ["a", "b"])
    return pa.UnionArray.from_sparse(types, [pa.array(texts), pa.array(numbers)], ["a", "b"])


def of(kind: pa.DataType) -> Callable[[list[str], list[int]], pa.Array]:
    """Texts as values of a type."""
    return lambda texts, _: pa.array([text and text.encode() for text in texts] if "binary" in str(kind) else texts, kind)


KINDS: dict[str, Callable[[list[str], list[int]], pa.Array]] = {
    "utf8": of(pa.utf8()),
    "large_utf8": of(pa.large_utf8()),
    "views": of(pa.string_view()),
    "short_views": lambda t, n: pa.array([text[:8] for text in t], pa.string_view()),
    "bytes": of(pa.binary()),
    "large_bytes": of(pa.large_binary()),
    "view_bytes": of(pa.binary_view()),
    "fixed_bytes": lambda t, n: pa.array([text[:16].encode() for text in t], pa.binary(16)),
    "ints": lambda t, n: pa.array(n),
    "uints": lambda t, n: pa.array(n, pa.uint64()),
    "doubles": lambda t, n: pa.array([struct.unpack("<d", struct.pack("<q", number))[0] for number in n]),
    "decimals": lambda t, n: pa.array([decimal.Decimal(number) for number in n], pa.decimal128(38, 0)),
    "decimals256": lambda t, n: pa.array([decimal.Decimal(number) for number in n], pa.decimal256(50, 0)),
    "moments": lambda t, n: pa.array(n, pa.timestamp("ns")),
    "durations": lambda t, n: pa.array(n, pa.duration("ns")),
    "lists": lambda t, n: pa.array([[text] for text in t]),
    "large_lists": lambda t, n: pa.array([[text] for text in t], pa.large_list(pa.utf8())),
    "fixed_lists": lambda t, n: pa.array([[number, 1] for number in n], pa.list_(pa.int64(), 2)),
    "structs": lambda t, n: pa.array([{"a": text, "b": number} for text, number in zip(t, n, strict=True)]),
    "maps": lambda t, n: pa.array([[("k", text)] for text in t], pa.map_(pa.utf8(), pa.utf8())),
    "dicts": of(pa.dictionary(pa.int8(), pa.utf8())),
    "large_dict": of(pa.dictionary(pa.int32(), pa.large_utf8())),
    "number_dict": lambda t, n: pa.array(n).dictionary_encode(),
    "list_dict": lambda t, n: pa.ListArray.from_arrays(range(COUNT + 1), pa.array(t).dictionary_encode()),
    "struct_dict": lambda t, n: pa.StructArray.from_arrays([pa.array(t).dictionary_encode()], ["a"]),
    "list_view": lambda t, n: pa.array([[text] for text in t], pa.list_view(pa.utf8())),
    "large_list_view": lambda t, n: pa.array([[text] for text in t], pa.large_list_view(pa.utf8())),
    "runs": lambda t, n: pc.run_end_encode(pa.array(t)),
    "sparse": lambda t, n: union(t, n, dense=False),
    "dense": lambda t, n: union(t, n, dense=True),
}
# Of these two values can be compared; the others have no `nullif`.
SCALARS = [name for name in KINDS if not re.search("list|struct|map|sparse|dense", name)]
# Of these a twin has nulls where its rows are hidden.
NULLABLE = ["utf8", "large_utf8", "views", "bytes", "large_bytes", "view_bytes", "ints", "uints", "moments", "durations", "dicts"]
# In these hidden rows of a twin repeat what is seen, so that its dictionary has another order, and that it has fewer runs.
REPEATED = ["large_dict", "runs"]
# The columns of the tables of each source, the plainer ones apart; no writer of Parquet takes runs and unions.
PLAIN = [kind for kind in SCALARS if not re.search("dict|runs", kind)]
# Arrow has no null of these, so they take no mask.
UNMASKED = ["runs", "sparse", "dense"]
NESTED = [kind for kind in KINDS if kind not in (*PLAIN, *UNMASKED)]
TABLES = {
    "shop.main.m": PLAIN,
    "shop.main.mn": NESTED,
    # With others beside them views are copied, as their buffers seem to hold little of what is needed.
    "shop.main.mv": ["views"],
    "docs.main.av": ["views"],
    "docs.main.a": PLAIN,
    "docs.main.an": NESTED,
    "docs.main.p": PLAIN,
    "docs.main.pn": NESTED,
    "shop.main.mu": UNMASKED,
    "docs.main.au": UNMASKED,
}
# What another than the user sees of a value: the end of it, which a view has in the same buffer, or a value of the same type.
ELSE = {
    "utf8": "ELSE arrow_cast(substr(utf8, 9), 'Utf8')",
    "large_utf8": "ELSE arrow_cast(substr(large_utf8, 9), 'LargeUtf8')",
    "views": "ELSE substr(views, 9)",
    "short_views": "ELSE right(short_views, 3)",
    "bytes": "ELSE arrow_cast('another value', 'Binary')",
    "ints": "ELSE 0",
    "doubles": "ELSE arrow_cast(0.5, 'Float64')",
    "dicts": "ELSE arrow_cast('another value', 'Dictionary(Int8, Utf8)')",
}
NAMES = [f"n{row:02}" for row in range(COUNT)]
# Of each user: what a column is to them, and the rows that they see of it.
OWN = {"cas": 3, "els": 14}
MASKS: dict[str, Callable[[str, str], str]] = {
    "cas": lambda column, _: f"CASE WHEN name = $user THEN {column} END",
    "els": lambda column, other: f"CASE WHEN name = $user THEN {column} {other} END",
    "nul": lambda column, _: f"nullif({column}, {column})" if column in SCALARS else f"CASE WHEN name = '' THEN {column} END",
}
FILTERS = {"one": f"name = '{NAMES[17]}'", "most": f"name <> '{NAMES[20]}'"}
for user, row in OWN.items():
    NAMES[row] = user
SEEN = {"cas": {3}, "els": {14}, "nul": set(), "one": {17}, "most": {*range(COUNT)} - {20}}
CASES = [(user, table) for user in SEEN for table, kinds in TABLES.items() if user not in MASKS or kinds is not UNMASKED]
STATEMENTS = (
    "select * from {t}",
    "select * from {t} order by name",
    "select * from {t} order by name desc limit 3",
    "select * from {t} limit 1",
    "select * from {t} where name > 'e'",
)
# What is told of these is counted above what the policy shows.
COUNTING = ["select * from {t} order by name limit 40", "select * from {t} limit 40"]


def policy() -> str:
    """A rule for each user and source, and for root."""
    rules = ['[[rules]]\nusers = ["root"]\ntables = ["*.*.*"]\nallow = ["read", "write", "native", "admin"]']
    for user in SEEN:
        for table, kinds in TABLES.items():
            shown = ""
            if user in MASKS:
                # Parquet's texts are views to no reader, so that these would not be of the column's type.
                others = {kind: "" if "view" in kind and table == "docs.main.p" else ELSE.get(kind, "") for kind in kinds}
                shown = ", ".join(f'{kind} = "{MASKS[user](kind, other)}"' for kind, other in others.items())
            sight = f"masks = {{ {shown} }}" if user in MASKS else f'filter = "{FILTERS[user]}"'
            # The table itself, and its twin for this user.
            for name in (table, f"{table}_{user}"):
                rules.append(f'[[rules]]\nusers = ["{user}"]\ntables = ["{name}"]\nallow = ["read"]\n{sight}')
    return "\n\n".join(rules)


def made(kinds: list[str], hidden: set[int] = frozenset(), ends: Collection[str] = ()) -> pa.Table:
    """A column of each kind; where rows are hidden other values, of other lengths but where the end is seen, and nulls."""
    columns = {"name": pa.array(NAMES)}
    for place, kind in enumerate(kinds):
        texts = [f"cnr{place:02}{row:02}7-and-more-than-twelve-bytes-of-it" for row in range(COUNT)]
        last = max({*range(COUNT)} - hidden, default=0)
        for row in hidden:
            texts[row] = texts[last] if kind in REPEATED else f"zzz{texts[row][3:]}" + ("" if kind in ends else "-and-more" * row)
        numbers = [int.from_bytes(text[:8].encode(), "little") for text in texts]
        if kind in NULLABLE and kind not in ends:
            for values in (texts, numbers):
                values[:] = [None if row in hidden and row % 3 == 0 else value for row, value in enumerate(values)]
        columns[kind] = KINDS[kind](texts, numbers)
    return pa.table(columns)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "policy.toml").write_text(policy())
    (folder / "docs").mkdir()
    tables = {name: made(kinds) for name, kinds in TABLES.items()}
    for user, seen in SEEN.items():
        hidden, ends = {*range(COUNT)} - seen, ELSE if user == "els" else ()
        tables |= {f"{name}_{user}": made(kinds, hidden, ends) for name, kinds in TABLES.items()}
    text = "\n".join(
        [
            users("root", *SEEN),
            '[policy]\nfile = "policy.toml"',
            '[catalogs.shop]\nkind = "memory"\nwritable = true',
            '[catalogs.docs]\nkind = "files"\nlocation = "docs"',
            '[defaults]\ncatalog = "shop"',
        ]
    )
    for name, table in tables.items():
        file = name.rpartition(".")[2]
        if file.startswith("p"):
            pq.write_table(table, folder / "docs" / f"{file}.parquet")
        elif file.startswith("a"):
            with pa.ipc.new_file(folder / "docs" / f"{file}.arrow", table.schema) as writer:
                writer.write_table(table)
    with configured(folder, text, replicas=1) as gateway:
        credentials = {"username": "root", "password": "root"}
        with flightsql.connect(gateway.uri, db_kwargs=credentials, autocommit=True) as connection, connection.cursor() as cursor:
            for name, table in tables.items():
                if name.startswith("shop"):
                    cursor.adbc_ingest(name.rpartition(".")[2], table, mode="create")
        yield gateway


class Reader:
    """A user with a connection for each way to read, logged in once."""

    def __init__(self, gateway: Gateway, user: str) -> None:
        with Client(gateway.flight, user, user) as client:
            token = client.handshake()
        self.url, self.headers = f"{gateway.url}/v1/sql", {"accept": ARROW, "authorization": token}
        self.clients = {way: Client(gateway.flight, authorization=token, x_nexus_type_profile=way) for way in WAYS[:2]}
        self.session = requests.Session()

    def post(self, sql: str) -> requests.Response:
        """An answer over HTTP."""
        answer = self.session.post(self.url, data=sql, headers=self.headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer

    def raw(self, sql: str, way: str) -> bytes:
        """The messages of an answer as they came, or its body."""
        if way == "http":
            return self.post(sql).content
        client = self.clients[way]
        return b"".join(message for ticket in client.info(statement(sql)).tickets for message in client.get(ticket))


@pytest.fixture(scope="module")
def readers(gateway: Gateway) -> Iterator[dict[str, Reader]]:
    found = {user: Reader(gateway, user) for user in ("root", *SEEN)}
    yield found
    for reader in found.values():
        reader.session.close()
        for client in reader.clients.values():
            client.channel.close()


def canaries(raw: bytes, kinds: list[str]) -> dict[str, set[int]]:
    """The rows of each column whose value is among the bytes."""
    found: dict[str, set[int]] = {kind: set() for kind in kinds}
    for place, row in CANARY.findall(raw):
        found[kinds[int(place)]].add(int(row))
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("table", TABLES)
def test_who_sees_all_has_each_value_in_the_bytes(readers: dict[str, Reader], table: str, way: str) -> None:
    found = canaries(readers["root"].raw(f"select * from {table}", way), TABLES[table])
    assert {kind: COUNT - len(rows) for kind, rows in found.items() if len(rows) < COUNT} == {}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("user", "table"), CASES)
def test_no_byte_tells_what_is_hidden(readers: dict[str, Reader], user: str, table: str, way: str) -> None:
    told, lacking = {}, {}
    columns = [f"select {kind} from {{t}}" for kind in TABLES[table]] if way == "native" else []
    # The second time from the cache.
    for sql in [*STATEMENTS, STATEMENTS[0], *columns]:
        found = canaries(readers[user].raw(sql.format(t=table), way), TABLES[table])
        if hidden := [kind for kind, rows in found.items() if rows - SEEN[user]]:
            told[sql] = " ".join(hidden)
        if sql == STATEMENTS[0]:
            lacking = {kind: sorted(SEEN[user] - rows) for kind, rows in found.items() if SEEN[user] - rows}
    assert not told, f"{user}, {table}, {way}: {told}"
    assert not lacking


@pytest.mark.parametrize("table", [table for table, kinds in TABLES.items() if kinds is UNMASKED])
@pytest.mark.parametrize("user", MASKS)
def test_what_has_no_null_takes_no_mask(readers: dict[str, Reader], user: str, table: str) -> None:
    reader = readers[user]
    answer = reader.session.post(reader.url, data=f"select * from {table}", headers=reader.headers, timeout=30)
    assert "does not fit its columns" in answer.json()["error"]["message"]


@pytest.mark.parametrize("table", [table for user, table in CASES if user == "cas"])
def test_the_second_answer_is_that_of_the_cache(readers: dict[str, Reader], table: str) -> None:
    told = [readers["cas"].post(f"select *, 1 as one from {table}").headers["x-nexus-cache"] for _ in range(2)]
    assert told == ["miss", "hit"]


@pytest.mark.parametrize(("user", "table"), CASES)
def test_no_count_of_bytes_tells_what_is_hidden(readers: dict[str, Reader], user: str, table: str) -> None:
    for sql in COUNTING:
        told = []
        for name in (table, f"{table}_{user}"):
            answer = readers[user].raw(f"explain analyze verbose {sql.format(t=name)}", "http")
            plans = {row["plan_type"]: row["plan"] for row in pa.ipc.open_stream(answer).read_all().to_pylist()}
            told.append(COUNTED.findall(plans["physical_plan"]))
        assert told[0] == told[1], sql
        assert any(value not in ("0", "0.0 B") for name, value in told[0] if "bytes" in name), f"{sql}: it counts no bytes"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("user", "table"), CASES)
def test_an_answer_is_the_same_whatever_is_hidden(readers: dict[str, Reader], user: str, table: str, way: str) -> None:
    for order in ("", " order by name"):
        told = [readers[user].raw(f"select * from {name}{order}", way) for name in (table, f"{table}_{user}")]
        assert told[0] == told[1], f"{user}, {table}, {way}{order}"
