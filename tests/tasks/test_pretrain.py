"""What notebook 04 calls: a vocabulary found or made, a run trained, continued or recognised as finished."""

import numpy as np
import pytest

import catlip_lite
from catlip_lite.data.images import Evaluation
from catlip_lite.data.labelled import all_views, load_labelled
from catlip_lite.data.shards import write_shards
from catlip_lite.labels import CaptionLabeler, Vocabulary
from catlip_lite.tasks import pretrain as task
from catlip_lite.tasks.pretrain_job import create_network

SMALL = {"image_size": 16, "batch_size": 8, "max_steps": 4}


def make_job(run, shards, vocabulary, options=None, **values):
    card = CaptionLabeler().card
    Vocabulary(vocabulary.wnids, vocabulary.counts, vocabulary.num_captions, card).save(run / "vocabulary.parquet")
    recipe = task.recipe_for("vit_nano8", **{**SMALL, **values})
    chosen = {"device": "cpu", "precision": "fp32", "loader_workers": 0, **(options or {})}
    return task.PretrainJob(str(run), str(shards), str(run / "vocabulary.parquet"), recipe, **chosen)


def start(run, shards, vocabulary, options=None, **values):
    return task.pretrain(make_job(run, shards, vocabulary, options, **values))


def test_without_a_vocabulary_one_is_counted_and_kept(tmp_path, shards):
    found = task.find_vocabulary(tmp_path, None, str(shards), "compound", threshold=2)
    assert found == tmp_path / "vocabulary.parquet"
    assert set(Vocabulary.load(found).names) == {"apple", "dog", "cat", "banana", "paper"}


def test_captions_of_remote_shards_are_not_counted_in_passing(tmp_path):
    with pytest.raises(ValueError, match="count the captions of s3://bucket/.* with `python -m catlip_lite.data.label_corpus`"):
        task.find_vocabulary(tmp_path, None, "s3://bucket/shards", "compound", threshold=2)


def test_captions_of_ones_own_beside_a_vocabulary_of_the_demos_are_refused(tmp_path, vocabulary):
    Vocabulary(vocabulary.wnids, vocabulary.counts, 24, {"captions": "demo/pretrain"}).save(tmp_path / "vocabulary.parquet")
    assert task.captions_behind(tmp_path, None, None) == ["demo/pretrain"]
    with pytest.raises(ValueError, match="vocabulary.parquet counts demo/pretrain, not captions='mine.csv': run notebooks 01"):
        task.captions_behind(tmp_path, None, "mine.csv")


def test_a_finished_run_is_recognised(tmp_path, shards, vocabulary, capsys):
    start(tmp_path, shards, vocabulary)
    start(tmp_path, shards, vocabulary)
    assert "nothing to train" in capsys.readouterr().out


def test_another_recipe_keeps_the_finished_run_under_a_new_name(tmp_path, shards, vocabulary, capsys):
    first = start(tmp_path, shards, vocabulary)
    start(tmp_path, shards, vocabulary, lr=0.5)
    assert "held another run (other recipe): it is kept as" in capsys.readouterr().out
    kept = catlip_lite.load(tmp_path / "pretrain-1")
    assert kept.network.head.weight.tolist() == first.network.head.weight.tolist()
    assert catlip_lite.load(tmp_path / "pretrain").config["recipe"]["lr"] == 0.5


def test_the_run_of_other_shards_is_not_moved_away(tmp_path, shards, samples, vocabulary):
    start(tmp_path, shards, vocabulary)
    (tmp_path / "pretrain" / "model.safetensors").unlink()
    write_shards(samples[:20], shards, samples_per_shard=16)
    with pytest.raises(ValueError, match="begun with other data or other numbers of samples"):
        start(tmp_path, shards, vocabulary)
    assert (tmp_path / "pretrain" / "checkpoints" / "step_00000004").is_dir()


def test_the_head_starts_at_the_log_prior_odds_or_the_given_bias(vocabulary):
    by_prior = create_network(task.recipe_for("vit_nano8", image_size=16), vocabulary)
    assert by_prior.head.bias.tolist() == vocabulary.log_prior_odds().tolist()
    paper = create_network(task.recipe_for("vit_nano8", image_size=16, head_bias="zero"), vocabulary)
    assert paper.head.bias.tolist() == [0, 0, 0, 0]


def test_zero_shot_counts_the_images_it_leaves_out(tmp_path, shards, vocabulary, make_png):
    model = start(tmp_path, shards, vocabulary)
    (tmp_path / "zebras" / "zebra").mkdir(parents=True)
    (tmp_path / "zebras" / "dog").mkdir()
    for path in ("zebra/1.png", "zebra/2.png", "dog/1.png"):
        (tmp_path / "zebras" / path).write_bytes(make_png())
    accuracy = task.zero_shot_accuracy(model, load_labelled([str(shards), str(tmp_path / "zebras")]))
    assert (accuracy["classes"], accuracy["images"], accuracy["left out"]) == (4, 25, 2)


def test_zero_shot_is_over_the_labels_that_the_images_have(tmp_path, shards, vocabulary):
    model = start(tmp_path, shards, vocabulary)
    images = load_labelled(shards)
    assert task.zero_shot_accuracy(model, images.take(np.isin(images.labels, ["cat", "dog"])))["classes"] == 2


def test_zero_shot_scores_are_those_of_the_whole_batch(tmp_path, shards, vocabulary):
    model, images = start(tmp_path, shards, vocabulary), load_labelled(shards)
    _, logits = model.outputs(all_views(images, model.evaluation)[1])
    columns = [vocabulary.names.index(name) for name in images.classes]
    corrected = (logits - vocabulary.log_prior_odds())[:, columns]
    expected = (corrected.argmax(axis=1) == images.indices).mean()
    assert task.zero_shot_accuracy(model, images)["top-1"] == pytest.approx(expected)


def test_nearest_pixels_finds_the_same_picture(shards):
    images = load_labelled(shards)
    assert task.nearest_pixels_accuracy(images, images, Evaluation(16)) == 1.0


def test_nearest_pixels_takes_the_label_of_the_nearest_colour(tmp_path, make_png):
    reds = {"train/dark": 40, "train/bright": 200, "test/dark": 60, "test/bright": 90}
    for folder, red in reds.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").write_bytes(make_png((red, 0, 0)))
    train, test = (load_labelled(tmp_path / name) for name in ("train", "test"))
    assert task.nearest_pixels_accuracy(train, test, Evaluation(8)) == 0.5  # the bright one of 90 is nearer to 40 than to 200


def test_first_test_views_come_with_their_labels(tmp_path, shards, vocabulary):
    views, labels = task.first_test_views(start(tmp_path, shards, vocabulary), load_labelled(shards), 3)
    assert views.shape == (3, 3, 16, 16)
    assert labels.tolist() == ["apple", "dog", "cat"]


def test_unknown_augmentation_lists_the_known_ones(tmp_path, shards, vocabulary):
    with pytest.raises(ValueError, match="augmentation='wild' is unknown.*paper, drawings, none"):
        start(tmp_path, shards, vocabulary, augmentation="wild")
