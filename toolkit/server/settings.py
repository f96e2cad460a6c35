"""ServerSettings: everything that serve() takes beside the model and its own settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from toolkit.errors import InvalidConfig

__all__ = ["MIB", "ServerSettings"]

V = TypeVar("V")

MIB = 1024**2
_POOLINGS = ("last", "mean", "cls")
_COUNTS = (
    "max_body_bytes",
    "max_concurrent_requests",
    "max_choices",
    "max_n",
    "max_stored_responses",
    "max_stored_bytes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server listens, whom it answers, and how much one client may ask for.

    Args:
        host: Address to listen on; "0.0.0.0" is every network that the machine is in.
        port: Port to listen on; 0 finds a free one.
        uds: A Unix socket's path to listen on, in place of host and port.
        api_keys: What clients must send: any one of these; empty: anything will do. Open in any
            case are the probes (/health, /ping, /version, /metrics) and /docs.
        served_names: The names that clients ask for; empty: the model's own; "*" takes any.
        allowed_origins: Web pages whose scripts may call (CORS); "*" is any; empty: none.
        allowed_methods: HTTP methods that those may use.
        allowed_headers: Headers that those may send.
        allow_credentials: Whether those may send cookies.
        root_path: Where a proxy puts the server, as "/llm"; links in /docs begin with it.
        ssl_certfile: A PEM file with the certificate: the server speaks HTTPS.
        ssl_keyfile: A PEM file with the key, if it is not in the same file.
        ssl_keyfile_password: What the key is encrypted with.
        max_body_bytes: Longest body of one call, counted as it arrives.
        body_timeout_s: A client that sends nothing of its body for so long is refused, and one
            whose body takes ten times as long.
        max_concurrent_requests: Calls under /v1, /tokenize and /detokenize that may run at once;
            more get a 429.
        request_timeout_s: Calls that take longer are ended and aborted; None: no limit.
        max_prompt_tokens: Longest prompt; None: what the model takes.
        max_n: Most answers to one prompt.
        max_choices: Most answers of one call, over all its prompts.
        max_logprobs: Most alternatives shown per token.
        max_stored_responses: Answers of /v1/responses kept for ``previous_response_id``.
        max_stored_bytes: What these may take, with the conversations before them; the oldest go.
        grace_s: How long running answers may go on when the server is stopped.
        strict: Whether fields without effect are errors instead of a response header.
        dev: Whether the endpoints that look into the engine and change it are served.
        control_key: Opens those endpoints to whoever has it; for a server in a process of its own.
        embedding_pooling: How /v1/embeddings makes one vector of a text's many.
        processors: Logits processors that a call may choose by name.
        hooks: Activation hooks that a call may choose by name.

    Raises:
        InvalidConfig: a setting is wrong or contradicts another one.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    # Not in the repr: it lands in logs and in notebooks' outputs.
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    served_names: tuple[str, ...] = ()
    # None by default, unlike vLLM: else any page in the user's browser could talk to localhost.
    allowed_origins: tuple[str, ...] = ()
    allowed_methods: tuple[str, ...] = ("*",)
    allowed_headers: tuple[str, ...] = ("*",)
    allow_credentials: bool = False
    root_path: str = ""
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    # A million token ids as JSON are 7 MB.
    max_body_bytes: int = 16 * MIB
    body_timeout_s: float = 30.0
    # Far above what benchmarks hold open at once, below what exhausts file descriptors and memory.
    max_concurrent_requests: int = 2048
    request_timeout_s: float | None = None
    max_prompt_tokens: int | None = None
    max_n: int = 128  # OpenAI's own limit
    # More would hold up everybody else's while they are put in line.
    max_choices: int = 2048
    max_logprobs: int = 20  # OpenAI's limit for chats, vLLM's for both
    max_stored_responses: int = 1000
    max_stored_bytes: int = 256 * MIB
    grace_s: float = 5.0
    strict: bool = False
    dev: bool = False
    control_key: str | None = field(default=None, repr=False)
    embedding_pooling: str = "last"
    processors: Mapping[str, Any] = field(default_factory=dict)
    hooks: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise InvalidConfig(f"port must be from 0 to 65535, not {self.port!r}")
        for name in _COUNTS:
            _require_count(name, getattr(self, name), at_least=1)
        _require_count("max_logprobs", self.max_logprobs, at_least=0)
        if self.max_prompt_tokens is not None:
            _require_count("max_prompt_tokens", self.max_prompt_tokens, at_least=1)
        _require_seconds("body_timeout_s", self.body_timeout_s)
        _require_seconds("grace_s", self.grace_s, or_zero=True)
        if self.request_timeout_s is not None:
            _require_seconds("request_timeout_s", self.request_timeout_s)
        self._check_strings()
        self._check_files()
        if self.embedding_pooling not in _POOLINGS:
            raise InvalidConfig(
                f"embedding_pooling must be one of {', '.join(_POOLINGS)}, "
                f"not {self.embedding_pooling!r}"
            )
        for name in ("processors", "hooks"):
            object.__setattr__(self, name, _named(name, getattr(self, name)))

    @property
    def scheme(self) -> str:
        """``https`` with a certificate, else ``http``."""
        return "https" if self.ssl_certfile else "http"

    def _check_strings(self) -> None:
        for name in ("api_keys", "served_names", "allowed_origins", "allowed_methods"):
            for text in _strings(name, getattr(self, name)):
                if not text:
                    raise InvalidConfig(f"{name} holds an empty string; leave it out")
        _strings("allowed_headers", self.allowed_headers)
        if self.allow_credentials and "*" in self.allowed_origins:
            raise InvalidConfig(
                "allow_credentials needs allowed_origins to name the pages: with '*' any page "
                "could use the cookies"
            )
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise InvalidConfig(
                f"root_path must begin with / and not end with it, as '/llm', "
                f"not {self.root_path!r}"
            )

    def _check_files(self) -> None:
        if self.ssl_certfile is None and self.ssl_keyfile is not None:
            raise InvalidConfig("ssl_keyfile needs ssl_certfile: give both")
        for name in ("ssl_certfile", "ssl_keyfile"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise InvalidConfig(f"{name}: there is no file {path!r}")
        # 108 bytes with the closing zero, on Linux; 104 elsewhere.
        if self.uds is not None and not 0 < len(self.uds.encode()) < 104:
            raise InvalidConfig(f"uds must be a path of 1 to 103 bytes, not {self.uds!r}")


def _require_count(name: str, value: Any, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise InvalidConfig(f"{name} must be a whole number from {at_least}, not {value!r}")


def _require_seconds(name: str, value: Any, *, or_zero: bool = False) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0 or (value == 0 and not or_zero):
        least = "not be negative" if or_zero else "be positive"
        raise InvalidConfig(f"{name} is in seconds and must {least}, not {value!r}")


def _strings(name: str, values: Iterable[Any]) -> Iterable[str]:
    """Return the values; a lone string would be a list of its letters."""
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise InvalidConfig(f"{name} must be strings, in a tuple")
    return values


def _named(what: str, objects: Mapping[str, V]) -> Mapping[str, V]:
    """Return a copy that nobody can change; check that calls can name what is in it."""
    if not isinstance(objects, Mapping) or not all(
        isinstance(name, str) and name for name in objects
    ):
        raise InvalidConfig(f"{what} must map names to objects: {{'name': ...}}")
    if what == "processors" and not all(map(callable, objects.values())):
        raise InvalidConfig("processors must be callable: f(logits, at) -> Tensor | None")
    return MappingProxyType(dict(objects))
