"""Training on Apple's GPU is that on the CPU: nothing in it needs float64, CUDA, or a kernel that is not there."""

import pytest
import torch
from apple_gpu import APPLE, apple_gpu
from runs import OPTIONS, SMALL, open_corpus, read_log
from torch.nn import functional as F

from catlip_lite.data.loader import Batch
from catlip_lite.labels import Vocabulary
from catlip_lite.models import create_vit
from catlip_lite.models.clip import END, START, TOKENS
from catlip_lite.models.detector import create_detector
from catlip_lite.models.segmenter import create_segmenter
from catlip_lite.training.dense_recipes import dense_recipe_for
from catlip_lite.training.loop import RunOptions, start_training, train, train_step
from catlip_lite.training.objectives import create_objective
from catlip_lite.training.parallel import process_group
from catlip_lite.training.recipes import recipe_for
from catlip_lite.transfer.dense import pixel_loss

# --- what stands in for it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fails",
    [
        lambda x: x.double(),
        lambda x: torch.zeros(3, dtype=torch.float64, device="mps"),
        lambda x: x + torch.ones(3),
        lambda x: x.numpy(),
        lambda x: torch.ones(3).to("mps", non_blocking=True),
        lambda x: F.batch_norm(x.view(1, 1, 1, 3).expand(2, 2, 2, 3), None, None, training=True),
    ],
    ids=["float64", "new float64", "the CPU's beside its own", "an array", "a copy without waiting", "another layout"],
)
def test_the_stand_in_refuses_what_fails_on_apples_gpu(monkeypatch, fails):
    with apple_gpu(monkeypatch), pytest.raises((TypeError, RuntimeError), match="Apple|mps|CPU's memory"):
        fails(torch.ones(3).to(APPLE))


def test_the_stand_in_tells_what_has_no_kernel(monkeypatch):
    with apple_gpu(monkeypatch) as recorded:
        torch.linalg.eig(torch.eye(2))
    assert recorded.without_kernel() == {"linalg_eig"}


# --- a whole run: batches on their way, steps, the log, checkpoints -----------------------------------------------------------


def run_on(device, corpus, folder, **given):
    recipe = recipe_for("vit_nano8", **{**SMALL, "max_steps": 3, **given})
    objective = create_objective(recipe, corpus.targets.vocabulary)
    options = RunOptions(device, **{**OPTIONS, "checkpoint_every": 2})
    return train(objective.network(), objective.loss(), corpus, recipe, folder, options)


@pytest.mark.parametrize(
    "given",
    [{"loss": "bce"}, {"loss": "superclass", "optimiser": "muon", "range_augment": True, "patch_drop": 0.5}],
    ids=["the paper's loss", "with Muon and all that is drawn on the device"],
)
def test_a_run_gives_the_cpus_log_and_weights(shards, vocabulary, tmp_path, monkeypatch, given):
    corpus = open_corpus(shards, vocabulary)
    expected = run_on("cpu", corpus, tmp_path / "cpu", **given)
    with apple_gpu(monkeypatch) as recorded:
        found = run_on(None, corpus, tmp_path / "apple", **given)
    assert not recorded.without_kernel()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    for one, other in zip(read_log(tmp_path / "apple"), read_log(tmp_path / "cpu"), strict=True):
        assert (one["loss"], one["grad_norm"]) == pytest.approx((other["loss"], other["grad_norm"]), rel=1e-4)
        assert one["mfu"] is None  # no data sheet


@pytest.mark.parametrize(("device", "there"), [("mps", "cpu"), ("cuda", "cpu"), ("mps:0", "cuda or cpu")])
def test_torchruns_processes_are_refused_a_device_that_they_cannot_train_on(monkeypatch, device, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    with pytest.raises(ValueError, match=rf"^device='{device}' is not for several processes here: choose {there}, or"):
        process_group(device).__enter__()


# --- a step of each other kind ------------------------------------------------------------------------------------------------


def dense_step(task, device):
    torch.manual_seed(0)
    recipe = dense_recipe_for("vit_nano8", task, num_images=64, image_size=32, proposals=16)
    vit = create_vit("vit_nano8", 1, 32)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    if task == "segmentation":
        network, loss = create_segmenter(vit, 5, 32, channels=16), pixel_loss
        nothing = torch.zeros(0, dtype=torch.int64)
        masks = torch.randint(0, 5, (2, 32, 32), dtype=torch.uint8)
        batch = Batch(pixels, nothing, nothing, torch.ones(2), [], [], masks=masks)
    else:
        network, loss = create_detector(vit, 5, 32, channels=16, proposals=16)
        objects = {"boxes": torch.tensor([[4.0, 4, 20, 20], [10, 12, 30, 30], [0, 0, 15, 15]]), "masks": torch.ones(3, 32, 32)}
        batch = Batch(pixels, torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1]), torch.ones(2), [], [], **objects)
    return step_on(device, network, loss, recipe, batch)


def objective_step(name, device):
    pytest.importorskip("open_clip")
    recipe = recipe_for("vit_nano8", image_size=16, objective=name, context_length=8)
    objective = create_objective(recipe, Vocabulary(["n07739125", "n02084071"], [6, 6], num_captions=12))
    synset = [TOKENS] if name == "superclip" else []
    two, one = [START, 5, 6, END, START, 7, END, *synset], [START, 9, END, *synset]  # captions
    indices, rows = torch.tensor(two + one), torch.tensor([0] * len(two) + [1] * len(one))
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return step_on(device, objective.network(), objective.loss(), recipe, Batch(pixels, indices, rows, torch.ones(2), [], []))


def step_on(device, network, loss, recipe, batch):
    """The loss and the gradient's norm of one step, and where it was taken."""
    training = start_training(network, loss, recipe, RunOptions(device, "fp32"))
    where = next(training.learner.parameters()).device
    told = train_step(training, [batch.to(where)], [0], torch.zeros((), device=where), lr=1e-3, clip=1.0)
    training.ema.update(0)
    return where, [float(value) for value in told]


@pytest.mark.parametrize(
    ("step", "kind"),
    [(dense_step, "segmentation"), (dense_step, "detection"), (objective_step, "siglip"), (objective_step, "superclip")],
)
def test_a_step_gives_the_cpus_loss_and_gradient(monkeypatch, step, kind):
    _, expected = step(kind, "cpu")
    with apple_gpu(monkeypatch) as recorded:
        where, found = step(kind, None)
    assert where == APPLE
    assert found == pytest.approx(expected, rel=1e-3)
    assert not recorded.without_kernel()
