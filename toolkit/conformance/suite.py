"""run(): every point against one server, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

import httpx

from toolkit.conformance.check import Check
from toolkit.conformance.points import (
    chat,
    completions,
    embeddings,
    errors,
    extras,
    logprobs,
    messages,
    models,
    parameters,
    responses,
    robustness,
    streams,
    structured,
    tools,
)
from toolkit.conformance.probe import Probe
from toolkit.conformance.report import FAIL, NOT_SUPPORTED, PASS, Finding, Report
from toolkit.conformance.verdicts import Failed, NotSupported, excerpt
from toolkit.errors import ToolkitError

__all__ = ["CHECKS", "run"]

CHECKS: tuple[Check, ...] = tuple(
    check
    for topic in (
        models,
        chat,
        messages,
        streams,
        parameters,
        logprobs,
        completions,
        tools,
        structured,
        embeddings,
        responses,
        errors,
        extras,
        robustness,
    )
    for check in topic.POINTS
)


def run(
    url: str,
    *,
    api_key: str | None = None,
    model: str | None = None,
    only: str | None = None,
    timeout_s: float = 120.0,
    on_finding: Callable[[Finding], object] | None = None,
) -> Report:
    """Check a server and return what was found; takes seconds with a small model.

    Args:
        url: Where it is, with or without ``/v1``.
        api_key: What it wants to be sent, if anything.
        model: The name to ask for; the first one that it lists by default.
        only: Check only the points whose id matches: ``"streams/*"``, or a part of an id.
        timeout_s: How long one answer may take.
        on_finding: Called with each finding as it comes.

    Raises:
        ToolkitError: nobody answers there, or no point matches ``only``.
    """
    chosen = _chosen(only)
    if not chosen:
        raise ToolkitError(f"no point matches only={only!r}; there are {_topics(CHECKS)}")
    findings = []
    with Probe(url, api_key=api_key, model=model, timeout_s=timeout_s) as probe:
        try:
            probe.get("/v1/models")  # whatever it says: somebody is there
            name = probe.model
        except httpx.TransportError as error:
            raise ToolkitError(f"nobody answers at {probe.root}: {error}") from error
        except Failed as error:
            raise ToolkitError(
                f"GET {probe.root}/v1/models names no model: {error}. "
                "Pass api_key= if it wants one, or model= to check it all the same"
            ) from error
        for check in chosen:
            findings.append(_examine(check, probe))
            if on_finding is not None:
                on_finding(findings[-1])
    return Report(url=probe.root, model=name, findings=tuple(findings))


def _examine(check: Check, probe: Probe) -> Finding:
    """Run one check; whatever goes wrong in it is a verdict about the server."""
    probe.begin()
    start_s = time.perf_counter()
    verdict, detail, evidence = PASS, "", ""
    try:
        check.run(probe)
    except NotSupported as error:
        verdict, detail = NOT_SUPPORTED, str(error)
    except Failed as error:
        verdict, detail, evidence = FAIL, str(error), error.evidence
    except httpx.HTTPError as error:
        verdict = FAIL
        detail = f"no answer: {type(error).__name__}: {error}"
        evidence = excerpt(probe.last_sent)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        # The check read the answer as OpenAI's clients do, and something was not there.
        verdict = FAIL
        detail = f"the answer has another shape: {type(error).__name__}: {error}"
        evidence = excerpt(probe.last_received)
    return Finding(
        id=check.id,
        level=check.level,
        verdict=verdict,
        what=check.what,
        why=check.why,
        detail=detail,
        evidence=evidence,
        notes=tuple(dict.fromkeys(probe.notes)),
        duration_s=round(time.perf_counter() - start_s, 3),
    )


def _chosen(only: str | None) -> list[Check]:
    """Return all checks, the one of this id, or those whose ids match."""
    if only is None:
        return list(CHECKS)
    exact = [check for check in CHECKS if check.id == only]
    return exact or [c for c in CHECKS if only in c.id or fnmatchcase(c.id, only)]


def _topics(checks: Iterable[Check]) -> str:
    return ", ".join(dict.fromkeys(check.id.partition("/")[0] + "/*" for check in checks))
