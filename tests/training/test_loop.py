"""The loop: it learns, resumes bit for bit, and stops with the last good checkpoint when the loss is lost."""

import json

import pytest
import torch

from catlip_lite.data.corpus import Corpus, index_shards
from catlip_lite.data.images import AUGMENTATIONS
from catlip_lite.labels import CaptionLabeler
from catlip_lite.models import create_vit
from catlip_lite.training.checkpoints import load_latest, save_checkpoint
from catlip_lite.training.loop import train
from catlip_lite.training.recipes import recipe_for

SMALL = {"image_size": 16, "batch_size": 8, "warmup_steps": 2, "lr": 1e-3}


@pytest.fixture
def corpus(shards, vocabulary):
    return Corpus(index_shards(shards, CaptionLabeler(), vocabulary), 16, AUGMENTATIONS["drawings"])


def run(corpus, folder, stop_at=None, **values):
    recipe = recipe_for("vit_nano8", **{**SMALL, "max_steps": 12, **values})
    torch.manual_seed(0)
    model = create_vit("vit_nano8", num_classes=4, image_size=16)

    def interrupt(entry):
        if entry["step"] == stop_at:
            raise KeyboardInterrupt

    options = {"device": torch.device("cpu"), "precision": "fp32", "checkpoint_every": 3, "log_every": 1}
    return train(model, corpus, recipe, folder, on_log=interrupt, **options)


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_an_interrupted_run_ends_exactly_as_an_uninterrupted_one(corpus, tmp_path):
    whole = run(corpus, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "cut", stop_at=8)
    resumed = run(corpus, tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_log_of_a_resumed_run_has_every_step_once_with_the_same_losses(corpus, tmp_path):
    run(corpus, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "cut", stop_at=8)
    run(corpus, tmp_path / "cut")
    whole, cut = (read_log(tmp_path / name) for name in ("whole", "cut"))
    assert [(e["step"], e["loss"]) for e in cut] == [(e["step"], e["loss"]) for e in whole]


def test_the_loss_falls(corpus, tmp_path):
    run(corpus, tmp_path, max_steps=60)
    losses = [entry["loss"] for entry in read_log(tmp_path)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_accumulated_micro_batches_see_the_samples_of_the_whole_batch(corpus):
    whole = next(corpus.batches(1, 2, 8)).samples
    parts = [batch.samples for batch in corpus.batches(2, 4, 4)]
    assert torch.cat([torch.from_numpy(p) for p in parts]).tolist() == whole.tolist()


def test_a_folder_with_another_recipe_is_refused(corpus, tmp_path):
    run(corpus, tmp_path)
    with pytest.raises(ValueError, match=r"another recipe \(lr was 0.001, is 0.1"):
        run(corpus, tmp_path, lr=0.1)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path, stop_at=4)
    before = load_latest(tmp_path / "checkpoints")
    corpus.images, corpus.augmentation = corpus.images.float() * float("nan"), AUGMENTATIONS["none"]
    with pytest.raises(FloatingPointError, match="loss became nan at step 4"):
        run(corpus, tmp_path)
    assert load_latest(tmp_path / "checkpoints")["step"] == before["step"] == 3


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    save_checkpoint(tmp_path, 1, {"x": torch.ones(1)})
    save_checkpoint(tmp_path, 2, {"x": torch.ones(1)}).write_bytes(b"half")
    assert load_latest(tmp_path)["step"] == 1
    assert "step_00000002.pt is damaged" in caplog.text


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, {}, keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step_00000003.pt", "step_00000004.pt"]
