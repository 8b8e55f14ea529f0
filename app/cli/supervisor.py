"""Starts the worker process beside the API and keeps it running."""

import logging
import subprocess
import sys
import threading

logger = logging.getLogger(__name__)

_STOP_SECONDS = 15
_LONGEST_PAUSE_SECONDS = 30.0


class WorkerProcess:
    """Runs one worker, and starts it again, after growing pauses, whenever it ends by itself."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._watch, name="worker-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the worker to end and wait; it hands a running job back to the queue."""
        self._stopping.set()
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout=_STOP_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches this process alone, which then stops the worker.
        # The pipe on its standard input closes when this process dies, and the worker ends too.
        return subprocess.Popen(
            [sys.executable, "-m", "worker.main", "--end-with-parent"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def _watch(self) -> None:
        pause = 1.0
        while True:
            code = self._process.wait()
            if self._stopping.is_set():
                return
            logger.error("worker_ended code=%s; starting another in %.0f s", code, pause)
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self._process = self._start()
