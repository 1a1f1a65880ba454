"""Several processes, on several hosts or on one, that share a list of work: each does its part of it.

Work is divided by number and nothing else is exchanged than, in the end, what each has done. Which processes
there are JAX knows (`jax.distributed`), under Slurm, Open MPI, Kubernetes and on TPUs by itself.
"""

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from sam2_jax.checks import read_number, read_whole, shown

Item = TypeVar("Item")

_SECONDS = 300.0
_SECONDS_BETWEEN = 0.2


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: float = _SECONDS,
) -> tuple[int, int]:
    """Join the other processes; returns which one this is, and how many there are.

    To be called before JAX computes anything. coordinator: "HOST:PORT" that process 0 listens at and the
    others reach. processes: how many there are; process: which one this is, from 0. All three may be left out
    where JAX finds them by itself. timeout: seconds in which all must have come. Raises ValueError for a
    coordinator that cannot be reached or whose port is taken, and where JAX finds no processes.
    """
    timeout = read_number("timeout", timeout, 1)
    if processes is not None:
        processes = read_whole("processes", processes, 1)
        process = None if process is None else read_whole("process", process, 0, processes - 1)
    if coordinator is not None:
        host, port = _read_address(coordinator)
        if process == 0:
            _require_free(port)
        else:
            _require_reachable(host, port, timeout)
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=int(timeout))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"JAX does not find which processes there are by itself ({error}): give coordinator, processes "
            "and process"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"the processes cannot be joined: {error}") from error
    return jax.process_index(), jax.process_count()


def _read_address(address: Any) -> tuple[str, int]:
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not host or not port.isascii() or not port.isdecimal():
        raise ValueError(
            f"coordinator must be HOST:PORT, 10.0.0.1:1234 say, of process 0; got {shown(address)}"
        )
    return host.strip("[]"), read_whole("the coordinator's port", int(port), 1, 65535)


def _require_free(port: int) -> None:
    """Refuse a port at which something listens: JAX would end the process, without a word for its user."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ValueError(
            f"the coordinator's port {port} cannot be opened here: {error.strerror or error}. Choose another "
            "one, the same for all processes"
        ) from error


def _require_reachable(host: str, port: int, timeout: float) -> None:
    """Wait for the coordinator."""
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), max(1.0, end - time.monotonic())).close()
            return
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > end:
                raise ValueError(
                    f"the coordinator {host}:{port} cannot be reached after {timeout:g} s: "
                    f"{error.strerror or error}. Process 0 must run there, and its port be open to the others"
                ) from error
            time.sleep(_SECONDS_BETWEEN)


def share(items: Iterable[Item], block: int = 1) -> Iterator[Item]:
    """This process's part of what all processes are given alike: every n-th item, or block of so many.

    A block is a batch: the same items are computed together, to the same bits, whatever number of processes
    there is. Without `initialize`, all items.
    """
    block = read_whole("block", block, 1)
    count, own = jax.process_count(), jax.process_index()
    return (item for number, item in enumerate(items) if number // block % count == own)


def gathered(value: Any) -> list[Any]:
    """What each process gave, of JSON's types, in the order of processes; all must call this."""
    if jax.process_count() == 1:
        return [value]
    own = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([own.size], np.int32))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: own.size] = own
    texts = multihost_utils.process_allgather(padded)
    return [json.loads(text[: int(size)].tobytes()) for text, size in zip(texts, sizes.ravel(), strict=True)]


def done_by_all(work: Callable[[], Any]) -> list[Any]:
    """Do this process's work; returns what each process's returned, of JSON's types.

    Raises ValueError, in all processes, if it was raised in one: none waits for another in vain.
    """
    problem: ValueError | None = None
    result = None
    try:
        result = work()
    except ValueError as error:
        problem = error
    found = gathered([result, None if problem is None else str(problem)])
    if problem is not None:
        raise problem
    for number, (_, said) in enumerate(found):
        if said is not None:
            raise ValueError(f"process {number}: {said}")
    return [result for result, _ in found]
