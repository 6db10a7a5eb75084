"""Small training runs, alone or as several processes, that tests of the loop share."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from pathlib import Path

import torch
import torch.multiprocessing as mp

from catlip_lite.data.images import AUGMENTATIONS
from catlip_lite.data.loader import Corpus
from catlip_lite.data.stream import OrderRule, open_shards
from catlip_lite.labels import CaptionLabeler, Vocabulary
from catlip_lite.training.loop import RunOptions, train
from catlip_lite.training.objectives import SynsetTargets, create_objective
from catlip_lite.training.recipes import recipe_for

SMALL = {
    "image_size": 16,
    "batch_size": 8,
    "warmup_steps": 2,
    "lr": 1e-3,
    "max_steps": 12,
    "shuffle_shards": 1,
    "head_bias": "zero",
}
OPTIONS = {"precision": "fp32", "checkpoint_every": 3, "log_every": 1}


def open_corpus(shards, vocabulary: Vocabulary, augmentation="drawings", lanes=1, targets=None, **options) -> Corpus:
    rule = OrderRule(seed=0, shuffle_shards=1, lanes=lanes)
    options = {"rule": rule, "workers": 0, **options}
    targets = targets or SynsetTargets(CaptionLabeler(), vocabulary)
    return Corpus(open_shards(shards), targets, 16, AUGMENTATIONS[augmentation], **options)


def run(corpus, folder, stop_at=None, options=None, stop=None, model="vit_nano8", **values):
    """Train; at the log line of step `stop_at`, `stop` is called (default: KeyboardInterrupt)."""
    recipe = recipe_for(model, **{**SMALL, **values})
    objective = create_objective(recipe, getattr(corpus.targets, "vocabulary", None))

    def on_log(entry):
        if entry["step"] == stop_at:
            (stop or _interrupt)()

    chosen = RunOptions("cpu", **{**OPTIONS, **(options or {})})
    folder = Path(folder) if folder else None
    return train(objective.network(), objective.loss(), corpus, recipe, folder, chosen, on_log=on_log)


def _interrupt():
    raise KeyboardInterrupt


def kill_this_process():
    """As the kernel does when memory is out: no handler, no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def read_log(folder) -> list[dict]:
    return [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]


def samples_by_step(folder) -> dict[int, list[str]]:
    """Names of the samples of each step, over all processes."""
    steps = defaultdict(list)
    for path in sorted((Path(folder) / "samples").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            steps[entry["step"]] += entry["samples"]
    return dict(steps)


def in_processes(count: int, function, *arguments) -> list[int]:
    """Run function(*arguments) in so many processes that form a group; their exit codes."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["warm"])
    meeting = Path(arguments[0]) / f"meeting-{len(list(Path(arguments[0]).glob('meeting-*')))}"
    processes = [
        context.Process(target=_member, args=(rank, count, str(meeting), function, arguments)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _member(rank: int, count: int, meeting: str, function, arguments) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    function(*arguments)
    torch.distributed.destroy_process_group()
