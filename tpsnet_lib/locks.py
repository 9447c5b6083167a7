"""What processes have to do with each other: locks, which say who holds them, and requests to stop."""

import contextlib
import errno
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.whole_files import HELD


class Held(TpsnetError):  # noqa: N818 - another process is at work, which is no fault
    """What another process holds at this moment; `stopped` says that it does not go on by itself."""

    stopped = False


@contextlib.contextmanager
def lock(path: Path, on_wait: Callable[[Held], None] | None = None, *, poll: float = 0.2) -> Iterator[None]:
    """Hold an exclusive lock between processes; the system frees it when its holder dies, however it dies.

    `on_wait` is called once if another process holds it, with its name, and may raise it (`do_not_wait`). A file system
    that has no locks is a `TpsnetError`."""
    from filelock import FileLock, SoftFileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path, poll_interval=poll)
    try:
        with warnings.catch_warnings(action="ignore"):
            try:
                held.acquire(timeout=0)
            except Timeout:
                if isinstance(held, SoftFileLock) or not _can_lock(path):
                    raise NotImplementedError from None
                if on_wait is not None:
                    on_wait(_holder(path))
                held.acquire()
        if isinstance(held, SoftFileLock):  # a file that stays where its holder dies
            held.release()
            raise NotImplementedError
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        raise TpsnetError(f"{path.parent}: this file system has no locks: keep records on a local disk") from None
    try:
        with contextlib.suppress(OSError):  # no lock is lost for want of a name
            path.write_text(f"{os.getpid()} {socket.gethostname()}", "utf-8")
        yield
    finally:
        held.release()


def do_not_wait(holder: Held) -> None:
    """What `lock` is to do where another process holds it: raise who."""
    raise holder


def _can_lock(path: Path) -> bool:
    """Whether a lock that could not be had is held by another process, and not refused by the file system."""
    if os.name == "nt":
        return True
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in HELD
    return True


def _holder(path: Path) -> Held:
    """Who holds a lock, in words."""
    try:
        process, host = path.read_text("utf-8").split()
        stat = Path(f"/proc/{int(process)}/stat")
        here = host == socket.gethostname()
        stopped = here and stat.is_file() and stat.read_text("utf-8").rpartition(")")[2].split()[0] in "Tt"
    except (OSError, ValueError, IndexError):
        return Held("another process")
    state = f", which is stopped (`kill -CONT {process}` lets it go on)," if stopped else f" on {host}"
    held = Held(f"process {process}{state}")
    held.stopped = stopped
    return held


@contextlib.contextmanager
def signals_answered_by(answer: Callable[..., object], *numbers: int) -> Iterator[None]:
    """These signals call `answer` while the block lasts (in the main thread, which alone has signals)."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, answer) for number in numbers} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
