"""Which device and precision: the best there is, a GPU with its number, and bf16 only where there are instructions for it."""

import pytest
import torch

from catlip_lite.models.precision import arranged, choose_device, choose_precision, devices_here, exact_device


@pytest.fixture
def gpus(monkeypatch):
    """`gpus(cuda, mps)`: a machine with so many."""

    def put_in(cuda=0, mps=0):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.mps, "device_count", lambda: mps)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)

    return put_in


@pytest.mark.parametrize(("there", "best"), [((4, 0), "cuda:3"), ((0, 1), "mps:0"), ((4, 1), "cuda:3"), ((0, 0), "cpu")])
def test_the_best_there_is_is_cudas_gpu_then_apples_then_the_cpu(gpus, there, best):
    gpus(*there)
    assert choose_device() == choose_device(best.split(":")[0]) == torch.device(best)


def test_a_named_device_is_taken_and_a_gpu_always_has_its_number(gpus):
    gpus(cuda=4, mps=1)
    named = ("cpu", "cuda:1", "mps", "mps:0", torch.device("cuda", 1))
    assert [str(choose_device(one)) for one in named] == ["cpu", "cuda:1", "mps:0", "mps:0", "cuda:1"]
    assert [str(one) for one in devices_here()] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "mps:0", "cpu:0"]


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "xpu", "meta", "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(gpus, name):
    gpus()
    with pytest.raises(ValueError, match=rf"^device='{name}' is not there: PyTorch finds cpu here, name one of these or none$"):
        choose_device(name)


def test_a_gpus_number_is_refused_where_there_are_fewer(gpus):
    gpus(cuda=2)
    with pytest.raises(ValueError, match="device='cuda:2' is not there: PyTorch finds cuda:0, cuda:1, cpu here"):
        choose_device("cuda:2")


def test_bf16_that_a_gpu_only_emulates_is_not_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_precision(torch.device("cuda:0"), "auto") == torch.float32
    assert choose_precision(torch.device("cuda:0"), "bf16") == torch.bfloat16


@pytest.mark.parametrize("named", ["amx_tile", "avx512_bf16", "avx512_f"])
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(monkeypatch, named):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", named: True})
    assert choose_precision(torch.device("cpu")) == (torch.float32 if named == "avx512_f" else torch.bfloat16)


def test_apples_gpu_computes_in_fp32_unless_bf16_is_asked_for():
    chosen = [choose_precision(torch.device("mps", 0), asked) for asked in ("auto", "fp32", "bf16")]
    assert chosen == [torch.float32, torch.float32, torch.bfloat16]


def test_float64_of_apples_gpu_is_the_cpus_and_of_any_other_device_its_own():
    assert [str(exact_device(one)) for one in ("mps", "mps:0", "cuda:1", "cpu")] == ["cpu", "cpu", "cuda:1", "cpu"]


def test_images_have_their_channels_side_by_side_and_keep_their_values():
    images = torch.arange(48.0).view(2, 3, 2, 4)
    assert arranged(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(arranged(images), images)
