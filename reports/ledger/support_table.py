#!/usr/bin/env python3
"""The part of README.md's support table that is about GPUs, from the result files beside this script.

    reports/ledger/support_table.py            prints it
    reports/ledger/support_table.py --write    puts it between the two markers of README.md
    reports/ledger/support_table.py --check    exit status 1 where README.md has another one

--ledger FOLDER and --readme FILE name others. A row for each group of cases, backend and kind of GPU: how many records
passed, how many did not, with which driver, and when. Several ranks on one GPU count: its kernels ran. A file of
emulated GPUs (--emulate-gpus) does not.
Exit status 4: a result file that cannot be read.
"""

import argparse
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
BEGIN = "<!-- From reports/ledger by support_table.py: begin -->"
END = "<!-- From reports/ledger by support_table.py: end -->"
NOTHING = (
    "The [ledger](reports/ledger/README.md) holds no result of a GPU yet. So all that is said of `cuda` and `nccl` above was "
    "seen on emulated GPUs or has only been compiled.\n")


def fail(text):
    print(f"support_table.py: {text}", file=sys.stderr)
    raise SystemExit(4)


def read(path):
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["schema"] != 1:
            fail(f"{path} is of schema {result['schema']}, and 1 is known")
        environment = result["environment"]
        gpus = [gpu["name"] for gpu in environment.get("gpus") or []]
        return {
            "gpus": gpus,
            "driver": environment.get("driver") or "unknown",
            "nccl": environment.get("nccl") or "",
            "day": result["started"][:10],
            "emulated": "--emulate-gpus" in result["command"],
            "records": [(r["case"], r["backend"], r["verdict"]) for r in result["records"]],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fail(f"{path} is no result file: {error!r}")


def group_of(case):
    """collectives/all_reduce -> collectives; what is under one folder is one row."""
    return case.split("/")[0]


def rows_of(files):
    """(group, backend, GPU) -> counts, drivers and days."""
    rows = {}
    for file in files:
        if file["emulated"] or not file["gpus"]:
            continue
        kinds = sorted(set(file["gpus"]))
        name = " and ".join(f"{file['gpus'].count(kind)} {kind}" for kind in kinds)
        for case, backend, verdict in file["records"]:
            if backend not in ("cuda", "nccl"):
                continue
            row = rows.setdefault((group_of(case), backend, name),
                                  {"passed": 0, "unsupported": 0, "failed": 0, "drivers": set(), "days": set()})
            row[verdict if verdict in ("passed", "unsupported") else "failed"] += 1
            driver = "driver " + file["driver"]
            row["drivers"].add(driver + (", NCCL " + file["nccl"] if backend == "nccl" and file["nccl"] else ""))
            row["days"].add(file["day"])
    return rows


def table_of(files):
    rows = rows_of(files)
    if not rows:
        return NOTHING
    lines = [
        "What the [ledger](reports/ledger/README.md) holds of GPUs:", "",
        "| cases | backend | GPUs | passed | failed | unsupported | with | last seen |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    ]
    for (group, backend, name), row in sorted(rows.items()):
        lines.append(f"| {group} | {backend} | {name} | {row['passed']} | {row['failed']} | {row['unsupported']} | "
                     f"{'; '.join(sorted(row['drivers']))} | {max(row['days'])} |")
    return "\n".join(lines) + "\n"


def split(readme, path):
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        fail(f"{path} does not have both markers once")
    before, rest = readme.split(BEGIN)
    return before, *rest.split(END)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into README.md")
    parser.add_argument("--check", action="store_true", help="that README.md has it")
    parser.add_argument("--ledger", type=pathlib.Path, default=HERE)
    parser.add_argument("--readme", type=pathlib.Path, default=HERE.parent.parent / "README.md")
    options = parser.parse_args()

    table = table_of([read(path) for path in sorted(options.ledger.glob("*.json"))])
    if not (options.write or options.check):
        print(table, end="")
        return 0
    readme = options.readme.read_text(encoding="utf-8")
    before, now, after = split(readme, options.readme)
    wanted = f"\n{table}"
    if options.check:
        if now != wanted:
            print(f"support_table.py: {options.readme} does not say what the ledger holds: run --write", file=sys.stderr)
            return 1
        return 0
    options.readme.write_text(before + BEGIN + wanted + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
