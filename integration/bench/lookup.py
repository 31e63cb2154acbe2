"""What it takes to find an answer in the cache inside of the server, beside planning and looking up the versions of tables."""

import re
import subprocess

from gateway import REPOSITORY

TEST = "lookup::an_answer_that_is_kept_is_found"


def lookup() -> float:
    """The median in microseconds for a plan of 20 nodes, as a test measures it that is built as what is served."""
    built = ["cargo", "test", "--locked", "--package", "nexus-server", "--test", "query"]
    command = [*built, "--", "--ignored", "--exact", TEST, "--nocapture"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1_800)
    found = re.search(r"found in ([\d.]+) us", done.stdout + done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"{' '.join(command)} measured nothing:\n{done.stdout}{done.stderr}"[-4_000:])
    return float(found[1])
