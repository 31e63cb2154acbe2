"""Every Arrow type with its extremes: what the native profile must give back, and what JDBC must show of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal

import pyarrow as pa
import pyarrow.compute

_wide = Context(prec=80)
LONG = "longer than the twelve bytes of a view"
MOMENT = datetime(2026, 2, 28, 23, 59, 59)
# The digits of a second that Python and a unit can both hold.
FRACTIONS = {"s": 0, "ms": 3, "us": 6, "ns": 6}


UNION = [pa.field("number", pa.int64()), pa.field("text", pa.string())]
UNSIGNED = [pa.field("number", pa.uint64()), pa.field("text", pa.string_view())]
# The driver reads no exact numbers of a sparse union.
VIEWS = [pa.field("number", pa.int64()), pa.field("text", pa.string_view())]


@dataclass(frozen=True)
class Column:
    """One type: values to write, and for each what `ResultSet.getObject` says of it as text (see the probe)."""

    name: str
    type: pa.DataType
    values: Sequence[object]
    shown: Sequence[object]

    @property
    def table(self) -> pa.Table:
        """The values and a NULL, as a table of one column."""
        return pa.table({"v": array([*self.values, None], self.type)})


def array(values: list, data_type: pa.DataType) -> pa.Array:
    """An array of any type, those included that pyarrow does not build from Python values."""
    if pa.types.is_dictionary(data_type):
        kept: list = []
        kept += (value for value in values if value is not None and value not in kept)
        keys = pa.array([None if value is None else kept.index(value) for value in values], data_type.index_type)
        return pa.DictionaryArray.from_arrays(keys, array(kept, data_type.value_type))
    if pa.types.is_union(data_type):
        return _union(values, data_type)
    if pa.types.is_run_end_encoded(data_type):
        return pa.compute.run_end_encode(pa.array(values, data_type.value_type))
    return pa.array(values, data_type)


def _union(values: list, data_type: pa.UnionType) -> pa.Array:
    """Of a number and a text; a NULL is one of the numbers, since a union has none of its own."""
    is_text = [isinstance(value, str) for value in values]
    names = [data_type.field(at).name for at in range(data_type.num_fields)]
    numbers = [None if text else value for value, text in zip(values, is_text, strict=True)]
    texts = [value if text else None for value, text in zip(values, is_text, strict=True)]
    children = [pa.array(side, data_type.field(at).type) for at, side in enumerate((numbers, texts))]
    kinds = pa.array(map(int, is_text), pa.int8())
    if data_type.mode == "sparse":
        return pa.UnionArray.from_sparse(kinds, children, names, data_type.type_codes)
    places = pa.array(range(len(values)), pa.int32())
    return pa.UnionArray.from_dense(kinds, places, children, names, data_type.type_codes)


def _decimals(name: str, data_type: pa.DataType, digits: int, scale: int) -> Column:
    most = Decimal("9" * digits).scaleb(-scale, _wide)
    values = [most, most.copy_negate(), Decimal("0.05"), Decimal("0.00")]
    return Column(name, data_type, values, [_places(value, scale) for value in values])


def _places(value: Decimal, scale: int) -> str:
    return f"{value.quantize(Decimal(1).scaleb(-scale), context=_wide):f}"


def _integers(name: str, data_type: pa.DataType, least: int, most: int) -> Column:
    return Column(name, data_type, [least, most, 7], [str(least), str(most), "7"])


def _strings(name: str, data_type: pa.DataType) -> Column:
    values = ["", "é中😀", LONG, "a\x00b"]
    return Column(name, data_type, values, values)


def _bytes(name: str, data_type: pa.DataType) -> Column:
    values = [b"", b"\x00\xff", LONG.encode()]
    return Column(name, data_type, values, [value.hex() for value in values])


def _timestamps(name: str, unit: str, zone: str | None = None) -> Column:
    digits = FRACTIONS[unit]
    fraction = MOMENT.replace(microsecond=int("123456"[:digits].ljust(6, "0")))
    values = [datetime(1970, 1, 1), MOMENT, datetime(1900, 1, 1), datetime(2262, 4, 11), fraction]
    shown = [f"{value}.0" for value in values[:-1]] + [f"{MOMENT}.{'123456'[:digits] or '0'}"]
    return Column(name, pa.timestamp(unit, zone), values, shown)


def _times(name: str, data_type: pa.DataType, unit: str) -> Column:
    fraction = time(12, 34, 56, int("123456"[: FRACTIONS[unit]].ljust(6, "0")))
    # The driver shows thousandths, and none where they are nothing.
    shown = "12:34:56" if unit == "s" else "12:34:56.123"
    return Column(name, data_type, [time(0, 0), time(23, 59, 59), fraction], ["00:00:00", "23:59:59", shown])


def _lists(name: str, data_type: pa.DataType) -> Column:
    return Column(name, data_type, [[1, None], [3, 4]], [["1", None], ["3", "4"]])


COLUMNS = [
    Column("null", pa.null(), [None], [None]),
    Column("bool", pa.bool_(), [True, False], ["true", "false"]),
    _integers("int8", pa.int8(), -(2**7), 2**7 - 1),
    _integers("int16", pa.int16(), -(2**15), 2**15 - 1),
    _integers("int32", pa.int32(), -(2**31), 2**31 - 1),
    _integers("int64", pa.int64(), -(2**63), 2**63 - 1),
    _integers("uint8", pa.uint8(), 0, 2**8 - 1),
    _integers("uint16", pa.uint16(), 0, 2**16 - 1),
    _integers("uint32", pa.uint32(), 0, 2**32 - 1),
    _integers("uint64", pa.uint64(), 0, 2**64 - 1),
    Column("float16", pa.float16(), [1.5, -65504.0], ["1.5", "-65504.0"]),
    Column("float32", pa.float32(), [1.5, -3.4028234663852886e38], ["1.5", "-3.4028234663852886E38"]),
    Column("float64", pa.float64(), [1.7976931348623157e308, 5e-324, -0.0], ["1.7976931348623157E308", "4.9E-324", "-0.0"]),
    _decimals("decimal32", pa.decimal32(9, 2), 9, 2),
    _decimals("decimal64", pa.decimal64(18, 2), 18, 2),
    _decimals("decimal128", pa.decimal128(38, 10), 38, 10),
    _decimals("decimal256", pa.decimal256(76, 10), 76, 10),
    _strings("utf8", pa.string()),
    _strings("large_utf8", pa.large_string()),
    _strings("utf8_view", pa.string_view()),
    _bytes("binary", pa.binary()),
    _bytes("large_binary", pa.large_binary()),
    _bytes("binary_view", pa.binary_view()),
    Column("fixed_size_binary", pa.binary(4), [b"\x00\x01\xfe\xff"], ["0001feff"]),
    Column(
        "date32",
        pa.date32(),
        [date(1970, 1, 1), date(1900, 1, 1), date(9999, 12, 31)],
        ["1970-01-01", "1900-01-01", "9999-12-31"],
    ),
    Column("date64", pa.date64(), [date(1970, 1, 1), date(9999, 12, 31)], ["1970-01-01", "9999-12-31"]),
    _times("time32_s", pa.time32("s"), "s"),
    _times("time32_ms", pa.time32("ms"), "ms"),
    _times("time64_us", pa.time64("us"), "us"),
    _times("time64_ns", pa.time64("ns"), "ns"),
    _timestamps("timestamp_s", "s"),
    _timestamps("timestamp_ms", "ms"),
    _timestamps("timestamp_us", "us"),
    _timestamps("timestamp_ns", "ns"),
    # Through JDBC a moment is shown in UTC.
    _timestamps("timestamp_utc", "us", "UTC"),
    _timestamps("timestamp_zone", "ms", "Asia/Shanghai"),
    *(
        Column(f"duration_{unit}", pa.duration(unit), [timedelta(seconds=90), timedelta(0)], ["PT1M30S", "PT0S"])
        for unit in FRACTIONS
    ),
    Column("interval", pa.month_day_nano_interval(), [pa.MonthDayNano([14, 3, 1_500_000_000])], ["P14M3D PT1.5S"]),
    _lists("list", pa.list_(pa.int64())),
    _lists("large_list", pa.large_list(pa.int64())),
    _lists("fixed_size_list", pa.list_(pa.int64(), 2)),
    _lists("list_view", pa.list_view(pa.int64())),
    _lists("large_list_view", pa.large_list_view(pa.int64())),
    Column("list_of_views", pa.list_(pa.string_view()), [[LONG, None]], [[LONG, None]]),
    Column("large_list_of_views", pa.large_list(pa.string_view()), [[LONG, None]], [[LONG, None]]),
    Column("list_view_of_views", pa.list_view(pa.string_view()), [[LONG, None], ["x"]], [[LONG, None], ["x"]]),
    Column("large_list_view_of_views", pa.large_list_view(pa.string_view()), [[LONG, None]], [[LONG, None]]),
    Column(
        "struct",
        pa.struct({"a": pa.uint64(), "b": pa.string_view()}),
        [{"a": 2**64 - 1, "b": LONG}],
        [{"a": str(2**64 - 1), "b": LONG}],
    ),
    Column("map", pa.map_(pa.string(), pa.int64()), [[("a", 1), ("b", None)]], [{"a": "1", "b": None}]),
    Column("dictionary", pa.dictionary(pa.int32(), pa.string()), ["x", "y", "x"], ["x", "y", "x"]),
    Column("dictionary_of_numbers", pa.dictionary(pa.uint8(), pa.uint64()), [2**64 - 1, 0, 0], [str(2**64 - 1), "0", "0"]),
    Column("dictionary_of_decimals", pa.dictionary(pa.int64(), pa.decimal128(9, 2)), [Decimal("-0.05")], ["-0.05"]),
    Column("dictionary_of_views", pa.dictionary(pa.int16(), pa.string_view()), [LONG, "", LONG], [LONG, "", LONG]),
    Column("dictionary_of_bytes", pa.dictionary(pa.uint64(), pa.binary(2)), [b"\x00\xff"], ["00ff"]),
    Column("dictionary_of_lists", pa.dictionary(pa.int8(), pa.list_(pa.int64())), [[1, None]], [["1", None]]),
    Column(
        "dictionary_of_dictionaries",
        pa.dictionary(pa.int8(), pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        [["x", None], ["y"], ["x", None]],
        [["x", None], ["y"], ["x", None]],
    ),
    Column("list_of_dictionaries", pa.list_(pa.dictionary(pa.int8(), pa.string())), [["x", None, "x"]], [["x", None, "x"]]),
    Column("struct_of_dictionaries", pa.struct({"d": pa.dictionary(pa.int8(), pa.string())}), [{"d": "x"}], [{"d": "x"}]),
    Column("dense_union", pa.dense_union(UNION), [7, "x", ""], ["7", "x", ""]),
    Column("sparse_union", pa.sparse_union(UNION), [7, "x", ""], ["7", "x", ""]),
    Column("dense_union_of_unsigned", pa.dense_union(UNSIGNED), [2**64 - 1, LONG], [str(2**64 - 1), LONG]),
    Column("sparse_union_of_views", pa.sparse_union(VIEWS), [7, LONG], ["7", LONG]),
    Column("run_end_encoded", pa.run_end_encoded(pa.int32(), pa.int64()), [7, 7, 8], ["7", "7", "8"]),
]
