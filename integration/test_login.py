"""Sign-in and sessions as the drivers do them: JDBC by user and password, ADBC with cookies and without."""

from collections.abc import Iterator

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow
import pytest
from pyarrow import flight

import jdbc
from gateway import Gateway, configured, nexus
from wire import called_by_go

WITH_COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
OPTION = "adbc.flight.sql.session.option."
CATALOG = f"{OPTION}catalog"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with one user."""
    hashed = nexus("hash-password", stdin="s3cret word").stdout.strip()
    text = f'[auth]\nmode = "basic"\n[auth.users.ann]\npassword_hash = "{hashed}"\n'
    with configured(tmp_path_factory.mktemp("guarded"), text) as gateway:
        yield gateway


@pytest.mark.parametrize("jdk", jdbc.VERSIONS)
def test_jdbc_signs_in_with_a_password(jdk: str, guarded: Gateway) -> None:
    lines = jdbc.probe("query", guarded.flight, "select 1", "select 2", jdk=jdk, user="ann", password="s3cret word")
    assert [line["value"]["rows"] for line in lines] == [[["1"]], [["2"]]]


@pytest.mark.parametrize("jdk", jdbc.VERSIONS)
def test_jdbc_is_told_of_a_wrong_password(jdk: str, guarded: Gateway) -> None:
    done = jdbc.run_probe("query", guarded.flight, "select 1", jdk=jdk, user="ann", password="wrong")
    assert done.returncode != 0
    assert "the user name or the password is wrong" in done.stderr
    assert "s3cret" not in guarded.logged()


class Handshake(flight.ClientAuthHandler):
    """Credentials in the first message of a handshake, as older clients of Flight send them."""

    def __init__(self, password: str) -> None:
        super().__init__()
        self.password, self.token = password, b""

    def authenticate(self, outgoing: object, incoming: object) -> None:
        outgoing.write(flight.BasicAuth("ann", self.password).serialize())
        self.token = incoming.read()

    def get_token(self) -> bytes:
        return self.token


def test_credentials_in_a_handshake(guarded: Gateway) -> None:
    with flight.connect(guarded.uri) as client:
        client.authenticate(Handshake("s3cret word"))
        assert any(action.type == "CancelFlightInfo" for action in client.list_actions())
    for password in ("wrong", "", "x" * (16 << 10)):
        with flight.connect(guarded.uri) as client:
            # More than credentials take is no stream of theirs.
            with pytest.raises((flight.FlightUnauthenticatedError, pyarrow.ArrowInvalid), match="is wrong|length limit exceeded"):
                client.authenticate(Handshake(password))
            with pytest.raises(flight.FlightUnauthenticatedError):
                list(client.list_actions())
    assert guarded.logged().count("credentials refused") >= 6


def test_adbc_keeps_a_session_in_a_cookie(embedded: Gateway) -> None:
    with flightsql.connect(embedded.uri, db_kwargs=WITH_COOKIES, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
        connection.adbc_connection.set_options(**{CATALOG: "system"})
        with connection.cursor() as cursor:
            cursor.execute("select count(*) > 0 from settings")
            assert cursor.fetchone() == (True,)


@pytest.fixture
def connection(embedded: Gateway) -> Iterator[flightsql.Connection]:
    """A connection whose session has begun."""
    with flightsql.connect(embedded.uri, db_kwargs=WITH_COOKIES, autocommit=True) as connection:
        value(connection, "select 1")
        yield connection


def value(connection: flightsql.Connection, statement: str) -> object:
    """The one value of a statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetch_arrow_table().column(0)[0].as_py()


@pytest.mark.parametrize("by", ["the option of sessions", "the option of ADBC"])
def test_a_session_has_a_schema(by: str, connection: flightsql.Connection) -> None:
    views = "select count(*) > 0 from schemata"
    with pytest.raises(adbc_driver_manager.Error, match='table "tpch.main.schemata" does not exist'):
        value(connection, views)
    if by == "the option of ADBC":
        connection.adbc_current_db_schema = "information_schema"
    else:
        connection.adbc_connection.set_options(**{f"{OPTION}schema": "information_schema"})
    assert value(connection, views) is True
    assert connection.adbc_connection.get_option(f"{OPTION}schema") == "information_schema"
    assert connection.adbc_current_db_schema == "information_schema"
    with pytest.raises(adbc_driver_manager.Error, match='table "nation" does not exist; there are "columns"'):
        value(connection, "select count(*) from nation")


def test_a_session_has_a_time_zone(connection: flightsql.Connection) -> None:
    zone = "select arrow_typeof(now())"
    written = "select to_unixtime('2024-06-01T12:00:00'::timestamptz)"
    before, at_utc = value(connection, zone), value(connection, written)
    connection.adbc_connection.set_options(**{f"{OPTION}time_zone": "Asia/Shanghai"})
    assert value(connection, zone) == before.replace("+00:00", "Asia/Shanghai") != before
    assert value(connection, written) == at_utc - 8 * 3600
    assert connection.adbc_connection.get_option(f"{OPTION}time_zone") == "Asia/Shanghai"


def test_a_session_has_a_type_profile(connection: flightsql.Connection) -> None:
    def of_answer() -> pyarrow.DataType:
        with connection.cursor() as cursor:
            cursor.execute("select arrow_cast('a', 'Utf8View') as a")
            return cursor.fetch_arrow_table().schema.field("a").type

    assert of_answer() == pyarrow.string_view()
    connection.adbc_connection.set_options(**{f"{OPTION}type_profile": "lowered"})
    assert of_answer() == pyarrow.string()


def test_a_session_controls_the_cache(connection: flightsql.Connection) -> None:
    statement = "select count(*) as of_the_session_test from region"

    def used() -> list[str]:
        value(connection, statement)
        asked = f"select cache from system.queries where statement = '{statement}' order by started"
        with connection.cursor() as cursor:
            cursor.execute(asked)
            return [row[0] for row in cursor.fetchall()]

    assert used()[-1] == "miss"
    assert used()[-1] == "hit"
    for control, wanted in {"bypass": "bypass", "refresh": "miss", "use": "hit"}.items():
        connection.adbc_connection.set_options(**{f"{OPTION}cache": control})
        assert used()[-1] == wanted, control


def test_a_session_has_a_limit_of_time(connection: flightsql.Connection) -> None:
    connection.adbc_connection.set_options(**{f"{OPTION}timeout": "300ms"})
    with pytest.raises(adbc_driver_manager.Error) as error:
        value(connection, "select count(*) from lineitem a, lineitem b where a.l_comment < b.l_comment")
    assert "the time allowed for this statement ran out" in str(error.value)
    connection.adbc_connection.set_options(**{f"{OPTION}timeout": "5m"})
    assert value(connection, "select 1") == 1


def test_a_session_has_a_limit_of_rows(connection: flightsql.Connection) -> None:
    def rows(sql: str) -> int:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return len(cursor.fetchall())

    kept, new = "select * from nation", "select n_name as of_the_limit_of_rows from nation"
    connection.adbc_connection.set_options(**{f"{OPTION}max_rows": "25"})
    assert connection.adbc_connection.get_option(f"{OPTION}max_rows") == "25"
    assert rows(kept) == 25
    connection.adbc_connection.set_options(**{f"{OPTION}max_rows": "24"})
    for sql in (kept, new):
        with pytest.raises(adbc_driver_manager.Error, match="more than 24 rows.*max_rows"):
            rows(sql)
    connection.adbc_connection.set_options(**{f"{OPTION}max_rows": "1000"})
    assert rows(new) == 25


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("colour", "red", "INVALID_NAME"),
        ("time_zone", "Mars", "INVALID_VALUE"),
        ("catalog", "nope", "INVALID_VALUE"),
        ("catalog", "", "INVALID_VALUE"),
        ("schema", "", "INVALID_VALUE"),
        ("max_rows", "0", "INVALID_VALUE"),
    ],
)
def test_an_option_that_is_not_set_is_told(name: str, given: str, said: str, connection: flightsql.Connection) -> None:
    with pytest.raises(adbc_driver_manager.Error) as error:
        connection.adbc_connection.set_options(**{f"{OPTION}{name}": given})
    assert name in str(error.value)
    assert said.casefold().replace("_", "") in str(error.value).casefold().replace("_", "").replace(" ", "")


def test_adbc_without_cookies_is_told_how_to_turn_them_on(embedded: Gateway) -> None:
    with flightsql.connect(embedded.uri, autocommit=True) as connection, pytest.raises(adbc_driver_manager.Error) as error:
        connection.adbc_connection.set_options(**{CATALOG: "system"})
    assert "adbc.flight.sql.rpc.with_cookie_middleware=true" in str(error.value)


def test_options_of_every_kind_of_value(embedded: Gateway) -> None:
    said = called_by_go("options", embedded.flight)
    # A number may be written as one.
    assert (said["endpoints int64"], said["timeout string"], said["kept"]) == ({}, {}, ["4", "30s"])
    for kind in ("bool", "float64", "[]string"):
        for name in ("endpoints", "catalog"):
            assert said[f"{name} {kind}"] == {name: "INVALID_VALUE"}
        assert said[f"no_such {kind}"] == {"no_such": "INVALID_NAME"}
    assert said["catalog int64"] == {"catalog": "INVALID_VALUE"}, "no catalog is called so"
    assert (said["timeout <nil>"], said["unset"]) == ({}, "")
