"""An OpenAI-compatible HTTP server over a running engine, started from a notebook cell.

Read app, then chat and completions, then generation.
"""

try:
    from toolkit.server.handle import Server
    from toolkit.server.process import ServerProcess
    from toolkit.server.serve import serve
except ModuleNotFoundError as error:
    if error.name not in (
        "anyio",
        "fastapi",
        "httptools",
        "httpx",
        "openai",
        "prometheus_client",
        "pydantic",
        "starlette",
        "uvicorn",
    ):
        raise
    raise ImportError(
        f"serving needs the package {error.name!r}: pip install 'llm-serving-toolkit[server]'"
    ) from error

__all__ = ["Server", "ServerProcess", "serve"]
