"""The benchmark's own arithmetic: floors, judgement, what happens to rows that fail. No figure of it is tested."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import tdsl
from benchmarks import bench, measure, programs, run, table, training
from benchmarks.bench import Bench, Floor
from benchmarks.problem import Problem
from benchmarks.results import Found, Measured, Results
from benchmarks.rows import ROWS
from tests.helpers import ROOT, python

# What an H200 was measured to do: bytes a second of a copy, operations a second of a product.
H200 = {"copy": 4.3e12, "matrix": 790e12}
META = torch.device("meta")


def given(folder: Path, **others: Any) -> Bench:
    return Bench(torch.device("cpu"), True, folder, {"copy": 1e12, "matrix": 1e12}, **others)


@pytest.mark.parametrize(
    ("row", "case", "floor"),
    [
        (1, 0, 0.383),
        (2, 0, 0.977),
        (3, 0, 32.7),
        (4, 0, 19.2),
        (5, 0, 0.250),
        (6, 0, 0.211),
        (7, 0, 0.437),
        (8, 0, 0.156),
        (9, 0, 0.98),
        (11, 0, 0.391),
        (11, 1, 3 * 0.391),
    ],
)
def test_floors(row: int, case: int, floor: float, tmp_path: Path) -> None:
    """In milliseconds: the fewest bytes and operations of each row at its full size."""
    made = ROWS[row][case](Bench(META, False, tmp_path, H200))
    assert 1e3 * (made.floor.seconds(H200) or 0) == pytest.approx(floor, rel=0.01)


def test_the_floor_of_gpt2_in_tokens_a_second(tmp_path: Path) -> None:
    made = ROWS[12][0](Bench(META, False, tmp_path, H200))
    assert made.per_call is not None
    assert made.per_call / (made.floor.seconds(H200) or 0) == pytest.approx(924e3, rel=0.01)


# Judging -------------------------------------------------------------------------------------------------------------


def problem(peers: Mapping[str, Callable[[], Any]], **others: Any) -> Problem:
    x = torch.randn(6, 40, requires_grad=True)
    weight = torch.randn(40, requires_grad=True)
    eager = lambda x, weight: torch.tanh(x) * weight  # noqa: E731
    return Problem("tanh", {"x": x, "weight": weight}, eager, lambda: eager, peers, **others)


class Wrong(torch.autograd.Function):
    """The right result and a gradient that is half of one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.tanh(x) * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return 0.5 * grad * weight / torch.cosh(x) ** 2, (grad * torch.tanh(x)).sum(0)


def refuses(x: Tensor, weight: Tensor) -> Tensor:
    raise RuntimeError("no such device")


def absent() -> Any:
    import no_such_project

    return no_such_project.tanh


def test_what_is_wrong_or_fails_is_not_timed_and_the_others_are(tmp_path: Path) -> None:
    peers = {
        "off by a little": lambda: lambda x, weight: torch.tanh(x) * weight + 1e-3,
        "wrong gradient": lambda: Wrong.apply,
        "refuses": lambda: refuses,
        "absent": absent,
        "fine": lambda: lambda x, weight: weight * x.tanh(),
    }
    found = bench.run(problem(peers), 5, given(tmp_path))
    assert {each.name: each.status for each in found.measured} == {
        "tdsl": "timed",
        "eager": "timed",
        "off by a little": "wrong",
        "wrong gradient": "wrong",
        "refuses": "failed",
        "absent": "skipped",
        "fine": "timed",
    }
    told = {each.name: each.why for each in found.measured}
    assert told["refuses"] == "RuntimeError: no such device"
    assert told["absent"] == "no_such_project is not installed"
    assert all((each.device_ms is not None) == (each.status == "timed") for each in found.measured)
    assert not list(found.problems())


def test_ours_being_wrong_is_a_problem(tmp_path: Path) -> None:
    made = problem({})
    made.ours = lambda: lambda x, weight: torch.tanh(x) * weight * 1.001
    found = bench.run(made, 5, given(tmp_path))
    assert found.measured[0].status == "wrong"
    (told,) = found.problems()
    assert told.startswith("row 5, tanh, tdsl: wrong: ")


def test_the_judge_in_pieces_is_the_judge_of_all() -> None:
    whole, pieces = (problem({}, rows=("x",), pieces=count) for count in (1, 4))
    pieces.tensors, pieces.leaves = whole.tensors, whole.leaves
    outputs = [whole.eager(*whole.tensors.values())]
    pieces.grads = whole.grads = whole.gradients(outputs)
    for a, b in zip(whole._in_float64(whole.eager), pieces._in_float64(whole.eager), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)
    mean = lambda x, weight: (torch.tanh(x) * weight).mean()  # noqa: E731
    pieces.grads = whole.grads = [torch.ones(())]
    for a, b in zip(whole._in_float64(mean), pieces._in_float64(mean), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)


def test_tensors_are_restored_before_each_call() -> None:
    made = problem({}, in_place=True)
    before = made.tensors["x"].detach().clone()
    made.restore()
    with torch.no_grad():
        made.tensors["x"].zero_()
    made.restore()
    assert torch.equal(made.tensors["x"], before)


def test_after_the_deadline_nothing_is_made(tmp_path: Path) -> None:
    found = bench.run(problem({}), 5, given(tmp_path, deadline=time.time() - 1))
    assert {(each.status, each.why) for each in found.measured} == {("skipped", "the time is up")}


def test_peers_can_be_chosen(tmp_path: Path) -> None:
    peers = {"torch.compile": lambda: torch.tanh, "Liger": lambda: lambda x, weight: torch.tanh(x) * weight}
    found = bench.run(problem(peers), 5, given(tmp_path, peers=("Liger",)))
    assert [each.name for each in found.measured] == ["tdsl", "eager", "Liger"]


# Timing --------------------------------------------------------------------------------------------------------------


class Once:
    """Fails from its fifth call on."""

    def __init__(self) -> None:
        self.calls = 0

    def prepare(self) -> None: ...

    def __call__(self) -> None:
        self.calls += 1
        if self.calls > 4:
            raise RuntimeError("enough")


class Counted(Once):
    def __call__(self) -> None:
        self.calls += 1


def test_one_that_fails_while_it_is_timed_leaves_the_others() -> None:
    candidates = {"once": Once(), "always": Counted()}
    found = measure.interleaved(candidates, measure.HostClock(), 0.0)
    assert found["once"].problem == "RuntimeError: enough"
    assert len(found["once"].device) == 1
    assert not found["always"].problem
    assert len(found["always"].device) == measure.FEWEST
    assert candidates["always"].calls == measure.FEWEST + measure.WARM_UP


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A GPU that does nothing, and what it was asked to do. An event has passed 2 ms after the one before."""
    told: list[str] = []

    class Event:
        passed = 0.0

        def __init__(self, enable_timing: bool) -> None: ...

        def record(self) -> None:
            Event.passed += 2.0
            self.at = Event.passed
            told.append("event")

        def synchronize(self) -> None: ...

        def elapsed_time(self, other: Any) -> float:
            return float(other.at - self.at)

    for name, value in {
        "Event": Event,
        "get_device_properties": lambda device: SimpleNamespace(L2_cache_size=64),
        "_sleep": lambda cycles: told.append(f"busy {cycles}"),
        "synchronize": lambda device=None: None,
        "memory_allocated": lambda device=None: 1000,
        "max_memory_allocated": lambda device=None: 5000,
        "reset_peak_memory_stats": lambda device=None: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return told


def test_a_call_on_the_device_is_timed_by_events_after_a_flush(pretended: list[str]) -> None:
    timer = measure.GpuClock(torch.device("cpu"))
    assert timer.flush.numel() == 128
    timer.flush.fill_(1)
    times = timer(lambda: pretended.append("call"), lambda: pretended.append("prepare"), 0.001)
    assert pretended == ["prepare", "busy 2000000", "event", "call", "event"]
    assert times.device == pytest.approx(0.002)
    assert times.host is not None
    assert not timer.flush.any()
    found = measure.interleaved({"a": Counted(), "b": Counted()}, timer, 0.0)
    assert found["a"].median == pytest.approx(0.002)
    assert len(found["b"].host) == measure.FEWEST
    assert measure.extra_memory(Counted(), SimpleNamespace(type="cuda")) == 4000


def test_the_distance_of_large_tensors_is_added_up_in_pieces() -> None:
    a, b = torch.randn(1001), torch.randn(1001)
    assert measure.distance(a, b, piece=64) == pytest.approx(float((a.double() - b.double()).norm()))
    with pytest.raises(ValueError, match="shape"):
        measure.distance(a, b[1:])


# Results -------------------------------------------------------------------------------------------------------------


def test_a_figure_better_than_its_floor_is_a_problem() -> None:
    found = Found(7, "a row", floor_ms=1.0, measured=[Measured("tdsl", "timed", device_ms=0.9)])
    assert list(found.problems()) == [
        "row 7, a row, tdsl: 0.9 ms is better than its floor: a bug of the benchmark",
    ]
    found.measured[0].device_ms = 1.0
    assert not list(found.problems())


def test_results_are_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timed = Measured("tdsl", "timed", error=0.5, device_ms=1.25, spread=0.01, host_ms=0.1, memory=3 << 30, calls=9)
    slower = Measured("Liger", "timed", device_ms=2.5)
    failed = Measured("other", "failed", "a reason")
    found = Found(1, "a row", 1.0, 1000, "tokens", 3.0, [timed, slower, failed])
    results = Results(tmp_path / "a.json", {"gpu": "Some GPU"}, H200, {1: "done", 2: "skipped: late"}, [found])
    results.save()
    assert Results.read(results.path) == results
    table.show(results)
    told = capsys.readouterr().out
    for text in ("Some GPU", "4.30 TB/s", "1.25", "2.00x", "80%", "3.00 GiB", "800,000 tokens/s", "row 2: skipped"):
        assert text in told


def test_a_row_that_ends_the_process_does_not_keep_others_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []

    def work(path: Path, rows: list[int], options: object, deadline: object) -> str:
        """A worker that row 2 kills."""
        results = Results.read(path)
        started.append(list(rows))
        for row in rows:
            results.rows[row] = "running" if row == 2 else "done"
            results.save()
            if row == 2:
                break
        return "the process ended with status -11"

    monkeypatch.setattr(run, "_work", work)
    assert run.main(["--rows", "1-4", "--out", str(tmp_path)]) == 1
    assert started == [[1, 2, 3, 4], [3, 4]]
    assert "PROBLEM: row 2: crashed: the process ended with status -11" in capsys.readouterr().out


def test_a_worker_that_begins_no_row_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "_work", lambda *given: "the process ended with status 1")
    assert run.main(["--rows", "1,2", "--out", str(tmp_path)]) == 1
    assert "row 1: crashed: the process ended with status 1, before it had begun" in capsys.readouterr().out


def test_row_numbers() -> None:
    assert set(run.ROWS) == set(ROWS)
    assert run.numbers("1,3-5,12-16") == [1, 3, 4, 5, 12, 15, 16]
    with pytest.raises(ValueError, match="there is no row 13"):
        run.numbers("13")


def test_no_time_means_no_row(tmp_path: Path) -> None:
    ran = python("-m", "benchmarks.run", "--dry", "--rows", "7,8", "--budget", "0.01", "--out", tmp_path, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (path,) = tmp_path.glob("*.json")
    assert set(json.loads(path.read_text(encoding="utf-8"))["rows"].values()) == {"skipped: the time is up"}


@pytest.mark.slow
def test_whole_steps_and_attention_run_dry(tmp_path: Path) -> None:
    """The other rows are run by the test of `make gpu`."""
    ran = python("-m", "benchmarks.run", "--dry", "--rows", "10,12,15", "--out", tmp_path, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    (path,) = tmp_path.glob("*.json")
    cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    assert [case["row"] for case in cases] == [10, 10, 12, 15]
    assert all(one["status"] == "timed" for case in cases for one in case["measured"][:2])
    assert [one["error"] is not None for one in cases[2]["measured"]] == [True, True, False, False]


def test_floor_is_the_greater_of_bytes_and_operations() -> None:
    assert Floor(bytes=2e12, flops=1e12).seconds({"copy": 1e12, "matrix": 1e12}) == 2.0
    assert Floor().seconds({"copy": 1e12, "matrix": 1e12}) is None


# Training steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", training.CASES)
def test_what_is_written_by_hand_is_the_program(name: str, tmp_path: Path) -> None:
    """Loss and gradients from the same weights; dropout, which draws other numbers, is left out."""
    case = training.CASES[name]
    tdsl.compile(case.program, tmp_path)
    modules = programs.loaded(tmp_path)
    by_hand = training.ByHand(case, modules["data"].batches("train", 16), every=3)
    ours = type(by_hand.model).__name__
    model = getattr(modules["model"], ours)()
    model.load_state_dict(by_hand.model.state_dict())
    batch = next(by_hand.batches)
    for each in (model, by_hand.model):
        for layer in each.modules():
            layer.dropout_p = 0.0
            layer.p = 0.0
    found, expected = modules["train"].loss(model, batch), by_hand.loss(batch)
    torch.testing.assert_close(found, expected)
    for value in (found, expected):
        value.backward()
    for (parameter, mine), theirs in zip(model.named_parameters(), by_hand.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=parameter, rtol=1e-4, atol=1e-6)


def test_steps_are_taken_in_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = training.timed(training.CASES["digits"], 3, tmp_path)
    assert {len(each) for clocked in (ours, theirs) for each in (clocked.wall, clocked.busy)} == {3 + training.WARM_UP}
    assert training.row("digits", [0.004] * 60, [0.002] * 60).split() == ["digits", "4.000", "2.000", "2.000", "2.000"]
