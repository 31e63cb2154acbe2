"""`make fuzz`: the targets of server/tests/fuzz, NEXUS_FUZZ_SECONDS each, by cargo-fuzz where it is, else at random on stable."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SECONDS = os.environ.get("NEXUS_FUZZ_SECONDS", "60")
TEST = ["cargo", "test", "--locked", "--workspace", "--test", "fuzz", "--"]
# As the tests hold it: no abort, no run over 1 s, no memory over 512 MiB.
BOUNDS = ["-timeout=1", "-rss_limit_mb=512", "-malloc_limit_mb=512"]


def main() -> int:
    """Returns 0 where nothing was found."""
    if subprocess.run(["cargo", "+nightly", "fuzz", "--version"], capture_output=True, check=False).returncode != 0:
        print("cargo-fuzz is not there, so the bytes are changed at random. To have them led by what they reach:")
        print("    rustup toolchain install nightly && cargo +nightly install cargo-fuzz")
        return run(*TEST, "--nocapture", "--test-threads=1", NEXUS_FUZZ_SECONDS=SECONDS)
    if code := run(*TEST, "--ignored", "seeds_are_written"):
        return code
    # The same versions of all that is fuzzed.
    shutil.copy(REPOSITORY / "Cargo.lock", REPOSITORY / "fuzz" / "Cargo.lock")
    targets = sorted(path.stem for path in (REPOSITORY / "fuzz" / "fuzz_targets").glob("*.rs"))
    # There is no unsafe code here for a sanitizer to watch, and with one the bounds of memory would be others.
    codes = [
        run("cargo", "+nightly", "fuzz", "run", "-s", "none", target, "--", f"-max_total_time={SECONDS}", *BOUNDS)
        for target in targets
    ]
    return max(codes)


def run(*words: str, **environment: str) -> int:
    return subprocess.run(words, cwd=REPOSITORY, env={**os.environ, **environment}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
