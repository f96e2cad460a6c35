"""Sockets to listen on, and certificates to speak TLS with: checked before a model is loaded."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from pathlib import Path

from toolkit.errors import InvalidConfig, ToolkitError
from toolkit.server.port_holder import port_holder
from toolkit.server.settings import ServerSettings

__all__ = ["BACKLOG", "check_certificate", "listen"]

# How many clients may wait for a connection.
BACKLOG = 2048


def listen(settings: ServerSettings) -> socket.socket:
    """Return a socket that listens where the settings say; port 0 finds a free one.

    Raises:
        InvalidConfig: there is no such host.
        ToolkitError: the port or path is taken or not allowed.
    """
    if settings.uds is not None:
        return _listen_on_path(Path(settings.uds))
    return _listen_on_port(settings.host, settings.port)


def check_certificate(settings: ServerSettings) -> None:
    """Raise InvalidConfig if the TLS files do not fit each other."""
    if settings.ssl_certfile is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.ssl_certfile,
            settings.ssl_keyfile,
            # A key that needs a password and has none would else be asked for on the terminal.
            password=settings.ssl_keyfile_password or "",
        )
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"ssl_certfile={settings.ssl_certfile!r} and ssl_keyfile={settings.ssl_keyfile!r} "
            f"cannot be used (is the key there, the certificate's own, its password right?): "
            f"{error}"
        ) from error


def _listen_on_port(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidConfig(f"cannot serve on {host}:{port}: {error}") from error
    # IPv4 first: "localhost" then is 127.0.0.1, which every client also tries.
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections linger in TIME_WAIT may be taken again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            holder = port_holder(port)
            raise ToolkitError(
                f"{host}:{port} is taken{f' by {holder}' if holder else ''}: stop the server that "
                "listens there (server.stop()), choose another port, or pass port=0 for a free one"
            ) from error
        raise ToolkitError(f"cannot serve on {host}:{port}: {error.strerror}") from error
    return listener


def _listen_on_path(path: Path) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise InvalidConfig(f"uds={str(path)!r}: this system has no Unix sockets; use a port")
    _remove_if_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ToolkitError(f"cannot serve on uds={str(path)!r}: {error.strerror}") from error
    return listener


def _remove_if_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more: a server that was killed leaves it."""
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return  # nothing there; if the folder is the trouble, binding says so
    if not is_socket:
        raise ToolkitError(f"uds={str(path)!r} exists and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ToolkitError(f"cannot serve on uds={str(path)!r}: {error.strerror}") from error
    raise ToolkitError(
        f"uds={str(path)!r} is taken: stop the server that listens there, or choose another path"
    )
