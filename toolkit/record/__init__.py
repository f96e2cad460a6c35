"""What happened, as tables: steps, requests, tokens."""

from toolkit.record.recorder import Record

__all__ = ["Record"]
