"""What a model asks of the machine: bytes to read per token, operations for a prompt."""

from __future__ import annotations

from toolkit.models import DecoderSpec
from toolkit.models.spec import MlpSpec, MoeSpec

__all__ = ["decode_bytes", "layer_weights", "prefill_flops", "weight_bytes"]

# Bytes per weight of a linear: int4 with a scale of 16 bits for each 32 weights; int8's scales, one
# a channel, do not count.
_QUANTIZED_BYTES = {"int8": 1.0, "int4": 0.5 + 2 / 32}


def layer_weights(spec: DecoderSpec) -> int:
    """Count the weights of the layers' matrices that one token is multiplied with.

    Of a mixture these are the router and the experts that a token picks.
    """
    attention = spec.attention
    num_attention = spec.hidden_size * 2 * (attention.query_dim + attention.kv_dim)
    return sum(
        num_attention + _mlp_weights(spec.mlp_of(layer), spec.hidden_size)
        for layer in range(spec.num_layers)
    )


def head_weights(spec: DecoderSpec) -> int:
    """Count the weights of the matrix that scores the vocabulary."""
    return spec.vocab_size * (spec.embedding_size or spec.hidden_size)


def weight_bytes(spec: DecoderSpec, itemsize: int, quantization: str | None = None) -> float:
    """Return the bytes of weights that a step with one token reads, without norms and biases."""
    per_weight = itemsize if quantization is None else _QUANTIZED_BYTES[quantization]
    return (layer_weights(spec) + head_weights(spec)) * per_weight


def decode_bytes(
    spec: DecoderSpec, context: float, itemsize: int, quantization: str | None = None
) -> float:
    """Return the bytes that one request's next token reads: weights, keys and values.

    ``context`` is the number of tokens attended to, its own included; the cache has ``itemsize``
    bytes per number.
    """
    per_position = 2 * spec.attention.kv_dim * itemsize
    num_positions = sum(min(context, window or context) for window in spec.attention.windows)
    return weight_bytes(spec, itemsize, quantization) + num_positions * per_position


def prefill_flops(spec: DecoderSpec, num_tokens: int) -> float:
    """Return the operations of a prompt: 2 per weight and token, and causal attention.

    A query and a key that it sees take 4 * head_dim operations per head: 2 for the score and 2 for
    the value. Only the last token is scored against the vocabulary.
    """
    linear = 2 * (layer_weights(spec) * num_tokens + head_weights(spec))
    pairs = sum(_causal_pairs(num_tokens, window) for window in spec.attention.windows)
    return linear + 4 * spec.attention.query_dim * pairs


def _causal_pairs(num_tokens: int, window: int | None) -> int:
    """Count the positions that each of ``num_tokens`` queries sees, in all."""
    seen = min(num_tokens, window or num_tokens)
    return seen * (seen + 1) // 2 + (num_tokens - seen) * seen


def _mlp_weights(mlp: MlpSpec | MoeSpec, hidden_size: int) -> int:
    if isinstance(mlp, MoeSpec):
        experts = 3 * mlp.num_active * mlp.intermediate_size
        return hidden_size * (mlp.num_experts + experts)
    return hidden_size * mlp.intermediate_size * (3 if mlp.gated else 2)
