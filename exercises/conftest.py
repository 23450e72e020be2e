"""Serve `exercise.py` of the folder that is checked, or with `--solution` its `solution.py`."""

from collections.abc import Iterator

import httpx
import pytest

from tests.programs import serving_app


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--solution", action="store_true", help="check solution.py instead of exercise.py")


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    module = "solution" if request.config.getoption("--solution") else "exercise"
    with serving_app(f"{module}:app", request.path.parent) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10) as client:
        yield client
