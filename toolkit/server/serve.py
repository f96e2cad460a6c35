"""serve(): an OpenAI-compatible server from a notebook cell."""

from __future__ import annotations

import time
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from toolkit.errors import InvalidConfig
from toolkit.llm import LLM
from toolkit.server.handle import Server
from toolkit.server.http_thread import listen
from toolkit.server.served import ServedModel

__all__ = ["serve"]


def serve(
    llm_or_model: LLM | str | PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    served_model_name: str | Sequence[str] | None = None,
    **llm_settings: Any,
) -> Server:
    """Serve a model over HTTP; return when it answers. The cell's event loop is left alone.

    Args:
        llm_or_model: An ``LLM``, or what it takes: a folder, a hub id, None for the demo model.
        host: Address to listen on; "0.0.0.0" is every network that the machine is in.
        port: Port to listen on; 0 finds a free one.
        api_key: What clients must send; by default anything will do.
        served_model_name: The name, or names, that clients ask for; "*" accepts any name.
        llm_settings: Settings of the ``LLM`` that is made from a folder or hub id.

    Raises:
        ToolkitError: the port is taken, or the model cannot be loaded.
    """
    names = _names(served_model_name)
    if isinstance(llm_or_model, LLM) and llm_settings:
        raise InvalidConfig(
            f"{', '.join(llm_settings)}: settings of an LLM that exists already; "
            "pass them to LLM(...)"
        )
    if api_key == "":
        raise InvalidConfig("api_key is empty; leave it out to need none")
    listener = listen(host, port)  # first: a taken port is known before a model is loaded
    owns_llm = not isinstance(llm_or_model, LLM)
    llm = None
    try:
        llm = _llm(llm_or_model, llm_settings)
        served = ServedModel(
            engine=llm.engine,
            tokenizer=llm.tokenizer,
            root=llm.model_name,
            names=names or (llm.model_name,),
            max_model_len=llm.max_model_len,
            default_params=llm.default_params,
            created=int(time.time()),
        )
        llm.engine.start()
        return Server(llm, served, listener, api_key=api_key, owns_llm=owns_llm)
    except BaseException:
        listener.close()
        if owns_llm and llm is not None:
            llm.close()
        raise


def _llm(llm_or_model: LLM | str | PathLike[str] | None, settings: dict[str, Any]) -> LLM:
    if isinstance(llm_or_model, LLM):
        return llm_or_model
    return LLM(None if llm_or_model is None else fspath(llm_or_model), **settings)


def _names(served_model_name: str | Sequence[str] | None) -> tuple[str, ...]:
    if served_model_name is None:
        return ()
    names = (served_model_name,) if isinstance(served_model_name, str) else tuple(served_model_name)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidConfig(
            f"served_model_name must be a name or a list of names, not {served_model_name!r}"
        )
    return names
