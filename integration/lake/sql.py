"""What is asked of a table, in the words of Spark and of the gateway: a sum over all its rows, and queries of every kind."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from pyspark.sql.types import ArrayType, DataType, MapType, StructType

# What the maps of the tables have for keys, and how many elements the arrays have at most.
KEYS = ("a", "键")
LONGEST = 3
DIGITS = "123456789abcdef"


@dataclass(frozen=True)
class Engine:
    """How Spark, or the gateway, is asked: they have other quotes, count elements from another number, and read timestamps and
    bytes by functions of other names."""

    is_spark: bool

    def name(self, name: str) -> str:
        """The name of a column, quoted."""
        return f"`{name}`" if self.is_spark else f'"{name}"'

    def text(self, at: str, kind: DataType) -> str:
        """An expression as a text that both engines give alike; NULL stays NULL."""
        match kind:
            case StructType():
                fields = [self._shown(f"{at}['{field.name}']", field.dataType) for field in kind.fields]
                return _unless_null(at, ["'('", *_joined(fields), "')'"])
            case ArrayType():
                items = [self._shown(f"{at}[{place - self.is_spark}]", kind.elementType) for place in range(1, LONGEST + 1)]
                return _unless_null(at, [f"CAST(cardinality({at}) AS STRING)", "'['", *_joined(items), "']'"])
            case MapType():
                values = [self._shown(f"{at}['{key}']", kind.valueType) for key in KEYS]
                return _unless_null(at, [f"CAST(cardinality({at}) AS STRING)", "'['", *_joined(values), "']'"])
        match kind.typeName():
            case "string":
                return at
            case "float" | "double":
                # No two engines write all floats alike. Those of the tables have few digits.
                return f"CASE WHEN isnan({at}) THEN 'NaN' ELSE CAST(CAST({at} AS DECIMAL(20,4)) AS STRING) END"
            case "timestamp":
                return f"CAST(unix_micros({at}) AS STRING)" if self.is_spark else f"CAST(CAST({at} AS BIGINT) AS STRING)"
            case "timestamp_ntz":
                micros = f"unix_micros(CAST({at} AS TIMESTAMP))" if self.is_spark else f"CAST({at} AS BIGINT)"
                return f"CAST({micros} AS STRING)"
            case "binary":
                return f"lower(hex({at}))" if self.is_spark else f"encode({at}, 'hex')"
        return f"CAST({at} AS STRING)"

    def checksum(self, schema: StructType, table: str) -> str:
        """The number of rows, and the sum of a number made of each row: the first eight digits of its text's MD5."""
        row = _joined([self._shown(self.name(field.name), field.dataType) for field in schema.fields])
        digits = [f"CAST(instr('{DIGITS}', substr(h, {i + 1}, 1)) AS BIGINT) * {16 ** (7 - i)}" for i in range(8)]
        total = f"CAST(count(*) AS STRING) AS n, CAST(sum({' + '.join(digits)}) AS STRING) AS checksum"
        return f"SELECT {total} FROM (SELECT md5(concat({', '.join(row)})) AS h FROM {table}) AS hashed"

    def literal(self, value: object, kind: DataType) -> str:
        """A value of one of the types that filters are made for."""
        match value:
            case datetime():
                ntz = "_NTZ" if self.is_spark and kind.typeName() == "timestamp_ntz" else ""
                return f"TIMESTAMP{ntz} '{value:%Y-%m-%d %H:%M:%S.%f}'"
            case date():
                return f"DATE '{value}'"
            case Decimal() | float():
                return f"CAST('{value}' AS {kind.simpleString()})"
            case str():
                return f"'{value}'"
        return str(value)

    def _shown(self, at: str, kind: DataType) -> str:
        return f"coalesce({self.text(at, kind)}, '<null>')"


SPARK = Engine(True)
GATEWAY = Engine(False)


@dataclass(frozen=True)
class Column:
    """A column, or a field of a struct, that filters are made for."""

    path: tuple[str, ...]
    kind: DataType
    # Three of its values, in their order, or none where it is always NULL; and whether it has NaN.
    values: tuple
    has_nan: bool

    def at(self, engine: Engine) -> str:
        """Its value."""
        return engine.name(self.path[0]) + "".join(f"['{field}']" for field in self.path[1:])

    @property
    def label(self) -> str:
        """What queries about it are called."""
        return ".".join(self.path)


def primitives(schema: StructType) -> list[tuple[tuple[str, ...], DataType]]:
    """The columns of a table, and the fields of its structs, that have one value each."""
    found = []
    for field in schema.fields:
        if isinstance(field.dataType, StructType):
            found += [((field.name, *path), kind) for path, kind in primitives(field.dataType)]
        elif not isinstance(field.dataType, ArrayType | MapType):
            found.append(((field.name,), field.dataType))
    return found


def filters(engine: Engine, column: Column) -> Iterator[tuple[str, str]]:
    """Conditions on a column, each with its name."""
    at, kind = column.at(engine), column.kind.typeName()
    yield "is null", f"{at} IS NULL"
    yield "is not null", f"{at} IS NOT NULL"
    if kind == "boolean":
        yield "itself", at
        yield "not itself", f"NOT {at}"
        yield "not both", f"NOT ({at} AND id < 500)"
        return
    if kind == "binary":
        yield "as hex", f"{engine.text(at, column.kind)} LIKE 'a%'"
        return
    if column.has_nan:
        yield "is NaN", f"isnan({at})"
    if not column.values:
        return
    low, middle, high = (engine.literal(value, column.kind) for value in column.values)
    yield "equal", f"{at} = {middle}"
    yield "greater", f"{at} > {middle}"
    yield "in", f"{at} IN ({low}, {high})"
    yield "not in", f"{at} NOT IN ({low}, {middle})"
    yield "not both", f"NOT ({at} > {low} AND id < 500)"
    yield "either", f"{at} < {low} OR {at} > {high} OR id = 7"
    value = column.values[1]
    match kind:
        case "string":
            yield "like a beginning", f"{at} LIKE '{value[:2]}%'"
            yield "like an end", f"{at} LIKE '%{value[-1:]}'"
            yield "not like", f"{at} NOT LIKE '{value[:1]}%'"
        case "byte" | "short" | "integer":
            yield "cast to int", f"CAST({at} AS INT) = {middle}"
            yield "cast to bigint", f"CAST({at} AS BIGINT) = {middle}"
            yield "cast to text", f"CAST({at} AS STRING) = '{middle}'"
        case "long":
            yield "cast to text", f"CAST({at} AS STRING) = '{middle}'"
            yield "above all ints", f"{at} < 2147483648"
        case "decimal":
            yield "cast to int", f"CAST({at} AS INT) = {int(value)}"
            yield "cast to text", f"CAST({at} AS STRING) LIKE '%.50'"
        case "float" | "double":
            if not column.has_nan:
                yield "cast to int", f"CAST({at} AS INT) = {int(value)}"
        case "date":
            yield "cast to text", f"CAST({at} AS STRING) >= '{value}'"
        case "timestamp" | "timestamp_ntz":
            yield "cast to date", f"CAST({at} AS DATE) = DATE '{value:%Y-%m-%d}'"


def queries(
    engine: Engine, schema: StructType, columns: list[Column], table: str, other: str, rows: int
) -> Iterator[tuple[str, str]]:
    """What is asked of the newest state of a table with so many rows, and of it beside another that has `id` and `k` too: each
    query with its name. All they give is text, in an order that is known. The table has `id`, which is unique and never NULL."""
    found = "CAST(count(*) AS STRING) AS n, CAST(sum(id) AS STRING) AS ids"
    yield "count", f"SELECT CAST(count(*) AS STRING) AS n FROM {table}"
    yield "distinct", f"SELECT CAST(count(DISTINCT id) AS STRING) AS n FROM {table}"
    every = ", ".join(f"{engine.text(engine.name(field.name), field.dataType)} AS c{i}" for i, field in enumerate(schema.fields))
    yield "all columns", f"SELECT {every} FROM {table} ORDER BY id DESC LIMIT 10"
    for field in schema.fields:
        shown = engine.text(engine.name(field.name), field.dataType)
        yield f"{field.name} alone", f"SELECT {shown} AS v FROM {table} ORDER BY id LIMIT 8"
    for column in columns:
        at = column.at(engine)
        for name, condition in filters(engine, column):
            yield f"{column.label} {name}", f"SELECT {found} FROM {table} WHERE {condition}"
        if column.kind.typeName() in ("boolean", "binary"):
            continue
        shown = f"{engine.text(at, column.kind)} AS v, CAST(id AS STRING) AS id_text"
        yield f"{column.label} sorted", f"SELECT {shown} FROM {table} ORDER BY {at} DESC NULLS LAST, id LIMIT 5"
        if not column.has_nan:
            ends = f"{engine.text(f'min({at})', column.kind)} AS low, {engine.text(f'max({at})', column.kind)} AS high"
            yield f"{column.label} ends", f"SELECT {ends} FROM {table}"
    # As many as there are, so that any row too many takes the place of a right one.
    yield "all within a limit", f"SELECT {found} FROM (SELECT id FROM {table} WHERE id >= 0 LIMIT {rows}) AS limited"
    number = "CAST(count(*) AS STRING) AS n"
    yield "a filter and a limit", f"SELECT {number} FROM (SELECT id FROM {table} WHERE id > 20 LIMIT 5) AS limited"
    yield "a limit", f"SELECT {number} FROM (SELECT * FROM {table} LIMIT 7) AS limited"
    group = f"CAST(k AS STRING) AS k_text, {found}"
    yield "grouped", f"SELECT {group} FROM {table} GROUP BY k ORDER BY k NULLS FIRST"
    joined = "CAST(count(*) AS STRING) AS n, CAST(sum(a.id + b.k) AS STRING) AS ids"
    yield "joined", f"SELECT {joined} FROM {table} AS a JOIN {other} AS b ON a.id = b.id WHERE b.k IN (2, 3)"
    yield "joined on the left", f"SELECT {joined} FROM {table} AS a LEFT JOIN {other} AS b ON a.id = b.id AND b.k = 4"
    yield "semi-joined", f"SELECT {found} FROM {table} WHERE id IN (SELECT id FROM {other} WHERE k = 5)"
    lacking = f"NOT EXISTS (SELECT 1 FROM {other} AS b WHERE b.id = a.id AND b.k < 5)"
    yield "anti-joined", f"SELECT {found} FROM {table} AS a WHERE {lacking}"


def _unless_null(at: str, parts: list[str]) -> str:
    return f"CASE WHEN {at} IS NOT NULL THEN concat({', '.join(parts)}) END"


def _joined(parts: list[str]) -> list[str]:
    return [word for part in parts for word in ("'|'", part)][1:]
