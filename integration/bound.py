"""What is bound to one replica by design, so that it cannot be tested behind a balancer: each such test, and why."""

import pytest

TRANSACTION = "a transaction is open at the replica that began it"
CANCELLED = "a running statement is cancelled at the replica that runs it"
MARKED = "a ticket that was cancelled is remembered by the replica that was told"
CACHE = "each replica has a cache and a record of statements of its own"

BOUND = {
    "test_adbc.py::test_nothing_warns_at_connect[False]": TRANSACTION,
    "test_lifecycle.py::test_a_statement_is_cancelled_while_it_streams": CANCELLED,
    "test_lifecycle.py::test_the_older_action_cancels_too": CANCELLED,
    "test_lifecycle.py::test_a_statement_outlives_its_ticket_and_can_still_be_cancelled": CANCELLED,
    "test_lifecycle.py::test_a_statement_that_was_cancelled_does_not_begin": MARKED,
    "test_login.py::test_a_session_controls_the_cache": CACHE,
}


def leave_out(items: list[pytest.Item]) -> None:
    """Skips what is bound, so that the end of the run lists it; fails where a name is that of no test any more."""
    files = {item.path.name for item in items}
    whole = {item.path.name for item in items if not item.config.option.keyword and "::" not in " ".join(item.config.args)}
    left = {name for name in BOUND if name.split("::")[0] in files & whole}
    for item in items:
        name = f"{item.path.name}::{item.name}"
        if reason := BOUND.get(name):
            item.add_marker(pytest.mark.skip(reason=reason))
            left.discard(name)
    if left:
        raise pytest.UsageError(f"bound.py names what is no test: {', '.join(sorted(left))}")
