"""Starting, finding and waiting for real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TypeVar

import pytest

Found = TypeVar("Found")

DEADLINE_SECONDS = 300
"""The only bound of time in tests: it turns a hang into a failure on the slowest machine."""

PACE = {
    "STYLEFILTER_THREADS": "1",
    "STYLEFILTER_LEASE_SECONDS": "6",
    "STYLEFILTER_HEARTBEAT_SECONDS": "0.4",
    "STYLEFILTER_RECONCILE_SECONDS": "0.3",
    "STYLEFILTER_ANNOUNCE_AGAIN_SECONDS": "1",
    "STYLEFILTER_CANCEL_GRACE_SECONDS": "10",
}
"""Short intervals, so that what takes a minute in production takes seconds here."""


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without its own settings, with ``variables``."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("STYLEFILTER_")}
    # As in an activated virtual environment: its commands come first.
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
    return inherited | dict(variables)


@contextmanager
def running(
    command: Sequence[str], variables: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """The command as leader of a process group of its own; killed when the block ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment(variables),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], Found | None], what: str) -> Found:
    """Poll until the condition gives something true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_SECONDS} s"
        time.sleep(0.02)


def join(thread: Thread) -> None:
    """Wait until the thread has ended."""
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive(), f"{thread.name} has not ended within {DEADLINE_SECONDS} s"


def exit_code(process: "subprocess.Popen[bytes]") -> int:
    """Wait until the process has ended; return its exit code."""
    return process.wait(DEADLINE_SECONDS)


@contextmanager
def disk_of_its_own(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system that small on an existing folder; skips where mounting is not permitted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "stylefilter-test", str(folder)]
    try:
        subprocess.run(mount, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small disk is not permitted: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def processes_of(data_folder: Path) -> dict[int, str]:
    """Command lines by id of the living processes whose settings name this data folder."""
    setting = f"STYLEFILTER_DATA_FOLDER={data_folder}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if setting in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found[int(folder.name)] = b" ".join(words).decode().strip()
        except OSError:
            continue  # it ended meanwhile, or belongs to someone else
    found.pop(os.getpid(), None)
    return found


def trainer_of(data_folder: Path) -> int:
    """Process id of the trainer that runs on this data folder, once there is one."""

    def trainers() -> list[int]:
        return [pid for pid, line in processes_of(data_folder).items() if "worker.trainer" in line]

    (pid,) = wait_for(trainers, "the trainer")
    return pid
