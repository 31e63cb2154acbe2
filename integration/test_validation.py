"""The tests that all ADBC drivers in Java share, run by the Flight SQL driver against a gateway."""

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fetch import jar_folder
from gateway import REPLICAS, configured
from jdbc import homes

HERE = Path(__file__).resolve().parent / "validation"
# The rows of a memory catalog are in one process; a folder is that of all replicas.
KEPT = 'kind = "memory"' if REPLICAS == 1 else 'kind = "files"\nlocation = "{folder}"'
TEXT = f'[defaults]\ncatalog = "memory"\n[catalogs.memory]\n{KEPT}\nwritable = true\n'

# How many pass. It only grows.
PASSED = 30 if REPLICAS == 1 else 29
SCHEMA = "the driver opens no schema of a table"
TRANSACTIONS = "the driver has no transactions"
# What fails, and why it is none of the gateway's.
KNOWN = {
    "Connections.currentCatalog": "the driver tells and sets no current catalog",
    "Metadata.getObjectsColumns": "the driver writes its answer with a column that the schema it reads it by has not",
    "Metadata.getObjectsConstraints": "the constraints are made by ALTER TABLE, which is not offered",
    "Metadata.getTableSchema": SCHEMA,
    "Metadata.getTableSchemaDoesNotExist": SCHEMA,
    "Metadata.getTableTypes": "the driver lists no types of tables",
    "Types.timestampWithoutTimeZoneValue": "it expects a number where Arrow in Java gives a LocalDateTime",
    **{f"Types.{name}Type": SCHEMA for name in ["bigint", "blob", "boolean", "date", "int", "smallint", "text"]},
    **{f"Types.{name}Type": SCHEMA for name in ["timeWithoutTimeZone", "timestampWithTimeZone", "timestampWithoutTimeZone"]},
    "Transactions.autoCommitByDefault": TRANSACTIONS,
    "Transactions.commit": TRANSACTIONS,
    "Transactions.enableAutoCommitAlsoCommits": TRANSACTIONS,
    "Transactions.rollback": TRANSACTIONS,
    "Transactions.toggleAutoCommit": TRANSACTIONS,
}
if REPLICAS > 1:
    KNOWN["Statements.bulkIngestAppend"] = "it looks for all rows in the first batch, and each file of a folder is one"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """How each test ended, and what was wrong."""
    folder = tmp_path_factory.mktemp("validation")
    (folder / "Types.sql").write_text((HERE / "Types.sql").read_text())
    java, jars = homes()["17"] / "bin", f"{jar_folder('validation')}/*"
    # What closes may be interrupted, as the driver declares.
    lints = ["-Xlint:all,-classfile,-try", "-Werror"]
    subprocess.run([java / "javac", "--release", "17", *lints, "-cp", jars, "-d", folder, *HERE.glob("*.java")], check=True)
    options = ["--add-opens=java.base/java.nio=ALL-UNNAMED", "-XX:TieredStopAtLevel=1", "-Xmx512m"]
    (folder / "kept").mkdir()
    with configured(folder, TEXT.format(folder=folder / "kept")) as gateway:
        words = [java / "java", *options, f"-Dgateway={gateway.uri}", "-cp", f"{jars}{os.pathsep}{folder}", "Run"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 2]
    assert lines, done.stderr[-4000:]
    return {name: (outcome, why) for name, outcome, why in lines}


def test_as_many_pass_as_ever_did(outcomes: dict[str, tuple[str, str]], figure: Callable[[str], None]) -> None:
    counts = Counter(outcome for outcome, _ in outcomes.values())
    figure(f"ADBC validation in Java: {counts['SUCCESSFUL']} of {len(outcomes)} pass, {len(KNOWN)} are known to fail")
    assert counts["SUCCESSFUL"] == PASSED, "where they are more, write it down"


def test_what_fails_is_known(outcomes: dict[str, tuple[str, str]]) -> None:
    failed = {name: why for name, (outcome, why) in outcomes.items() if outcome != "SUCCESSFUL"}
    unknown = {name: why for name, why in failed.items() if name not in KNOWN}
    assert not unknown
    assert set(KNOWN) <= set(failed), "what passes by now is known no longer"
