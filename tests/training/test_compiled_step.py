"""A compiled training step is one graph a scale, whatever the number of labels and whichever parts are on."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from catlip_lite.data.loader import Batch
from catlip_lite.models.vit import MODELS, create_vit
from catlip_lite.training.loop import RunOptions, start_training, train_step
from catlip_lite.training.losses import create_loss
from catlip_lite.training.recipes import recipe_for, scales


@pytest.mark.parametrize(
    "changed",
    [{}, {"range_augment": False, "stem": "patches"}, {"multi_scale": "paper"}, {"activation_checkpointing": True}],
    ids=str,
)
def test_a_compiled_step_is_one_graph_a_scale_without_breaks(monkeypatch, changed):
    """Without the slow generation of code, which is PyTorch's."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    monkeypatch.setitem(MODELS, "vit_ti16", replace(MODELS["vit_ti16"], depth=2))
    torch._dynamo.reset()
    counters.clear()
    of_recipe = {"multi_scale": "none"} | {name: value for name, value in changed.items() if name != "activation_checkpointing"}
    recipe = recipe_for("vit_ti16", image_size=32, batch_size=4, micro_batch=4, **of_recipe)
    how = {"compile": True, "activation_checkpointing": changed.get("activation_checkpointing", False)}
    network = create_vit("vit_ti16", 50, 32, stem=recipe.stem)
    training = start_training(
        network, create_loss("bce"), recipe, RunOptions(device=torch.device("cpu"), precision="fp32", **how)
    )
    sizes = scales(32, recipe.multi_scale, 4)
    for labels in (7, 11, 10):
        for size, count in sizes:
            indices, rows = torch.arange(labels), torch.arange(labels) % count
            batch = Batch(torch.zeros(count, 3, size, size, dtype=torch.uint8), indices, rows, torch.ones(count), [], [])
            train_step(training, [batch], [0], torch.zeros(()), recipe.lr, recipe.clip)
    assert (counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())) == (len(sizes), 0)
