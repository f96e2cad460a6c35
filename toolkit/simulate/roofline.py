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
from typing import NamedTuple

from toolkit.simulate.devices import Device
from toolkit.simulate.shapes import ModelShape
from toolkit.simulate.work import StepWork

__all__ = ["OperatorTimes", "Roofline"]

# Reads and writes of a token's hidden state between the products of a layer: two norms, two
# residual sums, query and key rotated, keys and values written, the activation.
_HIDDEN_MOVES = 12


class OperatorTimes(NamedTuple):
    """Seconds of a step by kind of operator."""

    linear: float
    attention_prefill: float
    attention_decode: float
    elementwise: float
    all_reduce: float
    head: float
    copies: float
    host: float


class _Product(NamedTuple):
    """A matrix product: the longer of reading the matrix and computing every token."""

    read_s: float
    token_s: float


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
    _matrices: tuple[_Product, ...] = field(init=False, repr=False)  # of a layer, on one device
    _head: _Product = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = self.shape
        up = (2 if shape.is_gated else 1) * shape.intermediate_size
        sizes = (
            shape.hidden_size * shape.qkv_size,
            shape.hidden_size * shape.num_heads * shape.head_dim,
            shape.hidden_size * up,
            shape.hidden_size * shape.intermediate_size,
        )
        object.__setattr__(self, "_matrices", tuple(map(self._product, sizes)))
        object.__setattr__(self, "_head", self._product(shape.hidden_size * shape.vocab_size))

    @property
    def origin(self) -> str:
        """Where its figures come from."""
        devices = f", {self.tensor_parallel} of them" if self.tensor_parallel > 1 else ""
        return f"roofline per operator: {self.device.origin}{devices}"

    def __call__(self, work: StepWork) -> float:
        """Return the step's duration in seconds."""
        return sum(self.parts(work))

    def parts(self, work: StepWork) -> OperatorTimes:
        """Return the seconds of each kind of operator; they add up to the step's.

        >>> from toolkit.simulate import StepWork, resolve_device, resolve_shape
        >>> cost = Roofline(resolve_shape("llama-3-8b"), resolve_device("H100"))
        >>> parts = cost.parts(StepWork(0, 1, 1, 0, 1, 1000.5, 0.0, 1000, 0, 0))  # behind 1,000
        >>> {name: round(1e3 * s, 2) for name, s in parts._asdict().items() if s > 1e-5}
        {'linear': 5.21, 'attention_decode': 0.05, 'head': 0.39, 'host': 2.0}
        """
        shape, device = self.shape, self.device
        num_layers, tile = shape.num_layers, device.tile_tokens
        num_tiled = -(-work.num_tokens // tile) * tile
        linear_s = 0.0
        for product in self._matrices:
            linear_s += max(product.read_s, product.token_s * num_tiled)
        bytes_per_s = device.bytes_per_s
        heads = shape.num_heads * shape.head_dim / self.tensor_parallel
        pair_s = 4 * heads / device.attention_flops
        kv_s = shape.kv_bytes_per_token / num_layers / self.tensor_parallel / bytes_per_s
        hidden_bytes = shape.dtype_bytes * shape.hidden_size * work.num_tokens
        num_read = work.prefill_context + work.num_prompt_tokens
        return OperatorTimes(
            linear=num_layers * linear_s,
            attention_prefill=num_layers * max(pair_s * work.prefill_attention, kv_s * num_read),
            attention_decode=num_layers * max(pair_s, kv_s) * work.decode_context,
            elementwise=num_layers * _HIDDEN_MOVES * hidden_bytes / bytes_per_s,
            all_reduce=num_layers * 2 * self._all_reduce_s(hidden_bytes),
            head=max(self._head.read_s, self._head.token_s * work.num_seqs),
            copies=num_layers * kv_s * 2 * self.block_size * work.num_copied_blocks,
            host=device.host_s,
        )

    def _product(self, num_weights: int) -> _Product:
        own = num_weights / self.tensor_parallel
        return _Product(
            read_s=self.shape.dtype_bytes * own / self.device.bytes_per_s,
            token_s=2 * own / self.device.flops,
        )

    def _all_reduce_s(self, num_bytes: float) -> float:
        if self.tensor_parallel == 1:
            return 0.0
        sent = 2 * (self.tensor_parallel - 1) / self.tensor_parallel * num_bytes
        return self.device.link_latency_s + sent / (1e9 * self.device.link_gbps)
