"""What Trino's JSON says, as the Python values that Arrow has for it; and whether two answers are the same."""

import base64
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa

from answers import assert_same

# The digits of a second that Python holds. Of more than these a moment is a number of nanoseconds here.
DIGITS = 6
# Of these Arrow has the text.
TEXTS = {"varchar", "char", "json", "uuid", "ipaddress", "time with time zone"}


def rows(columns: list[dict], found: list[list]) -> list[tuple]:
    """The rows of an answer of `trino_server`."""
    signatures = [column["typeSignature"] for column in columns]
    return [tuple(read(each, value) for each, value in zip(signatures, row, strict=True)) for row in found]


def read(signature: dict, value: object) -> object:
    """A value of a type. An interval is its months, or its milliseconds."""
    if value is None:
        return None
    arguments = [argument["value"] for argument in signature["arguments"]]
    match signature["rawType"]:
        case "boolean":
            return value in (True, "true")
        case "tinyint" | "smallint" | "integer" | "bigint":
            return int(value)
        case "double":
            return float(value)
        case "real":
            return pa.scalar(float(value), pa.float32()).as_py()
        case "decimal":
            return Decimal(value)
        case "varbinary" | "HyperLogLog":
            return base64.b64decode(value)
        case "date":
            return date.fromisoformat(value)
        case "time" | "timestamp" | "timestamp with time zone" as kind:
            return _moment(kind, arguments[0], value)
        case "interval year to month":
            sign, (years, months) = _signed(value, "-")
            return sign * (12 * int(years) + int(months))
        case "interval day to second":
            sign, (days, clock) = _signed(value, " ")
            return sign * (int(days) * 86_400_000 + _nanoseconds(clock) // 1_000_000)
        case "array":
            return [read(arguments[0], element) for element in value]
        case "map":
            return [(read(arguments[0], key), read(arguments[1], element)) for key, element in value.items()]
        case "row":
            names = [(each["fieldName"] or {"name": f"field{at}"})["name"] for at, each in enumerate(arguments)]
            parts = zip(names, arguments, value, strict=True)
            return {name: read(each["typeSignature"], part) for name, each, part in parts}
        case raw:
            assert raw in TEXTS, raw
            return value


def plain(column: pa.ChunkedArray) -> list:
    """The values of a column in the same form."""
    if pa.types.is_interval(column.type):
        return [value and value.days * 86_400_000 + value.nanoseconds // 1_000_000 for value in column.to_pylist()]
    if (pa.types.is_time(column.type) or pa.types.is_timestamp(column.type)) and column.type.unit == "ns":
        return column.cast(pa.int64()).to_pylist()
    return column.to_pylist()


def assert_near(got: list[tuple], expected: list[tuple]) -> None:
    """Fails where answers differ. A mean of exact numbers, or their quotient, has fewer digits at Trino than here: in the last of
    those it may be off by one."""
    assert [len(row) for row in got] == [len(row) for row in expected]
    assert_same([tuple(map(_near, *both)) for both in zip(got, expected, strict=True)], expected)


def _near(left: object, right: object) -> object:
    """The right one where they are the same but for digits that only one of them has."""
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        scales = [value.as_tuple().exponent for value in (left, right)]
        if scales[0] != scales[1] and abs(left - right) <= Decimal(1).scaleb(max(scales)):
            return right
    return left


def _moment(kind: str, digits: int, text: str) -> object:
    if digits > 9:
        return text
    if kind == "time":
        return time.fromisoformat(text) if digits <= DIGITS else _nanoseconds(text)
    zone = UTC
    if kind == "timestamp with time zone":
        text, _, name = text.rpartition(" ")
        zone = datetime.fromisoformat(f"2000-01-01 00:00:00{name}").tzinfo if name[0] in "+-" else ZoneInfo(name)
    day, clock = text.split(" ")
    if digits > DIGITS:
        seconds = datetime.fromisoformat(f"{day} 00:00").replace(tzinfo=zone).timestamp()
        return int(seconds) * 10**9 + _nanoseconds(clock)
    moment = datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=zone).astimezone(UTC)
    return moment if kind == "timestamp with time zone" else moment.replace(tzinfo=None)


def _nanoseconds(clock: str) -> int:
    hours, minutes, seconds = clock.split(":")
    whole, _, fraction = seconds.partition(".")
    passed = timedelta(hours=int(hours), minutes=int(minutes), seconds=int(whole))
    return int(passed.total_seconds()) * 10**9 + int(fraction.ljust(9, "0"))


def _signed(text: str, mark: str) -> tuple[int, list[str]]:
    return (-1 if text.startswith("-") else 1), text.removeprefix("-").split(mark)
