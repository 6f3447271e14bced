"""Who is compared: how each is installed into an environment of its own, configured as its documentation advises for
speed, and started in front of the same provider.

Installed by name from PyPI and npm, at the versions in `VERSIONS`; a tool that is not on the machine (npm, nginx,
redis-server) leaves its contender out, and the report says so.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import Process

VERSIONS = {"litellm": "1.106.2", "tensorzero": "2026.6.0", "@portkey-ai/gateway": "1.15.2"}
ROOT = Path(__file__).parents[1]
KEY = "sk-bench-9f2b7c31d0"
PROVIDER, REDIS, FIRST = 9610, 9609, 9611
"""Ports: of the provider, of the ledger's Redis, and of the first contender."""


Maker = Callable[[Path, int], "Contender"]
"""Installs and configures one, given a folder and a port.  Raises Missing."""


class Missing(Exception):
    """What the machine lacks."""


@dataclass(slots=True)
class Contender:
    """One of those compared.  `url` takes chat completions once `process` runs."""

    name: str
    url: str
    command: list[str] = field(default_factory=list)
    model: str = "gpt-4o-mini"
    headers: dict[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {KEY}"})
    env: dict[str, str] = field(default_factory=dict)
    within_s: float = 30.0
    says_url: str = ""  # a pattern for its log, when it chooses its own address

    def start(self, on: set[int], folder: Path) -> Process:
        """The process; one that chooses its own address has said so by then."""
        process = Process(self.command, on, folder / f"{self.name.replace(' ', '-')}.log", self.env, folder)
        until = time.monotonic() + self.within_s
        while self.says_url and time.monotonic() < until and process.alive:
            if found := re.search(self.says_url, process.log.read_text(errors="replace")):
                self.url = found[1] + "/chat/completions"
                break
            time.sleep(0.05)
        return process


def needed(tool: str, why: str) -> str:
    """Where a tool is.  Raises Missing."""
    found = shutil.which(tool)
    if found is None:
        raise Missing(f"{tool} is not on this machine: {why}")
    return found


def direct(_: Path, __: int) -> Contender:
    return Contender("direct", f"http://127.0.0.1:{PROVIDER}/v1/chat/completions")


NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 20m; client_body_buffer_size 1m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream provider {{ server 127.0.0.1:{provider}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def nginx(folder: Path, port: int) -> Contender:
    """A reverse proxy that looks at nothing: the floor."""
    tool = needed("nginx", "the floor is left out (Debian: apt install nginx-light)")
    settings = folder / "nginx.conf"
    settings.write_text(NGINX.format(folder=folder, port=port, provider=PROVIDER))
    return Contender("nginx", f"http://127.0.0.1:{port}/v1/chat/completions", [tool, "-c", str(settings)])


TOLLGATE = """
server: {{port: {port}, workers: {workers}}}
redis: {redis}
database: sqlite:///{folder}/tollgate-{port}.db
spool: {folder}/spool-{port}
ledger: {{timeout_s: 2.0}}
providers:
  mock: {{dialect: openai, base_url: "http://127.0.0.1:{provider}/v1", api_key: sk-x, max_connections: 2000}}
deployments:
  - {{id: small, provider: mock, upstream_model: gpt-4o-mini, context_max: 128000, output_max: 16384,
      price: {{input: 0.15, output: 0.6, cache_read: 0.075}}}}
  - {{id: large, provider: mock, upstream_model: gpt-4o, context_max: 128000, output_max: 16384,
      price: {{input: 2.5, output: 10, cache_read: 1.25}}}}
routes:
  auto: {{candidates: [large, small], baseline: large, policies: [{policies}]}}
tenants:
  - id: acme
    keys: [{{name: bench, key: {key}}}]
    budgets: [{{limit_usd: 100000, window: day}}, {{limit_usd: 1000000, window: month}}]
    rate_limits: {{requests_per_minute: 100000000, tokens_per_minute: 900000000000}}
"""
DIFFICULTY = "{difficulty: {target_quality: 0.95}}, {output_cap: {default: 256, max: 4096}}, cheapest"
CHEAP = "{output_cap: {default: 256, max: 4096}}, cheapest"
SERVE = "import sys; from pathlib import Path; from gateway.server import serve; serve(Path(sys.argv[1]))"


def tollgate(name: str = "tollgate", *, redis: bool = True, workers: int = 1, policies: str = CHEAP) -> Maker:
    """Ours, with everything on: keys, counting, a route of two, an output cap, four limits, records, metrics."""

    def make(folder: Path, port: int) -> Contender:
        if redis:
            needed("redis-server", "the Redis ledger is left out")
        text = TOLLGATE.format(
            port=port,
            workers=workers,
            folder=folder,
            provider=PROVIDER,
            key=KEY,
            policies=policies,
            redis=f"redis://127.0.0.1:{REDIS}/0" if redis else "null",
        )
        settings = folder / f"tollgate-{port}.yaml"
        settings.write_text(text)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        command = [sys.executable, "-c", SERVE, str(settings)]
        return Contender(name, url, command, "auto", env={"PYTHONPATH": str(ROOT)})

    return make


LITELLM = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "http://127.0.0.1:{provider}/v1", api_key: sk-x}}
litellm_settings: {{telemetry: false, set_verbose: false, json_logs: true, request_timeout: 60}}
general_settings: {{master_key: {key}, disable_spend_logs: true}}
"""


def litellm(folder: Path, port: int) -> Contender:
    """Production mode, no database, one worker, only errors logged."""
    home = _python("litellm", "litellm[proxy]")
    settings = folder / "litellm.yaml"
    settings.write_text(LITELLM.format(provider=PROVIDER, key=KEY))
    command = [str(home / "litellm"), "--config", str(settings), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--num_workers", "1"]
    env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return Contender("litellm", f"http://127.0.0.1:{port}/v1/chat/completions", command, env=env, within_s=90)


def portkey(_: Path, port: int) -> Contender:
    """No plug-ins, no console; who is called is said in headers."""
    home = _node("@portkey-ai/gateway")
    command = [
        needed("node", "Portkey is left out"),
        str(home / "build/start-server.js"),
        f"--port={port}",
        "--headless",
    ]
    headers = {
        "authorization": "Bearer sk-x",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{PROVIDER}/v1",
    }
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return Contender("portkey", url, command, headers=headers, env={"NODE_ENV": "production"})


TENSORZERO = """
[gateway]
observability.enabled = false
[models.mock]
routing = ["mock"]
[models.mock.providers.mock]
type = "openai"
model_name = "gpt-4o-mini"
api_base = "http://127.0.0.1:{provider}/v1/"
api_key_location = "none"
"""
TENSORZERO_SERVE = """
import sys, time, tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print("serves", gateway.base_url, flush=True)
time.sleep(3600)
"""


def tensorzero(folder: Path, _: int) -> Contender:
    """The gateway inside its Python package (Rust), without observability."""
    home = _python("tensorzero", "tensorzero")
    settings = folder / "tensorzero.toml"
    settings.write_text(TENSORZERO.format(provider=PROVIDER))
    command = [str(home / "python"), "-c", TENSORZERO_SERVE, str(settings)]
    return Contender(
        "tensorzero", "", command, "tensorzero::model_name::mock", {}, {"RUST_LOG": "error"}, says_url=r"serves (\S+)"
    )


def install() -> None:
    """All of them into environments of their own, so that it takes no time from what is measured."""
    for name, requirement in (("litellm", "litellm[proxy]"), ("tensorzero", "tensorzero")):
        with contextlib.suppress(Missing):
            _python(name, requirement)
    with contextlib.suppress(Missing):
        _node("@portkey-ai/gateway")


def _environments() -> Path:
    folder = ROOT / ".bench"
    folder.mkdir(exist_ok=True)
    return folder


def _python(name: str, requirement: str) -> Path:
    """The `bin` of a virtual environment that has the package."""
    home = _environments() / f"{name}-{VERSIONS[name]}"
    if not (home / "installed").exists():
        _run([sys.executable, "-m", "venv", str(home)])
        wanted = f"{requirement}=={VERSIONS[name]}"
        _run([str(home / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", wanted])
        (home / "installed").touch()
    return home / "bin"


def _node(name: str) -> Path:
    home = _environments() / f"{name.strip('@').replace('/', '-')}-{VERSIONS[name]}"
    if not (home / "installed").exists():
        home.mkdir(exist_ok=True)
        npm = needed("npm", f"{name} is left out")
        _run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), f"{name}@{VERSIONS[name]}"])
        (home / "installed").touch()
    return home / "node_modules" / name


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise Missing(f"{' '.join(command[:4])} failed: {done.stderr.strip()[-300:]}")


ALL: dict[str, Maker] = {
    "direct": direct,
    "nginx": nginx,
    "tollgate": tollgate(),
    "tollgate sqlite": tollgate("tollgate sqlite", redis=False),
    "litellm": litellm,
    "portkey": portkey,
    "tensorzero": tensorzero,
}
