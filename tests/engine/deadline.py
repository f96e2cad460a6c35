"""A test that hangs must fail: run it on a thread that can be given up."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

# Far more than any of these tests needs on a busy machine, far less than pytest's own limit.
PATIENCE_S = 30.0


def within_deadline(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test on a daemon thread and fail if it does not end."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        raised: list[BaseException] = []

        def body() -> None:
            try:
                test(*args, **kwargs)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=body, name=test.__name__, daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), f"it hangs: not over after {PATIENCE_S:.0f} s"
        if raised:
            raise raised[0]

    return run


def eventually(condition: Callable[[], bool], *, patience_s: float = PATIENCE_S / 2) -> None:
    """Wait until something holds that another thread brings about."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)
