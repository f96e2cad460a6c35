"""Read the tensors of a checkpoint's files one at a time, never a whole model at once."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from toolkit.errors import CheckpointError

__all__ = ["read_json", "read_tensors", "weight_files"]

# In order of preference; an index names the files of a sharded checkpoint.
_LAYOUTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise CheckpointError if the file is missing or is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no {path.name} in {path.parent}; is it a model's folder?"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content


def weight_files(folder: Path) -> tuple[Path, ...]:
    """List the files that hold a folder's weights; raise CheckpointError if any is missing."""
    found = next((name for name in _LAYOUTS if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"no weights in {folder}: looked for {', '.join(_LAYOUTS)}")
    if not found.endswith(".index.json"):
        return (folder / found,)
    weight_map = read_json(folder / found).get("weight_map", {})
    files = tuple(folder / name for name in sorted(set(weight_map.values())))
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise CheckpointError(f"{folder / found} names files that are not there: {absent}")
    return files


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) of one file, on the CPU; nothing that was yielded is kept.

    Legacy ``.bin`` files are read with ``weights_only=True``: no code in them runs. Raises
    CheckpointError for a file that cannot be read.
    """
    reader = _read_safetensors if file.suffix == ".safetensors" else _read_legacy
    try:
        yield from reader(file)
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error


def _read_safetensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(file, framework="pt", device="cpu") as tensors:
        names = tensors.keys()
        for name in names:
            yield name, tensors.get_tensor(name)


def _read_legacy(file: Path) -> Iterator[tuple[str, Tensor]]:
    # Files from before torch 1.6 are no zip archives and cannot be mapped into memory.
    shard = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    while shard:
        yield shard.popitem()
