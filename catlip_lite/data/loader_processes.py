"""What a dataset gives for each item, in turn, by processes of PyTorch's loader; one of them that dies is one error."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait

import torch
from torch.utils.data._utils.signal_handling import _remove_worker_pids

from ..orphans import stop_with_parent

RAISED_THERE = "in DataLoader worker process"  # what PyTorch adds to the message of an exception that a worker raised


class WorkerDied(RuntimeError):
    """A process that reads and decodes was killed, or crashed."""


def by_processes(
    dataset: torch.utils.data.Dataset, items: Iterable, workers: int, ahead: int, told: Callable[[object], str]
) -> Iterator:
    """`dataset[item]` of each item, in order. Items are dealt out to the workers in turn, each with so many `ahead`; without
    workers, this process does it.

    told: an item in words, for errors. What a worker raises is raised here, as its own kind. Raises WorkerDied for one that
    ends before its work does, wherever that happened, be it half-way through handing over.
    """
    dealt, received = deque(), 0

    def deal() -> Iterator:
        for item in items:
            dealt.append(item)
            yield item

    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        sampler=deal(),
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        worker_init_fn=stop_with_parent,
    )
    flow = iter(loader)
    died, watch = _watched(flow) if workers else ([], None)
    try:
        while True:
            try:
                result = [next(flow)]
            except StopIteration:
                return
            except Exception as error:
                if watch is not None and RAISED_THERE not in str(error):
                    watch.join(timeout=30.0)  # the pipe breaks before the process is gone: on a busy machine, seconds before
                if not died:
                    raise
                number, process = died[0]
                in_hand = [item for i, item in enumerate(dealt, received) if i % workers == number]
                raise WorkerDied(_what_happened(process, told(in_hand[0]) if in_hand else "nothing")) from None
            dealt.popleft()
            received += 1
            yield result.pop()  # no reference stays here: its shared memory goes back as soon as the caller lets go
    finally:
        if workers:
            flow._shutdown_workers()  # an error's traceback holds on to the iterator, and so to the processes


def _watched(flow) -> tuple[list, threading.Thread]:
    """A list that gets number and process of the first worker that dies, and the thread that fills it.

    The loader's own way is to raise from a signal handler, in whatever line the main thread has reached, and to look every few
    seconds otherwise; a worker killed while it writes leaves the others waiting for its lock and the reader for the rest of its
    message. Here the death of one ends all: nobody is left to write, and whoever reads is told at once.
    """
    _remove_worker_pids(id(flow))
    flow._worker_pids_set = False
    flow._worker_result_queue._writer.close()  # this process's copy, which never writes
    processes, died = flow._workers, []

    def watch() -> None:
        ended = wait([process.sentinel for process in processes])
        if flow._shutdown:  # as it should be
            return
        flow._workers_done_event = threading.Event()  # the processes' own has a lock that the dead one may hold
        died.extend((number, process) for number, process in enumerate(processes) if process.sentinel in ended)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()

    thread = threading.Thread(target=watch, name="loader processes", daemon=True)
    thread.start()
    return died, thread


def _what_happened(process, reading: str) -> str:
    code = process.exitcode
    how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
    return (
        f"a loader worker died ({how}) with {reading} in hand: if memory ran out, choose fewer loader_workers; if it is always "
        "there, look at these samples"
    )


def _as_it_is(item):
    """What the loader makes of a result: nothing. Its own conversion would make a tensor of each array."""
    return item
