"""``toolkit serve``: an OpenAI-compatible server until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from toolkit.cli import serve_options as options
from toolkit.cli.console import err, out, write
from toolkit.cli.options import Dtype, MaxModelLen, given
from toolkit.cli.serve_child import serve_child
from toolkit.cli.stopping import StopOrders

__all__ = ["serve"]

_MIB = 1024**2


def serve(
    model: options.ServedModel = None,
    *,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8000,
    uds: options.Uds = None,
    ssl_certfile: options.SslCertfile = None,
    ssl_keyfile: options.SslKeyfile = None,
    ssl_keyfile_password: options.SslKeyfilePassword = None,
    root_path: options.RootPath = "",
    access_log: options.AccessLog = False,
    api_key: options.ApiKey = None,
    served_model_name: options.ServedModelName = None,
    allowed_origins: options.AllowedOrigins = None,
    allowed_methods: options.AllowedMethods = None,
    allowed_headers: options.AllowedHeaders = None,
    allow_credentials: options.AllowCredentials = False,
    dev: options.Dev = False,
    strict: options.Strict = False,
    max_body_mb: options.MaxBodyMb = 16.0,
    body_timeout_s: options.BodyTimeout = 30.0,
    max_concurrent_requests: options.MaxConcurrentRequests = 2048,
    request_timeout_s: options.RequestTimeout = None,
    max_prompt_tokens: options.MaxPromptTokens = None,
    max_n: options.MaxN = 128,
    max_choices: options.MaxChoices = 2048,
    max_logprobs: options.MaxLogprobs = 20,
    max_stored_responses: options.MaxStoredResponses = 1000,
    max_stored_mb: options.MaxStoredMb = 256,
    grace_s: options.GraceS = 5.0,
    embedding_pooling: options.EmbeddingPooling = "last",
    max_model_len: MaxModelLen = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    block_size: options.BlockSize = None,
    num_kv_blocks: options.NumKvBlocks = None,
    kv_cache_memory_gb: options.KvCacheMemoryGb = None,
    enable_prefix_caching: options.PrefixCaching = True,
    scheduling_policy: options.SchedulingPolicy = "fcfs",
    dtype: Dtype = "auto",
    device: options.Device = "auto",
    quantization: options.Quantization = None,
    batch_invariant: options.BatchInvariant = False,
    kernels: options.Kernels = "auto",
    num_threads: options.NumThreads = None,
    tensor_parallel_size: options.TensorParallelSize = 1,
    seed: options.Seed = 0,
    chat_template: options.ChatTemplate = None,
    tokenizer: options.TokenizerPath = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    child: options.Child = False,
) -> None:
    """Serve a model with OpenAI's API; Ctrl-C or SIGTERM stops it, a second one at once."""
    if child:
        serve_child(model)
        return
    from toolkit.server.serve import start
    from toolkit.server.settings import ServerSettings

    settings = ServerSettings(
        host=host,
        port=port,
        uds=uds,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        ssl_keyfile_password=ssl_keyfile_password,
        root_path=root_path,
        api_keys=tuple(api_key or ()),
        served_names=tuple(served_model_name or ()),
        allowed_origins=tuple(allowed_origins or ()),
        allowed_methods=tuple(allowed_methods or ("*",)),
        allowed_headers=tuple(allowed_headers or ("*",)),
        allow_credentials=allow_credentials,
        dev=dev,
        strict=strict,
        max_body_bytes=int(max_body_mb * _MIB),
        body_timeout_s=body_timeout_s,
        max_concurrent_requests=max_concurrent_requests,
        request_timeout_s=request_timeout_s,
        max_prompt_tokens=max_prompt_tokens,
        max_n=max_n,
        max_choices=max_choices,
        max_logprobs=max_logprobs,
        max_stored_responses=max_stored_responses,
        max_stored_bytes=int(max_stored_mb * _MIB),
        grace_s=grace_s,
        embedding_pooling=embedding_pooling,
    )
    llm_settings = given(
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        block_size=block_size,
        num_kv_blocks=num_kv_blocks,
        kv_cache_memory_gb=kv_cache_memory_gb,
        enable_prefix_caching=enable_prefix_caching,
        policy=scheduling_policy,
        dtype=dtype,
        device=device,
        quantization=quantization,
        batch_invariant=batch_invariant,
        kernels=kernels,
        num_threads=num_threads,
        tensor_parallel=tensor_parallel_size,
        seed=seed,
        chat_template=_template(chat_template),
        tokenizer=tokenizer,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    with start(model, settings, llm_settings) as server:
        orders = StopOrders()
        orders.take_signals()
        server.log.echo(_to_stderr, calls=access_log)
        _announce(server, num_processes=tensor_parallel_size)
        grace = f"stopping: running answers get {server.settings.grace_s:g} s; again ends them now"
        orders.obey(server, lambda: out.print(grace, style="dim"))


def _announce(server: Any, *, num_processes: int) -> None:
    in_parts = f", by {num_processes} processes" if num_processes > 1 else ""
    out.print(
        f"[bold]{escape(server.model_name)}[/] is served at [bold]{escape(server.base_url)}[/]"
        + (f" on unix:{escape(server.address.uds)}" if server.address.uds else "")
        + f"{in_parts}\n"
    )
    write(server.address.curl(server.model_name) + "\n")
    out.print("Ctrl-C stops it.", style="dim")


def _to_stderr(line: str) -> None:
    err.print(line, markup=False, soft_wrap=True)


def _template(text_or_path: str | None) -> str | None:
    """Return a chat template: what it says, or what the file of that name says."""
    if text_or_path is None or "{" in text_or_path:
        return text_or_path
    try:
        return Path(text_or_path).read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--chat-template") from error
