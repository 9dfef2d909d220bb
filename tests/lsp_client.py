"""A client of the language server: its process, and JSON-RPC over its pipes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue
from typing import IO, Any

from tests.helpers import environment

PATIENCE = 240


class Client:
    """Starts `tdsl lsp`. Notifications of the server are kept in `notified`."""

    def __init__(self, folder: Path, **capabilities: Any) -> None:
        command = [sys.executable, "-c", "import sys; from tdsl.compiler.cli import main; sys.exit(main())", "lsp"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder)
        self.folder = folder
        self.numbers = 0
        self.received: Queue[dict[str, Any] | None] = Queue()
        self.notified: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()
        root = {"processId": None, "rootUri": folder.as_uri(), "capabilities": capabilities}
        self.initialized = self.request("initialize", root)
        self.notify("initialized", {})

    def uri(self, name: str) -> str:
        return (self.folder / name).as_uri()

    def notify(self, method: str, params: Any) -> None:
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    def request(self, method: str, params: Any) -> Any:
        """The result of a request; an assertion tells its error."""
        self.numbers += 1
        self._send({"jsonrpc": "2.0", "id": self.numbers, "method": method, "params": params})
        while True:
            message = self.next()
            if "method" not in message and message.get("id") == self.numbers:
                assert "error" not in message, message["error"]
                return message.get("result")

    def next(self) -> dict[str, Any]:
        """The next message; one that is no answer is kept."""
        message = self.received.get(timeout=PATIENCE)
        assert message is not None, self._errors()
        if "method" in message:
            self.notified.append(message)
        return message

    def open(self, name: str, text: str) -> list[dict[str, Any]]:
        document = {"uri": self.uri(name), "languageId": "tdsl", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})
        return self.diagnostics(name)

    def change(self, name: str, text: str) -> list[dict[str, Any]]:
        document = {"uri": self.uri(name), "version": 2}
        self.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})
        return self.diagnostics(name)

    def diagnostics(self, name: str) -> list[dict[str, Any]]:
        """The next diagnostics of a file."""
        while True:
            message = self.next()
            is_it = message.get("method") == "textDocument/publishDiagnostics"
            if is_it and message["params"]["uri"] == self.uri(name):
                found: list[dict[str, Any]] = message["params"]["diagnostics"]
                return found

    def at(self, method: str, name: str, text: str, mark: str, after: bool = False, **more: Any) -> Any:
        """A request about the place of the one `mark` in a text, or the place after it."""
        assert text.count(mark) == 1, mark
        before = text[: text.index(mark) + (len(mark) if after else 0)]
        line = before.count("\n")
        column = len(before.rpartition("\n")[2].encode("utf-16-le")) // 2
        place = {"textDocument": {"uri": self.uri(name)}, "position": {"line": line, "character": column}}
        return self.request(f"textDocument/{method}", {**place, **more})

    def stop(self) -> int:
        """Shut down in the order that the protocol wants; the exit status."""
        self.request("shutdown", None)
        self.notify("exit", None)
        return self.process.wait(timeout=PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def _read(self) -> None:
        stream: IO[bytes] | None = self.process.stdout
        assert stream is not None
        while True:
            size = 0
            while (line := stream.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            if not size:
                self.received.put(None)
                return
            self.received.put(json.loads(stream.read(size)))

    def _errors(self) -> str:
        assert self.process.stderr is not None
        self.process.wait(timeout=PATIENCE)
        return self.process.stderr.read().decode()
