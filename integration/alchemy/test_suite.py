"""All tests that SQLAlchemy has for any dialect."""

from sqlalchemy.testing.suite import *  # noqa: F403
