"""Tell models apart by their weights, without reading all of them."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import nn

from toolkit.models.parts import GroupedLinear

__all__ = ["fingerprint"]

_LINEAR = (nn.Linear, GroupedLinear)
_NUM_SAMPLED = 64  # values of each tensor: a fine-tuned model differs in nearly all of them


@torch.no_grad()
def fingerprint(decoder: nn.Module) -> str:
    """Return a hash of names, shapes, dtypes and some evenly spaced values of all weights.

    A linear map may hold its weight in a layout of its kernels', quantised perhaps, where it is no
    parameter any more. So each is asked for two columns of its matrix: its answers to two unit
    vectors, which are the same from every layout.
    """
    digest = blake2b(digest_size=8)
    device = next(decoder.parameters()).device
    for name, weight in sorted(decoder.named_parameters()):
        owner = decoder.get_submodule(name.rpartition(".")[0])
        if not isinstance(owner, _LINEAR):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype};".encode())
            digest.update(_sampled(weight.detach()))
    for name, part in sorted(decoder.named_modules()):
        if isinstance(part, _LINEAR):
            weight = getattr(part, "weight", None)  # None in a layout of the kernels'
            dtype = getattr(decoder, "dtype", torch.float32) if weight is None else weight.dtype
            digest.update(f"{name} {part.in_features} {part.out_features} {dtype};".encode())
            units = torch.zeros(2, part.in_features, dtype=dtype, device=device)
            units[0, 0] = units[1, part.in_features // 2] = 1.0
            digest.update(_sampled(_answers(part, units)))
    return digest.hexdigest()


def _answers(part: nn.Linear | GroupedLinear, units: torch.Tensor) -> torch.Tensor:
    if isinstance(part, nn.Linear):
        return torch.as_tensor(part(units))
    starts = torch.arange(part.num_groups + 1, device=units.device) * len(units)
    return torch.as_tensor(part(units.repeat(part.num_groups, 1), starts))


def _sampled(values: torch.Tensor) -> bytes:
    values = values.flatten()
    if not len(values):
        return b""
    # float32 cannot count beyond 2**24.
    places = torch.linspace(0, len(values) - 1, min(_NUM_SAMPLED, len(values)), dtype=torch.float64)
    return bytes(values[places.long().to(values.device)].to("cpu", torch.float64).numpy().tobytes())
