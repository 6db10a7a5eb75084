"""From shards and a vocabulary to batches: every sample once an epoch, labels from the captions, whoever decodes them."""

import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import struct
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from catlip_lite.data.images import AUGMENTATIONS
from catlip_lite.data.loader import Batch, BatchSpec, Chunks, Corpus, joined
from catlip_lite.data.processes import WorkerDied
from catlip_lite.data.shards import write_shards
from catlip_lite.data.stream import OrderRule, ShardTable, open_shards
from catlip_lite.labels import CaptionLabeler
from catlip_lite.training.objectives import SynsetTargets
from catlip_lite.training.recipes import recipe_for
from catlip_lite.training.steps import StepPlan

RULE = OrderRule(seed=3, shuffle_shards=1, lanes=2)


def open_corpus(shards, vocabulary, augmentation="paper", **options):
    options = {"rule": RULE, "workers": 0, **options}
    return Corpus(open_shards(shards), SynsetTargets(CaptionLabeler(), vocabulary), 16, AUGMENTATIONS[augmentation], **options)


def specs(first, last, size=8, micro=4, image_size=16):
    return [BatchSpec(s * size, size, m, m + micro, image_size) for s in range(first, last) for m in range(0, size, micro)]


def assert_same(batches, others):
    for a, b in zip(batches, others, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.indices, b.indices)
        assert torch.equal(a.rows, b.rows)
        assert torch.equal(a.weights, b.weights)
        assert (a.names, a.skipped) == (b.names, b.skipped)


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_an_epoch_has_every_sample_once(shards, vocabulary, cache_gb):
    batches = open_corpus(shards, vocabulary, cache_gb=cache_gb).batches(specs(0, 3))
    names = [name for batch in batches for name in batch.names]
    assert sorted(names) == [f"{s:05d}.tar:{s:05d}{i:04d}" for s, n in ((0, 16), (1, 8)) for i in range(n)]


@pytest.mark.parametrize("augmentation", ["paper", "drawings"])
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_batches(shards, vocabulary, augmentation, workers):
    alone = open_corpus(shards, vocabulary, augmentation, cache_gb=0)
    helped = open_corpus(shards, vocabulary, augmentation, cache_gb=0, workers=workers)
    assert not alone.in_memory
    assert_same(alone.batches(specs(1, 4)), helped.batches(specs(1, 4)))


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_a_batch_does_not_depend_on_those_before(shards, vocabulary, cache_gb):
    corpus = open_corpus(shards, vocabulary, "drawings", cache_gb=cache_gb)
    assert_same(list(corpus.batches(specs(0, 5)))[6:], corpus.batches(specs(3, 5)))


def test_memory_and_stream_give_the_same_tilted_views_and_targets(shards, vocabulary):
    cached, streamed = (open_corpus(shards, vocabulary, "drawings", cache_gb=gb) for gb in (1, 0))
    assert_same(cached.batches(specs(0, 4)), streamed.batches(specs(0, 4)))


def test_crops_of_the_stream_are_what_each_position_draws_whatever_the_micro_batch(shards, vocabulary):
    corpus = open_corpus(shards, vocabulary, cache_gb=0)
    parts, (whole,) = list(corpus.batches(specs(0, 1))), corpus.batches(specs(0, 1, micro=8))
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert whole.images.dtype == torch.uint8


def test_a_worker_opens_no_shard_twice_before_it_has_done_with_it(vocabulary):
    """Four processes of twelve loaders each, over lanes that they do not divide evenly, at thirteen image sizes."""
    table = ShardTable(tuple(f"{i}.tar" for i in range(4000)), np.full(4000, 500, np.int32))
    rule = OrderRule(lanes=41)
    options = {"rule": rule, "cache_gb": 0, "workers": 12, "processes": 4, "share": 1}
    corpus = Corpus(table, SynsetTargets(CaptionLabeler(), vocabulary), 224, AUGMENTATIONS["paper"], **options)
    plan = StepPlan(recipe_for("vit_b16", batch_size=2048, micro_batch=512, max_steps=150), rank=1, processes=4)
    chunks = [chunk for chunk, _, _ in Chunks(plan.specs(), 12)]
    for worker in (0, 5, 11):
        opened, opens, met = OrderedDict(), 0, set()
        for chunk in chunks[worker::12]:
            positions = corpus.order.rows_of_step(chunk.start, chunk.size, chunk.first, chunk.stop)
            ahead = [s for p in corpus.order.one_a_lane(positions) for s in corpus.order.window_shards(p, ahead=1).tolist()]
            for shard in [*ahead, *corpus.order.locate(positions)[0].tolist()]:
                opens += shard not in opened
                met.add(shard)
                opened[shard] = opened.pop(shard, None)
                if len(opened) > corpus.stream.reader.open_at_once:
                    opened.popitem(last=False)
        assert opens == len(met) > 16


def test_labels_are_the_captions_synsets(shards, vocabulary):
    (batch,) = open_corpus(shards, vocabulary, cache_gb=0).batches(specs(0, 1, micro=8))
    keys = [int(name.split(":")[1]) % 10_000 + 16 * int(name.split(":")[1][:5]) for name in batch.names]
    assert [vocabulary.names[i] for i in batch.indices] == [("apple", "dog", "cat", "banana")[k % 4] for k in keys]
    assert batch.rows.tolist() == list(range(8))


def test_views_come_at_the_size_asked_for(shards, vocabulary):
    corpus = open_corpus(shards, vocabulary, cache_gb=0)
    assert [b.images.shape for b in corpus.batches(specs(0, 1, image_size=24))] == [(4, 3, 24, 24)] * 2


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_what_cannot_be_used_is_a_row_of_weight_zero_with_its_name_and_reason(tmp_path, samples, vocabulary, cache_gb, caplog):
    samples[5].image, samples[7].image, samples[9].caption = b"not an image", None, ""
    write_shards(samples, tmp_path / "gaps")
    corpus = open_corpus(tmp_path / "gaps", vocabulary, cache_gb=cache_gb)
    (batch,) = corpus.batches(specs(0, 1, size=24, micro=24))
    reasons = dict(batch.skipped)
    assert {name: reason.split(" ")[0] for name, reason in reasons.items()} == {
        "00000.tar:000000005": "unreadable",
        "00000.tar:000000007": "no",
        "00000.tar:000000009": "no",
    }
    bad = np.flatnonzero(batch.weights == 0)
    assert {batch.names[i] for i in bad} == set(reasons)
    assert not batch.images[bad].any()
    assert not set(batch.rows.tolist()) & set(bad.tolist())
    assert ("3 of 24 samples are skipped" in caplog.text) == corpus.in_memory


def test_a_sample_without_a_caption_alone_in_its_micro_batch_is_skipped(tmp_path, samples, vocabulary):
    samples[5].caption = ""
    write_shards(samples, tmp_path / "gap")
    batches = open_corpus(tmp_path / "gap", vocabulary, cache_gb=0).batches(specs(0, 3, micro=1))
    assert sum(batch.weights.item() for batch in batches) == 23


def test_many_samples_without_one_usable_are_refused(tmp_path, samples, vocabulary):
    for sample in samples:
        sample.image = b"not an image"
    write_shards(samples, tmp_path / "damaged")
    with pytest.raises(ValueError, match="none of the 4 samples of a batch can be used .unreadable image.*000000"):
        list(open_corpus(tmp_path / "damaged", vocabulary, cache_gb=0).batches(specs(0, 9)))
    with pytest.raises(ValueError, match="none of the 24 samples can be used"):
        open_corpus(tmp_path / "damaged", vocabulary)


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_captions_foreign_to_the_vocabulary_are_refused(tmp_path, samples, vocabulary, cache_gb):
    for sample in samples:
        sample.caption = "qwertz"
    write_shards(samples, tmp_path / "foreign")
    with pytest.raises(ValueError, match="none of the .* captions looked at has a synset of this vocabulary .4 classes"):
        open_corpus(tmp_path / "foreign", vocabulary, cache_gb=cache_gb).first_look()


@pytest.mark.parametrize("cache_gb", [0, 1])
def test_the_first_look_counts_labels_and_gaps(tmp_path, samples, vocabulary, cache_gb):
    samples[0].caption, samples[1].image = "qwertz", None
    write_shards(samples, tmp_path / "mixed")
    look = open_corpus(tmp_path / "mixed", vocabulary, cache_gb=cache_gb, rule=OrderRule()).first_look()
    assert look.facts == {"labels an image (mean)": pytest.approx(22 / 23), "captions without a label": 1}
    assert look.skipped == [("00000.tar:000000001", "no image")]


@pytest.mark.parametrize("workers", [2, 3])
def test_a_batch_of_many_pieces_is_put_together_in_its_own_order(shards, vocabulary, workers, monkeypatch):
    monkeypatch.setattr("catlip_lite.data.loader.CHUNK", 16 * 16 / 224**2)  # an image a piece
    corpus = open_corpus(shards, vocabulary, cache_gb=0, workers=workers)
    helped = list(corpus.batches(specs(0, 3, size=12, micro=12)))
    monkeypatch.undo()
    assert_same(open_corpus(shards, vocabulary, cache_gb=0).batches(specs(0, 3, size=12, micro=12)), helped)


@pytest.mark.parametrize("workers, pieces", [(2, 8), (3, 6)])
def test_each_worker_takes_neighbouring_pieces(workers, pieces):
    spec = BatchSpec(0, 64 * pieces, 0, 64 * pieces, 224)
    dealt = [piece.first // 64 for piece, _, _ in Chunks([spec], workers)]
    share = pieces // workers
    assert [dealt[w::workers] for w in range(workers)] == [[*range(w * share, (w + 1) * share)] for w in range(workers)]


@dataclass(frozen=True)
class NoCats:
    """Targets that refuse some captions."""

    others: SynsetTargets

    def __call__(self, samples):
        for sample in samples:
            if "cat" in sample.caption:
                sample.skipped = "a cat"
        return self.others(samples)

    def look(self, indices, counts):
        return self.others.look(indices, counts)


@pytest.mark.parametrize(("cache_gb", "workers"), [(0, 0), (0, 1), (1, 0)])
def test_what_its_targets_refuse_is_skipped_named_and_black(shards, vocabulary, cache_gb, workers):
    targets = NoCats(SynsetTargets(CaptionLabeler(), vocabulary))
    how = {"rule": OrderRule(), "cache_gb": cache_gb, "workers": workers}
    corpus = Corpus(open_shards(shards), targets, 16, AUGMENTATIONS["paper"], **how)
    (batch,) = corpus.batches(specs(0, 1, size=24, micro=24))
    cats = [name for name in sorted(batch.names) if int(name[-2:]) % 4 == 2]
    assert sorted(batch.skipped) == [(name, "a cat") for name in cats]
    assert [name for name, weight in zip(batch.names, batch.weights, strict=True) if not weight] == [
        n for n, _ in batch.skipped
    ]
    assert not batch.images[batch.weights == 0].any()
    assert set(batch.rows.tolist()) == set(batch.weights.nonzero().flatten().tolist())
    look = corpus.first_look()
    assert (look.captions, look.facts["labels an image (mean)"], sorted(look.skipped)) == (18, 1.0, sorted(batch.skipped))


def test_large_batches_are_joined_like_small_ones():
    pieces = []
    for n in (3, 4):
        images, aspects = torch.full((n, 3, 512, 512), n, dtype=torch.uint8), torch.full((n,), 2.0)
        pieces.append(Batch(images, torch.arange(n), torch.arange(n), torch.ones(n), ["a"] * n, [], aspects))
    batch = joined(pieces)
    assert torch.equal(batch.images, torch.cat([piece.images for piece in pieces]))
    assert batch.indices.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert batch.rows.tolist() == list(range(7))
    assert batch.aspects.tolist() == [2.0] * 7


def test_no_worker_outlives_the_batches_nor_complains_that_they_end(shards, vocabulary, capfd):
    batches = open_corpus(shards, vocabulary, cache_gb=0, workers=2).batches(specs(0, 50))
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    time.sleep(0.5)  # results lie unread in the pipes
    batches.close()
    assert not multiprocessing.active_children()
    assert not capfd.readouterr().err


def test_an_error_in_a_worker_is_told_with_its_place_and_no_worker_stays(shards, vocabulary, monkeypatch):
    def broken(*_):
        raise TypeError("a mistake in the program")

    monkeypatch.setattr("catlip_lite.data.loader.crop_view", broken)
    with pytest.raises(TypeError, match="a mistake in the program") as raised:
        next(open_corpus(shards, vocabulary, cache_gb=0, workers=2).batches(specs(0, 50)))
    assert re.search("(?s)worker process.*in broken", raised.value.__notes__[0])
    assert raised.value.__traceback__ is not None  # which holds on to all that was at work
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_an_error(shards, vocabulary):
    batches = open_corpus(shards, vocabulary, cache_gb=0, workers=2).batches(specs(0, 10_000))
    next(batches)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(WorkerDied, match=r"SIGKILL.* samples, from 0000\d.tar:row \d+ on, in hand: .*fewer loader_workers"):
        list(batches)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("handing_over", ["the length alone", "half a message"])
def test_a_worker_killed_while_it_hands_over_is_the_same_error(shards, vocabulary, monkeypatch, handing_over):
    send = multiprocessing.connection.Connection._send_bytes

    def cut_off(connection, message):  # the reader waits for the rest, the other worker for its turn to write
        if multiprocessing.parent_process() is None:
            return send(connection, message)
        whole = struct.pack("!i", len(message)) + bytes(message)
        os.write(connection.fileno(), whole[: 4 if handing_over == "the length alone" else len(whole) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("multiprocessing.connection.Connection._send_bytes", cut_off)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        next(open_corpus(shards, vocabulary, cache_gb=0, workers=2).batches(specs(0, 50)))
    assert not multiprocessing.active_children()
