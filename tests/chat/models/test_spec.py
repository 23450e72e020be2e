"""Which model answers, and one clear line if it cannot be used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from tailrace.chat.models import open_model
from tailrace.chat.models.base import Message
from tailrace.chat.models.demo import compose, cut
from tailrace.chat.models.spec import (
    MissingKey,
    ModelSpec,
    UnknownModel,
    UnusableModel,
    resolve_model,
)

DEMO = ModelSpec("demo", "demo")
OLLAMA = "http://127.0.0.1:11434/v1"
KEYS = {"GOOGLE_API_KEY": "g", "OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"}


@pytest.mark.parametrize(
    ("spec", "environment", "provider", "name", "key"),
    [
        ("gemini-2.5-flash", KEYS, "google", "gemini-2.5-flash", "g"),
        ("google:gemini-2.5-flash", KEYS, "google", "gemini-2.5-flash", "g"),
        ("google-gla:gemini-2.5-flash", KEYS, "google", "gemini-2.5-flash", "g"),
        ("gemini:gemini-2.5-flash", {"GEMINI_API_KEY": "old"}, "google", "gemini-2.5-flash", "old"),
        ("gemini-2.5-flash", {**KEYS, "GEMINI_API_KEY": "old"}, "google", "gemini-2.5-flash", "g"),
        ("gpt-5-mini", KEYS, "openai", "gpt-5-mini", "o"),
        ("gpt-5-mini", {"OPENAI_API_KEY": " from a file\n"}, "openai", "gpt-5-mini", "from a file"),
        ("o3", KEYS, "openai", "o3", "o"),
        ("openai:ft:gpt-5-mini:us", KEYS, "openai", "ft:gpt-5-mini:us", "o"),
        ("openai:qwen3", {"OPENAI_BASE_URL": "http://localhost:8080/v1"}, "openai", "qwen3", None),
        ("claude-haiku-4-5", KEYS, "anthropic", "claude-haiku-4-5", "a"),
        ("ollama:qwen3:8b", {}, "ollama", "qwen3:8b", None),
    ],
)
def test_a_model_is_found_by_its_name(
    spec: str, environment: Mapping[str, str], provider: str, name: str, key: str | None
) -> None:
    said = resolve_model(spec, environment)
    assert (said.provider, said.name, said.key, said.note) == (provider, name, key, None)
    assert resolve_model(None, {**environment, "GENAI_MODEL_ID": spec}) == said


def test_the_demo_model_answers_where_none_is_named() -> None:
    assert resolve_model(None, {}) == DEMO
    assert resolve_model(None, {"GENAI_MODEL_ID": ""}) == DEMO
    assert resolve_model(None, {"GENAI_MODEL_ID": "demo"}) == DEMO
    assert resolve_model("demo", {**KEYS, "GENAI_MODEL_ID": "gpt-5-mini"}) == DEMO


def test_what_is_said_beats_the_environment() -> None:
    assert resolve_model("o3", {**KEYS, "GENAI_MODEL_ID": "gemini-2.5-flash"}).name == "o3"


def test_nobodys_key_is_used_unasked() -> None:
    spec = resolve_model(None, {"GEMINI_API_KEY": "secret"})
    assert (spec.provider, spec.name) == ("demo", "demo")
    assert spec.note == (
        "GEMINI_API_KEY is set, but neither --model nor GENAI_MODEL_ID names a model: the demo model answers"
    )


def test_a_model_of_the_environment_without_its_key_gives_way_to_the_demo_model() -> None:
    spec = resolve_model(None, {"GENAI_MODEL_ID": "claude-haiku-4-5"})
    assert (spec.provider, spec.name) == ("demo", "demo")
    assert spec.note == (
        "GENAI_MODEL_ID names claude-haiku-4-5, but ANTHROPIC_API_KEY is not set: the demo model answers"
    )


def test_a_model_that_was_said_needs_its_key() -> None:
    with pytest.raises(MissingKey) as caught:
        resolve_model("gemini-2.5-flash", {"GOOGLE_API_KEY": ""})
    assert str(caught.value) == (
        "the model google:gemini-2.5-flash needs a key, but GOOGLE_API_KEY or GEMINI_API_KEY is not set"
    )


@pytest.mark.parametrize("spec", ["", "llama3", "mistral:large", "google:", ":x", "ollama", "demo:x", "oxygen"])
def test_an_unknown_model_is_said_with_what_is_known(spec: str) -> None:
    expected = f"expected google:…, openai:…, anthropic:…, ollama:… or demo as model, but got {spec!r}"
    with pytest.raises(UnknownModel) as caught:
        resolve_model(spec, KEYS)
    assert str(caught.value) == expected
    if spec:
        with pytest.raises(UnknownModel):
            resolve_model(None, {**KEYS, "GENAI_MODEL_ID": spec})


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "http://host:port", "http://[::1", "/v1"])
def test_a_bad_address_is_said(url: str) -> None:
    with pytest.raises(UnusableModel) as caught:
        resolve_model("ollama:qwen3", {"OLLAMA_BASE_URL": url})
    assert str(caught.value) == f"expected OLLAMA_BASE_URL to be http://host or https://host, but got {url!r}"


@pytest.mark.parametrize("url", ["http://me:pw/secret@host", "me:secret@host"])
def test_a_bad_address_is_said_without_its_password(url: str) -> None:
    with pytest.raises(UnusableModel, match=r"but got one with a password that cannot be read$"):
        resolve_model("ollama:qwen3", {"OLLAMA_BASE_URL": url})


def test_addresses() -> None:
    assert resolve_model("ollama:qwen3", {}).base_url == OLLAMA
    assert resolve_model("ollama:qwen3", {"OLLAMA_BASE_URL": "http://[::1]:1/v1"}).base_url == "http://[::1]:1/v1"
    assert resolve_model("o3", KEYS).base_url == "https://api.openai.com/v1"
    assert resolve_model("o3", {**KEYS, "OPENAI_BASE_URL": "https://gate/v1"}).base_url == "https://gate/v1"


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(resolve_model("o3", {"OPENAI_API_KEY": "secret"}))


@pytest.mark.parametrize(
    ("spec", "missing", "extra"),
    [
        ("google:gemini-2.5-flash", "google.genai", "google"),
        ("google:gemini-2.5-flash", "google", "google"),
        ("openai:gpt-5-mini", "openai", "openai"),
        ("ollama:qwen3", "openai", "openai"),
        ("anthropic:claude-haiku-4-5", "anthropic", "anthropic"),
        ("anthropic:claude-haiku-4-5", "pydantic_ai", "anthropic"),
    ],
)
def test_a_missing_extra_is_named(spec: str, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "google.genai", raising=False)  # other tests have imported it
    monkeypatch.setitem(sys.modules, missing, None)  # what Python itself takes for "there is no such module"
    with pytest.raises(UnusableModel) as caught:
        resolve_model(spec, KEYS)
    assert str(caught.value) == f"the model {spec} needs the extra {extra}: pip install 'tailrace[{extra}]'"


def test_nothing_heavy_is_imported_before_a_model_is_opened() -> None:
    code = (
        "import sys; from tailrace.chat.models.spec import resolve_model;"
        "resolve_model('ollama:qwen3', {});"
        "print(sorted({'pydantic_ai', 'openai', 'anthropic', 'google.genai', 'httpx2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


async def test_the_demo_model_is_opened_with_its_words() -> None:
    said = [Message("user", "Hello")]
    async with open_model(None, {}, demo_words=2, demo_pace=0, timeout=1) as model:
        assert model.name == "demo"
        *pieces, _usage = [piece async for piece in model.reply(said)]
    assert pieces == list(cut(compose(said), 2))


async def test_an_unknown_model_is_not_opened() -> None:
    with pytest.raises(UnknownModel, match="but got 'llama3'"):
        async with open_model("llama3", {}, demo_words=2, demo_pace=0, timeout=1):
            raise AssertionError("the block must not be entered")
