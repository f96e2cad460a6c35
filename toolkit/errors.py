"""Every error the toolkit raises on purpose.

    ToolkitError
    +-- InvalidRequest (ValueError)     one request is wrong; nothing else is affected
    |   +-- InvalidParameter            a parameter is out of range; .param names it
    |   +-- PromptTooLong               the prompt does not fit the context or the cache
    +-- InvalidConfig (ValueError)      an engine or LLM setting is wrong
    +-- ModelError                      a checkpoint cannot be used
    |   +-- UnsupportedModel            nothing here can run this architecture
    |   +-- CheckpointError             tensors are missing, unexpected or of the wrong shape
    +-- EngineError                     the engine is not in the state the call needs
    |   +-- EngineIsRunning             it is at work: pause it, or do not wait in it
    |   +-- EngineClosed                close() was called
    |   +-- WorkerFailed                a process of a tensor-parallel model ended or hangs
    +-- RecordError                     a file is no record, or a record lacks what the call needs
    +-- RequestFailed                   a request ended with an error; .__cause__ is that error
    +-- RequestAborted                  a request was aborted before it finished
    +-- UnlikeRuns                      two benchmark results were not measured alike
    +-- UnknownRequest (LookupError)    a record has no request of that name

Catch ``ToolkitError`` for anything of ours; catch a leaf to recover from one cause.
A broken promise of our own (a bug) is an ``InvariantViolation``, an ``AssertionError``.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "EngineClosed",
    "EngineError",
    "EngineIsRunning",
    "InvalidConfig",
    "InvalidParameter",
    "InvalidRequest",
    "InvariantViolation",
    "ModelError",
    "PromptTooLong",
    "RecordError",
    "RequestAborted",
    "RequestFailed",
    "ToolkitError",
    "UnknownRequest",
    "UnlikeRuns",
    "UnsupportedModel",
    "WorkerFailed",
]


class ToolkitError(Exception):
    """Base of every error the toolkit raises on purpose."""


class InvalidRequest(ToolkitError, ValueError):
    """One request is wrong; the engine and its other requests are unaffected.

    ``param`` names the offending field (OpenAI's error shape carries it), or is None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidParameter(InvalidRequest):
    """A sampling parameter or another field of a request is out of range."""


class PromptTooLong(InvalidRequest):
    """The prompt leaves no room for an output token in the context or the cache."""


class InvalidConfig(ToolkitError, ValueError):
    """A setting of the engine or the LLM is wrong or contradicts another one."""


class ModelError(ToolkitError):
    """A checkpoint cannot be used."""


class UnsupportedModel(ModelError):
    """No family describes this architecture, or neither can transformers' own code run it paged."""


class CheckpointError(ModelError):
    """Files or tensors of a checkpoint are missing, unexpected or of the wrong shape."""


class EngineError(ToolkitError):
    """The engine is not in the state that the call needs."""


class EngineIsRunning(EngineError):
    """The engine is at work: pause it before stepping by hand; what it calls cannot wait for it."""


class EngineClosed(EngineError):
    """``close()`` was called; build a new LLM or Engine."""


class WorkerFailed(EngineError):
    """A process of a tensor-parallel model ended or hangs: the model is lost, make a new LLM.

    ``summary`` is the message without ``last_words``, which are what the process wrote.
    """

    def __init__(self, summary: str, last_words: str = "") -> None:
        super().__init__(f"{summary}\nIt wrote:\n{last_words}" if last_words else summary)
        self.summary = summary
        self.last_words = last_words

    def anew(self) -> WorkerFailed:
        """Return the same to be raised once more, by others."""
        return WorkerFailed(self.summary, self.last_words)


class RecordError(ToolkitError):
    """A file is no record of ours, or a record does not hold what the call needs."""


class RequestFailed(ToolkitError):
    """A request ended with an error, which is this exception's ``__cause__``."""


class RequestAborted(ToolkitError):
    """A request was aborted before it finished."""


class UnlikeRuns(ToolkitError):
    """Two benchmark results differ in settings or machine, so their ratio would say little."""


class UnknownRequest(ToolkitError, LookupError):
    """A record has no request of that name; what it keeps is bounded, so it may have gone."""


class InvariantViolation(AssertionError):
    """The toolkit broke a promise of its own: please report it."""
