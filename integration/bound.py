"""What is bound to one replica by design, so that it cannot be asked of a balancer: each test or file of it, and why."""

import pytest

TRANSACTION = "a transaction is open at the replica that began it"
RUNNING = "a running statement is cancelled by its id at the replica that runs it"
CANCELLED = "that a ticket was cancelled is remembered by the replica that was told"
TOLD = "that a session was changed or closed is remembered by the replica that was told"
RECORD = "each replica has a cache, a record of statements and metrics of its own"
ROWS = "the rows of a memory catalog are in one process"
UNREAD = "a body far above the bound is not read to its end, and Envoy takes the closed connection for no answer"
PROCESS = "it watches or stops one process"

BOUND = {
    "test_adbc.py::test_nothing_warns_at_connect[False]": TRANSACTION,
    "test_cli.py::test_a_tls_hello_on_a_plain_port_is_logged_with_the_fix[flight]": "the hello comes to Envoy",
    "test_cli.py::test_a_tls_hello_on_a_plain_port_is_logged_with_the_fix[http]": "the hello comes to Envoy",
    "test_cli.py::test_ctrl_c_ends_a_gateway_that_is_busy": PROCESS,
    "test_cli.py::test_sigterm_ends_it_too": PROCESS,
    "test_cli.py::test_the_prompt_and_ctrl_c": RECORD,
    "test_docs.py": PROCESS,
    "test_files_written.py::test_there_are_no_transactions[bucket]": TRANSACTION,
    "test_files_written.py::test_there_are_no_transactions[folder]": TRANSACTION,
    "test_http.py::test_a_statement_in_json": "it reads a table that only --demo makes",
    "test_http.py::test_a_statement_that_is_too_long": UNREAD,
    "test_http.py::test_an_error_after_the_first_rows_breaks_the_body_off[application/vnd.apache.arrow.stream]": RECORD,
    "test_http.py::test_an_error_after_the_first_rows_breaks_the_body_off[application/x-ndjson]": RECORD,
    "test_http.py::test_an_error_after_the_first_rows_breaks_the_body_off[text/csv]": RECORD,
    "test_http.py::test_health_and_metrics": RECORD,
    "test_http.py::test_the_headers_tell_the_statement_and_the_cache": RECORD,
    "test_lifecycle.py::test_a_statement_is_cancelled_while_it_streams": RUNNING,
    "test_lifecycle.py::test_a_statement_outlives_its_ticket_and_can_still_be_cancelled": RUNNING,
    "test_lifecycle.py::test_a_statement_that_was_cancelled_does_not_begin": CANCELLED,
    "test_lifecycle.py::test_go_cancels_a_statement_while_it_streams": RUNNING,
    "test_lifecycle.py::test_the_older_action_cancels_too": RUNNING,
    "test_lifecycle.py::test_what_has_written_cannot_be_cancelled": ROWS,
    "test_load.py": PROCESS,
    "test_login.py::test_a_session_controls_the_cache": RECORD,
    "test_memory.py": PROCESS,
    "test_postgres.py::test_a_transaction_is_seen_when_it_commits[commit]": TRANSACTION,
    "test_postgres.py::test_a_transaction_is_seen_when_it_commits[rollback]": TRANSACTION,
    "test_replicas.py": "it starts replicas of its own",
    "test_sessions.py::test_a_driver_that_goes_back_to_an_older_value": TOLD,
    "test_sessions.py::test_a_session_that_was_closed": TOLD,
    "test_sessions.py::test_a_transaction": TRANSACTION,
    "test_sessions.py::test_an_older_value_of_a_session": TOLD,
    "test_writes.py::test_a_transaction_is_seen_when_it_commits[commit]": TRANSACTION,
    "test_writes.py::test_a_transaction_is_seen_when_it_commits[rollback]": TRANSACTION,
    "test_writes.py::test_jdbc_writes_in_every_way[17]": ROWS,
    "test_writes.py::test_more_than_the_catalog_has_room_for": ROWS,
}

ALIKE = "it asks what each replica answers by itself"
# The other files that are not run with replicas, and why.
ALONE = {
    "test_admission.py": "each replica has slots and queues of its own",
    "test_audit.py": "each replica has an audit trail of its own",
    "test_audit_ways.py": "each replica has an audit trail of its own",
    "test_bombs.py": PROCESS,
    "test_broken_off.py": PROCESS,
    "test_cache_writer.py": RECORD,
    "test_caching.py": RECORD,
    "test_database_dies.py": PROCESS,
    "test_depths.py": PROCESS,
    "test_door.py": ALIKE,
    "test_endpoints.py": "it starts the replicas that it needs",
    "test_frozen.py": PROCESS,
    "test_http2.py": "what it sends would not pass Envoy",
    "test_iceberg_catalogs.py": ALIKE,
    "test_jwt.py": ALIKE,
    "test_lake.py": ALIKE,
    "test_lake_catalogs.py": ALIKE,
    "test_lake_faults.py": ALIKE,
    "test_lake_faults_hudi.py": ALIKE,
    "test_lake_hostile.py": PROCESS,
    "test_lake_metadata.py": ALIKE,
    "test_lake_pruning.py": ALIKE,
    "test_lake_race.py": ALIKE,
    "test_lake_secrets.py": PROCESS,
    "test_lake_writes.py": ALIKE,
    "test_lake_writes_delta.py": "it writes to one place through gateways of its own",
    "test_policy.py": ALIKE,
    "test_policy_bytes.py": ROWS,
    "test_policy_postgres.py": ALIKE,
    "test_policy_pushed.py": ALIKE,
    "test_pool.py": "each replica has connections of its own",
    "test_postgres_versions.py": RECORD,
    "test_reload.py": PROCESS,
    "test_secrets.py": PROCESS,
    "test_spill.py": PROCESS,
    "test_stopping.py": PROCESS,
    "test_temporary.py": "a temporary table is at the replica that made it",
    "test_tls.py": "Envoy speaks no TLS here",
    "test_tokens.py": ALIKE,
    "test_tpcds.py": ALIKE,
    "test_traces.py": PROCESS,
    "test_trino.py": PROCESS,
    "test_trino_dies.py": PROCESS,
    "test_trino_policy.py": ALIKE,
    "test_trino_secured.py": PROCESS,
    "test_trino_tpch.py": ALIKE,
    "test_trino_translate.py": ALIKE,
    "test_trino_types.py": ALIKE,
    "test_written_types.py": ROWS,
    "test_transactions.py": TRANSACTION,
    "test_unity.py": ALIKE,
}


def leave_out(items: list[pytest.Item]) -> None:
    """Skips what is bound, so that the end of the run lists it; fails where a name is that of no test any more."""
    used = set()
    for item in items:
        for name in (item.path.name, f"{item.path.name}::{item.name}"):
            if name in BOUND:
                used.add(name)
                item.add_marker(pytest.mark.skip(reason=BOUND[name]))
    # Files that are not asked for as a whole say nothing about their names.
    asked = {item.path.name for item in items if "::" not in "".join(item.config.args)}
    if unknown := [name for name in BOUND if name not in used and name.partition("::")[0] in asked]:
        raise pytest.UsageError(f"bound.py names what is no test: {', '.join(unknown)}")
