"""What a training run writes while it goes: its log, what it skipped, which samples it saw. A resumed run cuts them back first.

`log.jsonl` and TensorBoard's files in `tensorboard/` (both by the first process), `skipped/rank<r>.jsonl`, and on request
`samples/rank<r>.jsonl`: a line a step with the names of its samples, in order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from .distribution import is_main, rank, wait_for_all

LOG, SKIPPED, SAMPLES, TENSORBOARD = "log.jsonl", "skipped", "samples", "tensorboard"


class RunLog:
    """The open files of one process of a run that goes on after step `start`. folder None: nothing is written."""

    def __init__(self, folder: Path | None, start: int, *, record_samples: bool = False):
        self.folder = folder
        if is_main() and folder is not None:
            for path in (folder / LOG, *folder.glob(f"{SKIPPED}/*.jsonl"), *folder.glob(f"{SAMPLES}/*.jsonl")):
                _cut_back(path, start)
        wait_for_all()
        self._files: dict[Path, IO[str]] = {}
        self._board = _tensorboard(folder / TENSORBOARD, start) if is_main() and folder is not None else None
        self._record = record_samples

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_) -> None:
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()

    def write(self, entry: dict) -> None:
        """One line of the log, by the first process."""
        if not is_main() or self.folder is None:
            return
        self._append(self.folder / LOG, entry)
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name != "step":
                self._board.add_scalar(f"train/{name}", value, entry["step"])

    def samples(self, step: int, names: list[str], skipped: list[tuple[str, str]]) -> None:
        """What a step saw, if samples are recorded, and which of them it had to leave out, with the reason."""
        if self.folder is None:
            return
        if self._record:
            self._append(self.folder / SAMPLES / f"rank{rank()}.jsonl", {"step": step, "samples": names})
        for name, reason in skipped:
            self._append(self.folder / SKIPPED / f"rank{rank()}.jsonl", {"step": step, "sample": name, "reason": reason})

    def _append(self, path: Path, line: dict) -> None:
        if path not in self._files:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[path] = open(path, "a")  # noqa: SIM115 (closed by __exit__)
        self._files[path].write(json.dumps(line) + "\n")
        self._files[path].flush()


def _cut_back(path: Path, start: int) -> None:
    """Keep the lines up to the step that training resumes from."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the line that a killed run was writing
            break
        if entry["step"] <= start:
            kept.append(line + "\n")
    path.write_text("".join(kept))


def _tensorboard(folder: Path, start: int):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)
