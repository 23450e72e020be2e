"""Which model is meant: said explicitly, named by GENAI_MODEL_ID, or the demo model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import urlsplit

VARIABLE = "GENAI_MODEL_ID"
DEMO = "demo"


class UnusableModel(ValueError):
    """A model that cannot be asked, and why, in one line for whoever starts the server."""


class UnknownModel(UnusableModel):
    """A name that is no model's, or does not say whose."""


class MissingKey(UnusableModel):
    """The model's provider wants a key, and none of the environment variables `keys` has one."""

    def __init__(self, model: str, keys: Sequence[str]) -> None:
        super().__init__(model, keys)
        self.model = model
        self.keys = tuple(keys)

    @property
    def missing(self) -> str:
        return f"there is no {' or '.join(self.keys)}"

    def __str__(self) -> str:
        return f"the model {self.model} needs a key, but {self.missing}"


class MissingExtra(UnusableModel):
    """What asks the model is not installed."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model and where it is. `note` is a line for whoever starts the server, where the choice may surprise."""

    provider: str
    name: str
    note: str | None = None
    key: str | None = field(default=None, repr=False)
    base_url: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """What a provider is told by, and what it needs.

    - `names`: the pattern of the model names that are this provider's without being said to be.
    - `keys`, `address`: environment variables; the first key that is set counts.
    - `keyless_elsewhere`: no key is needed where `address` is set, since somebody else's server is asked.
    - `default`: the address where none is set.
    """

    extra: str
    package: str
    address: str
    default: str
    keys: tuple[str, ...] = ()
    names: str | None = None
    keyless_elsewhere: bool = False


PROVIDERS: dict[str, Provider] = {
    "google": Provider(
        extra="google",
        package="google.genai",
        address="GOOGLE_GEMINI_BASE_URL",
        default="https://generativelanguage.googleapis.com",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        names="gemini-",
    ),
    "openai": Provider(
        extra="openai",
        package="openai",
        address="OPENAI_BASE_URL",
        default="https://api.openai.com/v1",
        keys=("OPENAI_API_KEY",),
        names=r"gpt-|chatgpt-|o\d",
        keyless_elsewhere=True,
    ),
    "anthropic": Provider(
        extra="anthropic",
        package="anthropic",
        address="ANTHROPIC_BASE_URL",
        default="https://api.anthropic.com",
        keys=("ANTHROPIC_API_KEY",),
        names="claude-",
    ),
    "ollama": Provider(
        extra="openai", package="openai", address="OLLAMA_BASE_URL", default="http://127.0.0.1:11434/v1"
    ),
}
SYNONYMS = {"google-gla": "google", "gemini": "google"}
EXPECTED = f"expected {', '.join(f'{name}:…' for name in PROVIDERS)} or {DEMO} as model"


def resolve_model(spec: str | None, environment: Mapping[str, str]) -> ModelSpec:
    """The model that `spec` names, else GENAI_MODEL_ID, else the demo model. Nothing is opened.

    A model of GENAI_MODEL_ID without its key gives way to the demo model, and `note` says so. Otherwise UnusableModel,
    in one line, for what cannot be asked.
    """
    if spec is not None:
        return _resolve(spec, environment)
    named = environment.get(VARIABLE)
    if not named:
        return ModelSpec(DEMO, DEMO, _unasked(environment))
    try:
        return _resolve(named, environment)
    except MissingKey as error:
        return ModelSpec(DEMO, DEMO, f"{VARIABLE} names {named}, but {error.missing}: the demo model answers")


def _resolve(spec: str, environment: Mapping[str, str]) -> ModelSpec:
    if spec == DEMO:
        return ModelSpec(DEMO, DEMO)
    provider, name = _split(spec)
    settings = PROVIDERS[provider]
    base_url = _base_url(settings, environment)
    # A key that was read from a file often ends with a newline, which no header may have.
    key = next(filter(None, (environment.get(variable, "").strip() for variable in settings.keys)), None)
    if key is None and settings.keys and not (settings.keyless_elsewhere and base_url):
        raise MissingKey(f"{provider}:{name}", settings.keys)
    resolved = ModelSpec(provider, name, key=key, base_url=base_url or settings.default)
    _check_installed(resolved, settings)
    return resolved


def _split(spec: str) -> tuple[str, str]:
    """The provider and the model's name there."""
    provider, colon, name = spec.partition(":")
    provider = SYNONYMS.get(provider, provider)
    if colon and provider in PROVIDERS and name:
        return provider, name
    for provider, settings in PROVIDERS.items():
        if settings.names and re.match(settings.names, spec):
            return provider, spec
    raise UnknownModel(f"{EXPECTED}, but got {spec!r}")


def _base_url(provider: Provider, environment: Mapping[str, str]) -> str | None:
    url = environment.get(provider.address)
    if not url:
        return None
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, brackets that are no IPv6 address
        valid = False
    if not valid:
        raise UnusableModel(f"expected {provider.address} to be http://host or https://host, but got {url!r}")
    return url


def _check_installed(spec: ModelSpec, provider: Provider) -> None:
    try:
        found = find_spec("pydantic_ai") and find_spec(provider.package)
    except ModuleNotFoundError:  # the folder of a package that is not there: `google` of `google.genai`
        found = None
    if not found:
        raise MissingExtra(
            f"the model {spec.provider}:{spec.name} needs the extra {provider.extra}: "
            f"pip install 'tailrace[{provider.extra}]'"
        )


def _unasked(environment: Mapping[str, str]) -> str | None:
    """Nobody's key is used unasked, but one that is there says what was perhaps meant."""
    keys = (key for provider in PROVIDERS.values() for key in provider.keys)
    key = next((key for key in keys if environment.get(key)), None)
    return key and f"there is {key}, but neither --model nor {VARIABLE} names a model: the demo model answers"
