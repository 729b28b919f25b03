"""Several processes as one job: how they find each other, and who is missing."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from neurolm_jax.errors import JobError, UserError

COORDINATOR, COUNT, NUMBER = VARIABLES = ("NEUROLM_COORDINATOR", "NEUROLM_PROCESSES", "NEUROLM_PROCESS")
SECONDS = "NEUROLM_WAIT"
WAIT = 45.0  # seconds for all to arrive, unless said otherwise
LONG = 24 * 3600.0  # seconds that processes wait for one that works alone
DONE = "done"
GRACE = 10.0  # seconds in which what has ended another process may end this one too, for its own reason
# Seconds without a sign of life, after which a process is given up and the others end; on a machine that is asked too
# much, many pass. One that dies is noticed at once, by its connection.
LOST = 120


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """This process as one of its job, if its launcher says that there are others, while the block lasts. One that is
    gone before its block ended well takes all others with it, with code 1, instead of being waited for.
    """
    with contextlib.closing(join()) as peers:
        yield
        peers.leave()


def join(environment: Mapping[str, str] = os.environ, wait: float | None = None) -> "Peers":
    """Make this process one of its job, if its launcher says that there are others; the connections to those.

    ``NEUROLM_COORDINATOR=HOST:PORT NEUROLM_PROCESSES=N NEUROLM_PROCESS=I`` tells so, the host being that of process 0;
    or ``NEUROLM_COORDINATOR=auto`` where JAX can find out (TPU slices, Open MPI). ``NEUROLM_WAIT`` is in seconds, for
    machines that are not ready at the same time.

    Raises:
      UserError: variables that make no sense.
      JobError: a process did not arrive in time; process 0 tells which.
    """
    address = environment.get(COORDINATOR)
    if not address:
        return Peers({}, 1)
    wait = _seconds(environment) if wait is None else wait
    import jax

    if address == "auto":
        try:
            jax.distributed.initialize(initialization_timeout=round(wait), heartbeat_timeout_seconds=LOST)
        except ValueError as error:
            others = f"set {COORDINATOR}=HOST:PORT, {COUNT} and {NUMBER}, or none of them"
            raise UserError(f"{COORDINATOR}=auto: JAX finds no job of several processes here; {others}") from error
        return Peers({}, 1)  # JAX notices for itself who is lost
    host, port, count, number = _read(environment)
    if count == 1:
        return Peers({}, 1)
    deadline = time.monotonic() + wait
    if number == 0:
        connections = _gather(port, count, deadline)
    else:
        connections = {0: _report(host, port, count, number, deadline)}
    # On CPUs, programs in flight at one time may wait for each other's messages, each process for another's.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    seconds = {"initialization_timeout": round(wait), "heartbeat_timeout_seconds": LOST}
    jax.distributed.initialize(address, count, number, **seconds)
    return Peers(connections, count)


def meet(name: str) -> None:
    """Wait for all processes of the job to come to the same place, each of which has a name of its own.

    They talk through their coordinator alone: no device waits, and one that has died is noticed as ever.
    """
    import jax

    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        multihost.sync_global_processes(name, timeout=round(LONG), processes=set(range(jax.process_count())))


def say(text: str) -> None:
    """Print once, however many processes there are."""
    import jax

    if jax.process_index() == 0:
        print(text)


def _read(environment):
    given = " ".join(f"{name}={environment.get(name, '')}" for name in VARIABLES)
    host, _, port = environment[COORDINATOR].rpartition(":")
    try:
        port, count, number = int(port), int(environment[COUNT]), int(environment[NUMBER])
    except (KeyError, ValueError) as error:
        raise UserError(f"{given}: want HOST:PORT, the number of processes, and this one's from 0") from error
    if not (host and 0 <= number < count):
        raise UserError(f"{given}: want HOST:PORT, and a process from 0 to the number of processes less 1")
    return host, port, count, number


def _seconds(environment):
    try:
        wait = float(environment.get(SECONDS, WAIT))
    except ValueError:
        wait = 0.0
    if not 1 <= wait < LONG:
        raise UserError(f"{SECONDS}={environment[SECONDS]}: want seconds, 1 or more")
    return wait


class Peers:
    """Connections that last as long as the processes at their other ends: a star around process 0."""

    def __init__(self, connections: Mapping[int, socket.socket], count: int):
        self._connections, self._count = dict(connections), count
        self._left = threading.Event()
        for number, connection in self._connections.items():
            connection.settimeout(None)
            threading.Thread(target=self._watch, args=(number, connection), daemon=True).start()

    def leave(self) -> None:
        """Tell the others that this one is done."""
        self._left.set()
        _send(self._connections, DONE)

    def close(self) -> None:
        self._left.set()
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _watch(self, number, connection):
        told = b""
        with contextlib.suppress(OSError):
            while more := connection.recv(64):
                told += more
        if told.endswith(DONE.encode()) or self._left.wait(GRACE):
            return
        print(f"error: process {number} of {self._count} is lost, so this one ends too", file=sys.stderr, flush=True)
        os._exit(1)


def _gather(port, count, deadline):
    """As process 0: wait until all others have reported, then let them go on; the connections to them."""
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        raise JobError(f"port {port} cannot be used ({error.strerror}); choose another {COORDINATOR}") from error
    with server, contextlib.ExitStack() as stack:
        arrived: dict[int, socket.socket] = {}
        while len(arrived) < count - 1:
            missing = ", ".join(str(i) for i in range(1, count) if i not in arrived)
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                _send(arrived, f"process {missing} of {count} did not arrive; see its log")
                raise JobError(f"process {missing} of {count} did not arrive; see its log") from None
            connection.settimeout(5)
            with contextlib.suppress(OSError):  # a stranger who says nothing, or hangs up
                said = connection.recv(64).decode(errors="replace")
                number = next((i for i in range(1, count) if said == f"neurolm {i} {count}"), None)
                if number is not None:
                    arrived[number] = connection
        _send(arrived, "go")
        stack.pop_all()
        return arrived


def _send(arrived, text):
    for connection in arrived.values():
        with contextlib.suppress(OSError):
            connection.sendall(text.encode())


def _report(host, port, count, number, deadline):
    """As another process: tell process 0, and wait for its word; the connection to it."""
    while True:
        with contextlib.ExitStack() as stack:
            word = b""
            with contextlib.suppress(OSError):
                patience = max(deadline - time.monotonic(), 0.1)
                connection = stack.enter_context(socket.create_connection((host, port), timeout=patience))
                connection.sendall(f"neurolm {number} {count}".encode())
                connection.settimeout(max(deadline - time.monotonic(), 0.1) + 5)
                word = connection.recv(256)
            if word == b"go":
                stack.pop_all()
                return connection
        if word.startswith(b"process "):
            raise JobError(word.decode())
        if time.monotonic() > deadline:  # others may answer there, such as the coordinator of a job that is ending
            raise JobError(f"process {number} of {count}: process 0 is not at {host}:{port}; see its log")
        time.sleep(0.2)
