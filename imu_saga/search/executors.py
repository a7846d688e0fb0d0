"""Where trials run: here, in local processes, or on a Dask cluster, all behind `concurrent.futures.Executor`.

A worker that dies costs its trial's time and nothing else: the trial is run again by a new one.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

import torch

from shared_peft.errors import ConfigError, RunError
from shared_peft.packages import load_package

ATTEMPTS = 3  # ours: a trial that kills three workers is not run a fourth time
LOCAL = "local"
DIED_FIX = "Look for missing memory; run fewer --workers, or a smaller --subset"


@contextmanager
def open_executor(workers: int = 1, scheduler: str = "") -> Iterator[tuple[Executor, int]]:
    """Give an executor and the number of trials it runs at once; everything is closed at the end.

    Args:
        workers: processes; 1 without a scheduler runs trials in this process. Beside a scheduler's address 1 means
            as many as the cluster has.
        scheduler: "" for this machine without Dask, "local" for a Dask cluster of local processes, or the address of
            a Dask scheduler such as tcp://10.0.0.1:8786.

    Raises:
        ConfigError: fewer than 1 worker, or something that is no address.
        MissingPackageError: a scheduler without the package distributed.
        RunError: a trial killed its worker again and again.
    """
    if workers < 1:
        raise ConfigError("--workers", "must be at least 1", workers, "Use 1")
    if scheduler:
        with _dask(workers, scheduler) as opened:
            yield opened
    else:
        with Here() if workers == 1 else LocalProcesses(workers) as executor:
            yield executor, workers


class Here(Executor):
    """Runs a call at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the call and return its finished future; what it raises is raised here."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class LocalProcesses(Executor):
    """Local processes of one thread each; a call whose process dies is run again in a new one.

    Args:
        workers: number of processes.
    """

    def __init__(self, workers: int) -> None:
        self._mine = threading.local()
        self._pools: list[ProcessPoolExecutor] = []
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="search")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the call in the first process that is free."""
        return self._threads.submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait)

    def _run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for _ in range(ATTEMPTS):
            try:
                return self._process().submit(fn, *args, **kwargs).result()
            except BrokenProcessPool:
                self._mine.pool = None
        raise RunError("search", "a trial must not kill its process", f"{ATTEMPTS} killed in a row", DIED_FIX)

    def _process(self) -> ProcessPoolExecutor:
        """Return this thread's process, started if there is none."""
        pool = getattr(self._mine, "pool", None)
        if pool is None:
            pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_prepare)
            self._mine.pool = pool
            self._pools.append(pool)
        return pool


def _prepare() -> None:
    """Set a worker up: one thread for the work, and one that ends it where the search is killed."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_the_search, daemon=True).start()


def _end_with_the_search() -> None:
    """Leave when the search's process is gone: a trial that went on would write where a resumed search does."""
    search = parent_process()
    assert search is not None
    search.join()
    os._exit(1)


@contextmanager
def _dask(workers: int, scheduler: str) -> Iterator[tuple[Executor, int]]:
    distributed = load_package("distributed", "--scheduler", extra="cluster")
    if scheduler != LOCAL and "://" not in scheduler:
        raise ConfigError("--scheduler", f"must be {LOCAL} or an address", repr(scheduler), "Use tcp://HOST:8786")
    cluster = None
    if scheduler == LOCAL:
        cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        )
    try:
        with distributed.Client(cluster or scheduler) as client:
            size = workers if workers > 1 or cluster else max(1, _threads(client.nthreads()))
            yield client.get_executor(pure=False), size
    except distributed.scheduler.KilledWorker as error:
        raise RunError("search", "a trial must not kill its worker", "workers killed in a row", DIED_FIX) from error
    finally:
        if cluster is not None:
            cluster.close()


def _threads(of_workers: Any) -> int:
    """Return how many trials a cluster runs at once, from each worker's number of threads."""
    return sum(of_workers.values())
