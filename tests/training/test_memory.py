"""Micro-batch and activation checkpointing follow the memory there is; a trial leaves nothing behind."""

from pathlib import Path

import pytest
import torch
from apple_gpu import APPLE, apple_gpu
from runs import in_processes

from catlip_lite.models import create_vit
from catlip_lite.models.detector import create_detector
from catlip_lite.models.segmenter import create_segmenter
from catlip_lite.training import memory
from catlip_lite.training.dense_recipes import dense_recipe_for
from catlip_lite.training.loop import RunOptions, create_learner
from catlip_lite.training.losses import create_loss
from catlip_lite.training.memory import choose, fit_to_device, free_memory
from catlip_lite.training.parallel import rank
from catlip_lite.training.recipes import recipe_for
from catlip_lite.transfer.dense import pixel_loss

CPU = torch.device("cpu")
SIZES = [64, 32, 16, 8, 4, 2, 1]


def need(images, checkpointing):
    """10 bytes of state, 1 an image with checkpointing and 4 without."""
    return 10 + images * (1 if checkpointing else 4)


@pytest.mark.parametrize(
    ("free", "checkpointing", "chosen"),
    [
        (1000, None, (64, False)),
        (150, None, (32, False)),  # 64 would fit with it, but 32 are enough
        (100, None, (64, True)),
        (100, False, (16, False)),
        (1000, True, (64, True)),
        (13, None, (2, True)),
        (10, None, None),
    ],
)
def test_checkpointing_is_for_where_few_images_fit_without(free, checkpointing, chosen):
    assert choose(need, SIZES, checkpointing, free, enough=32) == chosen


def test_a_small_share_that_fits_whole_is_enough():
    assert choose(need, [8, 4, 2, 1], None, 42, enough=32) == (8, False)


def fit(free=None, monkeypatch=None, network=None, model="vit_ti16", **given):
    recipe = recipe_for(model, image_size=32, batch_size=64, multi_scale="none", range_augment=True)
    network = network or create_vit(model, 7, 32)
    if free is not None:
        monkeypatch.setattr(memory, "free_memory", lambda device: free)
    options = RunOptions("cpu", "fp32", activation_checkpointing=given.pop("checkpointing", None))
    return fit_to_device(network, create_loss("bce"), recipe, options, **given)


def test_with_room_all_of_a_share_passes_at_a_time():
    found = fit()
    assert (found.micro_batch, found.activation_checkpointing) == (64, False)
    assert found.speed > 0 < found.activations < found.free


def test_with_less_memory_fewer_images_pass_and_what_is_planned_fits(monkeypatch):
    whole = fit(micro_batch=64, checkpointing=False)
    weights = 4 * sum(p.numel() for p in create_vit("vit_ti16", 7, 32).parameters())
    room = (whole.state - weights + 0.3 * whole.activations) / 0.9
    found = fit(room, monkeypatch, checkpointing=False)
    assert found.micro_batch == 16
    assert found.state + found.activations <= found.free
    assert fit(room, monkeypatch).activation_checkpointing is False  # 16 are enough for a CPU


@pytest.mark.parametrize(("before", "after"), [(32, 32), (16, 64), (48, 64), (None, 64)])
def test_a_run_that_goes_on_keeps_its_micro_batch_unless_more_than_twice_as_many_images_fit(before, after):
    assert fit(before=before).micro_batch == after


def test_if_no_image_fits_the_error_says_how_much_is_missing(monkeypatch):
    with pytest.raises(ValueError, match=r"vit_ti16 takes 0.1 GB with micro_batch=1, 0.0 GB are free on cpu: choose a smaller"):
        fit(1e6, monkeypatch)


def test_what_is_given_stays(monkeypatch):
    found = fit(1e6, monkeypatch, micro_batch=32, checkpointing=True)
    assert (found.micro_batch, found.activation_checkpointing) == (32, True)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("of a GPU"), RuntimeError("MPS backend out of memory (MPS …)")])
def test_memory_that_runs_out_in_the_trial_halves_the_micro_batch(monkeypatch, error):
    tried = []

    def try_out(learner, dtype, recipe, state, micro_batch, checkpointing):
        tried.append(micro_batch)
        if micro_batch > 20:
            raise error
        return 1.0

    monkeypatch.setattr(memory, "try_out", try_out)
    assert fit().micro_batch == tried[-1] == 16
    assert tried[:2] == [64, 32]


def test_another_error_of_the_trial_is_raised(monkeypatch):
    def try_out(*given):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(memory, "try_out", try_out)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fit()


def test_on_apples_gpu_what_macos_recommends_is_there_for_the_run(monkeypatch):
    recipe = recipe_for("vit_ti16", image_size=32, batch_size=64, multi_scale="none", range_augment=True)
    with apple_gpu(monkeypatch):
        assert free_memory(APPLE) == 10e9
        found = fit_to_device(create_vit("vit_ti16", 7, 32), create_loss("bce"), recipe, RunOptions())
    assert (found.micro_batch, found.activation_checkpointing) == (64, False)
    assert 9e9 < found.free < 9.1e9  # a tenth to spare, and the weights


def test_a_trial_leaves_network_gradients_and_random_numbers_as_they_were():
    network = create_vit("vit_ti16", 7, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    fit(network=network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def fit_as_one_of_many(root: str):
    memory.free_memory = lambda device: (1e12, 120e6)[rank()] * 2  # shared by two
    recipe = recipe_for("vit_ti16", image_size=32, batch_size=64, multi_scale="none", processes=2)
    found = fit_to_device(create_vit("vit_ti16", 7, 32), create_loss("bce"), recipe, RunOptions("cpu", "fp32"))
    (Path(root) / f"{rank()}.txt").write_text(f"{found.micro_batch}")


def test_all_processes_take_what_the_poorest_can(tmp_path):
    assert in_processes(2, fit_as_one_of_many, str(tmp_path)) == [0, 0]
    taken = {(tmp_path / f"{i}.txt").read_text() for i in range(2)}
    assert len(taken) == 1
    assert int(taken.pop()) < 32


@pytest.fixture
def machine(tmp_path):
    """Where /proc says that 8 GB are available."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    return tmp_path


def write_group(folder, limit, used, stat, names):
    folder.mkdir(parents=True)
    for name, text in zip(names, (limit, used, stat), strict=True):
        (folder / name).write_text(f"{text}\n")


V1, V2 = (
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
    ("memory.max", "memory.current", "memory.stat"),
)


def test_without_a_limit_what_is_available_is_free(machine):
    assert free_memory(CPU, machine) == 8_192_000_000


def test_a_control_groups_limit_counts_with_the_files_it_could_drop(machine):
    (machine / "proc/self/cgroup").write_text("0::/mine/deep\n")
    write_group(machine / "sys/fs/cgroup/mine", 4_000_000_000, 3_000_000_000, "inactive_file 500000000\nanon 7", V2)
    write_group(machine / "sys/fs/cgroup/mine/deep", "max", 1, "anon 7", V2)
    assert free_memory(CPU, machine) == 1_500_000_000


def test_a_container_of_the_older_kind_has_its_limit_at_the_top(machine):
    (machine / "proc/self/cgroup").write_text("5:cpu:/docker/1\n4:memory:/docker/1\n")
    write_group(machine / "sys/fs/cgroup/memory", 2_000_000_000, 1_000_000_000, "total_active_file 200000000", V1)
    assert free_memory(CPU, machine) == 1_200_000_000


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_of_a_dense_task_what_all_blocks_keep_is_planned_and_the_blocks_stay(task):
    recipe = dense_recipe_for("vit_nano8", task, num_images=64, image_size=64, proposals=16)
    vit = create_vit("vit_nano8", 1, 64)
    if task == "segmentation":
        network, loss = create_segmenter(vit, 5, 64, channels=16), pixel_loss
    else:
        network, loss = create_detector(vit, 5, 64, channels=16, proposals=16)
    learner, _ = create_learner(network, loss, recipe, RunOptions("cpu", "fp32"))
    need = memory.planned(learner, torch.float32, recipe, state=0.0)
    assert len(network.blocks) == 4
    blocks = network.vit.blocks
    all_of_them, three, one_less = (
        memory._kept(learner, torch.float32, n, 64, network.vit, some)
        for n, some in ((3, blocks), (3, blocks[:3]), (2, blocks))
    )
    block = all_of_them - three
    beside = 3 * 64**2 * memory.IMAGE_COPIES + memory.AT_WORK * block / 3
    network.vit.blocks = blocks
    assert need(3, False) - need(2, False) == pytest.approx(all_of_them - one_less + beside, rel=0.02)
    assert need(3, True) < need(3, False)
