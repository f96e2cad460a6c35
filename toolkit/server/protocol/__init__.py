"""What clients may send: OpenAI's fields and vLLM's, with the types that are accepted.

A field is in one of three classes. What a body declares is honoured. What ``fields.REFUSED`` lists
would change the answer and is not supported: a 400 names it. What ``fields.HARMLESS`` lists changes
nothing in the answer. Anything else is unknown: accepted, and named in a header of the answer.
"""

from toolkit.server.protocol.body import Body
from toolkit.server.protocol.chat import ChatRequest, Message
from toolkit.server.protocol.completions import CompletionRequest
from toolkit.server.protocol.embeddings import EmbeddingRequest
from toolkit.server.protocol.fields import HARMLESS, REFUSED, ignored_fields
from toolkit.server.protocol.sampling import AnswerRequest, SamplingFields, StreamOptions
from toolkit.server.protocol.tokenize import DetokenizeRequest, TokenizeRequest

__all__ = [
    "HARMLESS",
    "REFUSED",
    "AnswerRequest",
    "Body",
    "ChatRequest",
    "CompletionRequest",
    "DetokenizeRequest",
    "EmbeddingRequest",
    "Message",
    "SamplingFields",
    "StreamOptions",
    "TokenizeRequest",
    "ignored_fields",
]
