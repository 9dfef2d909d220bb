"""What a command starts ends as the command is asked to: no script goes on alone, and none loses its checkpoint."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tdsl.compiler.commands import process
from tdsl.runtime import checkpoint
from tests.helpers import environment, python, tdsl
from tests.training_runs import EXAMPLES, PROGRAM, logged

TDSL = "import sys; from tdsl.compiler.cli import main; sys.exit(main())"
LONG = ("--steps", "1000000", "--set", "checkpoint.every=1000000", "--device", "cpu")
MOST = 300


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program whose data are beside it."""
    (tmp_path / "data").symlink_to(EXAMPLES / "data")
    (tmp_path / "digits.model").write_text(PROGRAM, encoding="utf-8")
    return tmp_path / "digits.model"


def trained(program: Path, out: Path, *before: str) -> subprocess.Popen[str]:
    """`tdsl train`, once its log has lines; in a session of its own."""
    command = [*before, sys.executable, "-c", TDSL, "train", str(program), "--out", str(out), "--allow-outside", *LONG]
    with out.with_name("told").open("w") as told:
        started = subprocess.Popen(
            command, env=environment(), stdout=told, stderr=told, text=True, start_new_session=True
        )
    wait_for_lines(out, started)
    return started


def wait_for_lines(out: Path, started: subprocess.Popen[str]) -> None:
    until = time.monotonic() + MOST
    while started.poll() is None and not logged(out) and time.monotonic() < until:
        time.sleep(0.01)
    assert started.poll() is None, out.with_name("told").read_text()


def members(session: int) -> Iterator[int]:
    """The processes of a session that have not ended."""
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, found = each.read_text().rpartition(")")[2].split()[:4]
            if int(found) == session and state not in "ZX":
                yield int(each.parent.name)


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def pending(pid: int) -> set[int]:
    """The signals that a process has been sent, and not taken yet."""
    (mask,) = re.findall(r"ShdPnd:\t(\w+)", status(pid))
    return {number for number in range(1, 32) if int(mask, 16) >> (number - 1) & 1}


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + MOST
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def assert_stopped(out: Path, session: int) -> None:
    """There is a checkpoint of the last step, and nothing that goes on."""
    found = checkpoint.latest_good(out / "checkpoints")
    assert found is not None
    assert found.step >= logged(out)[-1]["step"]
    assert list(members(session)) == []
    assert "Traceback" not in out.with_name("told").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_command_stops_its_run_with_a_checkpoint(
    number: signal.Signals, program: Path, tmp_path: Path
) -> None:
    started = trained(program, tmp_path / "run", "env", "--default-signal=HUP,INT")
    started.send_signal(number)
    assert started.wait(MOST) == 128 + number
    assert_stopped(tmp_path / "run", started.pid)


def test_a_terminal_interrupts_command_and_run_at_once(program: Path, tmp_path: Path) -> None:
    """Ctrl-C comes to both, and is one interrupt, however long a step: a second would end the run in the midst of it."""
    started = trained(program, tmp_path / "run", "env", "--default-signal=INT")
    (script,) = set(members(started.pid)) - {started.pid}
    os.kill(script, signal.SIGSTOP)
    wait_until(lambda: "State:\tT" in status(script))
    os.killpg(started.pid, signal.SIGINT)
    wait_until(lambda: pending(script) == {signal.SIGINT, signal.SIGTERM})
    os.kill(script, signal.SIGCONT)
    assert started.wait(MOST) == 128 + signal.SIGINT
    assert_stopped(tmp_path / "run", started.pid)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_interrupt_while_a_script_imports_ends_it_without_a_word(
    command: str, program: Path, tmp_path: Path
) -> None:
    """What it imports is beside the program, and takes its time."""
    text = PROGRAM.replace("MLP(classes=Digits.num_classes)", "Whole()") + (
        'extern module Slow() : float[B, 64] -> float[B, 10] = "slow:Slow"\n'
        "module Whole() {\n    inner = Slow()\n"
        "    forward(x: float[B, 64]) -> float[B, 10] { return inner(x) }\n}\n"
    )
    program.write_text(text, encoding="utf-8")
    (tmp_path / "slow.py").write_text("import time\nopen('importing', 'w').close()\ntime.sleep(60)\n")
    line = [sys.executable, "-c", TDSL, command, str(program), "--out", str(tmp_path / "run"), "--allow-outside"]
    with (tmp_path / "told").open("w+") as told:
        started = subprocess.Popen(
            ["env", "--default-signal=INT", *line], env=environment(), cwd=tmp_path, stdout=told, stderr=told,
            start_new_session=True,
        )  # fmt: skip
        wait_until(lambda: (tmp_path / "importing").exists())
        (script,) = set(members(started.pid)) - {started.pid}
        os.kill(script, signal.SIGINT)  # comes first, as from a terminal it may
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait(MOST) == 128 + signal.SIGINT
        told.seek(0)
        assert re.findall(r"Traceback|\w*(?:Interrupt|Error)\b", told.read()) == []
    assert list(members(started.pid)) == []


def test_an_interrupt_that_came_before_it_was_let_through_is_not_lost() -> None:
    """Of what a script was sent while it imported."""
    script = (
        "import os, signal; os.kill(os.getpid(), signal.SIGINT); from tdsl.runtime.run import reported;"
        "raise SystemExit(reported('net', lambda: 7, memory=''))"
    )
    assert process.call([sys.executable, "-c", script], environment(), imports=True) == 128 + signal.SIGINT


def test_arrow_is_interrupted_as_python_is(tmp_path: Path) -> None:
    """Arrow has a handler of its own for as long as it reads."""
    (tmp_path / "a.csv").write_text("x\n" + "1.25\n" * 4_000_000)
    script = (
        "import os, signal, threading, time; from pathlib import Path; from tdsl.runtime import sources;"
        "import pyarrow.csv; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from tdsl.runtime.run import reported;"
        "wait = lambda: (time.sleep(0.02), os.kill(os.getpid(), signal.SIGINT));"
        "threading.Thread(target=wait).start();"
        f"read = lambda: [sources.csv(Path({str(tmp_path)!r}), 'a.csv') for _ in range(100)] and 0;"
        "raise SystemExit(reported('net', read, memory=''))"
    )
    ran = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (128 + signal.SIGINT, "")


def test_a_run_outlives_its_terminal_under_nohup(program: Path, tmp_path: Path) -> None:
    started = trained(program, tmp_path / "run", "nohup")
    before = logged(tmp_path / "run")[-1]["step"]
    os.killpg(started.pid, signal.SIGHUP)
    until = time.monotonic() + MOST
    while logged(tmp_path / "run")[-1]["step"] < before + 100 and time.monotonic() < until:
        assert started.poll() is None
        time.sleep(0.01)
    started.terminate()
    assert started.wait(MOST) == 128 + signal.SIGTERM
    assert_stopped(tmp_path / "run", started.pid)


def test_a_terminal_that_goes_leaves_a_checkpoint(program: Path, tmp_path: Path) -> None:
    """What the run says goes to a terminal, and fails once that is gone."""
    out = tmp_path / "run"
    command = [sys.executable, "-c", TDSL, "train", str(program), "--out", str(out), "--allow-outside", *LONG]
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execve(sys.executable, command, environment())
    os.set_blocking(terminal, False)
    until = time.monotonic() + MOST
    while not logged(out) and time.monotonic() < until:
        with suppress(BlockingIOError):
            os.read(terminal, 1 << 16)
        time.sleep(0.01)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
    found = checkpoint.latest_good(out / "checkpoints")
    assert found is not None
    assert found.step >= logged(out)[-1]["step"]
    assert list(members(child)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_signal_that_ends_a_script_is_its_status(number: signal.Signals) -> None:
    assert process.call([sys.executable, "-c", f"import os; os.kill(os.getpid(), {number})"], {}) == 128 + number


def test_what_ends_a_script_from_outside_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    for number, words in ((signal.SIGKILL, "SIGKILL, as a system does that is out of memory"), (signal.SIGTERM, None)):
        process.call([sys.executable, "-c", f"import os; os.kill(os.getpid(), {number})"], {})
        assert capfd.readouterr().err == (f"tdsl: the script was ended by {words}\n" if words else "")


def test_signals_are_handled_as_before_once_a_script_has_ended() -> None:
    before = [signal.getsignal(number) for number in process.ENDS]
    assert process.call([sys.executable, "-c", "raise SystemExit(3)"], {}) == 3
    assert [signal.getsignal(number) for number in process.ENDS] == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_run_of_another_model_is_told_in_a_line(program: Path, tmp_path: Path) -> None:
    other = program.with_name("renamed.model")
    other.write_text(re.sub(r"\bup\b", "rise", PROGRAM), encoding="utf-8")
    options = ("--out", str(tmp_path / "run"), "--allow-outside", "--steps", "10", "--device", "cpu")
    assert tdsl("train", str(program), *options).returncode == 0
    refused = tdsl("train", str(other), *options)
    assert refused.returncode == 1
    told = "what is trained lacks `up.weight`, `up.bias` and has also `rise.weight`, `rise.bias`"
    assert told in " ".join(refused.stderr.split())


def test_a_start_that_is_refused_leaves_the_code_of_the_run_that_is_there(program: Path, tmp_path: Path) -> None:
    other = program.with_name("other.model")
    predicts = PROGRAM.replace(
        "    compare(batch)", "    predict(batch) { return model(batch.pixels) }\n    compare(batch)"
    )
    other.write_text(
        predicts.replace("hidden: int = 32", "hidden: int = 48").replace("AdamW", "Adam"), encoding="utf-8"
    )
    options = ("--out", str(tmp_path / "run"), "--allow-outside", "--steps", "10", "--device", "cpu")
    emitted = tmp_path / "run" / "emitted"
    assert tdsl("train", str(program), *options).returncode == 0
    before = contents(emitted)
    refused = tdsl("train", str(other), *options)
    assert refused.returncode == 1
    assert "is of a run with other settings" in refused.stderr
    assert "parameters" not in refused.stderr  # they have the same names
    assert contents(emitted) == before
    assert "predict.py" not in before
    evaluated = python(str(emitted / "evaluate.py"), "--out", str(tmp_path / "run"), "--device", "cpu")
    assert evaluated.returncode == 0, evaluated.stderr
    assert tdsl("train", str(other), *options, "--resume", "none").returncode == 0
    assert "predict.py" in contents(emitted)
    assert (emitted / "program.model").read_text() == other.read_text()
