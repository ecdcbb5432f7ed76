#!/bin/bash
# What run.sh makes of GPUs, of statuses, of torch and of interrupts: run_test.sh RUN_SH
#
# shardproof, torch and pytorch.py are stand-ins, which say what they were asked for.
set -u

run_sh=$(realpath "$1")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/run.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
unset SHARDPROOF_NCCL_LIBRARY
export PYTHONDONTWRITEBYTECODE=1
failures=0

mkdir -p bundle/yardsticks python/torch/distributed broken/torch
cp "$run_sh" bundle/run.sh
# GPUS: how many there are. FAILS="NAME STATUS": what the run of this name ends with.
# INTERRUPTS=NAME: the run in which somebody does.
cat >bundle/shardproof <<'END'
#!/bin/bash
echo "shardproof $*" >>"$CALLS"
if [[ $1 == doctor ]]; then
  echo backends
  for ((i = 0; i < GPUS; ++i)); do
    printf '  %-16s GPU %d (NVIDIA H100 80GB HBM3): compute capability 9.0\n' '' "$i"
  done
  ((NCCL)) && echo '  nccl             NCCL 2.28.9 at /usr/lib/libnccl.so.2; usable'
  if [[ "$*" == *--require-gpu* ]] && ((GPUS == 0)); then
    echo 'shardproof: there is no GPU' >&2
    exit 6
  fi
  exit 0
fi
read -r which status <<<"${FAILS:-none 0}"
file=$(sed -E 's/.*--json ([^ ]*).*/\1/' <<<"$*")
echo '{"by": "shardproof"}' >"$file"
# As from a terminal, where everybody gets it; this one takes no notice.
[[ $file == */"${INTERRUPTS:-none}"/* ]] && kill -INT "$PPID"
[[ $file == */"$which"/* ]] && exit "$status"
exit 0
END
cat >bundle/yardsticks/pytorch.py <<'END'
import os, sys
open(os.environ["CALLS"], "a").write("pytorch.py " + " ".join(sys.argv[1:]) + "\n")
if os.environ.get("TORCH_STATUS", "0") != "3":
    open(sys.argv[sys.argv.index("--json") + 1], "w").write('{"by": "torch"}')
sys.exit(int(os.environ.get("TORCH_STATUS", "0")))
END
touch python/torch/__init__.py python/torch/distributed/__init__.py
cat >python/torch/distributed/run.py <<'END'
import os, runpy, sys
open(os.environ["CALLS"], "a").write("torchrun " + " ".join(sys.argv[1:4]) + "\n")
sys.argv = sys.argv[4:]
runpy.run_path(sys.argv[0], run_name="__main__")
END
echo 'raise ImportError("libcudart.so.12: cannot open shared object file")' >broken/torch/__init__.py
chmod +x bundle/shardproof
export CALLS=$folder/calls PYTHONPATH=$folder/python GPUS=1 NCCL=1

wrong() {
  echo "FAILED: $1"
  sed 's/^/    /' out calls
  failures=$((failures + 1))
}
# expect NAME STATUS PATTERN FLAG...: of run.sh, with a new folder results.
expect() {
  local name=$1 status=$2 pattern=$3 got
  shift 3
  rm -rf results calls
  touch calls
  bundle/run.sh --out results "$@" >out 2>&1 </dev/null
  got=$?
  if ((got != status)); then
    wrong "$name: exit $got, not $status"
  elif ! grep -qE -- "$pattern" out; then
    wrong "$name: nothing matches \"$pattern\""
  else
    echo "ok: $name"
  fi
}
# calls PATTERN...: one for each call, in this order.
calls() {
  local line i=0
  while read -r line; do
    i=$((i + 1))
    if ((i > $#)) || ! grep -qE -- "${!i}" <<<"$line"; then wrong "call $i is: $line"; fi
  done <calls
  ((i == $#)) || wrong "$i calls, not $#"
}
# ledger PATTERN: the names in results/ledger, one after the other.
ledger() {
  local found
  found=$(cd results/ledger 2>/dev/null && echo *)
  [[ $found =~ ^$1$ ]] || wrong "the ledger has: $found"
}

day='[0-9]{4}-[0-9]{2}-[0-9]{2}'
one=${day}_h100-80gb-hbm3
expect 'one GPU' 0 'passed; the results are in results'
calls '^shardproof doctor --require-gpu$' \
  '^shardproof roofline --time-budget 120 --json results/roofline/results.json$' \
  '^shardproof run --no-history --backend cuda --ranks 2 --time-budget 120 .*cuda/.*collectives/ --variant native$' \
  '^shardproof run .*--backend cuda --ranks 2 .*cuda-layers/.*layers\|attention' \
  '^shardproof run .*--backend nccl --ranks 1 .*nccl/' \
  '^shardproof run --no-history --backend nccl --ranks 2 --time-budget 120 .*nccl-ranks/.*collectives/ --variant native$' \
  '^pytorch.py --json results/torch/results.json$'
ledger "${one}_cuda-layers.json ${one}_cuda.json ${one}_nccl-ranks.json ${one}_nccl.json ${one}_roofline.json ${one}_torch.json"
grep -q torch results/ledger/*_torch.json || wrong 'another file'

GPUS=4 expect 'four GPUs' 0 passed --time-budget=7 --nccl-library=/opt/nccl.so --dtype=bf16
calls 'doctor --require-gpu --nccl-library /opt/nccl.so$' '^shardproof roofline --time-budget 7 --json [^ ]*$' \
  'cuda --ranks 4 --time-budget 7 .*--dtype bf16$' 'cuda --ranks 4' \
  'nccl --ranks 4 .*--nccl-library /opt/nccl.so --dtype bf16$' '^pytorch.py' \
  'torchrun --standalone --nproc-per-node 4' '^pytorch.py --json results/torch-all-reduce/'
ledger "${day}_4x-h100-80gb-hbm3_cuda-layers.json .*_torch.json"

GPUS=0 expect 'no GPU' 6 '^shardproof: there is no GPU$'
calls doctor
NCCL=0 expect 'no NCCL' 0 '^==== nccl: left out' --no-yardsticks
calls doctor roofline/ cuda/ cuda-layers/
GPUS=2 expect 'emulated GPUs' 0 'emulated GPUs have no speed' --emulate-gpus 2 --ranks 3
calls '^shardproof doctor --emulate-gpus 2$' '^shardproof roofline .*--emulate-gpus 2$' \
  '^shardproof verify --backend cuda --ranks 3 .*--emulate-gpus 2$' \
  '^shardproof verify .*--emulate-gpus 2$' '^shardproof verify --backend nccl'
[[ ! -e results/ledger ]] || wrong 'emulated GPUs are in the ledger'
GPUS=2 expect 'both kinds' 0 'passed' --emulate-gpus 2 --require-gpu
calls '^shardproof doctor --emulate-gpus 2 --require-gpu$' roofline verify verify verify

# --- Yardsticks ---------------------------------------------------------------
PYTHONPATH=$folder/broken expect 'no torch' 0 \
  'yardsticks: left out: python3 cannot import torch \(ImportError: libcudart'
calls doctor roofline/ cuda/ cuda-layers/ nccl/ nccl-ranks/
TORCH_STATUS=3 expect 'torch without CUDA' 0 'yardsticks: left out; see the line above'
TORCH_STATUS=1 expect 'a yardstick that fails' 5 'results that cannot be used'
ledger '.*_torch.json'

# --- Statuses -----------------------------------------------------------------
FAILS='cuda 1' expect 'a wrong number' 1 'run.sh: a wrong number: see results'
calls doctor roofline/ cuda/ cuda-layers/ nccl/ nccl-ranks/ pytorch
FAILS='nccl 124' expect 'a hang' 124 'run.sh: something hung'
FAILS='nccl-ranks 1' expect 'a wrong number of two ranks' 1 'run.sh: a wrong number: see results'
expect 'a number of ranks' 0 passed --ranks 3
calls doctor roofline/ 'cuda --ranks 3' 'cuda --ranks 3' 'run .*nccl --ranks 3' pytorch
FAILS='cuda 2' expect 'a wrong flag' 2 'run.sh: a flag that cannot be meant'
calls doctor roofline/ cuda/
FAILS='cuda 139' expect 'a crash' 6 'no usable GPU or library, a failed launch, or a crash'
FAILS='cuda 130' expect 'an interrupt' 130 'run.sh: interrupted; what there was until then is in results'
calls doctor roofline/ cuda/
ledger "${one}_cuda.json ${one}_roofline.json"
INTERRUPTS=cuda-layers expect 'an interrupt of run.sh alone' 130 '^run.sh: interrupted'
calls doctor roofline/ cuda/ cuda-layers/

# --- Flags --------------------------------------------------------------------
expect 'help' 0 'Exit status: the worst of all runs' --help
calls
expect 'no value' 2 '--ranks needs a value' --ranks
touch file
expect 'a folder that cannot be' 2 'cannot write into file/results: name another' --out file/results
calls
exit $((failures > 0))
