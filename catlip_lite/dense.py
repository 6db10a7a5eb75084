"""Front door of dense tasks by several processes: what notebooks 11 and 12 train on the pre-trained backbone, without them.

torchrun --nproc-per-node 8 -m catlip_lite.dense segmentation params/<run>.yaml
torchrun --nproc-per-node 8 -m catlip_lite.dense detection params/<run>.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

from .data.dense import load_objects, load_segmentation
from .models import load
from .models.vit import refuse_unknown
from .training.dense_recipes import ARMS, TASKS, dense_recipe_for
from .training.loop import RunOptions
from .training.parallel import is_main, told_by_main, world_size
from .transfer.dense import train_dense_in
from .workbook.parameters import taken_by
from .workbook.run_folder import data_behind, open_run, own_or_demo, workbook_path
from .workbook.shell import run_from_shell

NOTEBOOKS = {"segmentation": "11_segmentation", "detection": "12_detection"}
LOADERS: dict[str, Callable] = {"segmentation": load_segmentation, "detection": load_objects}


def train_from(task: str, values: Mapping) -> None:
    """One process's part; values: every parameter of the task's notebook."""
    folder = told_by_main(open_run(values["run"]) if is_main() else None)
    pretrained = workbook_path(values["pretrained"]) if values["pretrained"] else folder / "pretrain"
    model = load(pretrained, values["device"], values["precision"])
    name = f"{task}_train"
    address = own_or_demo(name, values[name], "demo/composites_train", data_behind(model, values))
    images = LOADERS[task](address).sample(values[f"{task}_most_images"])
    given = taken_by(dense_recipe_for, values, f"{task}_") | {"num_images": len(images), "processes": world_size()}
    options = RunOptions(**taken_by(RunOptions, values))
    for seed, (place, changed) in product(values[f"{task}_seeds"], ways_of(task, values).items()):
        recipe = dense_recipe_for(model.config["model"], task, seed=seed, **given, **changed)
        train_dense_in(
            folder / task / f"{place}_{seed}", model, images, recipe, options, loader_workers=values["loader_workers"]
        )


def ways_of(task: str, values: Mapping) -> dict[str, dict]:
    """What is trained on the pre-trained backbone, by the name of its folder, and what it changes of the recipe."""
    if task == "segmentation":
        return {f"{head}_pre-trained": {"head": head} for head in values["segmentation_heads"]}
    for arm in values["detection_arms"]:
        refuse_unknown("detection_arms", arm, ARMS)
    return {arm: ARMS[arm] for arm in values["detection_arms"] if arm != "untrained"}


def main(arguments: list[str] | None = None) -> int:
    """Train as a member of torchrun's processes, or alone; 1 after a one-line error."""
    task, *others = (sys.argv[1:] if arguments is None else arguments) or [""]
    if task not in TASKS:
        print(f"error: {task!r} is no dense task: write {' or '.join(TASKS)}, then the YAML", file=sys.stderr)
        return 2
    told = f"Train for {task} as notebook {NOTEBOOKS[task]} does, without a notebook."
    return run_from_shell(NOTEBOOKS[task], partial(train_from, task), told, others)


if __name__ == "__main__":
    sys.exit(main())
