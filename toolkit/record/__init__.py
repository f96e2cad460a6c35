"""What happened, as tables: steps, chunks, requests, tokens, blocks, events."""

from toolkit.record.record import Record

__all__ = ["Record"]
