"""Find a model's folder, here or on the Hugging Face hub, and read its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from toolkit.errors import CheckpointError, ModelError, UnsupportedModel
from toolkit.models.checkpoint import read_json
from toolkit.models.families import FAMILIES, supported_architectures

__all__ = ["load_generation_defaults", "read_config", "resolve_files"]

_SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model")  # configs, chat template, tokenizer
# Not *.safetensors and *.bin: some repositories hold the weights twice, in other layouts.
_SAFETENSORS = "model*.safetensors"
_LEGACY_WEIGHTS = "pytorch_model*.bin"


def resolve_files(model: str, revision: str | None = None) -> Path:
    """Return the folder with a model's settings and weights, downloading a hub id's first.

    ``.bin`` weights are fetched only where there are no safetensors. Raises ModelError, saying
    what was looked for and where, if ``model`` is neither a folder nor a hub id within reach.
    """
    folder = _folder(model, revision, (*_SETTINGS, _SAFETENSORS))
    if Path(model).expanduser().is_dir() or any(folder.glob(_SAFETENSORS)):
        return folder
    return _folder(model, revision, (*_SETTINGS, _LEGACY_WEIGHTS))


def read_config(
    model: str, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Read config.json of a folder or hub id as transformers' config class.

    ``trust_remote_code`` lets a config class that comes with the model run, unless transformers
    has one for a family that we know. Raises ModelError for settings that cannot be read.
    """
    folder = _folder(model, revision, ("*.json", "*.py") if trust_remote_code else ("*.json",))
    settings = read_json(folder / "config.json")
    model_type = settings.get("model_type")
    is_known = any(model_type in family.model_types for family in FAMILIES)
    try:
        return AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code and not is_known
        )
    except StrictDataclassError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder / 'config.json'} is wrong: {reason}") from error
    except ValueError as error:
        architecture = next(iter(settings.get("architectures") or ()), model_type)
        reason = str(error).splitlines()[0]  # paragraphs of advice about transformers follow
        if "trust_remote_code" in str(error):
            reason += " If you trust it, pass trust_remote_code=True."
        raise UnsupportedModel(
            f"cannot read the config of {architecture!r} in {folder}: {reason} "
            f"Supported: {supported_architectures()}"
        ) from error


def load_generation_defaults(model: str, revision: str | None = None) -> dict[str, Any]:
    """Return what generation_config.json says (temperature, eos_token_id, ...), {} without one."""
    path = _folder(model, revision, ("*.json",)) / "generation_config.json"
    return read_json(path) if path.exists() else {}


def _folder(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return a local folder as it is, or a snapshot of a hub id with the files that match."""
    local = Path(model).expanduser()
    if local.is_dir():
        return local
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # what huggingface_hub's errors all are
        at = "" if revision is None else f" at revision {revision!r}"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(
            f"no model {model!r}{at}: there is no folder {local.absolute()}, and the Hugging Face "
            f"hub or its local cache does not give {', '.join(patterns)} for that id "
            f"({reason}). Check the name; without network, pass a folder that holds config.json "
            "and the weights, or fill the cache where there is network: "
            f"`hf download {model}`"
        ) from error
