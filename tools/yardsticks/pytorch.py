#!/usr/bin/env python3
"""What PyTorch reaches on this GPU, to be set beside what this project does: python3 pytorch.py --json yardstick.json

Measures a copy, products, attention (flash and cuDNN), norms, softmax, cross entropy, activations, an embedding and Adam at
the shapes of Llama 3.1 8B, and all_reduce where torchrun started several processes, one for each GPU:

    torchrun --nproc-per-node 8 tools/yardsticks/pytorch.py --json yardstick.json

Time is that of CUDA events around each sample, after a warm-up, on random numbers; a sample is as many operations as take a
millisecond. Answers are checked on a few rows. Prints a table, and writes a result file that `shardproof report` and
`compare` read: cases yardstick/..., variant pytorch.

Exit status: 0; 1 a wrong answer; 2 a wrong flag; 3 there is no torch, or no GPU (--device cpu --small tries it without).
"""
import argparse
import datetime
import math
import os
import re
import shlex
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import counts  # noqa: E402
import results  # noqa: E402

_SAMPLE_US = 1000.0
_MOST_OPERATIONS = 200


class CudaTimer:
    """Microseconds between two events on the current stream."""

    def __init__(self, torch):
        self._torch = torch

    def sample(self, run, operations):
        begin, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(operations):
            run()
        end.record()
        end.synchronize()
        return 1e3 * begin.elapsed_time(end) / operations


class HostTimer:
    """For --device cpu."""

    def sample(self, run, operations):
        begin = time.perf_counter()
        for _ in range(operations):
            run()
        return 1e6 * (time.perf_counter() - begin) / operations


def measure(timer, run, seconds, most_samples, agree=lambda value: value):
    """(microseconds of one operation in each sample, operations in a sample).

    `agree` gives all ranks the largest value of any: they must run the same number of operations, or all_reduce hangs.
    """
    timer.sample(run, 1)  # Loads kernels, and lets cuDNN choose.
    once = max(agree(timer.sample(run, 3)), 1e-3)
    operations = min(_MOST_OPERATIONS, max(1, math.ceil(_SAMPLE_US / once)))
    per_sample = max(agree(timer.sample(run, operations)), 1e-3) * operations
    samples = int(min(most_samples, max(10, seconds * 1e6 / per_sample)))
    return [agree(timer.sample(run, operations)) for _ in range(samples)], operations


def measure_all(works, make, timer, options, ranks=1, agree=lambda value: value, free=lambda: None):
    """A record of each Work that --filter leaves. `make` as operations.make, which says what it has not by an exception."""
    records = []
    for work in works:
        if options.filter and not re.search(options.filter, "yardstick/" + work.name):
            continue
        try:
            operation = make(work)
            samples, count = measure(timer, operation.run, options.seconds, options.samples, agree)
            records.append(results.record(work, samples, count, ranks, operation.check()))
        except Exception as error:  # One operation that does not work here says nothing of the others.
            sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
            if ranks > 1:  # The other ranks wait in theirs.
                raise
            known = type(error).__name__ in ("Unsupported", "OutOfMemoryError", "NotImplementedError")
            records.append((results.unsupported if known else results.failed)(work, sentence, ranks))
        operation = None
        free()
        if options.progress:
            print(f"{len(records)}: {work.name}", file=sys.stderr, end="\r")
    return records


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", default="yardstick.json", help="the result file")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes to try the program with; the default of cpu")
    parser.add_argument("--filter", default="", help="a regular expression: yardstick/attention")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each operation")
    parser.add_argument("--samples", type=int, default=200, help="at most, of each operation")
    parser.add_argument("--progress", action="store_true", help="says on stderr how far it is")
    return parser.parse_args(arguments)


def load(device):
    """torch, or a sentence on stderr and exit status 3."""
    try:
        import torch
    except ImportError as error:
        print(f"pytorch.py: there is no torch: {error}; pip install torch", file=sys.stderr)
        sys.exit(3)
    if device == "cuda" and not torch.cuda.is_available():
        print(
            "pytorch.py: torch sees no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES, or try --device cpu --small",
            file=sys.stderr,
        )
        sys.exit(3)
    return torch


def versions(torch, device):
    out = {"torch": torch.__version__, "cuda": torch.version.cuda or ""}
    if device == "cpu":
        return out
    out["cudnn"] = str(torch.backends.cudnn.version() or "")
    if torch.distributed.is_available() and hasattr(torch.cuda, "nccl"):
        out["nccl"] = ".".join(str(part) for part in torch.cuda.nccl.version())
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", file.read())
            out["driver"] = found.group(0) if found else ""
    except OSError:
        pass
    return out


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def main(arguments):
    options = parse(arguments)
    torch = load(options.device)
    import operations

    started = now()
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = options.device
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
        # f32 is not rounded to TF32, as in this project.
        torch.backends.cuda.matmul.allow_tf32 = False
    agree = lambda value: value
    if ranks > 1:
        torch.distributed.init_process_group("nccl" if options.device == "cuda" else "gloo")

        def agree(value):
            largest = torch.tensor([value], dtype=torch.float64, device=device)
            torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
            return largest.item()

    model = counts.SMALL if options.small or options.device == "cpu" else counts.FULL
    timer = CudaTimer(torch) if options.device == "cuda" else HostTimer()
    works = list(counts.works(model, ranks))
    if ranks > 1:
        # What one GPU does is measured by one process; all of them at once would share the host's cores.
        works = [work for work in works if work.name == "all_reduce"]
    records = measure_all(
        works,
        lambda work: operations.make(torch, work, device),
        timer,
        options,
        ranks,
        agree,
        torch.cuda.empty_cache if options.device == "cuda" else lambda: None,
    )
    if rank == 0:
        gpus = []
        if options.device == "cuda":
            for index in range(ranks):
                found = torch.cuda.get_device_properties(index)
                gpus.append({"name": found.name, "memory_bytes": found.total_memory})
        where = results.environment(gpus, versions(torch, options.device), device)
        command = shlex.join(["pytorch.py", *arguments])
        results.write(options.json, command, started, now(), where, records)
        print(results.table(records))
    if ranks > 1:
        torch.distributed.destroy_process_group()
    return 1 if any(one["verdict"] in ("incorrect", "failed") for one in records) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
