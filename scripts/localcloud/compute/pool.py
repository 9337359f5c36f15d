"""Which environment serves an invocation: warm ones are used again, new ones started, idle ones ended."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.compute.environment import Answer, ExecutionEnvironment, NotDelivered
from localcloud.compute.faults import DUPLICATE, RUN_KINDS, SLOW_START, Fault, Faults
from localcloud.compute.function import Credentials, Function, environment_variables
from localcloud.compute.logs import Deliver, FunctionOutput, log_file, new_stream_name
from localcloud.compute.packages import PackageStore
from localcloud.compute.runtime_api import Invocation

MEMORY_CHECK_SECONDS = 0.02
IDLE_CHECK_SECONDS = 5.0
_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Settings of the pool, from the config's ``lambda`` object.

    ``memory_allowance_mib``: what a process may use above the function's memory. It stands for the file-backed
    pages of the interpreter and its libraries, which count as resident here while Lambda can drop them.
    ``idle_seconds``: how long a warm environment is kept. ``max_environments``: idle ones beyond it are ended.
    """

    memory_allowance_mib: int = 32
    idle_seconds: float = 300.0
    max_environments: int = 64


class Pool:
    """All execution environments of the local cloud. Safe between threads."""

    def __init__(
        self,
        *,
        settings: PoolSettings,
        packages: PackageStore,
        scratch: Path,
        log_folder: Path,
        default_account_id: str,
        server_variables: Mapping[str, str],
        credentials_for: Callable[[Function], Credentials],
        deliver: Deliver,
        faults: Faults,
        idle_check_seconds: float = IDLE_CHECK_SECONDS,
    ) -> None:
        self._settings = settings
        self._packages = packages
        self._scratch = scratch
        self._log_folder = log_folder
        self._default_account_id = default_account_id
        self._server_variables = server_variables
        self._credentials_for = credentials_for
        self._deliver = deliver
        self._faults = faults
        self._idle_check_seconds = idle_check_seconds
        self._lock = threading.Lock()
        self._idle: dict[str, list[ExecutionEnvironment]] = {}
        self._all: set[ExecutionEnvironment] = set()
        self._closed = threading.Event()
        # One thread for the life of the server: a parent-death signal fires when the starting thread ends.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="environment-starter")
        for folder in (scratch, log_folder):
            folder.mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self._watch_memory, name="environment-memory", daemon=True).start()
        threading.Thread(target=self._end_idle, name="environment-idle", daemon=True).start()

    def run(
        self,
        function: Function,
        invocation: Invocation,
        finished: Callable[[Function, Answer], None] = lambda function, answer: None,
    ) -> Answer:
        """Run an invocation in a warm environment, or in a new one. ``finished`` is told of every run."""
        fault = self._faults.strike(function.name, RUN_KINDS)
        if self._faults.strike(function.name, (DUPLICATE,)) is None:
            return self._run(function, invocation, fault, finished)
        ends: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        for each in (fault, None):
            end: Future[Answer] = Future()
            end.add_done_callback(ends.put)
            threading.Thread(
                target=_into, args=(end, self._run, function, invocation, each, finished), name="delivery", daemon=True
            ).start()
        return ends.get().result()

    def _run(
        self,
        function: Function,
        invocation: Invocation,
        fault: Fault | None,
        finished: Callable[[Function, Answer], None],
    ) -> Answer:
        key = function.key
        while True:
            environment = self._acquire(function, key)
            try:
                answer = environment.invoke(invocation, fault)
            except NotDelivered:
                self._forget(environment)
                continue
            self._release(environment, key)
            finished(function, answer)
            return answer

    def workers(self) -> list[dict[str, Any]]:
        """Every living process, for ``GET /_local/lambda/workers``; memory in KiB."""
        with self._lock:
            environments = [environment for environment in self._all if environment.is_alive]
        return [
            {
                "pid": environment.pid,
                "function": environment.function.name,
                "region": environment.function.region,
                "account_id": environment.function.account_id,
                "version": environment.function.version,
                "busy": environment.is_busy,
                "invocations": environment.invocations,
                "rss_kib": environment.resident_kib(),
                "peak_rss_kib": environment.peak_kib(),
                "memory_mb": environment.function.memory_mb,
            }
            for environment in sorted(environments, key=lambda each: each.pid)
        ]

    def kill(self, function: str, *, only_busy: bool = False) -> list[int]:
        """Kill the function's processes now (``*``: all); returns their process ids."""
        with self._lock:
            chosen = [
                environment
                for environment in self._all
                if environment.is_alive
                and function in (environment.function.name, "*")
                and (environment.is_busy or not only_busy)
            ]
        for environment in chosen:
            environment.kill()
        return sorted(environment.pid for environment in chosen)

    def retire(self, account_id: str, region: str, name: str) -> None:
        """The function was deleted: its idle environments end."""
        with self._lock:
            gone = [
                environment
                for idle in self._idle.values()
                for environment in idle
                if environment.function.identity[:3] == (account_id, region, name)
            ]
            self._drop(gone)
        for environment in gone:
            environment.kill()

    def close(self) -> None:
        """End every environment; returns when the processes are gone."""
        self._closed.set()
        self._starter.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            environments = list(self._all)
            self._all.clear()
            self._idle.clear()
        for environment in environments:
            environment.kill()
        for environment in environments:
            environment.join(5.0)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _acquire(self, function: Function, key: str) -> ExecutionEnvironment:
        with self._lock:
            idle = self._idle.get(key, [])
            while idle:
                environment = idle.pop()  # the last used one, so that the others can grow old
                if environment.is_alive:
                    return environment
                self._all.discard(environment)
            stale = [
                environment
                for others in self._idle.values()
                for environment in others
                if environment.function.identity == function.identity and environment.function.key != key
            ]
            idle_now = sorted(
                (each for others in self._idle.values() for each in others if each not in stale),
                key=lambda each: each.last_used,
            )
            surplus = len(self._all) - len(stale) + 1 - self._settings.max_environments
            stale += idle_now[: max(0, surplus)]
            self._drop(stale)
        for environment in stale:
            environment.kill()
        slow = self._faults.strike(function.name, (SLOW_START,))
        if slow is not None:
            self._closed.wait(slow.delay_ms / 1000)  # here and not in the starter: others start meanwhile
        return self._starter.submit(self._start, function).result()

    def _drop(self, environments: list[ExecutionEnvironment]) -> None:
        """Take environments out of the books; the lock is held."""
        for environment in environments:
            self._all.discard(environment)
        for key in list(self._idle):
            self._idle[key] = [each for each in self._idle[key] if each not in environments]
            if not self._idle[key]:
                del self._idle[key]

    def _release(self, environment: ExecutionEnvironment, key: str) -> None:
        with self._lock:
            if environment.is_alive and not self._closed.is_set():
                self._idle.setdefault(key, []).append(environment)
                return
            self._all.discard(environment)
        environment.kill()

    def _forget(self, environment: ExecutionEnvironment) -> None:
        with self._lock:
            self._all.discard(environment)
        environment.kill()

    def _start(self, function: Function) -> ExecutionEnvironment:
        home = Path(tempfile.mkdtemp(prefix=f"{function.name}-", dir=self._scratch))
        (home / "tmp").mkdir()
        runtime = self._packages.runtime()
        environment = ExecutionEnvironment(function, home=home)
        stream = new_stream_name(function)
        variables = environment_variables(
            function,
            credentials=self._credentials_for(function),
            runtime_api=environment.api.address,
            runtime_dir=runtime,
            log_stream=stream,
            home=home,
            server=self._server_variables,
        )
        command = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), function.handler]
        read_end, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                [*command, *map(str, function.import_paths(runtime))],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                cwd=function.code,
                env=variables,
                start_new_session=True,  # a process group of its own, to end it with all it started
            )
        except BaseException:
            os.close(read_end)
            environment.api.close()
            shutil.rmtree(home, ignore_errors=True)
            raise
        finally:
            os.close(write_end)
        output = FunctionOutput(
            function,
            descriptor=read_end,
            stream=stream,
            file=log_file(
                self._log_folder,
                function=function.name,
                region=function.region,
                account_id=function.account_id,
                default_account_id=self._default_account_id,
            ),
            deliver=self._deliver,
        )
        environment.start(process, output)
        with self._lock:
            self._all.add(environment)
        return environment

    def _watch_memory(self) -> None:
        while not self._closed.wait(MEMORY_CHECK_SECONDS):
            with self._lock:
                busy = [environment for environment in self._all if environment.is_busy]
            for environment in busy:
                limit = environment.function.memory_mb + self._settings.memory_allowance_mib
                if environment.is_alive and environment.resident_kib() > limit * 1024:
                    environment.out_of_memory()

    def _end_idle(self) -> None:
        while not self._closed.wait(self._idle_check_seconds):
            oldest = time.monotonic() - self._settings.idle_seconds
            with self._lock:
                old = [
                    environment
                    for idle in self._idle.values()
                    for environment in idle
                    if environment.last_used < oldest
                ]
                self._drop(old)
            for environment in old:
                environment.kill()


def _into(end: Future[Answer], run: Callable[..., Answer], *arguments: Any) -> None:
    try:
        end.set_result(run(*arguments))
    except BaseException as error:  # who waits for the answer has to hear of it
        end.set_exception(error)
