"""Choose the model: by the command line, by GENAI_MODEL_ID, or the demo model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import urlsplit

VARIABLE = "GENAI_MODEL_ID"
DEMO = "demo"


class UnusableModel(ValueError):
    """A model that the server cannot use. The message is one line for the server's operator.

    UnusableModel
    ├── UnknownModel   no provider has a model of this name
    ├── MissingKey     the provider wants a key, and none is set
    └── MissingExtra   a package is not installed
    """


class UnknownModel(UnusableModel):
    """No provider has a model of this name."""


class MissingKey(UnusableModel):
    """The provider wants a key, but none of the environment variables `keys` has one."""

    def __init__(self, model: str, keys: Sequence[str]) -> None:
        super().__init__(model, keys)
        self.model = model
        self.keys = tuple(keys)

    @property
    def missing(self) -> str:
        return f"{' or '.join(self.keys)} is not set"

    def __str__(self) -> str:
        return f"the model {self.model} needs a key, but {self.missing}"


class MissingExtra(UnusableModel):
    """A package that the model needs is not installed."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model and its address. `note` is a line for the server's operator, if the choice may be a surprise."""

    provider: str
    name: str
    note: str | None = None
    key: str | None = field(default=None, repr=False)
    base_url: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider's names, requirements and address.

    - `extra`, `package`: the extra of tailrace that the provider needs, and the package that it installs.
    - `names`: a pattern for model names that belong to this provider even without its prefix.
    - `keys`: the environment variables that may hold the key. The first one that is set counts.
    - `address`: the environment variable for the base URL. Without it, `default` is used.
    - `keyless_elsewhere`: whether servers at other addresses than `default` need no key.
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
    """Find the model that `spec` names, else the one that GENAI_MODEL_ID names, else the demo model.

    If the model of GENAI_MODEL_ID lacks its key, the demo model replaces it, and `note` says so. Raise UnusableModel
    for any other model that cannot be used. This opens no connection.
    """
    if spec is not None:
        return _resolve(spec, environment)
    named = environment.get(VARIABLE)
    if not named:
        return ModelSpec(DEMO, DEMO, _unused_key(environment))
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
    # A key that comes from a file often ends with a line feed, which headers must not contain.
    key = next(filter(None, (environment.get(variable, "").strip() for variable in settings.keys)), None)
    if key is None and settings.keys and not (settings.keyless_elsewhere and base_url):
        raise MissingKey(f"{provider}:{name}", settings.keys)
    resolved = ModelSpec(provider, name, key=key, base_url=base_url or settings.default)
    _check_installed(resolved, settings)
    return resolved


def _split(spec: str) -> tuple[str, str]:
    """Return the provider, and its name for the model."""
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
    except ValueError:  # a port that is not a number, or brackets without an IPv6 address
        valid = False
    if not valid:
        got = "one with a password that cannot be read" if "@" in url else repr(url)
        raise UnusableModel(f"expected {provider.address} to be http://host or https://host, but got {got}")
    return url


def _check_installed(spec: ModelSpec, provider: Provider) -> None:
    try:
        found = find_spec("pydantic_ai") and find_spec(provider.package)
    except ModuleNotFoundError:  # the parent package is missing too, such as `google` of `google.genai`
        found = None
    if not found:
        raise MissingExtra(
            f"the model {spec.provider}:{spec.name} needs the extra {provider.extra}: "
            f"pip install 'tailrace[{provider.extra}]'"
        )


def _unused_key(environment: Mapping[str, str]) -> str | None:
    """Return a note about a key that is set without a model. A key alone selects no model, because use costs money."""
    keys = (key for provider in PROVIDERS.values() for key in provider.keys)
    key = next((key for key in keys if environment.get(key)), None)
    return key and f"{key} is set, but neither --model nor {VARIABLE} names a model: the demo model answers"
