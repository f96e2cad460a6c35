"""ServerSettings: validated once, never changed, and no key in sight."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from inspect import signature
from pathlib import Path

import pytest

from toolkit.errors import InvalidConfig
from toolkit.server.serve import serve
from toolkit.server.settings import ServerSettings


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"port": 70_000}, "port"),
        ({"port": "8000"}, "port"),
        ({"uds": "x" * 200}, "uds"),
        ({"uds": ""}, "uds"),
        ({"api_keys": ("",)}, "api_keys"),
        ({"api_keys": "secret"}, "api_keys"),
        ({"served_names": (1,)}, "served_names"),
        ({"allowed_origins": ("*",), "allow_credentials": True}, "allowed_origins"),
        ({"root_path": "llm"}, "root_path"),
        ({"root_path": "/llm/"}, "root_path"),
        ({"ssl_keyfile": "key.pem"}, "ssl_certfile"),
        ({"ssl_certfile": "no-such.pem"}, "no file"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_n": True}, "max_n"),
        ({"max_logprobs": -1}, "max_logprobs"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens"),
        ({"body_timeout_s": 0}, "body_timeout_s"),
        ({"request_timeout_s": float("nan")}, "request_timeout_s"),
        ({"grace_s": -1}, "grace_s"),
        ({"embedding_pooling": "max"}, "embedding_pooling"),
        ({"processors": {"p": "no function"}}, "processors"),
        ({"hooks": {"": object()}}, "hooks"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        ServerSettings(**settings)


def test_settings_do_not_change_and_do_not_show_keys(tmp_path: Path) -> None:
    processors = {"loud": abs}
    settings = ServerSettings(
        api_keys=("secret",),
        control_key="secret",
        ssl_keyfile_password="secret",
        processors=processors,
    )
    assert "secret" not in repr(settings)
    with pytest.raises(FrozenInstanceError):
        settings.port = 1
    processors["late"] = abs
    assert list(settings.processors) == ["loud"]
    with pytest.raises(TypeError):
        settings.processors["late"] = abs


def test_serve_takes_every_setting_with_the_same_default() -> None:
    renamed = {"api_keys": "api_key", "served_names": "served_model_name"}
    keywords = signature(serve).parameters
    for field in fields(ServerSettings):
        if field.name == "control_key":
            continue
        keyword = keywords[renamed.get(field.name, field.name)]
        if field.name not in (*renamed, "processors", "hooks"):
            assert keyword.default == field.default, field.name
