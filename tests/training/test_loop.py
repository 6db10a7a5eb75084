"""The loop: it learns, resumes bit for bit, and stops with the last good checkpoint when the loss is lost."""

import json
from contextlib import closing
from functools import partial

import pytest
import torch
from runs import open_corpus, read_log, run

from catlip_lite.data.images import AUGMENTATIONS
from catlip_lite.data.loader import Batch
from catlip_lite.data.shards import write_shards
from catlip_lite.training.loop import Learner, RunLog, Training, start_training, train_step
from catlip_lite.training.losses import bce
from catlip_lite.training.objectives import TokenTargets
from catlip_lite.training.parallel import latest_facts

EVERYTHING = {
    "model": "vit_ti16",
    "range_augment": True,
    "multi_scale": "paper",
    "image_size": 48,
    "patch_drop": 0.5,
    "max_steps": 6,
    "micro_batch": 4,
}


def test_the_loss_falls(corpus, tmp_path):
    run(corpus, tmp_path, max_steps=60)
    losses = [entry["loss"] for entry in read_log(tmp_path)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["demo's recipe", "everything random"])
def test_an_interrupted_run_ends_exactly_as_an_uninterrupted_one(corpus, tmp_path, values):
    whole = run(corpus, tmp_path / "whole", **values)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "cut", stop_at=5, **values)
    resumed = run(corpus, tmp_path / "cut", **values)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    lines, cut = (read_log(tmp_path / name) for name in ("whole", "cut"))
    assert [(e["step"], e["loss"], e["grad_norm"]) for e in cut] == [(e["step"], e["loss"], e["grad_norm"]) for e in lines]
    if values:
        assert [e["brightness_low"] for e in cut] == [e["brightness_low"] for e in lines]


def test_an_interrupted_clip_run_ends_exactly_as_an_uninterrupted_one_with_its_text_tower(
    tmp_path, shards, samples, vocabulary
):
    """Which of an image's captions a step takes is drawn."""
    pytest.importorskip("open_clip")
    for sample in samples:
        sample.caption += f" | {sample.facts['label']} by {sample.facts['vendor']} | drawn"
    write_shards(samples, shards, samples_per_shard=16)
    corpus, clip = open_corpus(shards, vocabulary, targets=TokenTargets(12)), {"objective": "clip", "context_length": 12}
    whole = run(corpus, tmp_path / "whole", max_steps=5, **clip)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "cut", stop_at=4, max_steps=5, **clip)
    assert latest_facts(tmp_path / "cut/checkpoints")["step"] == 3
    resumed = run(corpus, tmp_path / "cut", max_steps=5, **clip)
    assert {"blocks.0.attn.qkv.weight", "head.weight", "text.text_projection", "logit_scale"} < whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    lines, cut = (read_log(tmp_path / name) for name in ("whole", "cut"))
    assert [(e["step"], e["loss"], e["grad_norm"]) for e in cut] == [(e["step"], e["loss"], e["grad_norm"]) for e in lines]


def test_a_clip_run_learns_which_caption_is_whose(tmp_path, shards, vocabulary):
    """As far as it can be told: of eight images a step, two or so share each of four captions, which leaves about ln 2."""
    pytest.importorskip("open_clip")
    corpus = open_corpus(shards, vocabulary, "none", targets=TokenTargets(8))
    values = {"objective": "clip", "context_length": 8, "stem": "patches", "max_steps": 16, "lr": 3e-3}
    run(corpus, tmp_path, options={"checkpoint_every": None}, **values)
    losses = [entry["loss"] for entry in read_log(tmp_path)]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_training_leaves_the_precision_of_products_as_it_was(corpus, tmp_path, monkeypatch):
    def start_as_on_a_gpu(*given):
        torch.set_float32_matmul_precision("high")
        return start_training(*given)

    monkeypatch.setattr("catlip_lite.training.loop.start_training", start_as_on_a_gpu)
    before = torch.get_float32_matmul_precision()
    run(corpus, tmp_path, max_steps=1)
    assert (torch.get_float32_matmul_precision(), before) == ("highest", "highest")


def test_the_log_tells_loss_speed_and_what_the_data_is_like(corpus, tmp_path):
    run(corpus, tmp_path, max_steps=2)
    entry = read_log(tmp_path)[0]
    assert entry["labels_per_image"] == 1.0
    assert (entry["skipped"], entry["mfu"], entry["lr"]) == (0, None, 1e-6)
    assert entry["images_per_second"] > 0 <= entry["data_wait"] <= 1
    assert list((tmp_path / "tensorboard").iterdir())


def test_accumulated_micro_batches_learn_what_the_whole_batch_does(corpus, tmp_path):
    """Without batch norm, which averages over a micro-batch."""
    plain = {"model": "vit_ti16", "stem": "patches", "range_augment": False, "multi_scale": "none", "max_steps": 4}
    corpus.augmentation = AUGMENTATIONS["none"]
    whole, parts = (run(corpus, tmp_path / str(n), micro_batch=n, **plain) for n in (8, 2))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5)


def test_a_compiled_step_agrees_with_an_eager_one_and_is_one_graph_whatever_the_number_of_labels(
    tmp_path, shards, samples, vocabulary, monkeypatch
):
    """Without the slow generation of code, which is PyTorch's."""
    for i, sample in enumerate(samples):
        sample.caption = "a dog and a cat" if i % 3 else "a banana"
    write_shards(samples, shards)
    corpus = open_corpus(shards, vocabulary)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    eager = run(corpus, tmp_path / "eager", max_steps=4)["head.weight"]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = run(corpus, tmp_path / "compiled", max_steps=4, options={"compile": True})["head.weight"]
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_the_stem_gets_pixels_with_their_channels_side_by_side():
    seen = []
    learner = Learner(lambda images: seen.append(images) or torch.zeros(2, 7), bce)
    images, none = torch.arange(96, dtype=torch.uint8).view(2, 3, 4, 4), torch.zeros(0, dtype=torch.int64)
    learner(images, none, none, torch.ones(2), torch.zeros(()))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(seen[0], images / 255)


def test_each_group_learns_at_its_own_rate():
    network = torch.nn.Linear(1, 1)
    groups = [{"params": [network.weight], "lr_scale": 0.5}, {"params": [network.bias]}]
    optimiser = torch.optim.AdamW(groups, lr=0.0)
    training = Training(network, network, lambda *_: network(torch.ones(1, 1)).sum(), [optimiser], None, torch.float32)
    none = torch.zeros(0, dtype=torch.int64)
    train_step(training, [Batch(torch.zeros(1), none, none, torch.ones(1), [], [])], [0], torch.zeros(()), 0.1, 1.0)
    assert [group["lr"] for group in optimiser.param_groups] == [0.05, 0.1]


def test_without_checkpoints_and_folder_nothing_is_written_and_the_outcome_is_the_same(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    silent = run(corpus, None, options={"checkpoint_every": None})
    assert not list(tmp_path.glob("*.json*"))
    written = run(corpus, tmp_path / "written")
    assert all(torch.equal(silent[name], written[name]) for name in written)


def test_checkpoints_without_a_folder_are_refused(corpus):
    with pytest.raises(ValueError, match="without a folder there is no place for checkpoints"):
        run(corpus, None)


def test_activation_checkpointing_changes_nothing(corpus, tmp_path):
    kept, twice = (run(corpus, tmp_path / str(c), max_steps=3, options={"activation_checkpointing": c}) for c in (False, True))
    assert all(torch.equal(kept[name], twice[name]) for name in kept)


def test_a_folder_with_another_recipe_is_refused(corpus, tmp_path):
    run(corpus, tmp_path)
    with pytest.raises(ValueError, match=r"another run \(lr was 0.001, is 0.1"):
        run(corpus, tmp_path, lr=0.1)


def test_a_folder_with_another_order_is_refused(corpus, tmp_path, shards, vocabulary):
    run(corpus, tmp_path)
    with pytest.raises(ValueError, match="rule was .*, is .*give what it began with"):
        run(open_corpus(shards, vocabulary, lanes=2), tmp_path)


def test_micro_batches_may_change_between_runs_and_that_is_told(corpus, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path, stop_at=5)
    run(corpus, tmp_path, micro_batch=2)
    assert "micro_batch is 2 from here on, it was 8: the stem's batch norms" in capsys.readouterr().out
    assert [e["step"] for e in read_log(tmp_path)] == list(range(1, 13))


def test_slow_steps_have_checkpoints_besides_those_asked_for(corpus, tmp_path):
    run(corpus, tmp_path, max_steps=7, options={"checkpoint_every": 5, "also_every": 3, "keep_every": 1})
    assert [int(p.name[-8:]) for p in sorted((tmp_path / "checkpoints").iterdir())] == [3, 5, 6, 7]


def test_a_loss_that_is_not_finite_stops_the_run_and_tells_which_samples_led_there(corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path, stop_at=4)
    corpus.memory.images = corpus.memory.images.float()
    corpus.memory.images[corpus.memory.names.index("00000.tar:000000007")] = float("nan")
    corpus.augmentation = AUGMENTATIONS["none"]
    with pytest.raises(FloatingPointError, match="not finite at step 4"):
        run(corpus, tmp_path, options={"log_every": 2})
    told = json.loads((tmp_path / "not_finite_rank0.json").read_text())
    assert told["step"] == 4
    assert len(told["samples"]) == 8
    assert latest_facts(tmp_path / "checkpoints")["step"] == 3


def test_a_gradient_that_is_not_finite_stops_the_run_before_a_checkpoint_keeps_its_weights(corpus, tmp_path, monkeypatch):
    from catlip_lite.training import loop

    real = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *step: (real(*step)[0], torch.tensor(float("inf"))))
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 1"):
        run(corpus, tmp_path, options={"log_every": 100})
    assert latest_facts(tmp_path / "checkpoints") is None
    assert json.loads((tmp_path / "not_finite_rank0.json").read_text())["step"] == 1


def test_patches_are_dropped_until_the_unmasked_tail(corpus, tmp_path, monkeypatch):
    seen = []
    from catlip_lite.training import loop

    real = loop.set_patch_drop
    monkeypatch.setattr(loop, "set_patch_drop", lambda network, share: (real(network, share), seen.append(share)))
    run(corpus, tmp_path, model="vit_ti16", patch_drop=0.5, unmasked_tail=0.25, max_steps=8, multi_scale="none")
    assert seen == [0.5] * 6 + [0.0] * 2


# --- what a run writes down, and how a resumed run cuts it back ---------------------------------------------------------------


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def write(folder, start, stop, **options):
    with closing(RunLog(folder, start, **options)) as log:
        for step in range(start + 1, stop + 1):
            log.write({"step": step, "loss": 1.0, "mfu": None})
            log.samples(step, ["0.tar:0"], [("0.tar:1", "no image")])


def test_a_resumed_run_cuts_every_file_back_to_where_it_goes_on(tmp_path):
    write(tmp_path, 0, 7, record_samples=True)
    write(tmp_path, 4, 6, record_samples=True)
    for name in ("log.jsonl", "skipped/rank0.jsonl", "samples/rank0.jsonl"):
        assert steps(tmp_path / name) == [1, 2, 3, 4, 5, 6]


def test_the_line_that_a_killed_run_was_writing_is_dropped(tmp_path):
    write(tmp_path, 0, 3)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    write(tmp_path, 3, 4)
    assert steps(tmp_path / "log.jsonl") == [1, 2, 3, 4]


def test_samples_that_other_processes_recorded_are_cut_back_too(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/rank5.jsonl").write_text('{"step": 1, "samples": []}\n{"step": 9, "samples": []}\n')
    write(tmp_path, 4, 5)
    assert steps(tmp_path / "samples/rank5.jsonl") == [1]


def test_samples_are_recorded_on_request_alone(tmp_path):
    write(tmp_path, 0, 1)
    assert not (tmp_path / "samples").exists()
    assert json.loads((tmp_path / "skipped/rank0.jsonl").read_text()) == {"step": 1, "sample": "0.tar:1", "reason": "no image"}


def test_tensorboard_gets_the_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 0, 3)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/loss")] == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert "train/mfu" not in board.Tags()["scalars"]
