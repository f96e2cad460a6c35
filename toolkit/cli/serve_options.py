"""Options of ``toolkit serve``, with vLLM's names where the meaning agrees."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "AccessLog",
    "AllowCredentials",
    "AllowedHeaders",
    "AllowedMethods",
    "AllowedOrigins",
    "ApiKey",
    "BatchInvariant",
    "BlockSize",
    "BodyTimeout",
    "ChatTemplate",
    "Child",
    "Dev",
    "Device",
    "EmbeddingPooling",
    "GraceS",
    "Host",
    "Kernels",
    "KvCacheMemoryGb",
    "MaxBodyMb",
    "MaxChoices",
    "MaxConcurrentRequests",
    "MaxLogprobs",
    "MaxN",
    "MaxNumBatchedTokens",
    "MaxNumSeqs",
    "MaxPromptTokens",
    "MaxStoredMb",
    "MaxStoredResponses",
    "NumKvBlocks",
    "NumThreads",
    "Port",
    "PrefixCaching",
    "Quantization",
    "RequestTimeout",
    "Revision",
    "RootPath",
    "SchedulingPolicy",
    "Seed",
    "ServedModel",
    "ServedModelName",
    "SslCertfile",
    "SslKeyfile",
    "SslKeyfilePassword",
    "Strict",
    "TensorParallelSize",
    "TokenizerPath",
    "TrustRemoteCode",
    "Uds",
]


def _listening(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Listening", **more)


def _who(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Who may call", **more)


def _limit(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Limits", **more)


def _engine(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Model and engine", **more)


ServedModel = Annotated[
    str | None, typer.Argument(help="A folder or hub id; the demo model by default.")
]

Host = Annotated[str, _listening("Address to listen on.")]
Port = Annotated[int, _listening("Port; 0 finds a free one.")]
Uds = Annotated[str | None, _listening("A Unix socket in place of host and port.")]
SslCertfile = Annotated[str | None, _listening("Certificate (PEM): serve HTTPS.")]
SslKeyfile = Annotated[str | None, _listening("Its key (PEM).")]
SslKeyfilePassword = Annotated[
    str | None,
    _listening("What the key is encrypted with.", envvar="TOOLKIT_SSL_KEYFILE_PASSWORD"),
]
RootPath = Annotated[str, _listening("Prefix of all paths behind a proxy, as /llm.")]
AccessLog = Annotated[bool, _listening("Write a line per call to standard error.", "--access-log")]

ApiKey = Annotated[
    list[str] | None, _who("What clients must send; repeatable.", envvar="TOOLKIT_API_KEY")
]
ServedModelName = Annotated[
    list[str] | None, _who("A name clients ask for; repeatable; * takes any.")
]
AllowedOrigins = Annotated[
    list[str] | None, _who("Web pages whose scripts may call (CORS); repeatable; * is any.")
]
AllowedMethods = Annotated[list[str] | None, _who("Methods for these; any by default.")]
AllowedHeaders = Annotated[list[str] | None, _who("Headers for these; any by default.")]
AllowCredentials = Annotated[bool, _who("Cookies for these.", "--allow-credentials")]
Dev = Annotated[bool, _who("Serve /pause, /resume, /engine/state and their like.", "--dev")]

Strict = Annotated[bool, _limit("Refuse fields that have no effect here.", "--strict")]
MaxBodyMb = Annotated[float, _limit("Longest body in MiB.")]
BodyTimeout = Annotated[float, _limit("Longest pause in a body, in seconds.")]
MaxConcurrentRequests = Annotated[int, _limit("Calls at once; more get a 429.")]
RequestTimeout = Annotated[float | None, _limit("Longest call in seconds; no limit by default.")]
MaxPromptTokens = Annotated[int | None, _limit("Longest prompt; what the model takes by default.")]
MaxN = Annotated[int, _limit("Most answers to a prompt.")]
MaxChoices = Annotated[int, _limit("Most answers of a call, over all its prompts.")]
MaxLogprobs = Annotated[int, _limit("Most alternatives per token.")]
MaxStoredResponses = Annotated[int, _limit("Answers of /v1/responses that are kept.")]
MaxStoredMb = Annotated[float, _limit("What these may take, in MiB.")]
GraceS = Annotated[
    float, _limit("Seconds that answers may go on after a signal; a second one ends them.")
]

EmbeddingPooling = Annotated[str, _engine("last, mean or cls, for /v1/embeddings.")]
MaxNumSeqs = Annotated[int | None, _engine("Requests that run at once.")]
MaxNumBatchedTokens = Annotated[int | None, _engine("Tokens computed in one step.")]
BlockSize = Annotated[int | None, _engine("Tokens per block of KV cache.")]
NumKvBlocks = Annotated[int | None, _engine("Blocks of KV cache.")]
KvCacheMemoryGb = Annotated[float | None, _engine("Size of the KV cache in GiB.")]
PrefixCaching = Annotated[bool, _engine("Share the blocks of common beginnings.")]
SchedulingPolicy = Annotated[str, _engine("Who runs first.")]
Device = Annotated[str, _engine("auto, cpu, cuda, cuda:1, ...")]
Quantization = Annotated[str | None, _engine("int8 or int4.")]
BatchInvariant = Annotated[
    bool, _engine("The same logits whatever the batch.", "--batch-invariant")
]
Kernels = Annotated[str, _engine("auto, reference (plain PyTorch), cpu or triton.")]
NumThreads = Annotated[int | None, _engine("CPU threads.")]
TensorParallelSize = Annotated[
    int, _engine("Processes that share the model; on GPUs each takes one.", min=1)
]
Seed = Annotated[int, _engine("Seeds requests that bring no seed.")]
ChatTemplate = Annotated[str | None, _engine("A Jinja template, or a file that holds one.")]
TokenizerPath = Annotated[str | None, _engine("A folder or hub id.")]
Revision = Annotated[str | None, _engine("Branch, tag or commit of the hub.")]
TrustRemoteCode = Annotated[
    bool, _engine("Run code that comes with the model.", "--trust-remote-code")
]

# How serve(process=True) starts its child; its settings come through standard input.
Child = Annotated[bool, typer.Option("--child", hidden=True)]
