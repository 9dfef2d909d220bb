"""`make gpu` where there is no GPU: the same steps, in Triton's interpreter and at tiny sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, environment


@pytest.mark.slow
def test_all_steps_run_without_a_gpu(tmp_path: Path) -> None:
    command = ["make", "--no-print-directory", "gpu", "DRY=1", f"GPU_PYTHON={sys.executable}", f"OUT={tmp_path}"]
    ran = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-3000:]
    steps = [line.partition(": ") for line in ran.stdout.splitlines()[-3:]]
    assert [name for name, _, _ in steps] == ["tests that need a GPU", "tdsl verify on the examples", "benchmark"]
    assert all(how.startswith("passed after ") for _, _, how in steps)
    (found,) = tmp_path.glob("dry-*.json")
    rows = json.loads(found.read_text(encoding="utf-8"))["rows"]
    assert rows == {str(row): "done" for row in (*range(1, 10), 11)}
