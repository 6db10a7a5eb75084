"""Small corpora and models that several tests share."""

import copy
import logging
import shutil

import numpy as np
import pytest
from files import encode
from PIL import Image
from xdist.scheduler import LoadFileScheduling

from catlip_lite.data.shards import Sample, write_shards
from catlip_lite.labels import Vocabulary

COLOURED = {"apple": (200, 30, 30), "dog": (120, 80, 40), "cat": (90, 90, 90), "banana": (240, 220, 60)}
WNIDS = {"apple": "n07739125", "dog": "n02084071", "cat": "n02121620", "banana": "n07753592"}


def png(colour=(255, 0, 0), size=(24, 24), mode="RGB") -> bytes:
    """A one-coloured picture."""
    return encode(Image.new("RGB", size, colour).convert(mode))


def pytest_xdist_make_scheduler(config, log):
    """Where processes share the tests out, a file's stay together for its fixtures, notebooks for each other's artefacts."""

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "notebooks" if nodeid.startswith("notebooks/") else super()._split_scope(nodeid)

    return ByFile(config, log)


@pytest.fixture(scope="session")
def make_png():
    """`png`, for tests in any folder."""
    return png


@pytest.fixture(scope="session")
def unchanged_samples() -> list[Sample]:
    """24 pictures of four one-coloured things, by two artists."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(24):
        name = list(COLOURED)[i % 4]
        colour = tuple(int(c) for c in np.clip(np.array(COLOURED[name]) + rng.integers(-15, 15, 3), 0, 255))
        facts = {"uid": f"u{i}", "label": name, "vendor": "AB"[i // 4 % 2]}
        made.append(Sample("", png(colour), "png", f"a {name} on paper", facts))
    return made


@pytest.fixture
def samples(unchanged_samples) -> list[Sample]:
    """The same, for one test to do with as it likes."""
    return copy.deepcopy(unchanged_samples)


@pytest.fixture
def shards(tmp_path, samples):
    """The folder of two shards with `samples`."""
    write_shards(samples, tmp_path / "shards", samples_per_shard=16)
    return tmp_path / "shards"


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """The four things, each in six of 24 captions."""
    return Vocabulary(list(WNIDS.values()), [6] * 4, num_captions=24)


@pytest.fixture(scope="module")
def ray_cluster():
    """Ray with two local workers; what finds it running leaves it running."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for last in (False, False, True):  # on a busy machine the half minute that Ray gives its own processes may not do
            try:
                ray.init(
                    num_cpus=2,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=100 << 20,
                )
                break
            except Exception as error:
                if last or "timed out during startup" not in str(error):
                    raise
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def browser():
    """The Chromium that is installed here, headless; Playwright downloads none.

    For one module's tests: while Playwright runs, nothing else in the thread can start an event loop, as notebooks do.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        pytest.skip("no Chromium on PATH: install chromium, chromium-browser or google-chrome to test pages in a browser")
    quiet = ("disable-background-networking", "disable-component-update", "no-first-run")
    arguments = [f"--{flag}" for flag in ("no-sandbox", "disable-gpu", *quiet)]
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=found[0], args=arguments)
        yield launched
        launched.close()
