"""The same function over many items: in this process, on local processes, or on a running dask cluster."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from neurolm_jax.errors import UserError

AHEAD = 8  # tasks handed out for each worker at a time


@contextlib.contextmanager
def mapping(workers: int, scheduler: str | None) -> Iterator[Callable]:
    """Yields ``run(function, items) -> iterator of (item, result or WorkerLost)``, in the order of completion.

    Args:
      workers: local processes; 0 works in this one.
      scheduler: address of a running ``dask.distributed`` scheduler, whose workers share this file system.
    """
    if not workers and not scheduler:
        yield lambda function, items: ((item, function(item)) for item in items)
        return
    try:
        import distributed
    except ImportError as error:
        raise UserError("--workers and --scheduler need dask: pip install distributed") from error
    logging.getLogger("distributed").setLevel(logging.ERROR)  # what matters is said by the manifest
    with contextlib.ExitStack() as stack:
        if scheduler:
            try:
                client = distributed.Client(scheduler, timeout=10)
            except (OSError, ValueError) as error:
                raise UserError(f"--scheduler {scheduler}: no dask scheduler answers there ({error})") from error
        else:
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit="auto"
            )
            client = distributed.Client(stack.enter_context(cluster))
        stack.enter_context(client)
        yield lambda function, items: _run(client, function, items)


class WorkerLost(Exception):
    """The processes that worked on an item died, again and again."""


def _run(client, function, items: Sequence[Any]):
    import distributed

    waiting = iter(items)
    tasks = distributed.as_completed([])
    item_of = {}

    def hand_out(count):
        for _, item in zip(range(count), waiting):
            future = client.submit(function, item, pure=False)
            item_of[future.key] = item
            tasks.add(future)

    hand_out(AHEAD * max(1, len(client.scheduler_info()["workers"])))
    for future in tasks:
        item = item_of.pop(future.key)
        error = future.exception()
        if isinstance(error, distributed.scheduler.KilledWorker):
            yield item, WorkerLost(f"{error.allowed_failures + 1} workers died over it")
        elif error:
            raise error
        else:
            yield item, future.result()
        hand_out(1)
