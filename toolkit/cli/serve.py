"""``toolkit serve``: an OpenAI-compatible server until a signal ends it."""

from __future__ import annotations

import shlex
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.markup import escape

from toolkit.cli.console import out, write
from toolkit.cli.options import Dtype, MaxModelLen, given

__all__ = ["serve"]


def serve(
    model: Annotated[
        str | None, typer.Argument(help="A folder or hub id; the demo model by default.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 finds a free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="TOOLKIT_API_KEY", help="What clients must send.")
    ] = None,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="A name clients ask for; repeatable; * takes any.")
    ] = None,
    max_model_len: MaxModelLen = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Requests that run at once.")] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(help="Tokens computed in one step.")
    ] = None,
    block_size: Annotated[int | None, typer.Option(help="Tokens per block of KV cache.")] = None,
    num_kv_blocks: Annotated[int | None, typer.Option(help="Blocks of KV cache.")] = None,
    kv_cache_memory_gb: Annotated[
        float | None, typer.Option(help="Size of the KV cache in GiB.")
    ] = None,
    enable_prefix_caching: Annotated[
        bool, typer.Option(help="Share the blocks of common beginnings.")
    ] = True,
    scheduling_policy: Annotated[str, typer.Option(help="Who runs first.")] = "fcfs",
    dtype: Dtype = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    kernels: Annotated[str, typer.Option(help="auto, or reference: plain PyTorch.")] = "auto",
    num_threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    seed: Annotated[int, typer.Option(help="Seeds requests that bring no seed.")] = 0,
    chat_template: Annotated[
        str | None, typer.Option(help="A Jinja template, or a file that holds one.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="A folder or hub id.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the hub.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
) -> None:
    """Serve a model with OpenAI's API; Ctrl-C or SIGTERM stops it."""
    from toolkit.server import serve as start_server

    with start_server(
        model,
        host=host,
        port=port,
        api_key=api_key,
        served_model_name=served_model_name or None,
        enable_prefix_caching=enable_prefix_caching,
        policy=scheduling_policy,
        dtype=dtype,
        device=device,
        kernels=kernels,
        seed=seed,
        trust_remote_code=trust_remote_code,
        **given(
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            block_size=block_size,
            num_kv_blocks=num_kv_blocks,
            kv_cache_memory_gb=kv_cache_memory_gb,
            num_threads=num_threads,
            chat_template=_template(chat_template),
            tokenizer=tokenizer,
            revision=revision,
        ),
    ) as server:
        stop = _stop_signal()
        _announce(server, needs_key=api_key is not None)
        while not stop.wait(timeout=1.0):  # Windows delivers no signal to a wait without an end
            pass
        out.print("stopping; running answers may end first", style="dim")


def _announce(server: Any, *, needs_key: bool) -> None:
    out.print(f"[bold]{escape(server.model_name)}[/] is served at [bold]{server.url}/v1[/]\n")
    key = ' \\\n  -H "Authorization: Bearer $TOOLKIT_API_KEY"' if needs_key else ""
    body = (
        f'{{"model": "{server.model_name}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    )
    write(
        f"curl {server.url}/v1/chat/completions -H 'Content-Type: application/json'{key} \\\n"
        f"  -d {shlex.quote(body)}\n"
    )
    out.print("Ctrl-C stops it.", style="dim")


def _stop_signal() -> threading.Event:
    """Return an event that SIGINT or SIGTERM sets."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop


def _template(text_or_path: str | None) -> str | None:
    """Return a chat template: what it says, or what the file of that name says."""
    if text_or_path is None or "{" in text_or_path:
        return text_or_path
    try:
        return Path(text_or_path).read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--chat-template") from error
