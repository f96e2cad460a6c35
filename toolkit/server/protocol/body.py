"""What every body may hold: which model, under which id, for whom."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from toolkit.server.protocol.types import Text, User

__all__ = ["Body"]


class Body(BaseModel):
    """A body; null is "not sent", and fields beyond the declared ones are kept to be named."""

    model_config = ConfigDict(extra="allow")

    model: Text | None = None
    # It stands in headers and in the log: printable ASCII without a space.
    request_id: Annotated[Text, Field(pattern="^[!-~]{1,256}$")] | None = None
    user: User | None = None
