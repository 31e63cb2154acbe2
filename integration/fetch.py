"""Fetches what the tests need, into the cache: Python packages, drivers, clients, SQL tests, servers. Safe to run again."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("NEXUS_CACHE") or Path.home() / ".cache" / "nexus-gateway")

JDBC_DRIVER = "flight-sql-jdbc-driver-18.3.0.jar"
JDBC_DRIVER_SHA256 = "3f418b46c880e263558c5de669bdbede2c5d4375527ced116fb29f795b03704c"
# What the pom.xml of a folder here asks for: one checksum over all its jars, each name with that of its jar. The three servers
# are 19 MiB in 32 jars, 117 MiB in 91, and 233 MiB in one: with a quick registry 7, 20 and 7 s.
JARS_SHA256 = {
    "iceberg_rest": "a044ad4c7954dae979bdf2c1718bcc9c4c544aaffb26c689d29733fb701f609a",
    "metastore": "0055bd3a9e4bccd70e88975fee143eaf897f4fc5937ad66d8bd2a37ed9587ecd",
    "nessie": "9883a2e2f83e680c704c575932e9d48dd99d33ce5022dcc7cc1ccd5066941b5d",
    "lake": "384c343c2768379669dce19dd4fda9a5fb74a56440fd2e7d79d2eab54af2e285",
    "validation": "94c072e87caf840aa8ac4377c3b9a3b5e9ab065b4ab79f15fce2307852057adb",
}
LOGIC_SUITE = "datafusion-sqllogictest@53.1.0"
LOGIC_SUITE_SHA256 = "04e5a4a7a49143a68936992b6dbb0db44121c635e9992b2482817278f1e69c56"
# Of its plugins, which are most of it, those that the tests ask for.
TRINO = "trino-server-476"
TRINO_SHA256 = "cfd5accde17e8ebd251eeeb78aed1f490e77bb3a164d95a0f454bf8a7c1cbd3f"
TRINO_PLUGINS = ["memory", "password-authenticators", "spooling-filesystem", "tpch"]
S3_SERVER = "s3s-fs@0.14.1"
SCENARIOS = "github.com/apache/arrow-go/v18/arrow/internal/flight_integration/cmd/arrow-flight-integration-client"
# Asked for by `make lakes` alone.
SPARK = "pyspark-3.5.7"
SPARK_SHA256 = "80e36514e0c5c126d35a26adf4f405cd4a69de96a8ea8a3c1e9a65fce2fb4eaa"
CARGO_DENY = "cargo-deny@0.20.2"
MDBOOK = "mdbook@0.5.2"
INFERNO = "inferno@0.12.8"

TOOLS = {
    "cargo": "install Rust by rustup; rust-toolchain.toml names the version",
    "go": "install Go 1.25 or later",
    "java": "install JDK 17 and JDK 25, for example: apt-get install openjdk-17-jdk-headless openjdk-25-jdk-headless",
    "javac": "install JDK 17 and JDK 25, for example: apt-get install openjdk-17-jdk-headless openjdk-25-jdk-headless",
    "mvn": "install Maven, for example: apt-get install maven",
}


def main() -> int:
    """Fetches everything and says what each took; ends with 1 where a tool is missing or a download does not hold."""
    missing = [f"{tool} is not on the PATH: {fix}" for tool, fix in TOOLS.items() if not shutil.which(tool)]
    if sys.version_info[:2] != (3, 11):
        missing.append("python3 is not 3.11, for which requirements.txt has the checksums: put Python 3.11 on the PATH")
    if not missing:
        # Only now: the first looks beside the java on the PATH.
        import jdbc
        import postgres

        missing += [*jdbc.missing(), *postgres.missing()]
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 1
    CACHE.mkdir(parents=True, exist_ok=True)
    steps = {
        "python packages": python,
        "jdbc driver": jdbc_driver,
        "adbc validation": partial(maven, "validation"),
        "iceberg rest server": partial(maven, "iceberg_rest"),
        "nessie": partial(maven, "nessie"),
        "hive metastore": partial(maven, "metastore"),
        "logic suite": logic_suite,
        "scenarios": scenarios,
        "calls": calls,
        "s3 server": s3_server,
        "trino": trino,
        "protobuf compiler": protoc,
    }
    asked = {
        "cargo-deny": cargo_deny,
        "mdbook": mdbook,
        "inferno": inferno,
        "spark": spark,
        "lake-jars": lake_writers,
        "duckdb": duckdb,
        "trino-client": trino_client,
    }
    if sys.argv[1:]:
        steps = {name: (steps | asked)[name] for name in sys.argv[1:]}
    for name, step in steps.items():
        started = time.monotonic()
        print(f"fetch: {name}: {step()} ({time.monotonic() - started:.0f} s)", flush=True)
    return 0


def venv() -> Path:
    """Where the Python of the tests is; another list of packages means another folder."""
    return CACHE / f"venv-{hashlib.sha256((HERE / 'requirements.txt').read_bytes()).hexdigest()[:12]}"


def jdbc_jar() -> Path:
    """Where the JDBC driver is."""
    return CACHE / "jars" / JDBC_DRIVER


def jar_folder(name: str) -> Path:
    """Where the jars are that the pom.xml of a folder here asks for; another list of them means another folder."""
    return CACHE / "jars" / f"{name}-{sha256(HERE / name / 'pom.xml')[:12]}"


def wheel_folder(name: str) -> Path:
    """Where the packages of another list here than that of the tests are; another text of it means another folder."""
    return CACHE / "tools" / f"{name}-{sha256(HERE / f'{name}.txt')[:12]}"


def trino_home() -> Path:
    """Where Trino is; other plugins of it are in another folder."""
    plugins = hashlib.sha256(" ".join(TRINO_PLUGINS).encode()).hexdigest()[:12]
    return CACHE / f"{TRINO}-{plugins}"


def spark_home() -> Path:
    """Where Spark is, which writes tables of lakes; its Python is in the folder above."""
    return CACHE / SPARK / "deps"


def lake_jars() -> Path:
    """Where that is which makes Spark write those tables; another list of it means another folder."""
    return jar_folder("lake")


def logic_files() -> Path:
    """Where DataFusion's own SQL tests are."""
    return CACHE / LOGIC_SUITE.replace("@", "-") / "test_files"


def scenarios_client() -> Path:
    """Where Arrow's client for Flight's integration tests is; another version of it means another file."""
    return CACHE / "tools" / f"scenarios-{sha256(HERE / 'scenarios' / 'go.sum')[:12]}"


def calls_client() -> Path:
    """Where the program in `scenarios` is, which makes calls that no driver makes; another text of it means another file."""
    texts = "".join(sha256(HERE / "scenarios" / name) for name in ("go.sum", "main.go", "load.go"))
    return CACHE / "tools" / f"calls-{hashlib.sha256(texts.encode()).hexdigest()[:12]}"


def tool(crate: str) -> Path:
    """Where a program of the crates registry is, its version in its name."""
    return CACHE / "tools" / crate.replace("@", "-")


def python() -> str:
    folder = venv()
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:"]
        # pip keeps each wheel that came whole, so another try goes on where the last one ended.
        retried(*pip, "-r", HERE / "requirements.txt")
        complete.touch()
    return str(folder)


def jdbc_driver() -> str:
    jar = jdbc_jar()
    if not jar.exists() or sha256(jar) != JDBC_DRIVER_SHA256:
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            copy = ["mvn", "-q", "-B", "-C", "-f", HERE / "jdbc" / "pom.xml", "dependency:copy"]
            retried(*copy, f"-DoutputDirectory={folder}")
            fetched = Path(folder) / JDBC_DRIVER
            if sha256(fetched) != JDBC_DRIVER_SHA256:
                sys.exit(f"{JDBC_DRIVER} has another checksum than {JDBC_DRIVER_SHA256}: not used")
            jar.parent.mkdir(exist_ok=True)
            fetched.replace(jar)
    return str(jar)


def maven(name: str, goal: str = "dependency:copy-dependencies") -> str:
    """Has Maven copy what the pom.xml of a folder here asks for."""
    folder = jar_folder(name)
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as parts:
            part = Path(parts) / "jars"
            retried("mvn", "-q", "-B", "-C", "-f", HERE / name / "pom.xml", goal, f"-DoutputDirectory={part}")
            # One checksum over all: each name with that of its jar.
            lines = [f"{sha256(jar)}  {jar.name}\n" for jar in sorted(part.iterdir())]
            if hashlib.sha256("".join(lines).encode()).hexdigest() != JARS_SHA256[name]:
                sys.exit(f"the {len(lines)} jars of {name}/pom.xml have other checksums than expected: not used")
            part.replace(folder)
    return str(folder)


def trino() -> str:
    """Maven copies the archive, of which all other plugins are left out: 800 MB, which the registry takes a minute for."""
    home = trino_home()
    if not home.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            copy = ["mvn", "-q", "-B", "-C", "-f", HERE / "trino" / "pom.xml", "dependency:copy-dependencies"]
            retried(*copy, f"-DoutputDirectory={folder}")
            archive = Path(folder) / f"{TRINO}.tar.gz"
            if sha256(archive) != TRINO_SHA256:
                sys.exit(f"{archive.name} has another checksum than {TRINO_SHA256}: not used")
            parts = tuple(f"{TRINO}/{part}/" for part in ("lib", *(f"plugin/{name}" for name in TRINO_PLUGINS)))
            with tarfile.open(archive) as packed:
                wanted = {member.name: member for member in packed if member.name.startswith(parts)}
                # A jar that other plugins have too is a link to that of the first of them, which comes before it.
                names = {*wanted, *(member.linkname for member in wanted.values() if member.islnk())}
                packed.extractall(folder, [member for member in packed.getmembers() if member.name in names], filter="data")
            for plugin in (Path(folder) / TRINO / "plugin").iterdir():
                if plugin.name not in TRINO_PLUGINS:
                    shutil.rmtree(plugin)
            (Path(folder) / TRINO).replace(home)
    return str(home)


def trino_client() -> str:
    return str(wheels("trino-client"))


def lake_writers() -> str:
    return maven("lake", "dependency:copy")


def spark() -> str:
    """What pip knows is the source; it is unpacked and not built, since what runs is in it already."""
    home = spark_home()
    if not home.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            part = Path(folder)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
            (part / "wanted.txt").write_text(f"{SPARK.replace('-', '==')} --hash=sha256:{SPARK_SHA256}\n")
            retried(*pip, "--dest", part, "-r", part / "wanted.txt")
            with tarfile.open(part / f"{SPARK}.tar.gz") as packed:
                packed.extractall(part, filter="data")
            (part / SPARK).replace(home.parent)
    return str(home)


def logic_suite() -> str:
    """The archive comes with what cargo tells of a crate, and without what that would need to be built."""
    files = logic_files()
    if not files.exists():
        retried("cargo", "info", "--quiet", LOGIC_SUITE)
        home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
        archive = next(home.glob(f"registry/cache/*/{files.parent.name}.crate"))
        if sha256(archive) != LOGIC_SUITE_SHA256:
            sys.exit(f"{archive.name} has another checksum than {LOGIC_SUITE_SHA256}: not used")
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
            (Path(folder) / files.parent.name).replace(files.parent)
    return str(files)


def scenarios() -> str:
    return go_build(SCENARIOS, scenarios_client())


def calls() -> str:
    return go_build(".", calls_client())


def go_build(package: str, built: Path) -> str:
    """Go holds what it downloads against go.sum."""
    if not built.exists():
        kept = {"GOMODCACHE": CACHE / "go" / "mod", "GOCACHE": CACHE / "go" / "build", "GOFLAGS": "-mod=readonly -modcacherw"}
        part = built.with_suffix(".part")
        retried("go", "-C", HERE / "scenarios", "build", "-o", part, package, **kept)
        part.replace(built)
    return str(built)


def protoc() -> str:
    """Where Protobuf's compiler is, with the messages that all may include beside it."""
    return str(wheels("protoc") / "bin" / "protoc")


def duckdb() -> str:
    return str(wheels("duckdb"))


def wheels(name: str) -> Path:
    """A folder with the Python packages of a list here."""
    folder = wheel_folder(name)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as part:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--only-binary", ":all:"]
            retried(*pip, "--require-hashes", "--target", Path(part) / "whole", "-r", HERE / f"{name}.txt")
            (Path(part) / "whole").replace(folder)
    return folder


def s3_server() -> str:
    return cargo_install(S3_SERVER, "--features", "binary")


def cargo_deny() -> str:
    return cargo_install(CARGO_DENY)


def mdbook() -> str:
    return cargo_install(MDBOOK, "--no-default-features")


def inferno() -> str:
    """A folder with what draws flame graphs: one program makes lines of stacks, another the picture."""
    folder = tool(INFERNO)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as part:
            # Optimised, since it goes through hundreds of megabytes.
            profile = {"CARGO_TARGET_DIR": CACHE / "tools" / "target", "CARGO_PROFILE_DEV_DEBUG": "0"}
            profile["CARGO_PROFILE_DEV_OPT_LEVEL"] = "1"
            programs = ["--bin", "inferno-collapse-perf", "--bin", "inferno-flamegraph", "--root", Path(part) / "whole"]
            retried("cargo", "install", "--quiet", "--locked", "--debug", INFERNO, *programs, **profile)
            (Path(part) / "whole").replace(folder)
    return str(folder)


def cargo_install(crate: str, *options: str) -> str:
    """Builds a program of the crates registry, unoptimised: it runs for a moment, so quick to build is what matters."""
    built = tool(crate)
    if not built.exists():
        profile = {"CARGO_TARGET_DIR": CACHE / "tools" / "target", "CARGO_PROFILE_DEV_DEBUG": "0"}
        install = ["cargo", "install", "--quiet", "--locked", "--debug", "--force", crate, *options]
        retried(*install, "--root", CACHE / "tools", **profile)
        (CACHE / "tools" / "bin" / crate.split("@")[0]).replace(built)
    return str(built)


def retried(*command: object, **environment: object) -> None:
    """Runs a command that downloads, up to three times."""
    for left in (2, 1, 0):
        try:
            run(*command, **environment)
            break
        except subprocess.CalledProcessError as error:
            if not left:
                sys.exit(f"{' '.join(map(str, command))} failed with {error.returncode}, three times")


def run(*command: object, **environment: object) -> None:
    values = {name: str(value) for name, value in environment.items()}
    # In this folder, so that rust-toolchain.toml names the compiler of the tools too.
    subprocess.run([str(word) for word in command], env={**os.environ, **values}, cwd=HERE, check=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
