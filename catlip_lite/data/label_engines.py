"""Who labels the files of a corpus: this process, several processes of this machine, or a Ray cluster.

Each engine is a generator of `Outcome`s in the order in which files are finished; closing it stops the work.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from ..orphans import stop_with_parent
from .label_file import Labelling, Outcome, label_file
from .label_results import Destination
from .sources import SourceFile

ENGINES = ("processes", "ray")


def check_engine(engine: str, workers: int | None) -> None:
    """Raises ValueError for an unknown engine or less than 1 worker, ModuleNotFoundError if Ray is needed but absent."""
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is unknown: choose one of {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be 1 or more, or None for as many as there are cores")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ModuleNotFoundError("engine='ray' needs Ray: pip install 'catlip-lite[cluster]', or use engine='processes'")


def run_engine(
    engine: str, workers: int | None, files: Sequence[SourceFile], destination: Destination, labelling: Labelling
) -> Iterator[Outcome]:
    """Label the files; workers: how many at a time, None: as many as there are cores."""
    if not files:
        return
    if engine == "ray":
        yield from _on_ray(workers, files, destination, labelling)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(workers or cores, len(files))
    if workers == 1:
        yield from (label_file(file, destination, labelling) for file in files)
    else:
        yield from _in_processes(workers, files, destination, labelling)


# --- processes ----------------------------------------------------------------------------------------------------------

_stop: threading.Event | None = None  # in a worker process: set once the run is over, whatever ended it


def _in_processes(
    workers: int, files: Sequence[SourceFile], destination: Destination, labelling: Labelling
) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's threads and connections
    stop = context.Event()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(stop,)) as pool:
        try:
            futures = [pool.submit(_label_in_worker, file, destination, labelling) for file in files]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died: if memory ran out, use fewer workers; a script must call label_corpus within "
                "`if __name__ == '__main__':`"
            ) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(stop: threading.Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    stop_with_parent()  # else the workers of a killed parent wait for work for ever


def _label_in_worker(file: SourceFile, destination: Destination, labelling: Labelling) -> Outcome:
    return label_file(file, destination, labelling, _stop.is_set)


# --- Ray ----------------------------------------------------------------------------------------------------------------


class _RayWorker:
    """An actor of Ray Data: labels one file a row; a process of its own keeps the labeler from file to file."""

    def __init__(self, destination: Destination, labelling: Labelling):
        self.destination = destination
        self.labelling = labelling
        destination.sweep()

    def __call__(self, row: dict) -> dict:
        return {"outcome": pickle.dumps(label_file(pickle.loads(row["file"]), self.destination, self.labelling))}


def _on_ray(
    workers: int | None, files: Sequence[SourceFile], destination: Destination, labelling: Labelling
) -> Iterator[Outcome]:
    import ray
    import ray.data

    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(log_to_driver=False)  # joins the cluster of RAY_ADDRESS, if there is one
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        workers = min(workers or max(1, int(ray.cluster_resources().get("CPU", 1))), len(files))
        rows = [{"file": pickle.dumps(file)} for file in files]
        # A block a file: one is finished, or repeated when its machine is lost, without the others.
        outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _RayWorker,
            fn_constructor_args=(destination, labelling),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        for row in outcomes.iter_rows():
            yield pickle.loads(row["outcome"])
    finally:
        if is_ours:
            ray.shutdown()
