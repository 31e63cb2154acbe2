"""What the tests may ask of the gateway and its dialect: what differs from SQLAlchemy's own assumptions, and why."""

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

CLOSED = exclusions.closed()
OPEN = exclusions.open()


def constantly(verdict: object) -> property:
    return property(lambda _self: verdict)


class Requirements(SuiteRequirements):
    """Closed is what is not there by design; open is what is there and the suite takes for rare."""

    # A constraint that is not held is not taken, and foreign keys would be held by no source.
    foreign_keys = constantly(CLOSED)
    foreign_key_ddl = constantly(CLOSED)
    self_referential_foreign_keys = constantly(CLOSED)
    foreign_key_constraint_reflection = constantly(CLOSED)
    on_update_cascade = constantly(CLOSED)
    recursive_fk_cascade = constantly(CLOSED)
    # Nor are there UNIQUE and indexes.
    unique_constraint_reflection = constantly(CLOSED)
    index_reflection = constantly(CLOSED)
    indexes_with_ascdesc = constantly(CLOSED)
    reflect_indexes_with_ascdesc = constantly(CLOSED)
    # Nor views.
    views = constantly(CLOSED)
    view_reflection = constantly(CLOSED)
    view_column_reflection = constantly(CLOSED)
    # Tables in memory take rows with keys that are there already.
    duplicate_key_raises_integrity_error = constantly(CLOSED)
    # Nothing makes values of columns that a statement leaves out.
    autoincrement_insert = constantly(CLOSED)
    implements_get_lastrowid = constantly(CLOSED)
    empty_inserts = constantly(CLOSED)
    empty_inserts_executemany = constantly(CLOSED)

    create_table_as = constantly(OPEN)
    create_temp_table_as = constantly(OPEN)
    table_ddl_if_exists = constantly(OPEN)
    table_value_constructor = constantly(OPEN)
    boolean_col_expressions = constantly(OPEN)
    nullsordering = constantly(OPEN)
    intersect = constantly(OPEN)
    except_ = constantly(OPEN)
    window_functions = constantly(OPEN)
    ctes = constantly(OPEN)
    ctes_with_values = constantly(OPEN)
    tuple_in = constantly(OPEN)
    tuple_in_w_empty = constantly(OPEN)
    unicode_ddl = constantly(OPEN)
    datetime_literals = constantly(OPEN)
    timestamp_microseconds = constantly(OPEN)
    datetime_historic = constantly(OPEN)
    date_historic = constantly(OPEN)
    precision_numerics_enotation_small = constantly(OPEN)
    infinity_floats = constantly(OPEN)
    order_by_label_with_expression = constantly(OPEN)
    primary_key_constraint_reflection = constantly(OPEN)
