"""HTTP: statements in three forms over the same query path, errors as JSON, health and metrics."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import requests

from gateway import Gateway, configured, nexus
from wire import metric

QUERY = "select n_nationkey, n_name from nation where n_nationkey < 3 order by 1"
ROWS = [
    {"n_nationkey": 0, "n_name": "ALGERIA"},
    {"n_nationkey": 1, "n_name": "ARGENTINA"},
    {"n_nationkey": 2, "n_name": "BRAZIL"},
]


def post(gateway: Gateway, statement: str, accept: str = "application/x-ndjson", **options: object) -> requests.Response:
    """A statement as plain text."""
    headers = {"accept": accept, "content-type": "text/plain; charset=utf-8"}
    return requests.post(f"{gateway.url}/v1/sql", data=statement.encode(), headers=headers, timeout=60, **options)


def test_lines_of_json(embedded: Gateway) -> None:
    answer = post(embedded, QUERY)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in answer.text.splitlines()] == ROWS


def test_csv(embedded: Gateway) -> None:
    answer = post(embedded, QUERY, "text/csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert list(csv.DictReader(io.StringIO(answer.text))) == [{name: str(value) for name, value in row.items()} for row in ROWS]


def test_arrow(embedded: Gateway) -> None:
    answer = post(embedded, QUERY, "application/vnd.apache.arrow.stream")
    assert pa.ipc.open_stream(answer.content).read_all().to_pylist() == ROWS


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream"])
@pytest.mark.parametrize("wrong", ["1/0", "cast(r_name as int)", "(select n_name from nation)"])
def test_an_error_before_the_first_row_is_told(embedded: Gateway, wrong: str, accept: str) -> None:
    answer = post(embedded, f"select {wrong} from region", accept)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (400, "invalid")
    # It is the statement that is wrong, and no file.
    assert "parquet" not in answer.text


def test_a_statement_of_several_lines_is_one_line_of_the_log(embedded: Gateway) -> None:
    assert post(embedded, "select 1 as one\n  2026-01-01T00:00:00Z INFO forged").status_code == 400
    assert not any(line.strip().startswith("2026-01-01T00") for line in embedded.logged().splitlines())


def test_a_statement_in_json(embedded: Gateway) -> None:
    answer = requests.post(f"{embedded.url}/v1/sql", json={"statement": QUERY}, timeout=60)
    assert [json.loads(line) for line in answer.text.splitlines()] == ROWS
    answer = requests.post(
        f"{embedded.url}/v1/sql", json={"statement": "select count(*) > 0 as v from types", "catalog": "demo"}, timeout=60
    )
    assert answer.json() == {"v": True}
    assert requests.post(f"{embedded.url}/v1/sql", json={"statment": QUERY}, timeout=60).status_code == 400


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson", "application/vnd.apache.arrow.stream"])
def test_no_rows(accept: str, embedded: Gateway) -> None:
    answer = post(embedded, "select n_name from nation where false", accept)
    assert answer.status_code == 200
    if accept == "text/csv":
        assert answer.text.strip() == "n_name"
    elif accept == "application/x-ndjson":
        assert answer.text == ""
    else:
        assert pa.ipc.open_stream(answer.content).read_all().schema.names == ["n_name"]


def test_rows_come_while_they_are_made(embedded: Gateway) -> None:
    endless = "select a.l_orderkey from lineitem a, lineitem b, lineitem c"
    with post(embedded, endless, "text/csv", stream=True) as answer:
        assert next(answer.iter_lines()) == b"l_orderkey"
    assert post(embedded, "select 1 as v").json() == {"v": 1}


@pytest.mark.parametrize(
    ("statement", "status", "said"),
    [
        ("selec", 400, "syntax"),
        ("select * from lineitm", 404, "lineitem"),
        ("drop table nation", 403, "read-only"),
        ("drop view nation", 501, ""),
        ("", 400, ""),
    ],
)
def test_an_error_is_json(statement: str, status: int, said: str, embedded: Gateway) -> None:
    answer = post(embedded, statement)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"kind", "message", "place", "hint", "retryable"}
    assert said in answer.text


@pytest.mark.parametrize("form", ["application/vnd.apache.arrow.stream", "application/x-ndjson", "text/csv"])
def test_an_error_after_the_first_rows_breaks_the_body_off(form: str, embedded: Gateway) -> None:
    # In order, so that the row that fails is far behind the first.
    late = "select 1 / (value - 150000) as v from generate_series(1, 200000)"
    # The head goes out before them.
    with post(embedded, late, form, stream=True) as answer:
        assert answer.status_code == 200
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(answer.iter_content(None))
    told = post(embedded, f"select state, error from system.queries where statement = '{late}' limit 1").json()
    assert told["state"] == "invalid"
    assert "divi" in told["error"].lower()


def test_the_headers_tell_the_statement_and_the_cache(embedded: Gateway) -> None:
    answers = [post(embedded, "select 20261124 as v") for _ in range(2)]
    assert [answer.headers["x-nexus-cache"] for answer in answers] == ["miss", "hit"]
    assert post(embedded, "select random()").headers["x-nexus-cache"] == "bypass"
    [first, second] = [answer.headers["x-nexus-query"] for answer in answers]
    assert first != second
    told = post(embedded, f"select statement, cache from system.queries where query_id = '{second}'").json()
    assert told == {"statement": "select 20261124 as v", "cache": "hit"}


def test_a_statement_that_is_too_long(embedded: Gateway) -> None:
    for text in ("select " + "1" * (2 << 20), "select " + "1" * (20 << 20)):
        answer = post(embedded, text)
        assert answer.status_code == 429
        assert "limits.statement" in answer.json()["error"]["hint"]


def test_a_form_that_is_not_offered(embedded: Gateway) -> None:
    answer = post(embedded, "select 1", "image/png")
    assert answer.status_code in (400, 406)
    assert "text/csv" in answer.text


def test_other_pages_and_methods(embedded: Gateway) -> None:
    for path, status in (("nowhere", 404), ("v1/sql", 405)):
        answer = requests.get(f"{embedded.url}/{path}", timeout=10)
        assert answer.status_code == status
        assert "POST /v1/sql" in answer.json()["error"]["hint"]


def test_health_and_metrics(embedded: Gateway) -> None:
    assert requests.get(f"{embedded.url}/livez", timeout=10).status_code == 200
    assert requests.get(f"{embedded.url}/readyz", timeout=10).status_code == 200
    before = metric(embedded.url, 'nexus_statements_total{protocol="http",outcome="finished"}')
    post(embedded, "select 1")
    assert metric(embedded.url, 'nexus_statements_total{protocol="http",outcome="finished"}') > before
    text = requests.get(f"{embedded.url}/metrics", timeout=10).text
    named = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE nexus_")}
    assert named == {line.split()[2] for line in text.splitlines() if line.startswith("# HELP nexus_")}
    # What alerts are for is there before it first counts.
    assert named >= {f"nexus_{name}_total" for name in ("statements_refused", "audit_failures", "refused_credentials")}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that asks for a password."""
    hashed = nexus("hash-password", stdin="hunter2\n").stdout.strip()
    folder: Path = tmp_path_factory.mktemp("guarded")
    with configured(folder, f'[auth]\nmode = "basic"\n[auth.users.ann]\npassword_hash = "{hashed}"\n') as gateway:
        yield gateway
        assert "hunter2" not in gateway.logged()


def test_statements_ask_for_the_password(guarded: Gateway) -> None:
    assert post(guarded, "select 1 as v", auth=("ann", "hunter2")).json() == {"v": 1}
    for login in (("ann", "wrong"), ("bob", "hunter2"), None):
        answer = post(guarded, "select 1", auth=login)
        assert answer.status_code == 401
        assert "hunter2" not in answer.text
    refusals = [line for line in guarded.logged().splitlines() if "credentials refused" in line]
    assert len(refusals) >= 3
    assert all('peer="127.0.0.1:' in line for line in refusals)
    assert requests.get(f"{guarded.url}/livez", timeout=10).status_code == 200
