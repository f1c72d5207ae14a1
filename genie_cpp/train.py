"""The trainer on one process or many: python -m genie_cpp.train, under torchrun for several.

torchrun --nproc-per-node 2 -m genie_cpp.train --config configs/demo.yaml --data F.h5 --out runs/X
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from genie_cpp import _C, training
from genie_cpp.config_values import values
from genie_cpp.errors import GenieError
from genie_cpp.heartbeat import Heartbeat
from genie_cpp.tracking import TRACKERS, log_pictures, open_trackers

__all__ = ["main"]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m genie_cpp.train", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file; all keys: docs/configuration.md")
    parser.add_argument("--out", required=True, help="run directory; only the first process uses it")
    parser.add_argument("--data", help="HDF5 file that every process can read; stands for data.path")
    parser.add_argument("--phase", default="all", help="tokenizer, latent_action, dynamics, cotrain or all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="sets one key")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoints in --out")
    parser.add_argument(
        "--track", action="append", default=[], choices=list(TRACKERS), help="may be repeated"
    )
    parser.add_argument(
        "--peer-timeout",
        type=float,
        default=20,
        metavar="SECONDS",
        help="end when another process was not heard of for so long (default: 20)",
    )
    return parser.parse_args(arguments)


def load_config(options: argparse.Namespace) -> _C.Config:
    config = _C.Config.load(options.config)
    config.override([*([f"data.path={options.data}"] if options.data else []), *options.set])
    return config


def join(config: _C.Config) -> dist.ProcessGroup | None:
    """The group of the processes that torchrun (or whoever set RANK and WORLD_SIZE) started; None outside."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    on_gpu = values(config)["training"]["device"] != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    return dist.group.WORLD


def end_at_once(sentence: str) -> NoReturn:
    """Ends while other threads may be waiting for a process that will never answer."""
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    os._exit(1)


def watch(timeout: float) -> Heartbeat:
    store: Any = dist.distributed_c10d._get_default_store()
    by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    # A connection of its own: the one of the group is held while the group waits for something.
    return Heartbeat(
        store.clone(),
        dist.get_rank(),
        dist.get_world_size(),
        timeout,
        end_at_once,
        store_keeper="torchrun" if by_torchrun else "rank 0",
    )


def stop_on_signals() -> None:
    """SIGTERM stops like Ctrl-C does, with a checkpoint; a second signal ends at once."""

    def stop(number: int, _: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda again, _: os._exit(128 + again))
        print(
            "stopping; the state is being saved (a second signal ends at once)", file=sys.stderr, flush=True
        )
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, stop)


def run(options: argparse.Namespace, config: _C.Config, group: dist.ProcessGroup | None) -> bool:
    """Trains; False where another process was asked to stop."""
    first = group is None or dist.get_rank() == 0
    phases = _C.phase_names(config) if options.phase == "all" else [options.phase]
    trackers = open_trackers(options.track, options.out, config) if first and options.track else []

    def log(line: dict[str, Any]) -> None:
        for tracker in trackers:
            tracker.log(line)

    try:
        for phase in phases:
            callback = log if trackers else None
            if not training.train(
                config, options.out, phase, callback, options.resume, show_progress=first, process_group=group
            ):
                return False
            log_pictures(trackers, options.out, config, phase)
    finally:
        for tracker in trackers:
            tracker.close()
    return True


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    options = parse(arguments)
    heartbeat = None
    try:
        config = load_config(options)
        group = join(config)
        if group is not None and dist.get_world_size() > 1:
            heartbeat = watch(options.peer_timeout)
            heartbeat.start()
        stop_on_signals()
        finished = run(options, config, group)
    except KeyboardInterrupt:
        finished = False
    except (GenieError, OSError) as error:
        message = " ".join(str(error).split())
        if heartbeat is not None:
            heartbeat.fail(message)
            rank = dist.get_rank()
            end_at_once(f"rank {rank}: {message}")
        print(f"error: {message}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if heartbeat is None:
            raise
        # torchrun ends the others when one dies; there is time to say which it was.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sentence = heartbeat.find_lost(patience=options.peer_timeout / 2)
        reason = " ".join(str(error).split())
        if sentence is None:
            heartbeat.fail(reason)
            end_at_once(f"rank {dist.get_rank()}: {reason}")
        end_at_once(
            f"{sentence}; rank {dist.get_rank()} ends too; --resume continues from the last checkpoint"
        )
    if heartbeat is not None:
        heartbeat.stop()
    if group is not None:
        dist.destroy_process_group()
    if not finished:
        print("stopped; continue with --resume", file=sys.stderr)
    elif group is None or int(os.environ["RANK"]) == 0:
        print(f"{Path(options.out)}: done; next: genie-cpp eval --model {options.out} --data FILE")
    return 0


if __name__ == "__main__":
    sys.exit(main())
