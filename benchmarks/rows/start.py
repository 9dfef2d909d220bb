"""Row 16: how long until the first step of row 12 is done, from the command on, with caches empty and full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loops
from benchmarks.bench import Bench, Case
from benchmarks.machine import ROOT
from benchmarks.measure import Candidate, Samples, message
from benchmarks.programs import PROGRAMS, with_constants
from benchmarks.rows.optimizer import SHAPE, SMALL

TDSL = "import sys; from tdsl.compiler.cli import main; sys.exit(main())"
LIMIT = 180.0


class Process:
    """A command, and what tells that its first step is done. Its caches are a folder of its own."""

    def __init__(self, command: list[str], done: Callable[[], bool], caches: Path, fresh: bool) -> None:
        self.command = command
        self.done = done
        self.caches = caches
        self.fresh = fresh

    def prepare(self) -> None:
        if self.fresh:
            shutil.rmtree(self.caches, ignore_errors=True)

    def __call__(self) -> float:
        """Seconds from its start until it is done; it is then killed: what it saves at its end is not meant."""
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "TRITON_CACHE_DIR": str(self.caches / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.caches / "inductor"),
        }
        start = time.perf_counter()
        with (self.caches.with_suffix(".log")).open("w") as told:
            process = subprocess.Popen(self.command, env=env, cwd=ROOT, stdout=told, stderr=subprocess.STDOUT)
            try:
                return self._waited(process, start)
            finally:
                process.kill()
                process.wait()

    def _waited(self, process: subprocess.Popen[bytes], start: float) -> float:
        while not self.done():
            status = process.poll()
            if status is not None and not self.done():
                told = self.caches.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"it ended with status {status} before its first step: {told[-300:]}")
            if time.perf_counter() - start > LIMIT:
                raise TimeoutError(f"no step after {LIMIT:.0f} s")
            time.sleep(0.005)
        return time.perf_counter() - start


class FirstStep(Case):
    """Each is started once, as a person starts it, cold and then warm. Importing torch is in all, and told alone."""

    def __init__(self, bench: Bench) -> None:
        self.title = "from the command to the first finished step of GPT-2"
        self.bench = bench
        self.shape = SMALL if bench.dry else SHAPE
        self.batch = bench.size(32, 2)
        rows, window = self.batch, self.shape["window"]
        tokens, targets = np.random.default_rng(0).integers(0, self.shape["vocab"], (2, rows, window))
        self.data = bench.folder / "tokens.npz"
        np.savez(self.data, tokens=tokens, targets=targets)

    def candidates(self) -> Mapping[str, Callable[[], Candidate]]:
        found: dict[str, Callable[[], Candidate]] = {}
        for heat in ("cold", "warm"):
            found[f"tdsl train, {heat}"] = lambda heat=heat: self._ours(heat == "cold")
            found[f"torch.compile, {heat}"] = lambda heat=heat: self._compiled(heat == "cold")
        return {**found, "import torch, triton": self._imports}

    def error(self, name: str, candidate: Candidate) -> None:
        """Row 12 compares what they compute."""

    def timed(self, candidates: Mapping[str, Any], bench: Bench) -> Mapping[str, Samples]:
        found = {}
        for name, process in candidates.items():
            found[name] = Samples()
            process.prepare()
            try:
                found[name].device.append(process())
            except Exception as error:
                found[name].problem = message(error)
        return found

    def memory(self, candidate: Candidate, bench: Bench) -> None:
        """In other processes."""

    def _ours(self, cold: bool) -> Process:
        text = (PROGRAMS / "gpt2.model").read_text(encoding="utf-8")
        source = self.bench.folder / "gpt2.model"
        source.write_text(with_constants(text, loops.numbered({**self.shape, "batch": self.batch})), encoding="utf-8")
        out = self.bench.folder / f"first-{'cold' if cold else 'warm'}"
        log = out / "log.jsonl"
        command = [sys.executable, "-c", TDSL, "train", str(source), "--out", str(out), "--steps", "1"]
        return Process(command, lambda: log.exists() and "\n" in log.read_text(), self.bench.folder / "ours", cold)

    def _compiled(self, cold: bool) -> Process:
        caches = self.bench.folder / "compiled"
        log = caches.with_suffix(".log")
        command = [sys.executable, "-m", "benchmarks.first_step", str(self.data), str(self.batch)]
        return Process([*command, json.dumps(self.shape)], lambda: "the loss was" in log.read_text(), caches, cold)

    def _imports(self) -> Process:
        caches = self.bench.folder / "imports"
        log = caches.with_suffix(".log")
        command = [sys.executable, "-c", "import torch, triton; print('imported', flush=True)"]
        return Process(command, lambda: "imported" in log.read_text(), caches, False)
