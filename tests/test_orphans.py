"""A process ends with the one that started it, if that was torchrun, a notebook's runner or a loader; not with a shell."""

import os
import subprocess
import sys

import pytest

CHILD = """
import os, sys, time
from catlip_lite.orphans import stop_with_launcher, stop_with_parent
if sys.argv[1] == "kernel":
    os.environ["JPY_PARENT_PID"] = str(os.getppid())
{"parent": stop_with_parent}.get(sys.argv[1], stop_with_launcher)()
print("started", flush=True)
time.sleep(float(sys.argv[2]))
print("still here", flush=True)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


def said_by_orphan(start: str, seconds: float, **environment) -> str:
    """What a process says from when its parent is killed; it would stay so long."""
    ours = {name: value for name, value in os.environ.items() if name not in ("TORCHELASTIC_RUN_ID", "JPY_PARENT_PID")}
    told = [sys.executable, "-c", PARENT, CHILD, start, str(seconds)]
    with subprocess.Popen(told, stdout=subprocess.PIPE, text=True, env=ours | environment) as parent:
        assert parent.stdout.readline() == "started\n"
        parent.kill()
        return parent.stdout.read()  # until the child ends


@pytest.mark.parametrize(
    ("start", "environment"), [("parent", {}), ("kernel", {}), ("process", {"TORCHELASTIC_RUN_ID": "none"})]
)
def test_an_orphan_stops(start, environment):
    assert said_by_orphan(start, 60, **environment) == ""


@pytest.mark.parametrize("environment", [{}, {"JPY_PARENT_PID": "1"}])
def test_a_run_from_a_shell_goes_on_without_it(environment):
    """JPY_PARENT_PID: of a shell that a notebook started."""
    assert said_by_orphan("process", 1, **environment) == "still here\n"
