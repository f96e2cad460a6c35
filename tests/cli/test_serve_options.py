"""The options of ``toolkit serve``: those of serve(), with the same defaults."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature

from toolkit.cli.serve import serve
from toolkit.llm import LLM
from toolkit.server.settings import MIB, ServerSettings

RENAMED = {
    "api_keys": "api_key",
    "served_names": "served_model_name",
    "max_body_bytes": "max_body_mb",
    "policy": "scheduling_policy",
    "tensor_parallel_size": "tensor_parallel",
}
# Objects, what only another process knows, and what nobody asked for yet.
ONLY_IN_PYTHON = {"processors", "hooks", "control_key", "max_stored_bytes"}
OPTIONS = signature(serve).parameters


def test_every_setting_of_a_server_is_an_option() -> None:
    for field in fields(ServerSettings):
        if field.name in ONLY_IN_PYTHON:
            continue
        default = OPTIONS[RENAMED.get(field.name, field.name)].default
        if field.name == "max_body_bytes":
            default = int(default * MIB)
        # A repeatable option that is left out is None here, and an empty or full list there.
        assert default is None or default == field.default, field.name


def test_every_setting_of_an_llm_is_an_option() -> None:
    missing = set(signature(LLM).parameters) - {RENAMED.get(name, name) for name in OPTIONS}
    assert missing - {"policy"} == set()
    assert "scheduling_policy" in OPTIONS
