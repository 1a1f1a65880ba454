"""Objects of a clip divided among devices: the same masks, and no exchange between devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "many_devices_of_a_clip.py"


@pytest.mark.slow
def test_masks_do_not_depend_on_the_number_of_devices(tmp_path: Path) -> None:
    """With a correction, an object removed, others added, a session saved and read."""
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert max(found["difference"].values()) < 1e-4
    assert set(found["exchanges"]) == set(found["shared"])
    for name, shared in found["shared"].items():
        assert set(shared) == {True}, name
        assert found["exchanges"][name] == [], name
