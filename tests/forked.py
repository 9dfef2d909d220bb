"""Processes for tests without the seconds in which each would import torch: forked from one that has done it.

`run` is `subprocess.run` for Python's own command lines: a script, `-m MODULE` or `-c CODE`. The process that forks is
started at the first, ends with the test run, and runs nothing itself. There is one for Triton's interpreter, which is
chosen as Triton is imported.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from tdsl.compiler.commands import process

# What the processes of tests import; what a test has of its own is imported in its process.
PRELOADED = (
    "torch._dynamo", "torch.fx.experimental.symbolic_shapes", "torchmetrics", "rich.console", "triton.language",
    "safetensors.torch", "pyarrow.csv", "pyarrow.parquet", "jinja2", "tdsl.compiler.cli", "tdsl.compiler.driver",
    "tdsl.compiler.emit.project", "tdsl.runtime.launch", "tdsl.runtime.multi_tensor", "tdsl.runtime.report", "tdsl.runtime.verify",
)  # fmt: skip
LONGEST = 1800  # seconds


def run(
    args: Sequence[str], environment: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; a negative status is the signal that ended it."""
    with tempfile.TemporaryDirectory(prefix="tdsl-") as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        request = {"args": [*args], "environment": dict(environment), "cwd": str(cwd or Path.cwd())}
        status = _server(environment.get("TRITON_INTERPRET", "0")).ask(request | {"files": [str(out), str(errors)]})
        told = [path.read_text(encoding="utf-8", errors="replace") for path in (out, errors)]
    return subprocess.CompletedProcess([sys.executable, *args], status, *told)


class Server:
    """The process that forks, and the socket to it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
        root = Path(__file__).resolve().parent.parent
        self.process = subprocess.Popen(command, env=environment, cwd=root, pass_fds=[theirs.fileno()])
        theirs.close()
        self.socket = ours
        self.stream = ours.makefile("rw", encoding="utf-8")

    def ask(self, request: dict[str, Any]) -> int:
        self.stream.write(json.dumps(request) + "\n")
        self.stream.flush()
        answer = self.stream.readline()
        assert answer, "the process that forks has ended"
        return int(answer)


@cache
def _server(interpret: str) -> Server:
    from tests.helpers import environment

    return Server(environment(**({"TRITON_INTERPRET": "1"} if interpret == "1" else {})))


# In the process that forks ---------------------------------------------------------------------------------------------


def serve(number: int) -> None:
    """Fork for each request; returns in a child, once it is what the request wants, and runs it."""
    channel = socket.socket(fileno=number)
    stream = channel.makefile("rw", encoding="utf-8")
    while line := stream.readline():
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            channel.detach()
            os.close(number)
            _become(request)
            execute(request["args"])
        stream.write(f"{_ended(child)}\n")
        stream.flush()


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(request: Mapping[str, Any]) -> None:
    signal.alarm(LONGEST)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path in ((0, os.devnull), (1, request["files"][0]), (2, request["files"][1])):
        file = os.open(path, flags if number else os.O_RDONLY, 0o600)
        os.dup2(file, number)
        os.close(file)


def execute(args: Sequence[str]) -> NoReturn:
    """Be `python ARGS`, to the end of the process; what was imported is not taken down, which takes a second."""
    try:
        _run(args)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(args: Sequence[str]) -> None:
    # What the command line starts is Python again.
    process.call = _call
    args = args[2:] if args[:2] == ["-W", "ignore"] else args
    if args[0] == "-m":
        sys.argv, sys.path[0] = [*args[1:]], os.getcwd()
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    elif args[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *args[2:]], ""
        exec(compile(args[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = [*args], str(Path(args[0]).resolve().parent)
        runpy.run_path(args[0], run_name="__main__")


CALL = process.call


def _call(command: Sequence[str], env: Mapping[str, str], *, imports: bool = False) -> int:
    """`process.call` of Python, unless that is for Triton's interpreter and this process is not, or the reverse."""
    if command[0] != sys.executable or env.get("TRITON_INTERPRET") != os.environ.get("TRITON_INTERPRET"):
        return CALL(command, env, imports=imports)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.environ.update(env)
        sys.path[1:1] = env["PYTHONPATH"].split(os.pathsep)
        execute(list(command[1:]))
    return _ended(child)


if __name__ == "__main__":
    for name in PRELOADED:
        __import__(name)
    if os.environ.get("TRITON_INTERPRET") == "1":
        from tests import quick_interpreter

        quick_interpreter.install()
    gc.freeze()  # a collection would write to every page, and so copy it
    serve(int(sys.argv[1]))
