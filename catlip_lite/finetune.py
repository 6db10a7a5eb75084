"""Front door of fine-tuning by several processes: notebook 07's training from Transfer Init, without the notebook.

torchrun --nproc-per-node 8 -m catlip_lite.finetune params/<run>.yaml
"""

from __future__ import annotations

import sys
from typing import Any

from .models import load
from .training.loop import RunOptions
from .training.parallel import is_main, told_by_main, world_size
from .training.recipes import finetune_recipe_for
from .transfer.finetune import finetune_in
from .transfer.task import open_task
from .workbook.parameters import taken_by
from .workbook.run_folder import data_behind, open_run, own_or_demo, workbook_address, workbook_path
from .workbook.shell import run_from_shell


def finetune_from(values: dict) -> None:
    """One process's part; values: every parameter of the notebook."""
    folder = told_by_main(open_run(values["run"]) if is_main() else None)
    pretrained = workbook_path(values["pretrained"]) if values["pretrained"] else folder / "pretrain"
    model: Any = load(pretrained, values["device"], values["precision"])  # CLIP, too, which starts at random
    beside = data_behind(model, values)
    values["labelled"] = own_or_demo("labelled", values["labelled"], ["demo/held_out_train"], beside)
    values["tests"] = own_or_demo("tests", values["tests"], ["demo/held_out_test", "demo/held_out_style_test"], beside)
    for name in ("label_set", "label_mapping"):
        values[name] = values[name] and workbook_address(values[name])
    task = open_task(model, values["labelled"], values["tests"], **taken_by(open_task, values))
    given = taken_by(finetune_recipe_for, values, "finetune_")
    given["image_size"] = given["image_size"] or model.image_size
    recipe = finetune_recipe_for(
        model.config["model"], num_images=len(task.labelled), processes=world_size(), seed=values["seed"], **given
    )
    options = RunOptions(**taken_by(RunOptions, values))
    loader = {name: values[name] for name in ("loader_workers", "cache_gb")}
    finetune_in(folder / "finetune", model, task.head(seed=recipe.seed), task.labelled, recipe, options, **loader)


def main(arguments: list[str] | None = None) -> int:
    """Train as a member of torchrun's processes, or alone; 1 after a one-line error."""
    return run_from_shell("07_finetune", finetune_from, "Fine-tune as notebook 07 does, without a notebook.", arguments)


if __name__ == "__main__":
    sys.exit(main())
