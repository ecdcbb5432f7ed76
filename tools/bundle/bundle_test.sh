#!/bin/bash
# The bundle, unpacked and run with nothing of this machine but glibc: without a GPU,
# and on emulated GPUs with the library that stands for NCCL.
#
#     bundle_test.sh ARCHIVE NCCL
set -u

archive=$(realpath "$1")
nccl=$(realpath "$2")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/bundle.XXXXXX") || exit 1
trap 'chmod -R u+w "$folder" && rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
  echo "FAILED: $1"
  tail -n 30 out
  failures=$((failures + 1))
}
# expect NAME STATUS PATTERN COMMAND...
expect() {
  local name=$1 status=$2 pattern=$3 got
  shift 3
  "$@" >out 2>&1 </dev/null
  got=$?
  if ((got != status)); then
    fail "$name: exit $got, not $status"
  elif ! grep -qE -- "$pattern" out; then
    fail "$name: nothing matches \"$pattern\""
  else
    echo "ok: $name"
  fi
}

tar -xJf "$archive" || exit 1
# Every library that is not glibc's is the bundle's own.
LD_LIBRARY_PATH=$folder/shardproof-gpu/lib/compiler:$folder/shardproof-gpu/lib \
  ldd shardproof-gpu/bin/shardproof |
  grep '=>' | grep -vE 'shardproof-gpu/lib|/lib(c|m|pthread|dl|rt)\.so' >out &&
  fail 'libraries of the machine'

run=(shardproof-gpu/run.sh --out results)
expect 'help' 0 'Exit status' shardproof-gpu/run.sh --help
expect 'the program itself' 0 'backends' shardproof-gpu/shardproof doctor
expect 'from elsewhere' 0 'not usable: built without MPI|mpi +not usable' \
  env -C / "$folder/shardproof-gpu/shardproof" doctor
expect 'yardsticks' 0 'PyTorch reaches' python3 shardproof-gpu/yardsticks/pytorch.py --help
if ! python3 -c 'import torch' 2>/dev/null; then
  expect 'no torch' 3 'there is no torch' python3 shardproof-gpu/yardsticks/pytorch.py
fi
if [[ ! -e /dev/nvidia0 ]]; then
  for flags in '' --require-gpu "--nccl-library $nccl"; do
    # shellcheck disable=SC2086  # Words are meant.
    expect "no GPU, $flags" 6 '^shardproof: .*(no CUDA driver|no GPU)' "${run[@]}" $flags
    [[ $(tail -n 1 out) == 'run.sh: no usable GPU'* ]] || fail 'the last line does not say so'
  done
fi
expect 'no such NCCL' 6 'the NCCL library /nowhere.so cannot be loaded' "${run[@]}" --nccl-library /nowhere.so
expect 'a wrong flag' 2 'a flag that cannot be meant' "${run[@]}" --emulate-gpus 2 --no-such-flag
expect 'both kinds of GPUs' 2 'one of the two' "${run[@]}" --emulate-gpus 2 --require-gpu
if ((UID != 0)); then
  mkdir closed && chmod 555 closed
  expect 'a folder that is closed' 2 'cannot write into closed' shardproof-gpu/run.sh --out closed
fi
expect 'no folder' 2 'cannot write into /proc/x' shardproof-gpu/run.sh --out /proc/x

expect 'emulated GPUs' 0 'run.sh: passed; the results are in results' "${run[@]}" --emulate-gpus 2 \
  --nccl-library "$nccl" --time-budget 20 --dtype f32
# Not all of them in the time; what is there has passed.
for name in cuda cuda-layers nccl; do
  python3 - "$name" <<'END' || fail "$name"
import json, sys
name = sys.argv[1]
result = json.load(open(f"results/{name}/results.json"))
records = result["records"]
assert result["complete"] and not result["interrupted"]
assert len(records) > (20 if name != "cuda-layers" else 0), len(records)
for r in records:
  assert r["verdict"] in ("passed", "unsupported"), r
  assert r["backend"] == name.split("-")[0] and r["emulated"] and "busbw_gbps" not in r, r
assert any(r["verdict"] == "passed" for r in records)
END
done

python3 -c '
import json
records = json.load(open("results/roofline/results.json"))["records"]
assert len(records) > 50 and all(r["verdict"] == "passed" and r["emulated"] for r in records), records' ||
  fail roofline

# As a terminal interrupts: the whole group of processes.
set -m
shardproof-gpu/run.sh --out interrupted --emulate-gpus 2 --time-budget 300 --dtype f32 >out 2>&1 </dev/null &
group=$!
set +m
# Until it has written records.
for ((i = 0; i < 600; ++i)); do
  [[ $(stat -c %s interrupted/cuda/results.json 2>/dev/null || echo 0) -gt 20000 ]] && break
  sleep 0.1
done
kill -INT -- "-$group"
wait "$group"
status=$?
((status == 130)) || fail "an interrupt: exit $status"
grep -q '^run.sh: interrupted; what there was until then is in interrupted' out || fail 'an interrupt is not named'
[[ ! -e interrupted/nccl && ! -e interrupted/cuda-layers ]] || fail 'it went on after an interrupt'
python3 -c '
import json
result = json.load(open("interrupted/cuda/results.json"))
assert result["interrupted"] and result["records"]' || fail 'what was there is not kept'
exit $((failures > 0))
