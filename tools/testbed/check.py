#!/usr/bin/env python3
"""Whether a result file of the testbed says what was set there.

    check.py slow_node RESULTS NODE FACTOR   p2p: the links of NODE, and only they, are slow, FACTOR times
    check.py rate RESULTS MB_PER_S           fit: beta of plain messages is that rate within 10 percent
    check.py bottleneck RESULTS MB_PER_S     scale: all pairs together share that rate within 10 percent

Prints what was found beside what was set; exit 1 where they differ.
"""
import json
import sys

TOLERANCE = 0.1  # What the demonstration promises of rates.


def fail(sentence):
    print("NOT FOUND:", sentence)
    sys.exit(1)


def near(name, found, wanted):
    error = found / wanted - 1
    print(f"found {name} of {found:.4g}, {wanted:.4g} was set: {100 * error:+.1f} percent")
    if abs(error) > TOLERANCE:
        fail(f"{name} is off by more than {100 * TOLERANCE:.0f} percent")


def slow_node(results, node, factor):
    matrices = [m for m in results["p2p"] if not m["bidirectional"]]
    largest = max(matrices, key=lambda m: m["bytes"])
    slow = {(s["from"], s["to"]) for s in largest["slow"] if s["z"] > 4}
    ranks = range(largest["ranks"])
    wanted = {(i, j) for i in ranks for j in ranks if i != j and node in (i, j)}
    print(f"slow links at {largest['bytes']} bytes: {sorted(slow)}")
    if slow != wanted:
        fail(f"the slow links are {sorted(wanted)}")
    for s in largest["slow"]:
        near(f"{s['from']} -> {s['to']}: a factor", s["median_us"] / s["class_median_us"], factor)
    if not any(f"all links of rank {node} " in finding for finding in results["findings"]):
        fail("no sentence names the node")


def rate(results, megabytes):
    fits = [f for f in results["fits"] if (f["case"], f["variant"]) == ("messages", "one_way")]
    beta = fits[0]["pieces"][-1]["beta_us_per_mib"]
    near("a rate in MB/s", 2**20 / beta["value"], megabytes)
    print(f"95 percent interval: {2**20 / beta['high']:.4g} to {2**20 / beta['low']:.4g}")


def bottleneck(results, megabytes):
    pairs = [s for s in results["scaling"] if (s["kind"], s["variant"]) == ("pairs", "one_way")]
    most = max(pairs, key=lambda s: s["ranks"])
    size = int(most["params"].split("=")[1])
    near("a shared rate in MB/s", most["ranks"] / 2 * size / most["median_us"], megabytes)
    if not any("share a bottleneck" in finding for finding in results["findings"]):
        fail("no sentence names a shared bottleneck")


def main():
    what, path, *numbers = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    if what == "slow_node":
        slow_node(results, int(numbers[0]), float(numbers[1]))
    else:
        {"rate": rate, "bottleneck": bottleneck}[what](results, float(numbers[0]))


if __name__ == "__main__":
    main()
