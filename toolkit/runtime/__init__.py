"""A plan becomes tensors, tensors become logits, logits become tokens."""

from toolkit.runtime.explainer import Explainer
from toolkit.runtime.model_runner import ModelRunner
from toolkit.runtime.rows import RowTable

__all__ = ["Explainer", "ModelRunner", "RowTable"]
