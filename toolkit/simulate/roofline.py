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


class _Rates(NamedTuple):
    """What one more of each thing takes, in all layers together."""

    tile: int
    pair_s: float  # of a query and a key
    kv_s: float  # of reading a token's keys and values
    between_s: float  # of a token's hidden states, between the products
    collective_s: float  # of a step, before any byte is sent
    link_s: float  # of a token's hidden states, summed over the devices
    copy_s: float  # of a block, read and written


@dataclass(frozen=True, slots=True)
class Roofline:
    """The least time of a step on one device, or on several that share every layer.

    Args:
        shape: Of the model.
        device: What computes it.
        tensor_parallel: How many devices share each layer: weights, heads and cache are split,
            and each layer's output is summed twice over the link (a ring: each device sends
            2 (n - 1) / n of it).
        block_size: Tokens of a block of the KV cache, for the copies of blocks; the engine of a
            `Machine` puts its own there.
    """

    shape: ModelShape
    device: Device
    tensor_parallel: int = 1
    block_size: int = 16
    held_out_error: float | None = None
    _products: tuple[_Product, ...] = field(init=False, repr=False)  # in all layers
    _head: _Product = field(init=False, repr=False)
    _rates: _Rates = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = self.shape
        up = (2 if shape.is_gated else 1) * shape.intermediate_size
        widths = (
            shape.qkv_size,
            shape.num_heads * shape.head_dim,
            up,
            shape.intermediate_size,
        )
        products = [self._product(shape.num_layers * shape.hidden_size * width) for width in widths]
        object.__setattr__(self, "_products", tuple(products))
        object.__setattr__(self, "_head", self._product(shape.hidden_size * shape.vocab_size))
        object.__setattr__(self, "_rates", self._rates_of_layers())

    @property
    def origin(self) -> str:
        """Where its figures come from."""
        count = self.tensor_parallel
        shared = f"; layers shared by {count}, with two all-reduces each" if count > 1 else ""
        return f"roofline per operator: {self.device.origin}{shared}"

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
        rates, num_tokens = self._rates, work.num_tokens
        num_tiled = -(-num_tokens // rates.tile) * rates.tile
        linear_s = 0.0
        for read_s, token_s in self._products:
            linear_s += max(read_s, token_s * num_tiled)
        head_read_s, head_token_s = self._head
        num_read = work.prefill_context + work.num_prompt_tokens
        return OperatorTimes(
            linear_s,
            max(rates.pair_s * work.prefill_attention, rates.kv_s * num_read),
            max(rates.pair_s, rates.kv_s) * work.decode_context,
            rates.between_s * num_tokens,
            rates.collective_s + rates.link_s * num_tokens,
            max(head_read_s, head_token_s * work.num_seqs),
            rates.copy_s * work.num_copied_blocks,
            self.device.host_s,
        )

    def _product(self, num_weights: int) -> _Product:
        own = num_weights / self.tensor_parallel
        return _Product(
            read_s=self.shape.dtype_bytes * own / self.device.bytes_per_s,
            token_s=2 * own / self.device.flops,
        )

    def _rates_of_layers(self) -> _Rates:
        shape, device, count = self.shape, self.device, self.tensor_parallel
        heads = shape.num_layers * shape.num_heads * shape.head_dim / count
        kv_s = shape.kv_bytes_per_token / count / device.bytes_per_s
        hidden_bytes = shape.num_layers * shape.dtype_bytes * shape.hidden_size  # of one token
        num_sums = 2 * shape.num_layers if count > 1 else 0
        sent = 2 * 2 * (count - 1) / count * hidden_bytes
        return _Rates(
            tile=device.tile_tokens,
            pair_s=4 * heads / device.attention_flops,
            kv_s=kv_s,
            between_s=_HIDDEN_MOVES * hidden_bytes / device.bytes_per_s,
            collective_s=num_sums * device.link_latency_s,
            link_s=sent / (1e9 * device.link_gbps) if count > 1 else 0.0,
            copy_s=2 * self.block_size * kv_s,
        )
