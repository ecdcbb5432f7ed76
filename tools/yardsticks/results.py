"""Measurements as records of result schema 1 (reports/record.h), as a file, and as a table: no torch here."""
import json
import math
import os
import platform

from counts import bus_bytes

_KEPT = 200  # Samples in a record.


def quantile(ordered, share):
    """Between the two nearest, as numpy does it."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def median_interval(ordered):
    """Of the median, 95 percent: order statistics n/2 +- 0.98 sqrt(n) (normal approximation of the binomial)."""
    n = len(ordered)
    half = 0.98 * math.sqrt(n)
    low = max(0, math.floor(n / 2 - half))
    high = min(n - 1, math.ceil(n / 2 + half))
    return ordered[low], ordered[high]


def time_us(samples, operations):
    ordered = sorted(samples)
    low, high = median_interval(ordered)
    step = max(1, math.ceil(len(samples) / _KEPT))
    return {
        "median": quantile(ordered, 0.5),
        "p10": quantile(ordered, 0.1),
        "p90": quantile(ordered, 0.9),
        "min": ordered[0],
        "max": ordered[-1],
        "interval_low": low,
        "interval_high": high,
        "samples": len(samples),
        "operations_per_sample": operations,
        # Queued one after the other. Always: it is part of what makes two records comparable.
        "cadence": "streaming",
        "per_rank_median": [],
        "samples_us": samples[::step],
    }


def _record(work, ranks, verdict, reason):
    return {
        "case": "yardstick/" + work.name,
        "variant": "pytorch",
        "backend": "torch",
        "ranks": ranks,
        "params": dict(work.params),
        "verdict": verdict,
        "reason": reason,
        "repro": "",
        "emulated": False,
    }


def record(work, samples, operations, ranks=1, wrong=""):
    """Of microseconds of one operation; `wrong` is what a check of the answer found."""
    out = _record(work, ranks, "incorrect" if wrong else "passed", wrong)
    out["time_us"] = time_us(samples, operations)
    seconds = out["time_us"]["median"] * 1e-6
    if seconds > 0:
        if work.ceiling == "product":
            out["gflops"] = work.flops / seconds / 1e9
        else:
            out["algbw_gbps"] = work.bytes / seconds / 1e9
        if work.name == "all_reduce":
            out["busbw_gbps"] = bus_bytes(work.bytes, ranks) / seconds / 1e9
    return out


def unsupported(work, reason, ranks=1):
    return _record(work, ranks, "unsupported", reason)


def failed(work, reason, ranks=1):
    return _record(work, ranks, "failed", reason)


def ceilings(records):
    """The rate of the first product (GFLOP/s) and of the copy (GB/s), as far as there are such."""
    found = {}
    for one in records:
        for case, key in (("yardstick/product", "gflops"), ("yardstick/copy", "algbw_gbps")):
            if one["case"] == case and key in one:
                found.setdefault(key, one[key])
    return found


def share(one, found):
    """Of the ceiling, or None; an all_reduce has none here."""
    if one["case"] == "yardstick/all_reduce":
        return None
    for key in ("gflops", "algbw_gbps"):
        if key in one and found.get(key):
            return one[key] / found[key]
    return None


def environment(gpus, versions, device):
    """What a Fingerprint reads (reports/fingerprint.h), and the versions of torch."""
    return {
        "host": platform.node(),
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "gpus": gpus,
        "driver": versions.get("driver", ""),
        "cuda": versions.get("cuda", ""),
        "nccl": versions.get("nccl", ""),
        "version": "torch " + versions.get("torch", ""),
        "cudnn": versions.get("cudnn", ""),
        "device": device,
        "variables": {},
    }


def write(path, command, started, finished, where, records):
    """One complete JSON value; its beginning is what makes a result file of it."""
    content = {
        "schema": 1,
        "command": command,
        "started": started,
        "environment": where,
        "records": records,
        "left_out": [],
        "yardsticks": ceilings(records),
        "interrupted": False,
        "finished": finished,
        "complete": True,
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, separators=(",", ":"))
        file.write("\n")


def table(records):
    """A line for each, with its rate and its share of the measured ceiling."""
    found = ceilings(records)
    lines = [("operation", "shape", "median", "rate", "of ceiling")]
    for one in records:
        shape = " ".join(f"{key}={_text(value)}" for key, value in one["params"].items())
        name = one["case"].split("/")[1]
        if "time_us" not in one:
            lines.append((name, shape, one["verdict"], one["reason"], ""))
            continue
        if "busbw_gbps" in one:
            rate = f"{one['busbw_gbps']:.1f} GB/s bus"
        elif "gflops" in one:
            rate = f"{one['gflops'] / 1e3:.2f} TFLOP/s"
        else:
            rate = f"{one.get('algbw_gbps', 0):.1f} GB/s"
        part = share(one, found)
        right = f"{100 * part:.1f} %" if part is not None else ""
        if one["verdict"] != "passed":
            right = f"{one['verdict']}: {one['reason']}"
        lines.append((name, shape, f"{one['time_us']['median']:.1f} us", rate, right))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)) + "  " + line[4] for line in lines
    )


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)
