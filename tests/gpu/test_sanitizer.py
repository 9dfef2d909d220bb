"""Each kind of kernel under compute-sanitizer: no access outside of its tensors, no race in shared memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, environment

TOOL = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
TOOLS = ("memcheck", "racecheck")
LIMIT = 170
FAULTS = 66


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Status and words of each tool, side by side, once the kernels have been compiled without it."""
    if not Path(TOOL).exists():
        pytest.skip("compute-sanitizer is not installed")
    folder = tmp_path_factory.mktemp("kinds")
    # No cache of memory: a tensor's neighbours would hide what is read beyond it.
    env = environment(PYTORCH_NO_CUDA_MEMORY_CACHING="1", CUDA_MODULE_LOADING="LAZY")
    plain = [sys.executable, "-m", "tests.gpu.kinds", str(folder)]
    subprocess.run(plain, env=env, cwd=ROOT, check=True, timeout=LIMIT, capture_output=True)
    started = {}
    for tool in TOOLS:
        options = ["--tool", tool, "--error-exitcode", str(FAULTS), "--print-limit", "10"]
        command = [TOOL, *options, *plain[:-1], str(folder / tool)]
        started[tool] = subprocess.Popen(
            command, env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    return {tool: _ended(process) for tool, process in started.items()}


def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        told, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        return -1, process.communicate()[0]
    return process.returncode, told


@pytest.mark.parametrize("tool", TOOLS)
def test_no_fault(tool: str, watched: dict[str, tuple[int, str]]) -> None:
    status, told = watched[tool]
    if "Device not supported" in told:
        pytest.skip("compute-sanitizer does not support this machine")
    assert status != -1, f"it took more than {LIMIT} s: {told[-2000:]}"
    assert status == 0, told[-6000:]
    assert "ran " in told
