"""End this process with the one that started it, however that one ended."""

import os
import threading
from collections.abc import Callable


def when_parent_ends(act: Callable[[], object]) -> None:
    """Call ``act`` once standard input closes.

    The parent holds the other end of the pipe and writes nothing; the system closes it when the
    parent ends, even by SIGKILL. This works on Linux and on macOS.
    """

    def watch() -> None:
        # Not sys.stdin: a thread inside its lock would abort the interpreter's shutdown.
        while os.read(0, 1024):
            pass
        act()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
