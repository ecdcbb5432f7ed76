#!/bin/bash
# The bundle, unpacked and run with nothing of this machine but glibc: on emulated
# GPUs, with the library that stands for NCCL.
#
#     bundle_test.sh ARCHIVE NCCL
set -u

archive=$(realpath "$1")
nccl=$(realpath "$2")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/bundle.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
  echo "FAILED: $1"
  tail -n 30 out
  failures=$((failures + 1))
}

tar -xJf "$archive" || exit 1
# Every library that is not glibc's is the bundle's own.
LD_LIBRARY_PATH=$folder/shardproof-gpu/lib ldd shardproof-gpu/shardproof |
  grep '=>' | grep -vE 'shardproof-gpu/lib|/lib(c|m|pthread|dl|rt)\.so' >out &&
  fail 'libraries of the machine'

if [[ ! -e /dev/nvidia0 ]]; then
  shardproof-gpu/run.sh >out 2>&1
  status=$?
  ((status == 6)) || fail "exit $status without a GPU"
  grep -qE 'no CUDA driver|no GPU' out || fail 'it does not say that there is no GPU'
fi

shardproof-gpu/run.sh --out results --emulate-gpus 2 --nccl-library "$nccl" \
  --time-budget 20 --dtype f32 >out 2>&1
status=$?
((status == 0)) || fail "exit $status"
# Not all of them in the time; what is there has passed.
for backend in cuda nccl; do
  python3 - "$backend" <<'END' || fail "$backend"
import json, sys
backend = sys.argv[1]
records = json.load(open(f"results/{backend}/results.json"))["records"]
assert len(records) > 20, len(records)
for r in records:
  assert r["verdict"] in ("passed", "unsupported"), r
  assert r["backend"] == backend and r["emulated"] and "busbw_gbps" not in r, r
assert any(r["verdict"] == "passed" for r in records)
END
done
exit $((failures > 0))
