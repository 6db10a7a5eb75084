"""What a function gives for each item, in turn, by processes that read and decode; one of them that dies is one error."""

from __future__ import annotations

import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from ..orphans import stop_with_parent

PATIENCE = 5.0  # seconds that a process gets to end by itself: it may have copies of shards to delete
MOST_AHEAD = 256  # items on their way to a worker: of some hundreds, none waits for room in the pipe while it waits, too


Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDied(RuntimeError):
    """A process that reads and decodes was killed, or crashed."""


def by_processes(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int, told: Callable[[Item], str]
) -> Generator[Result, None, None]:
    """`work(item)` of each item, in order. Items are dealt out to the workers in turn, each with so many `ahead`; without
    workers, this process does it.

    told: an item in words, for errors. What a worker raises is raised here, with the place where it was. Raises WorkerDied for
    one that ends before its work does, wherever that happened, be it half-way through handing over: each has a pipe of its own,
    which breaks with it. (PyTorch's loader, whose workers share one, raises from a signal handler, or waits.)
    """
    if not workers:
        yield from map(work, items)
        return
    # A fork needs no copy of what is to be read; elsewhere than on Linux, it is not safe.
    context = torch.multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    started, ahead = [_start(context, work) for _ in range(workers)], min(ahead, MOST_AHEAD)
    turn, in_hand = cycle(started), deque()
    try:
        for item in items:
            process, pipe = next(turn)
            _unless_dead(process, item, told, pipe.send, item)
            in_hand.append((item, process, pipe))
            if len(in_hand) == workers * ahead:
                yield _result(told, *in_hand.popleft())
        while in_hand:
            yield _result(told, *in_hand.popleft())
    finally:
        for _, pipe in started:
            pipe.close()
        for process, _ in started:
            process.join(PATIENCE)
            process.kill()
            process.join()


def _start(context: Any, work: Callable) -> tuple[Any, Connection]:
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(work, there, here), daemon=True)
    process.start()
    there.close()
    return process, here


def _serve(work: Callable, pipe: Connection, parents: Connection) -> None:
    parents.close()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    stop_with_parent()
    while True:
        try:
            item = pipe.recv()
        except (EOFError, ConnectionError):  # closed; the latter where a result lies unread in it
            return
        try:
            result = True, work(item)
        except Exception as error:
            error.add_note(f"in a loader's worker process:\n{traceback.format_exc()}")
            result = False, error
        try:
            pipe.send(result)
        except ConnectionError:
            return


def _result(told: Callable[[Item], str], item: Item, process: Any, pipe: Connection) -> Any:
    good, result = _unless_dead(process, item, told, pipe.recv)
    if not good:
        raise result
    return result


def _unless_dead(process: Any, item: Item, told: Callable[[Item], str], speak: Callable, *args: object) -> Any:
    """What a word with a worker gives. Raises WorkerDied if it is not there to answer."""
    try:
        return speak(*args)
    except (EOFError, OSError) as error:
        process.join(PATIENCE)
        code = process.exitcode
        if code is None:
            raise
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise WorkerDied(
            f"a loader worker died ({how}) with {told(item)} in hand: if memory ran out, choose fewer loader_workers; if it is "
            "always there, look at these samples"
        ) from error
