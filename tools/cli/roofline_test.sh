#!/bin/bash
# shardproof roofline as a person meets it, on emulated GPUs: every kernel is right and none has a time.
#
#     roofline_test.sh SHARDPROOF CUBLASLT
#
# The last is a library with cuBLASLt's interface for emulated GPUs.
set -u

shardproof=$(realpath "$1")
cublaslt=$(realpath "$2")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/roofline.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
export OMP_NUM_THREADS=1
failures=0

fail() {
  echo "FAILED: $1"
  sed 's/^/    /' out err | tail -n 20
  failures=$((failures + 1))
}

# expect NAME STATUS PATTERN COMMAND...
expect() {
  local name=$1 status=$2 pattern=$3 got
  shift 3
  "$@" >out 2>err </dev/null
  got=$?
  if ((got != status)); then
    fail "$name: exit $got, not $status"
  elif ! grep -qE -- "$pattern" out err; then
    fail "$name: nothing matches \"$pattern\""
  else
    echo "ok: $name"
  fi
}

# records NAME CONDITION: of every record `r` of results.json; there are some.
records() {
  python3 - "$2" <<'END' || fail "$1"
import json, sys
records = json.load(open("results.json"))["records"]
wrong = [r for r in records if not eval(f"({sys.argv[1]})", {"r": r})]
print(f"{len(records)} records, {len(wrong)} wrong")
for r in wrong[:3]:
  print(json.dumps(r))
sys.exit(1 if wrong or not records else 0)
END
}

# has NAME EXPRESSION: of the list of all records, `records`.
has() {
  python3 -c 'import json, sys
records = json.load(open("results.json"))["records"]
sys.exit(0 if eval(f"({sys.argv[1]})", {"records": records}) else 1)' "$2" || fail "$1"
}

roofline=("$shardproof" roofline --emulate-gpus 1 --json results.json)

# --- All kernels --------------------------------------------------------------
expect 'every kernel' 0 'emulated, so without times' "${roofline[@]}"
records 'is right' 'r["verdict"] == "passed" and r["error"]["compared"] > 0'
records 'and has no speed' 'r["emulated"] and not any(
  k in r for k in ("time_us", "floor_us", "algbw_gbps", "gflops"))'
has 'of layers, attention and copies' 'all(any(r["case"] == case and
  r["params"].get("dtype", dtype) == dtype for r in records) for case, dtype in (
    ("ceilings/copy", ""), ("kernels/normalize", "bf16"),
    ("kernels/normalize", "f32"), ("kernels/embedding_order", "f32"),
    ("kernels/flash_forward", "bf16"), ("kernels/flash_backward", "bf16")))'
has 'each once' 'len({(r["case"], r["variant"], str(r["params"])) for r in records}
  ) == len(records)'
if grep -qE 'GB/s|TFLOP|%' out; then fail 'a speed of an emulated GPU'; fi
grep -q 'no products on emulated GPUs' out || fail 'nobody says who multiplies'
expect 'a report reads them' 0 'kernels/normalize' "$shardproof" report results.json --csv -

# --- Products -----------------------------------------------------------------
expect 'products' 0 'gemm' "${roofline[@]}" --filter '^kernels/gemm$' \
  --cublaslt-library "$cublaslt"
records 'are right' 'r["verdict"] == "passed"'
has 'and native, the ceiling first' '[r["case"] for r in records if r.get("native")
  and r["variant"] == "cublaslt"][0] == "ceilings/gemm"'
has 'with every epilogue' '{r["params"].get("epilogue") for r in records} >=
  {"none", "bias", "gelu", "gelu_backward"}'

# --- Flags --------------------------------------------------------------------
expect 'other sizes' 0 '5 192' "${roofline[@]}" --filter '^kernels/normalize$' \
  --tokens 5 --hidden 192 --dtype bf16 --hot
records 'are in the records' 'r["case"] == "ceilings/copy" or (
  r["params"]["rows"], r["params"]["columns"], r["params"]["cache"],
  r["params"]["dtype"]) == (5, 192, "hot", "bf16")'
expect 'sequences' 0 'flash_forward' "${roofline[@]}" \
  --filter '^kernels/flash_forward$' --sequence 5,33
has 'of both lengths' '{5, 33} == {r["params"].get("sequence") for r in records}
  - {None}'
expect 'a kernel that there is not' 2 'no kernel is called so' "${roofline[@]}" --filter gelo
expect 'no expression' 2 'not a regular expression' "${roofline[@]}" --filter '('
expect 'no such GPU' 2 '--gpu 3: there are 1' "${roofline[@]}" --gpu 3
expect 'no time' 5 'left out \(out of time\)' "${roofline[@]}" --time-budget 0.001
expect 'both' 2 'one of the two' "${roofline[@]}" --require-gpu
expect 'help' 0 'twice the L2' "$shardproof" roofline --help
if [[ ! -e /dev/nvidia0 ]]; then
  expect 'without a GPU' 6 'no CUDA driver|no GPU|without CUDA' "$shardproof" roofline
  (($(cat out err | wc -l) == 1)) || fail 'more than a sentence'
  expect 'a GPU that is required' 6 'no CUDA driver|no GPU|without CUDA' \
    "$shardproof" roofline --require-gpu
fi

exit $((failures > 0))
