"""How long a step takes at least, operator by operator: the roofline of Williams et al. 2009.

Each operator takes the longer of its arithmetic and its memory traffic, and one follows the other,
so their times add up; one maximum over the whole step would let the attention of a long context
hide behind the matrix products. A step that computes prompts and generates is, per layer,

    qkv, output projection, MLP      one product each, over all its tokens together
    attention of prompts             4 q (k + q/2) heads * head_dim operations; reads k and q
    attention of generated tokens    reads their whole contexts
    everything between               norms, rotation, activation: reads and writes hidden states
    two all-reduces                  where devices share a layer

and besides, once, the output matrix for each request, copies of blocks, and the host's time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.simulate.devices import Device
from toolkit.simulate.shapes import ModelShape
from toolkit.simulate.work import StepWork

__all__ = ["Roofline"]

# Reads and writes of a token's hidden state between the products of a layer: two norms, two
# residual sums, query and key rotated, keys and values written, the activation.
_HIDDEN_MOVES = 12


@dataclass(frozen=True, slots=True)
class Roofline:
    """The least time of a step on one device, or on several that share every layer.

    Args:
        shape: Of the model.
        device: What computes it.
        tensor_parallel: How many devices share each layer: weights, heads and cache are split,
            and each layer's output is summed twice over the link (a ring: each device sends
            2 (n - 1) / n of it).
        block_size: Tokens of a block of the KV cache, for the copies of blocks.
    """

    shape: ModelShape
    device: Device
    tensor_parallel: int = 1
    block_size: int = 16
    held_out_error: float | None = None
    _matrices: tuple[float, ...] = field(init=False, repr=False)  # weights, of each product

    def __post_init__(self) -> None:
        shape, part = self.shape, 1 / self.tensor_parallel
        up = (2 if shape.is_gated else 1) * shape.intermediate_size
        matrices = (
            shape.hidden_size * shape.qkv_size * part,
            shape.hidden_size * shape.num_heads * shape.head_dim * part,
            shape.hidden_size * up * part,
            shape.hidden_size * shape.intermediate_size * part,
        )
        object.__setattr__(self, "_matrices", matrices)

    @property
    def origin(self) -> str:
        """Where its figures come from."""
        devices = f", {self.tensor_parallel} of them" if self.tensor_parallel > 1 else ""
        return f"roofline per operator: {self.device.origin}{devices}"

    def __call__(self, work: StepWork) -> float:
        """Return the step's duration in seconds."""
        return sum(self.parts(work).values())

    def parts(self, work: StepWork) -> dict[str, float]:
        """Return the seconds of each kind of operator; they add up to the step's.

        >>> from toolkit.simulate import StepWork, resolve_device, resolve_shape
        >>> cost = Roofline(resolve_shape("llama-3-8b"), resolve_device("H100"))
        >>> one = StepWork(0, 1, 1, 0, 1, 1000.5, 0.0, 1000, 0, 0)  # a token behind 1,000 others
        >>> {name: round(1e3 * s, 2) for name, s in cost.parts(one).items() if s > 1e-5}
        {'linear': 5.21, 'attention_decode': 0.05, 'head': 0.39, 'host': 2.0}
        """
        shape, device = self.shape, self.device
        num_layers = shape.num_layers
        elements = shape.dtype_bytes
        num_tokens = work.num_tokens
        tile = device.tile_tokens
        num_tiled = -(-num_tokens // tile) * tile
        linear_s = sum(
            max(
                2 * weights * num_tiled / device.flops,
                elements * weights / device.bytes_per_s,
            )
            for weights in self._matrices
        )
        head_weights = shape.vocab_size * shape.hidden_size / self.tensor_parallel
        head_s = max(
            2 * head_weights * work.num_seqs / device.flops,
            elements * head_weights / device.bytes_per_s,
        )
        heads = shape.num_heads * shape.head_dim / self.tensor_parallel
        kv_bytes = shape.kv_bytes_per_token / num_layers / self.tensor_parallel
        prefill_s = max(
            4 * heads * work.prefill_attention / device.attention_flops,
            kv_bytes * (work.prefill_context + work.num_prompt_tokens) / device.bytes_per_s,
        )
        decode_s = max(
            4 * heads * work.decode_context / device.attention_flops,
            kv_bytes * work.decode_context / device.bytes_per_s,
        )
        hidden_bytes = elements * shape.hidden_size * num_tokens
        copied = 2 * work.num_copied_blocks * self.block_size * kv_bytes
        return {
            "linear": num_layers * linear_s,
            "attention_prefill": num_layers * prefill_s,
            "attention_decode": num_layers * decode_s,
            "elementwise": num_layers * _HIDDEN_MOVES * hidden_bytes / device.bytes_per_s,
            "all_reduce": num_layers * 2 * self._all_reduce_s(hidden_bytes),
            "head": head_s,
            "copies": num_layers * copied / device.bytes_per_s,
            "host": device.host_s,
        }

    def _all_reduce_s(self, num_bytes: float) -> float:
        if self.tensor_parallel == 1:
            return 0.0
        sent = 2 * (self.tensor_parallel - 1) / self.tensor_parallel * num_bytes
        return self.device.link_latency_s + sent / (1e9 * self.device.link_gbps)
