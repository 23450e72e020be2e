"""The files of the folder `deploy`: what they say fits together, and fits what they start."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import RawConfigParser
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from redis import Redis
from ruamel.yaml import YAML
from sqlalchemy.pool import QueuePool

from tailrace import Engine
from tailrace.chat import ChatSettings
from tailrace.cli.commands import make_parser
from tailrace.cli.server import GRACEFUL_END
from tests.serving import ROOT
from tests.system.deployment import FILES, deployed_redis

NGINX = (FILES / "nginx.conf").read_text()
DOCKERFILE = (FILES / "Dockerfile").read_text()
PAGE = (ROOT / "docs" / "deploy.md").read_text()
SERVICE = FILES / "tailrace.service"
COMPOSE: dict[str, Any] = YAML(typ="safe").load(FILES / "compose.yaml")

UNITS = {"": 1, "s": 1, "m": 60, "k": 1 << 10}


def default(function: Any, name: str) -> float:
    value: float = signature(function).parameters[name].default
    return value


def setting(name: str) -> Any:
    return ChatSettings.model_fields[name].default


# The page about them


def section(title: str) -> str:
    found = re.search(rf"^## {title}$(.*?)^## ", f"{PAGE}\n## ", re.M | re.S)
    assert found is not None, f"expected a section {title}"
    return found[1]


@pytest.mark.parametrize(
    ("title", "file"),
    [("Under systemd", "tailrace.service"), ("What Redis needs", "redis.conf"), ("Behind nginx", "nginx.conf")],
)
def test_what_the_page_explains_is_in_the_file(title: str, file: str) -> None:
    text = " ".join((FILES / file).read_text().split())
    cells = re.findall(r"^\| (`.*?) \|", section(title), re.M)
    shown = [directive for cell in cells for directive in re.findall(r"`([^`]+)`", cell)]
    assert len(shown) >= 8
    assert [directive for directive in shown if directive not in text] == []


def test_the_page_names_all_files() -> None:
    for file in FILES.glob("*.*"):
        if file.is_file() and not file.name.startswith("."):
            assert f"](../deploy/{file.name})" in PAGE


def test_the_settings_that_the_page_shows_are_settings() -> None:
    shown = set(re.findall(r"^TAILRACE_(\w+)=", section("Under systemd"), re.M))
    assert shown - {"HOST"} == {"STREAMS", "DATABASE", "API_KEYS"}
    assert {name.lower() for name in shown - {"HOST"}} <= ChatSettings.model_fields.keys()


def test_a_process_has_as_many_connections_to_postgresql_as_the_page_says() -> None:
    most = default(QueuePool, "pool_size") + default(QueuePool, "max_overflow")
    assert f"Each process opens up to {most} connections" in PAGE


MEASURED = re.findall(r"^\| ([^|]+) \| ([^|]*\d[^|]*) \| \[[^]]+\]\(benchmarks/README\.md#([\w-]+)\)", PAGE, re.M)


@pytest.mark.parametrize(("figures", "anchor"), [(figures, anchor) for _, figures, anchor in MEASURED])
def test_the_page_gives_figures_that_were_measured(figures: str, anchor: str) -> None:
    page = (ROOT / "docs" / "benchmarks" / "README.md").read_text()
    _, *parts = re.split(r"^## (.*)$", page, flags=re.M)
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in parts[::2]]
    measured = dict(zip(anchors, parts[1::2], strict=True))[anchor]
    shown = re.findall(r"\d[\d,]*(?:\.\d+)?(?= (?:KB|µs|ms)|$)", figures)
    assert shown
    assert [figure for figure in shown if f"| {figure} (" not in measured] == []


# nginx. tests/system/test_deploy.py runs it.


def value(directive: str) -> int:
    """Return the value of a directive of nginx in seconds, or, for a size, in bytes."""
    found = re.search(rf"^ *{directive} (\d+)([smk]?);", NGINX, re.M)
    assert found is not None, f"expected {directive} in nginx.conf"
    size = directive == "client_max_body_size"
    return int(found[1]) * (1 << 20 if size and found[2] == "m" else UNITS[found[2]])


def test_a_stream_that_only_pings_is_never_cut() -> None:
    assert value("proxy_read_timeout") > max(60, 3 * default(Engine, "heartbeat"))


def test_a_model_may_think_while_a_client_waits_for_a_document() -> None:
    assert value("proxy_read_timeout") > 2 * setting("model_timeout")


def test_a_client_that_takes_nothing_has_as_long_as_the_engine_gives_it() -> None:
    assert value("send_timeout") >= default(Engine, "send_timeout")


def test_nginx_closes_an_idle_connection_to_a_worker_first() -> None:
    assert value("keepalive_timeout") < default(uvicorn.Config, "timeout_keep_alive")


def test_the_worker_itself_refuses_a_body_that_is_a_little_too_large() -> None:
    assert value("client_max_body_size") > setting("max_body")


# Redis


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with deployed_redis() as client:
        yield client


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bind", "127.0.0.1 -::1"),
        ("protected-mode", "yes"),
        ("maxmemory", str(1 << 30)),
        ("maxmemory-policy", "noeviction"),
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("min-replicas-to-write", "0"),
        ("min-replicas-max-lag", "10"),
        ("client-output-buffer-limit", f"pubsub {32 << 20} {8 << 20} 60"),
        ("timeout", "0"),
        ("tcp-keepalive", "60"),
    ],
)
def test_redis_has_the_settings_of_the_file(redis: Redis, name: str, expected: str) -> None:
    found: Any = redis.config_get(name)
    assert found[name] == expected or found[name].endswith(f" {expected}")


def test_a_user_of_redis_may_do_what_the_scripts_do(redis: Redis) -> None:
    [rules] = re.findall(r"^ACL SETUSER tailrace (.*)$", PAGE, re.M)
    redis.execute_command("ACL", "SETUSER", "tailrace", *rules.split())  # type: ignore[no-untyped-call]
    words = rules.split()
    kinds = [word.removeprefix("+@") for word in words if word.startswith("+@")]
    allowed = {command for kind in kinds for command in redis.acl_cat(kind)} - {*redis.acl_cat("dangerous")}
    allowed |= {word[1:] for word in words if word.startswith("+") and "@" not in word}
    scripts = (ROOT / "src" / "tailrace" / "log" / "redis" / "scripts.py").read_text()
    called = {command.lower() for command in re.findall(r"call\('([A-Z]+)'", scripts)}
    assert called
    assert called - allowed == set()


def test_all_settings_of_the_file_are_looked_at() -> None:
    told = re.findall(r"^([a-z-]+) ", (FILES / "redis.conf").read_text(), re.M)
    [looked_at] = test_redis_has_the_settings_of_the_file.pytestmark  # type: ignore[attr-defined]
    assert {*told} - {"port", "dir"} == {name for name, _ in looked_at.args[1]}


# The container, and what compose makes of it


def test_the_compose_file_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*command, str(FILES / "compose.yaml")], check=True, timeout=50)


WORKERS = re.findall(r"^ +server (\w+):8000 ", NGINX, re.M)


def address(name: str) -> str:
    found: str = COMPOSE["services"][name]["networks"]["inside"]["ipv4_address"]
    return found


def test_the_workers_that_nginx_knows_are_services_with_addresses_of_their_own() -> None:
    assert {*WORKERS} == {name for name, service in COMPOSE["services"].items() if service.get("image") == "tailrace"}
    assert len({address(name) for name in [*WORKERS, "nginx"]}) == len(WORKERS) + 1


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_of_the_compose_file(name: str) -> None:
    worker = COMPOSE["services"][name]
    assert worker["environment"]["FORWARDED_ALLOW_IPS"] == address("nginx")
    settings = {name.lower() for name in re.findall(r"TAILRACE_(\w+)", " ".join(worker["environment"]))}
    assert settings == {"api_keys", "streams", "database"} <= ChatSettings.model_fields.keys()
    assert int(worker["stop_grace_period"].removesuffix("s")) > default(Engine, "shutdown_grace") + GRACEFUL_END
    assert worker["depends_on"].keys() <= COMPOSE["services"].keys()
    assert (FILES / worker["build"]["context"] / worker["build"]["dockerfile"]).samefile(FILES / "Dockerfile")


def mounts(name: str) -> dict[str, str]:
    """Return where a service finds what belongs to the folder."""
    volumes = [volume.split(":") for volume in COMPOSE["services"][name]["volumes"]]
    return {source: target for source, target, *_ in volumes if source.startswith("./")}


def test_the_compose_file_mounts_the_files_where_they_are_read() -> None:
    assert mounts("nginx") == {"./nginx.conf": "/etc/nginx/nginx.conf", "./tls": "/etc/nginx/tls"}
    assert len(re.findall(r"^ *ssl_certificate(?:_key)? +/etc/nginx/tls/", NGINX, re.M)) == 2
    assert mounts("redis") == {"./redis.conf": COMPOSE["services"]["redis"]["command"][1]}


def test_a_container_runs_a_command_that_there_is() -> None:
    [command] = re.findall(r"^CMD \[(.*)\]$", DOCKERFILE, re.M)
    program, *arguments = (word.strip(' "') for word in command.split(","))
    assert program == "tailrace"
    assert make_parser().parse_args(arguments).host == "0.0.0.0"


def test_a_container_is_built_from_what_there_is() -> None:
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.M) for word in line.split()]
    assert [(ROOT / name).exists() for name in copied] == [True] * len(copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "constraints.txt", "src"} == {*copied}
    [extras] = re.findall(r'"\.\[([\w,]+)\]"', DOCKERFILE)
    assert {*extras.split(",")} <= project["optional-dependencies"].keys()


# systemd


@pytest.fixture
def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False)  # a directive may come twice
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # keeps upper case
    parser.read(SERVICE)
    return parser


def test_the_unit_runs_a_command_that_there_is(unit: RawConfigParser) -> None:
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "tailrace"
    assert make_parser().parse_args(arguments).workers == 4


def test_the_unit_lets_replies_end(unit: RawConfigParser) -> None:
    service = unit["Service"]
    assert (service["KillMode"], service["Restart"]) == ("mixed", "always")
    assert int(service["TimeoutStopSec"]) > default(Engine, "shutdown_grace") + GRACEFUL_END


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this system has no systemd")
def test_systemd_finds_nothing_wrong_in_the_unit(tmp_path: Path, unit: RawConfigParser) -> None:
    program = unit["Service"]["ExecStart"].partition(" ")[0]
    file = tmp_path / SERVICE.name
    file.write_text(SERVICE.read_text().replace(program, sys.executable))
    found = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=50)
    assert (found.returncode, found.stderr) == (0, "")
