"""serve(): an OpenAI-compatible server from a notebook cell."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from os import PathLike, fspath
from typing import Any

import torch

from toolkit.errors import InvalidConfig, InvalidRequest
from toolkit.llm import LLM
from toolkit.server.handle import Server
from toolkit.server.listeners import check_certificate, listen
from toolkit.server.process import ServerProcess
from toolkit.server.served import ServedModel
from toolkit.server.settings import MIB, ServerSettings

__all__ = ["serve", "start"]


def serve(
    llm_or_model: LLM | str | PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    uds: str | PathLike[str] | None = None,
    api_key: str | Sequence[str] | None = None,
    served_model_name: str | Sequence[str] | None = None,
    processors: Mapping[str, Any] | None = None,
    hooks: Mapping[str, Any] | None = None,
    process: bool = False,
    allowed_origins: str | Sequence[str] = (),
    allowed_methods: str | Sequence[str] = ("*",),
    allowed_headers: str | Sequence[str] = ("*",),
    allow_credentials: bool = False,
    root_path: str = "",
    ssl_certfile: str | PathLike[str] | None = None,
    ssl_keyfile: str | PathLike[str] | None = None,
    ssl_keyfile_password: str | None = None,
    max_body_bytes: int = 16 * MIB,
    body_timeout_s: float = 30.0,
    max_concurrent_requests: int = 2048,
    request_timeout_s: float | None = None,
    max_prompt_tokens: int | None = None,
    max_n: int = 128,
    max_choices: int = 2048,
    max_logprobs: int = 20,
    max_stored_responses: int = 1000,
    max_stored_bytes: int = 256 * MIB,
    grace_s: float = 5.0,
    strict: bool = False,
    dev: bool = False,
    embedding_pooling: str = "last",
    **llm_settings: Any,
) -> Server | ServerProcess:
    """Serve a model over HTTP; return when it answers. The cell's event loop is left alone.

    Args:
        llm_or_model: An ``LLM``, or what it takes: a folder, a hub id, None for the demo model.
        api_key: What clients must send, or several such; by default anything will do.
        served_model_name: The name, or names, that clients ask for; "*" accepts any name.
        processors: Logits processors by name, for ``extra_body={"processors": [names]}``.
        hooks: By name a ``Hook``, ``Steer`` or ``Patch``, a list of them, or a function that
            returns such for each request; chosen with ``extra_body={"hooks": [names]}``.
        process: Whether the server gets a process of its own, which ends with this one at the
            latest: then no cell slows it down. The handle is alike, but ``.engine`` is a view by
            HTTP: its tables and snapshots can be read, its objects cannot be touched. It takes
            one thread fewer than this process would, unless ``num_threads`` is given.
        llm_settings: Settings of the ``LLM`` that is made from a folder or hub id.

    ``ServerSettings`` explains the others.

    Raises:
        InvalidConfig: a setting is wrong.
        ToolkitError: the port is taken, or the model cannot be loaded.
    """
    _require_known(llm_settings)
    settings = ServerSettings(
        host=host,
        port=port,
        uds=_path(uds),
        api_keys=_several("api_key", api_key),
        served_names=_several("served_model_name", served_model_name),
        allowed_origins=_several("allowed_origins", allowed_origins),
        allowed_methods=_several("allowed_methods", allowed_methods),
        allowed_headers=_several("allowed_headers", allowed_headers),
        allow_credentials=allow_credentials,
        root_path=root_path,
        ssl_certfile=_path(ssl_certfile),
        ssl_keyfile=_path(ssl_keyfile),
        ssl_keyfile_password=ssl_keyfile_password,
        max_body_bytes=max_body_bytes,
        body_timeout_s=body_timeout_s,
        max_concurrent_requests=max_concurrent_requests,
        request_timeout_s=request_timeout_s,
        max_prompt_tokens=max_prompt_tokens,
        max_n=max_n,
        max_choices=max_choices,
        max_logprobs=max_logprobs,
        max_stored_responses=max_stored_responses,
        max_stored_bytes=max_stored_bytes,
        grace_s=grace_s,
        strict=strict,
        dev=dev,
        embedding_pooling=embedding_pooling,
        processors=processors or {},
        hooks=hooks or {},
    )
    if not process:
        return start(llm_or_model, settings, llm_settings)
    if isinstance(llm_or_model, LLM):
        raise InvalidConfig(
            "process=True: an LLM of this process cannot serve from another one; give the folder "
            "or hub id that it was made from, with its settings"
        )
    model = None if llm_or_model is None else fspath(llm_or_model)
    # One core is left to the cells: sharing it would slow every thread of the engine down.
    num_threads = max(1, torch.get_num_threads() - 1)
    return ServerProcess(model, settings, {"num_threads": num_threads, **llm_settings})


def start(
    llm_or_model: LLM | str | PathLike[str] | None,
    settings: ServerSettings,
    llm_settings: Mapping[str, Any],
) -> Server:
    """Do what ``serve()`` does, with settings that are made already; the server runs here."""
    if isinstance(llm_or_model, LLM) and llm_settings:
        raise InvalidConfig(
            f"{', '.join(llm_settings)}: settings of an LLM that exists already; "
            "pass them to LLM(...)"
        )
    # First: a taken port is known before a model is loaded.
    check_certificate(settings)
    listener = listen(settings)
    owns_llm = not isinstance(llm_or_model, LLM)
    llm = None
    try:
        llm = _llm(llm_or_model, llm_settings)
        _check_hooks(llm, settings.hooks)
        served = ServedModel(
            engine=llm.engine,
            tokenizer=llm.tokenizer,
            root=llm.model_name,
            names=settings.served_names or (llm.model_name,),
            max_model_len=llm.max_model_len,
            default_params=llm.default_params,
            created=int(time.time()),
        )
        llm.engine.start()
        return Server(llm, served, listener, settings=settings, owns_llm=owns_llm)
    except BaseException:
        listener.close()
        if owns_llm and llm is not None:
            llm.close()
        raise


def _require_known(llm_settings: Mapping[str, Any]) -> None:
    """Refuse a keyword that neither serve() nor LLM() has, and name the nearest."""
    of_llm = list(signature(LLM).parameters)
    known = [*of_llm, *signature(serve).parameters]
    for name in llm_settings:
        if name not in of_llm:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidConfig(f"{name} is no setting of serve() or LLM(){hint}")


def _llm(llm_or_model: LLM | str | PathLike[str] | None, settings: Mapping[str, Any]) -> LLM:
    if isinstance(llm_or_model, LLM):
        return llm_or_model
    return LLM(None if llm_or_model is None else fspath(llm_or_model), **settings)


def _check_hooks(llm: LLM, named: Mapping[str, Any]) -> None:
    """Refuse hooks that do not fit the model; what a function returns is seen when it is asked."""
    for name, hooks in named.items():
        if not callable(hooks):
            try:
                llm.hooks.check(hooks if isinstance(hooks, (list, tuple)) else [hooks])
            except InvalidRequest as error:
                raise InvalidConfig(f"hooks: {name!r} does not fit: {error}") from error


def _path(path: str | PathLike[str] | None) -> str | None:
    return None if path is None else fspath(path)


def _several(name: str, value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one string or several as a tuple."""
    if value is None:
        return ()
    values = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(one, str) and one for one in values):
        raise InvalidConfig(f"{name} must be a string, or a list of them, none of them empty")
    return values
