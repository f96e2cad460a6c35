"""Turn a config's rotary settings into frequencies, and frequencies into a table by position.

Su et al. 2021, arXiv:2104.09864; the scalings are transformers' own ROPE_INIT_FUNCTIONS.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from toolkit.errors import UnsupportedModel
from toolkit.models.parts import Part
from toolkit.models.spec import RopeSpec

__all__ = ["RopeTable", "rope_spec"]


def rope_spec(
    config: PreTrainedConfig,
    *,
    head_dim: int,
    max_model_len: int,
    layer_type: str | None = None,
    interleaved: bool = False,
    is_partial: bool = False,
) -> RopeSpec:
    """Compute a config's frequencies for sequences of up to ``max_model_len`` tokens.

    ``layer_type`` chooses among the settings of a config that has several ("full_attention", ...);
    ``is_partial`` is for families whose code looks at partial_rotary_factor.

    transformers recomputes the dynamic and longrope frequencies as a sequence grows, and leaves
    the keys that it has cached with the old ones. Here they are a function of ``max_model_len``
    alone, so a token's result depends neither on its batch nor on how it was chunked:
    dynamic equals transformers on a sequence of max_model_len tokens (and on every sequence when
    max_model_len <= max_position_embeddings); longrope takes the long factors when max_model_len >
    original_max_position_embeddings, as transformers does for a sequence of that length.
    """
    parameters = config.rope_parameters
    if layer_type is not None:
        parameters = parameters[layer_type]
    kind = parameters["rope_type"]
    if kind == "default":
        share = parameters.get("partial_rotary_factor", 1.0) if is_partial else 1.0
        rotary_dim = int(head_dim * share)
        pairs = torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim
        inv_freq, magnitude = 1.0 / parameters["rope_theta"] ** pairs, 1.0
    elif kind in ROPE_INIT_FUNCTIONS:
        inv_freq, magnitude = ROPE_INIT_FUNCTIONS[kind](
            config, seq_len=max_model_len, layer_type=layer_type
        )
    else:
        raise UnsupportedModel(
            f"no rotary scaling {kind!r}; there are default, {', '.join(ROPE_INIT_FUNCTIONS)}"
        )
    return RopeSpec(
        kind=kind,
        inv_freq=tuple(inv_freq.tolist()),
        magnitude=float(magnitude),
        interleaved=interleaved,
    )


class RopeTable(Part):
    """Cosines and sines of every position up to max_model_len, float32 [positions, rotary_dim / 2].

    A table, not a computation per step: vectorised cosines differ in the last bit with a token's
    place in the batch, and a token's keys must not depend on its batch-mates.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, spec: RopeSpec, *, max_model_len: int, device: torch.device) -> None:
        super().__init__()
        positions = torch.arange(max_model_len, dtype=torch.float32)
        angles = torch.outer(positions, torch.tensor(spec.inv_freq))
        self.register_buffer("cos", (angles.cos() * spec.magnitude).to(device), persistent=False)
        self.register_buffer("sin", (angles.sin() * spec.magnitude).to(device), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Look up (cos, sin), each [num_tokens, rotary_dim / 2], for positions [num_tokens]."""
        return self.cos[positions], self.sin[positions]
