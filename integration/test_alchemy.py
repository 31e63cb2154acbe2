"""SQLAlchemy's own tests for dialects, run by its dialect for Flight SQL through ADBC against a gateway."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

import postgres
from gateway import REPLICAS, configured

HERE = Path(__file__).resolve().parent / "alchemy"
# Behind replicas each statement commits by itself, in the schema that a database has.
DEFAULTS = '[defaults]\ncatalog = "tables"\n' + ('schema = "public"\n' if REPLICAS > 1 else "")
URL = "adbc+flightsql://{address}?tls=false&adbc.flight.sql.rpc.with_cookie_middleware=true"

# How many pass. It only grows.
PASSED = 383 if REPLICAS == 1 else 392
KEYS = "its tables have foreign keys or checks, which are not taken because nothing would hold them"
UNTYPED = "without foreign keys, which are not taken, the suite gives a column no type, and its client makes no statement of that"
VIEWS = "there are no views"
OFFSET = "the dialect writes LIMIT -1 for an OFFSET alone"
NUMBERS = "the dialect takes the numbers of NUMERIC for approximate ones"
LISTING = "a listing of tables is part of no transaction in Flight SQL, so it shows nothing that is not committed"
FLOAT = "FLOAT has 32 bits"
DIGITS = "an exact number has 38 digits, and a quotient four more after the point than the dividend"
GENERATED = "nothing makes values for columns that a statement leaves out"
# What fails, by class or by test of a class, and why.
KNOWN = {
    "BinaryTest": "the driver's module has no Binary, which PEP 249 wants",
    "BooleanTest.test_render_literal_bool": "the dialect compares truth values with 1",
    "BooleanTest.test_whereclause": "the dialect compares truth values with 1",
    "CTETest": UNTYPED,
    "ComponentReflectionTest": KEYS,
    "ComponentReflectionTestExtra": LISTING,
    "CompositeKeyReflectionTest": KEYS,
    "FetchLimitOffsetTest": OFFSET,
    "FutureTableDDLTest": LISTING,
    "HasTableTest": VIEWS,
    "IdentityAutoincrementTest": GENERATED,
    "InsertBehaviorTest.test_insert_from_select_autoinc": GENERATED,
    "InsertBehaviorTest.test_no_results_for_non_returning_insert": GENERATED,
    "JoinTest": UNTYPED,
    "LongNameBlowoutTest": KEYS + ", or indexes, which there are not",
    "NumericTest.test_float_custom_scale": FLOAT,
    "NumericTest.test_numeric_as_float": NUMBERS,
    "NumericTest.test_render_literal_numeric_asfloat": NUMBERS,
    "QuotedNameArgumentTest": KEYS,
    "RowFetchTest.test_row_with_dupe_names": "two columns of an answer cannot have one name",
    "TableDDLTest": LISTING,
    "TableViaSelectTest": VIEWS + ", and " + LISTING,
    "TrueDivTest.test_truediv_divisor[numeric_38_digit_divisor-typed]": DIGITS,
    "TrueDivTest.test_truediv_divisor[numeric_38_digit_divisor-untyped_function]": DIGITS,
    "TrueDivTest.test_truediv_divisor[numeric_tiny_divisor-untyped_function]": DIGITS,
    "TrueDivTest.test_truediv_float": FLOAT,
    "WindowFunctionTest.test_window_rows_between_w_caching": "DataFusion plans no parameters in a window's frame",
}

# Nobody makes the tables of these, and what they leave behind in a database is in the way of others.
LEFT_OUT = [] if REPLICAS == 1 else [name for name, why in KNOWN.items() if why in (KEYS, UNTYPED, VIEWS)]
if REPLICAS > 1:
    # Nothing waits for a commit there, so what a listing shows fails nothing.
    KNOWN = {name: why for name, why in KNOWN.items() if name not in LEFT_OUT and why != LISTING}
    KNOWN["ComponentReflectionTestExtra"] = "the driver's listing has no sizes of columns and does not say which take no NULL"
    KNOWN["TableViaSelectTest"] = "the dialect looks for a table without a schema in all of them, and lists none"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How each test ended: `passed`, `skipped` by what requirements.py says, or what was wrong."""
    folder = tmp_path_factory.mktemp("alchemy")
    report = folder / "report.xml"
    with (
        postgres.taking_rows("tables", "test_schema", REPLICAS) as catalog,
        configured(folder, DEFAULTS + catalog) as gateway,
    ):
        options = ["-c", HERE / "pytest.ini", "-q", f"--junit-xml={report}", "--dburi", URL.format(address=gateway.flight)]
        options += [f"--deselect=test_suite.py::{name}_" for name in LEFT_OUT]
        words = [sys.executable, "-m", "pytest", *map(str, options), "test_suite.py"]
        done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=110)
    assert report.exists(), done.stdout[-4000:] + done.stderr[-4000:]
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname').rpartition('.')[2].partition('_')[0]}.{case.get('name')}"
        wrong = case.find("failure") if case.find("error") is None else case.find("error")
        skipped = case.find("skipped") is not None
        outcomes[name] = wrong.get("message") if wrong is not None else "skipped" if skipped else "passed"
    return outcomes


def reason(name: str) -> str | None:
    """What is known of a test, by itself, without its values, or by its class."""
    test = name.partition("[")[0]
    return KNOWN.get(name) or KNOWN.get(test) or KNOWN.get(test.partition(".")[0])


def test_as_many_pass_as_ever_did(outcomes: dict[str, str], figure: Callable[[str], None]) -> None:
    counts = Counter(outcome if outcome in ("passed", "skipped") else "failed" for outcome in outcomes.values())
    figure(f"sqlalchemy.testing.suite: {counts['passed']} pass, {counts['failed']} fail, {counts['skipped']} do not apply")
    assert counts["passed"] == PASSED, "where they are more, write it down"


def test_what_fails_is_known(outcomes: dict[str, str]) -> None:
    failed = {name: outcome for name, outcome in outcomes.items() if outcome not in ("passed", "skipped")}
    unknown = {name: outcome for name, outcome in failed.items() if reason(name) is None}
    assert not unknown, "\n".join(f"{name}: {outcome[:200]}" for name, outcome in unknown.items())
    used = {key for name in failed for key in (name, name.partition("[")[0], name.partition(".")[0])}
    assert set(KNOWN) <= used, "what passes by now is known no longer"
