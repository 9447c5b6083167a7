"""Ray itself: started on this machine for as long as a search takes, or connected to where it runs already."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import torch

from tpsnet_lib.files import ConfigError, TpsnetError

START_SECONDS = 240  # that Ray's parts have to start in
LOOK_SECONDS = 0.5  # between looks whether they have
OBJECT_STORE = 100 * 2**20  # bytes; what passes between processes here is small
_SETTINGS = {  # no reports home, no logs of its own, no tables in the terminal
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on every system: Ray's processes are not seen from outside


@contextlib.contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Ray, connected for as long as the block lasts; one that the caller has connected already is used and left."""
    settings = _SETTINGS if address else {**_SETTINGS, **_LOOPBACK}
    with _environment({name: value for name, value in settings.items() if name not in os.environ}):
        try:
            import ray
        except ImportError:
            raise ConfigError('--backend ray needs Ray: pip install "ray[tune]"') from None
        if ray.is_initialized():
            yield
            return
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        here = None
        try:
            here = start_here(workers) if address is None else None
            ray.init(here.address if here else address, log_to_driver=False, logging_level=logging.CRITICAL)
        except (ConnectionError, ValueError) as error:
            said = str(error).splitlines()[0]
            raise ConfigError(f"--address {address}: no Ray cluster answers ({said})") from None
        try:
            yield
        finally:
            ray.shutdown()
            if here is not None:
                here.shutdown()


@contextlib.contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    """These variables are set while the block lasts."""
    os.environ.update(more)
    try:
        yield
    finally:
        for name in more:
            os.environ.pop(name, None)


def start_here(workers: int) -> Any:
    """Ray on this machine, which ends with this process: as `ray.init` starts it, less what serves a dashboard.

    Its ports are given: for ports that its parts choose themselves Ray waits 15 s, too short on a busy machine.
    `TpsnetError` where it does not start within `START_SECONDS`."""
    from ray.cluster_utils import Cluster

    parts = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    amounts = {"num_cpus": workers, "num_gpus": torch.cuda.device_count(), "object_store_memory": OBJECT_STORE}
    with patience():
        try:
            return Cluster(initialize_head=True, head_node_args={**amounts, **parts, **free_ports()})
        except Exception as error:  # Ray has no narrower one for this
            if "timed out during startup" not in str(error):
                raise
            said = f"Ray did not start within {START_SECONDS} s: is this machine busy? Wait, or use --backend local"
            raise TpsnetError(said) from None


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """While the block lasts, a node that starts on a machine that is busy with other things is waited for.

    Ray gives its raylet 30 s to be known: here it has `START_SECONDS`. And it does not tell the raylet the port that
    the dashboard's agent was given, for which the raylet then waits 15 s at most, and dies: here it is told."""
    services: Any = importlib.import_module("ray._private.services")
    once, begin = services.get_node, services.start_ray_process

    def get_node(*asked: Any) -> Any:
        ends = time.monotonic() + START_SECONDS
        while True:
            try:
                return once(*asked)
            except RuntimeError:
                if time.monotonic() > ends:
                    raise
                time.sleep(LOOK_SECONDS)

    def start_ray_process(command: list[str], kind: str, *more: Any, **options: Any) -> Any:
        port = re.search(r"--listen-port=([1-9]\d*)", " ".join(command)) if kind == "raylet" else None
        told = [f"--dashboard_agent_listen_port={port[1]}"] if port else []
        return begin([*command, *told], kind, *more, **options)

    services.get_node, services.start_ray_process = get_node, start_ray_process
    try:
        yield
    finally:
        services.get_node, services.start_ray_process = once, begin


def free_ports() -> dict[str, int]:
    """A port that is free now for each part of a Ray node that else takes one of its own."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
