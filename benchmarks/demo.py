"""How long does a click on the demo's page take, alone and when many click at once? Over loopback.

python benchmarks/demo.py --write

A server with the embedded model; clients that click, and click again as soon as they are answered, a new
object or a correction by turns. Needs the extra `demo`, and Linux, whose /proc says what memory is resident.
"""

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.common import parser, report, setting, table

# Of the load, before the memory is read for the first time.
_SETTLING = 0.2


class Client:
    """One page: a connection of its own, and clicks on the sample picture."""

    def __init__(self, port: int, seed: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._dice = random.Random(seed)
        self._connection.request("GET", "/")
        page = self._connection.getresponse()
        page.read()
        self._headers = {"Cookie": page.headers["Set-Cookie"].partition(";")[0]}
        medium = json.loads(self._asked("GET", "/api/state"))["opened"][0]
        self._path, self._size = f"/api/media/{medium['id']}/predict", (medium["width"], medium["height"])
        self._clicks: list[list[float]] = []
        self._previous: str | None = None
        # Milliseconds of each click until it was answered, and what of it was the model's own.
        self.answered: list[tuple[float, float]] = []
        self.errors: list[str] = []

    def click(self) -> None:
        """Click on something new, or correct it, and wait for the mask."""
        if len(self._clicks) > 1:
            self._clicks, self._previous = [], None
        self._clicks.append([self._dice.uniform(0, side) for side in self._size])
        labels = [1, 0][: len(self._clicks)]
        message = {"points": self._clicks, "labels": labels, "previous": self._previous}
        start = time.perf_counter()
        try:
            answer = json.loads(self._asked("POST", self._path, json.dumps(message)))
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.errors.append(repr(error))
            return
        self.answered.append((1000 * (time.perf_counter() - start), answer["milliseconds"]))
        self._previous = answer["keys"][answer["best"]]

    def _asked(self, method: str, path: str, body: str | None = None) -> bytes:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {content[:200]!r}")
        return content


@contextmanager
def _serving(arguments: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """The command in a process of its own: its id and its port."""
    command = [sys.executable, "-m", "sam2_jax", "demo", "--port", "0", "--model", arguments.model, "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r":(\d+)/", line)
        try:
            if found is None:
                raise RuntimeError(f"{' '.join(command)} failed: {line}{process.stderr.read()}")
            yield process.pid, int(found[1])
        finally:
            process.terminate()


def _resident(pid: int) -> float:
    """Memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _clicking(pid: int, clients: list[Client], seconds: float) -> tuple[float, float]:
    """Let clients click for some time; memory of the server after the first of it and in the end, in MB."""
    start = time.monotonic()

    def work(client: Client) -> None:
        while time.monotonic() - start < seconds:
            client.click()

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(_SETTLING * seconds)
    first = _resident(pid)
    for thread in threads:
        thread.join()
    return first, _resident(pid)


def _row(clients: list[Client], seconds: float, memory: tuple[float, float]) -> list[str]:
    times = sorted(taken for client in clients for taken, _ in client.answered)
    own = statistics.median(model for client in clients for _, model in client.answered)
    above = statistics.median(taken - model for client in clients for taken, model in client.answered)
    counts = [len(client.answered) for client in clients]
    return [
        str(len(clients)),
        str(len(times)),
        str(sum(len(client.errors) for client in clients)),
        f"{len(times) / seconds:.1f}",
        f"{statistics.median(times):.0f}",
        f"{times[int(0.95 * len(times))]:.0f}",
        f"{own:.1f}",
        f"{above:.1f}",
        f"{min(counts)} - {max(counts)}",
        f"{memory[0]:.0f}",
        f"{memory[1]:.0f}",
    ]


def main() -> None:
    """Measure, print the table, and with --write put it into RESULTS.md."""
    options = parser(__doc__, image_size=False)
    options.add_argument("--model", default="embedded")
    options.add_argument("--clients", type=int, default=20)
    options.add_argument("--seconds", type=float, default=60)
    arguments = options.parse_args()
    rows: list[list[str]] = []
    errors: list[Any] = []
    with _serving(arguments) as (pid, port):
        warm = Client(port, 0)
        for _ in range(8):
            warm.click()
        for count, seconds in ((1, arguments.seconds / 6), (arguments.clients, arguments.seconds)):
            clients = [Client(port, seed) for seed in range(count)]
            memory = _clicking(pid, clients, seconds)
            rows.append(_row(clients, seconds, memory))
            errors += [error for client in clients for error in client.errors]
    head = [
        *("clients", "clicks", "errors", "clicks/s", "median, ms", "95th, ms", "the model's own, ms"),
        *("above it, ms", "clicks of a client", "resident, MB", "in the end, MB"),
    ]
    text = (
        f"## Demo\n\n`python benchmarks/demo.py --write`: clicks on the page's server over loopback, "
        f"{arguments.model} model, {arguments.seconds:.0f} s, a client's next click as soon as the last is "
        f"answered; for many, the time above the model's own is that of waiting for the others. {setting()}."
        f"\n\n{table(head, rows)}"
    )
    report("demo", text, arguments.write)
    for error in errors[:5]:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
