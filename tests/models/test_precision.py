"""Which device and precision: a GPU has its number, and bf16 only where there are instructions for it."""

import pytest
import torch

from catlip_lite.models.precision import choose_device, choose_precision


def test_a_gpu_always_has_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert choose_device() == choose_device("cuda") == torch.device("cuda:3")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")


def test_without_a_gpu_the_cpu_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")


def test_bf16_that_a_gpu_only_emulates_is_not_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_precision(torch.device("cuda:0"), "auto") == torch.float32
    assert choose_precision(torch.device("cuda:0"), "bf16") == torch.bfloat16


@pytest.mark.parametrize(("tiles", "vectors"), [(True, False), (False, True), (False, False)])
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(monkeypatch, tiles, vectors):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    assert choose_precision(torch.device("cpu")) == (torch.bfloat16 if tiles or vectors else torch.float32)
