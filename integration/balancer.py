"""Envoy before several gateways: each call, and not each connection, goes to the next one in turn."""

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from fetch import CACHE, venv

TYPES = "type.googleapis.com/envoy.extensions"
FLIGHT, HTTP = "flight", "http"


def program() -> Path:
    """Where Envoy is; it comes with the Python packages."""
    found = sorted(venv().glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise FileNotFoundError(f"Envoy is not in {CACHE}: run `make fetch`")
    return found[0]


@dataclass
class Balancer:
    """A running Envoy; where it ends, it holds that the calls of Flight SQL went to all in turn."""

    process: subprocess.Popen[bytes]
    admin: str
    log: Path
    flight: str = ""
    http: str = ""

    def ask(self, path: str) -> dict:
        """What it says of itself."""
        with urllib.request.urlopen(f"http://{self.admin}/{path}?format=json", timeout=10) as answer:
            return json.load(answer)

    def calls(self) -> list[int]:
        """How many calls of Flight SQL each gateway was given."""
        [hosts] = [status["host_statuses"] for status in self.ask("clusters")["cluster_statuses"] if status["name"] == FLIGHT]
        counted = [{stat["name"]: int(stat.get("value", 0)) for stat in host["stats"]} for host in hosts]
        return [each["rq_total"] for each in counted]

    def stop(self) -> int:
        """Ends it and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __enter__(self) -> "Balancer":
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None:
                assert self.process.poll() is None, f"Envoy ended by itself\n{self.log.read_text(errors='replace')[-4000:]}"
                calls = self.calls()
                assert max(calls) - min(calls) <= 1, f"the gateways were not called in turn: {calls}"
        finally:
            self.stop()


def balancer(folder: Path, flights: list[str], https: list[str], wait: float = 30) -> Balancer:
    """Starts one on free ports before gateways at these addresses; its configuration and log lie in `folder`."""
    clusters = {FLIGHT: flights, HTTP: https}
    configuration = {
        "admin": {"address": _address("127.0.0.1:0")},
        "static_resources": {
            "listeners": [_listener(name) for name in clusters],
            "clusters": [_cluster(name, addresses) for name, addresses in clusters.items()],
        },
    }
    file, log, admin = folder / "envoy.json", folder / "envoy.log", folder / "envoy.admin"
    file.write_text(json.dumps(configuration, indent=2))
    # With one thread there is one turn for all calls; each would have its own.
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    command = [program(), "-c", file, "--admin-address-path", admin, *options]
    with log.open("w") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output, process_group=0)
    started = Balancer(process, "", log)
    deadline = time.monotonic() + wait
    while not _ready(started, admin):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise RuntimeError(f"Envoy was not ready within {wait} s\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.02)
    return started


def _ready(started: Balancer, admin: Path) -> bool:
    """Whether it takes calls; then its addresses are known."""
    if not admin.exists() or not (address := admin.read_text()):
        return False
    started.admin = address
    try:
        listeners = started.ask("listeners").get("listener_statuses", [])
        live = started.ask("server_info")["state"] == "LIVE"
    except urllib.error.URLError:
        return False
    bound = {each["name"]: each["local_address"]["socket_address"] for each in listeners}
    if not live or set(bound) != {FLIGHT, HTTP}:
        return False
    started.flight, started.http = (f"{bound[name]['address']}:{bound[name]['port_value']}" for name in (FLIGHT, HTTP))
    return True


def _listener(name: str) -> dict:
    """A free port whose every request is for the cluster of the same name."""
    # Without an end: Envoy would cut each answer after 15 s.
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": name, "address": _address("127.0.0.1:0"), "filter_chains": [{"filters": filters}]}


def _cluster(name: str, addresses: list[str]) -> dict:
    """The gateways, each with the same weight."""
    protocol = "http2_protocol_options" if name == FLIGHT else "http_protocol_options"
    options = f"{TYPES}.upstreams.http.v3.HttpProtocolOptions"
    endpoints = [{"endpoint": {"address": _address(address)}} for address in addresses]
    return {
        "name": name,
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {
            options.removeprefix("type.googleapis.com/"): {"@type": options, "explicit_http_config": {protocol: {}}}
        },
    }


def _address(address: str) -> dict:
    host, port = address.rsplit(":", 1)
    return {"socket_address": {"address": host, "port_value": int(port)}}
