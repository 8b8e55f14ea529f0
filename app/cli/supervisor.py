"""Starts the worker process beside the API and keeps it running."""

import logging
import subprocess
import sys
import threading

logger = logging.getLogger(__name__)

_STOP_SECONDS = 15
_LONGEST_PAUSE_SECONDS = 30.0


class WorkerProcess:
    """Runs one worker, and starts another after a pause if the worker ends by itself."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._watch, name="worker-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the worker to end, and wait for it. It hands a running job back to the queue."""
        self._stopping.set()
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout=_STOP_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        # The worker has a session of its own, so Ctrl-C reaches only this process, which then
        # stops the worker. If this process dies, the pipe on the worker's standard input closes,
        # and the worker ends too.
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
