"""Say who holds a TCP port, where Linux tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["port_holder"]

# State of a listening socket in /proc/net/tcp.
_LISTENING = "0A"
_MAX_COMMAND_LENGTH = 120


def port_holder(port: int) -> str | None:
    """Name the process that listens on a port, with its command; None where nothing tells."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return None
    for folder in Path("/proc").glob("[0-9]*"):
        if _holds_any(folder, inodes):
            process_id = int(folder.name)
            if process_id == os.getpid():
                return "this process (toolkit.live() lists its servers)"
            return f"process {process_id} ({_command(folder)})"
    return "a process of another user"


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, *rest = line.split()
            if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                yield rest[5]


def _holds_any(process: Path, inodes: set[str]) -> bool:
    try:
        return any(os.readlink(entry) in inodes for entry in _entries(process / "fd"))
    except OSError:  # it ended, or is not ours to look into
        return False


def _entries(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_symlink():  # else it was closed since it was listed
            yield entry


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "it ended just now"
    return " ".join(words).strip()[:_MAX_COMMAND_LENGTH]
