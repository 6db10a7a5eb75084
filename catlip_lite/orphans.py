"""A process that works for the one that started it stops soon after that one is gone, be it by kill -9."""

from __future__ import annotations

import os
import threading
import time

EVERY_SECONDS = 0.5
_watched: set[int] = set()  # this process's id, once it watches; a fork's copy holds its parent's


def stop_with_parent(*_: object) -> None:
    """From now on, end this process when its parent ends. A thread looks: it sees a step that never returns through, too.

    An orphan's new parent is not always process 1 (containers, user sessions): any other than now means that it is one.
    """
    if os.getpid() in _watched:
        return
    _watched.add(os.getpid())
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="stop with parent", daemon=True).start()


def stop_with_launcher() -> None:
    """`stop_with_parent`, if the parent is torchrun, or runs this notebook; never for a shell: nohup lets it go on."""
    if "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("JPY_PARENT_PID") == str(os.getppid()):
        stop_with_parent()
