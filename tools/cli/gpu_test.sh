#!/bin/bash
# The cuda and the nccl backend as a person meets them, on emulated GPUs: the
# whole way from the flags to the record.
#
#     gpu_test.sh SHARDPROOF NCCL NCCL_FOR_GPUS
#
# The last two are libraries with NCCL's interface: one that takes emulated GPUs,
# and one that does not.
set -u

shardproof=$(realpath "$1")
nccl=$(realpath "$2")
nccl_for_gpus=$(realpath "$3")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/gpu.XXXXXX") || exit 1
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
wrong = [r for r in records if not eval(sys.argv[1])]
print(f"{len(records)} records, {len(wrong)} wrong")
for r in wrong[:3]:
  print(json.dumps(r))
sys.exit(1 if wrong or not records else 0)
END
}

small=(--axis 'count=0,1,7,1024')
cuda=("$shardproof" verify --backend cuda --emulate-gpus 2 --json results.json)
nccl_on=("$shardproof" verify --backend nccl --nccl-library "$nccl" --json results.json)

# --- Kernels ------------------------------------------------------------------
# What has a kernel, with virtual ranks of one GPU and without.
primitives='^collectives/(all_reduce|reduce|reduce_scatter|all_gather|broadcast|all_to_all)$'
expect 'kernels' 0 'passed' "${cuda[@]}" --filter "$primitives" \
  --variant native --ranks 1,2,3,4 "${small[@]}"
records 'all kernels pass' \
  'r["native"] and r["backend"] == "cuda" and r["verdict"] == "passed"'
records 'records are emulated' 'r["emulated"] and r.get("busbw_gbps") is None'
expect 'send_recv and barrier' 0 'passed' "${cuda[@]}" --variant native \
  --filter '^collectives/(send_recv|barrier)$' --ranks 2,4
records 'they pass' 'r["verdict"] == "passed"'
expect 'large messages' 0 'passed' "${cuda[@]}" --variant native \
  --filter '^collectives/all_reduce$' --ranks 3 --axis count=300001 \
  --axis dtype=bf16 --axis op=sum
records 'they pass as well' 'r["verdict"] == "passed"'
# The host's algorithms on the same buffers, and a layer.
expect 'host algorithms' 0 'passed' "${cuda[@]}" --variant 'ring|direct' \
  --filter '^collectives/all_reduce$' --ranks 3 --axis count=7 --axis dtype=f32
records 'host algorithms pass' 'r["verdict"] == "passed" and r["emulated"]'
# Nothing that passed is no pass: exit status 5.
expect 'no kernel' 5 'no kernel for gather' "${cuda[@]}" --variant native \
  --filter '^collectives/gather$' --ranks 2 --axis count=7 --axis dtype=f32
records 'which is unsupported' 'r["verdict"] == "unsupported"'
expect 'ordinary memory' 5 'ordinary memory' "${cuda[@]}" --variant native \
  --filter '^collectives/all_reduce$' --ranks 2 --axis count=7 \
  --axis dtype=f32 --memory ordinary
records 'which kernels refuse' 'r["verdict"] == "unsupported"'

# --- NCCL ---------------------------------------------------------------------
# The stand-in rounds to the type at each step, which bf16 does not forgive.
expect 'NCCL' 0 'passed' "${nccl_on[@]}" --emulate-gpus 3 --variant native \
  --filter '^collectives/' --ranks 1,2,3 --axis 'dtype=f32,i32' "${small[@]}"
records 'NCCL passes or says what it lacks' \
  'r["verdict"] == "passed" or "in place" in r["reason"]'
# Each rank of the library in a process of its own.
expect 'several ranks on a GPU' 0 'passed' "${nccl_on[@]}" --emulate-gpus 1 \
  --variant native --filter '^collectives/' --ranks 2,3 --axis 'dtype=f32,i32' "${small[@]}"
records 'they pass as well or say what NCCL lacks' \
  'r["emulated"] and (r["verdict"] == "passed" or "in place" in r["reason"])'
grep -q 'collectives/all_to_all_v' results.json || fail 'no v form'
one_reduction=(--variant native --filter '^collectives/all_reduce$' --ranks 2
  --axis count=7 --axis dtype=f32 --axis op=sum --axis in_place=false)
HOST_NCCL_PLANT='1 killed ncclAllReduce' expect 'a process of a rank that dies' 6 \
  'by the process of rank 1 of 2: it was killed by signal 9' "${nccl_on[@]}" \
  --emulate-gpus 1 "${one_reduction[@]}"
HOST_NCCL_PLANT='1 wrong ncclAllReduce' expect 'a wrong number in a process' 1 'incorrect' \
  "${nccl_on[@]}" --emulate-gpus 1 "${one_reduction[@]}"
HOST_NCCL_PLANT='1 beside ncclAllReduce' expect 'what is written beside a result' 1 \
  'rank 1: all_reduce of 7 f32 .*wrote beside' "${nccl_on[@]}" --emulate-gpus 1 "${one_reduction[@]}"
HOST_NCCL_PLANT='1 hangs ncclAllReduce' expect 'a hang in a process' 124 'rank' \
  "${nccl_on[@]}" --emulate-gpus 1 "${one_reduction[@]}" --timeout 0.2
expect 'a rank that a person starts' 2 'not for people' "$shardproof" nccl-rank
expect 'help' 0 'doctor' "$shardproof" --help
! grep -q nccl-rank out || fail 'nccl-rank is in the help'
expect 'a library for GPUs' 6 'works on GPUs only' "$shardproof" verify \
  --backend nccl --nccl-library "$nccl_for_gpus" --emulate-gpus 1 --filter all_reduce
expect 'no such library' 6 'cannot be loaded' "$shardproof" verify \
  --backend nccl --nccl-library /nowhere.so --emulate-gpus 1 --filter all_reduce

# --- NCCL, the ranks processes ------------------------------------------------
if command -v mpirun >/dev/null && "$shardproof" doctor | grep -q 'Open MPI'; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  mpi=(mpirun --oversubscribe --bind-to none)
  # NCCL_HOSTID says to the stand-in that ranks are processes; NCCL sees that.
  own=("${mpi[@]}" -x NCCL_HOSTID=here -np 3 "${nccl_on[@]}" --emulate-gpus 3)
  expect 'a GPU for each process' 0 'passed' "${own[@]}" --variant native \
    --filter '^collectives/' --ranks 1,2,3 --axis 'dtype=f32,i32' "${small[@]}"
  records 'processes pass or say what NCCL lacks' \
    'r["backend"] == "nccl" and (r["verdict"] == "passed" or "in place" in r["reason"] or r["params"].get("observed"))'
  # Two nodes would have two of each number; here three ranks share two GPUs.
  expect 'processes that share a GPU' 0 'passed' "${mpi[@]}" -np 3 "${nccl_on[@]}" \
    --emulate-gpus 2 --variant native --filter '^collectives/(all_reduce|all_to_all_v)$' \
    --axis 'dtype=f32' "${small[@]}"
  records 'they are the ranks' 'r["ranks"] == 3 and r["emulated"]'
  expect 'messages between processes' 0 'passed' "${own[@]}" --variant ring \
    --filter '^collectives/(all_reduce|all_gather)$' --axis dtype=f32 --axis count=1023
  # Sums on the way are rounded, which the bound of auto must allow for.
  expect 'auto between processes' 0 'passed' "${own[@]}" --variant auto --ranks 2,3 \
    --filter '^collectives/(all_reduce|reduce|reduce_scatter)$' --axis dtype=bf16 "${small[@]}"
  records 'they pass' 'r["verdict"] == "passed"'
  expect 'ranks that disagree' 2 'different arguments' "${mpi[@]}" -x NCCL_HOSTID=here \
    -np 1 "${nccl_on[@]}" --emulate-gpus 2 "${one_reduction[@]}" : \
    -np 1 "${nccl_on[@]}" --emulate-gpus 2 "${one_reduction[@]}" --seed 7
  echo nonsense >tuning.csv
  expect 'a table that one of them cannot read' 2 'rank 1: SHARDPROOF_TUNING' "${mpi[@]}" \
    -np 1 "${nccl_on[@]}" --emulate-gpus 2 "${one_reduction[@]}" : \
    -np 1 env SHARDPROOF_TUNING=tuning.csv "${nccl_on[@]}" --emulate-gpus 2 "${one_reduction[@]}"
  expect 'what needs one memory' 5 'share' "${own[@]}" --variant direct \
    --filter '^collectives/all_reduce$' --axis dtype=f32 --axis count=1023
  expect 'layers' 0 'passed' "${own[@]}" --filter '^layers/column_parallel_linear$' \
    --ranks 2 --time-budget 3
  HOST_NCCL_PLANT='1 wrong ncclAllReduce' expect 'a wrong number of a process' 1 \
    'mpirun -np 2 shardproof verify --emulate-gpus 3 .*--backend nccl' \
    "${own[@]}" "${one_reduction[@]}"
  HOST_NCCL_PLANT='1 hangs ncclAllReduce' expect 'a process that hangs' 124 \
    'rank 1: is in #' "${own[@]}" "${one_reduction[@]}" --timeout 0.2
  HOST_NCCL_PLANT='1 killed ncclAllReduce' expect 'a process that dies' 137 '' \
    "${own[@]}" "${one_reduction[@]}"
  expect 'threads alone' 2 'without mpirun' "${mpi[@]}" -np 2 "${cuda[@]}" --filter all_reduce
  expect 'one process has threads' 0 'passed' "${mpi[@]}" -np 1 "${nccl_on[@]}" \
    --emulate-gpus 2 "${one_reduction[@]}"
else
  echo 'SKIPPED: processes of mpirun: there is no Open MPI'
fi

# --- Flags --------------------------------------------------------------------
expect 'emulated GPUs of threads' 2 'emulate-gpus needs --backend cuda' \
  "$shardproof" verify --emulate-gpus 1 --filter all_reduce
expect 'both' 2 'one of the two' "$shardproof" verify --backend cuda \
  --emulate-gpus 1 --require-gpu --filter all_reduce
expect 'too many' 2 'emulate-gpus' "$shardproof" verify --backend cuda --emulate-gpus 17
expect 'doctor' 0 'GPU 1 \(emulated\): compute capability 9\.0' \
  "$shardproof" doctor --emulate-gpus 2
expect 'doctor of a library' 0 'usable on emulated GPUs' "$shardproof" doctor \
  --emulate-gpus 1 --nccl-library "$nccl"
# Nobody takes the times of fibers for those of GPUs.
expect 'a time in fibers' 0 'passed.*, emulated$' "$shardproof" bench --backend cuda \
  --emulate-gpus 2 --ranks 2 --filter '^collectives/all_reduce$' --variant native \
  --axis count=7 --axis dtype=f32 --axis op=sum
expect 'links of emulated GPUs' 0 'not the times of GPUs and their links' "$shardproof" \
  p2p --backend cuda --emulate-gpus 2 --ranks 2 -b 8 -e 8 --json links.json
grep -q '"backend": *"cuda, emulated"' links.json || fail 'the backend of links'
if [[ ! -e /dev/nvidia0 ]]; then
  expect 'doctor without a GPU' 0 'cuda +not usable' "$shardproof" doctor
  expect 'a GPU that is required' 6 'no CUDA driver|no GPU|without CUDA' \
    "$shardproof" doctor --require-gpu
  expect 'NCCL without a GPU' 6 'no CUDA driver|no GPU|without CUDA' \
    "$shardproof" verify --backend nccl --nccl-library "$nccl" --filter all_reduce
fi
# What failed is repeated on the same GPUs.
expect 'the line that repeats it' 1 'verify --emulate-gpus 2 .*--backend cuda' \
  "${cuda[@]}" --filter '^collectives/all_reduce$' --variant ring --ranks 3 \
  --axis count=1024 --axis dtype=f32 --axis op=sum --fault lose_tail

exit $((failures > 0))
