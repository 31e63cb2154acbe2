"""Sign-in and sessions as the drivers do them: JDBC by user and password, ADBC with cookies and without."""

from collections.abc import Iterator

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pytest

import jdbc
from gateway import Gateway, configured, nexus

WITH_COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}
CATALOG = "adbc.flight.sql.session.option.catalog"


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


def test_adbc_keeps_a_session_in_a_cookie(embedded: Gateway) -> None:
    with flightsql.connect(embedded.uri, db_kwargs=WITH_COOKIES, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
        connection.adbc_connection.set_options(**{CATALOG: "system"})
        with connection.cursor() as cursor:
            cursor.execute("select count(*) > 0 from settings")
            assert cursor.fetchone() == (True,)


def test_adbc_without_cookies_is_told_how_to_turn_them_on(embedded: Gateway) -> None:
    with flightsql.connect(embedded.uri, autocommit=True) as connection, pytest.raises(adbc_driver_manager.Error) as error:
        connection.adbc_connection.set_options(**{CATALOG: "system"})
    assert "adbc.flight.sql.rpc.with_cookie_middleware=true" in str(error.value)
