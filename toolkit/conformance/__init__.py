"""Check any OpenAI-compatible server, point by point, from a cell or the command line.

    from toolkit.conformance import run
    report = run("http://127.0.0.1:8000")
    report                                # a table in a cell
    report.failures, bool(report)

Read check, then probe, then any file of ``points``.
"""

try:
    from toolkit.conformance.report import Report
    from toolkit.conformance.suite import CHECKS, run
except ModuleNotFoundError as error:
    if error.name not in ("httpx", "openai", "pydantic"):
        raise
    raise ImportError(
        f"the conformance suite needs the package {error.name!r}: "
        "pip install 'llm-serving-toolkit[server]'"
    ) from error

__all__ = ["CHECKS", "Report", "run"]
