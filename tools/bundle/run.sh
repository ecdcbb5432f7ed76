#!/bin/bash
# Conformance and speed of the collectives, layers and attention on the GPUs of this
# machine, from the bundle: nothing is installed, and neither Bazel nor a CUDA toolkit
# is needed.
#
#     ./run.sh [--out FOLDER] [FLAG...]
#
# Says what is usable (doctor); measures each kernel against what a GPU copies and
# multiplies (roofline); verifies and measures the cuda backend, and NCCL where there is
# one; measures what PyTorch reaches where torch can be imported.
#
#     FOLDER/doctor.txt                    what was found
#     FOLDER/roofline/results.json         kernels, under ceilings of the same run
#     FOLDER/cuda, cuda-layers, nccl       results.json, report.html, junit.xml
#     FOLDER/nccl-ranks/results.json       two ranks of NCCL where there is one GPU
#     FOLDER/torch/results.json            the yardsticks
#     FOLDER/ledger/<day>_<GPU>_*.json     the same files, by the names of reports/ledger
#
# --ranks N, --time-budget SECONDS (of each of them, 120), --nccl-library FILE,
# --no-yardsticks and, where there is no GPU, --emulate-gpus N, which verifies in
# fibers of the CPU and measures nothing. Other flags go to `shardproof run`: --dtype
# bf16, --label COMMIT.
#
# Exit status: the worst of all runs. 0: all passed, 1: a wrong number, 124: a hang,
# 6: no usable GPU or library, or a launch that failed, 2: flags or a folder that cannot be meant, 130:
# interrupted.
set -u

here=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")" && pwd) || exit 6
out=shardproof-results ranks='' budget=120 emulated=0 yardsticks=1
flags=() doctor=() roofline=()

say() { echo "run.sh: $*" >&2; }
usage() { say "$1; see $0 --help" && exit 2; }

while (($# > 0)); do
  if [[ $1 == --*=* ]]; then set -- "${1%%=*}" "${1#*=}" "${@:2}"; fi
  case $1 in
    --out | --ranks | --time-budget | --emulate-gpus | --nccl-library)
      (($# >= 2)) || usage "$1 needs a value"
      ;;&
    --out) out=$2 && shift 2 ;;
    --ranks) ranks=$2 && shift 2 ;;
    --time-budget) budget=$2 && shift 2 ;;
    --emulate-gpus)
      emulated=1 doctor+=("$1" "$2") flags+=("$1" "$2") roofline+=("$1" "$2")
      shift 2
      ;;
    --nccl-library)
      export SHARDPROOF_NCCL_LIBRARY=$2
      shift 2
      ;;
    --require-gpu) doctor+=("$1") && shift ;;
    --no-yardsticks) yardsticks=0 && shift ;;
    -h | --help) sed -n '2,/^set -u/{/^set -u/d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
    *) flags+=("$1") && shift ;;
  esac
done
# Without this flag doctor tells of GPUs and asks for none.
((emulated)) || doctor=(--require-gpu)
nccl_flags=()
if [[ -n ${SHARDPROOF_NCCL_LIBRARY:-} ]]; then
  nccl_flags=(--nccl-library "$SHARDPROOF_NCCL_LIBRARY")
fi

if ! mkdir -p "$out" 2>/dev/null || ! touch "$out/doctor.txt" 2>/dev/null; then
  say "cannot write into $out: name another folder with --out"
  exit 2
fi

# The worse of two statuses, as shardproof orders them.
worse() {
  local s
  for s in 130 2 1 124 6 5 3 4; do
    if (($1 == s || $2 == s)); then
      echo "$s"
      return
    fi
  done
  # What shardproof does not return: killed by a signal.
  if (($1 > 0 || $2 > 0)); then echo 6; else echo 0; fi
}

# Says how it went, and ends.
finish() {
  case $status in
    0) say "passed; the results are in $out" ;;
    1) say "a wrong number: see $out" ;;
    2) say 'a flag that cannot be meant: see above' ;;
    5) say "results that cannot be used, or nothing that passed: see $out" ;;
    6) say "no usable GPU or library, a failed launch, or a crash: see above" ;;
    124) say "something hung: see $out" ;;
    130) say "interrupted; what there was until then is in $out" ;;
    *) say "exit status $status: see $out" ;;
  esac
  exit "$status"
}

# Bash goes on after a program that has caught an interrupt, and must not.
interrupted=0
trap 'interrupted=1' INT TERM

# note STATUS: of a part. Only an interrupt and wrong usage end the whole.
status=0
note() {
  status=$(worse "$status" "$1")
  ((interrupted)) && status=130
  if ((status == 130 || status == 2)); then finish; fi
}

errors=$("$here/shardproof" doctor "${doctor[@]}" "${nccl_flags[@]}" 2>&1 >"$out/doctor.txt")
status=$?
cat "$out/doctor.txt"
[[ -n $errors ]] && echo "$errors" >&2
((interrupted)) && status=130
((status == 0)) || finish
found=$(<"$out/doctor.txt")
gpus=$(grep -cE '^ +GPU [0-9]+ \(' <<<"$found")

# "2x-h200" of "GPU 0 (NVIDIA H200): ..."
gpu_name() {
  sed -nE 's/^ +GPU 0 \((.*)\): compute capability.*/\1/p' <<<"$found" | tr '[:upper:]' '[:lower:]' |
    sed -E 's/nvidia|geforce|tesla//g; s/[^a-z0-9]+/-/g; s/^-|-$//g'
}
many=''
((gpus > 1)) && many=${gpus}x-
ledger=$out/ledger/$(date -u +%F)_$many$(gpu_name)

# keep NAME: under its name in the ledger, where emulated GPUs do not count.
keep() {
  if ((emulated)) || [[ ! -s $out/$1/results.json ]]; then return; fi
  mkdir -p "$out/ledger" && cp "$out/$1/results.json" "${ledger}_$1.json"
}

# Emulated GPUs have no speed.
command=(run --no-history)
((emulated)) && command=(verify)

# measure NAME BACKEND DEFAULT_RANKS FLAG...
measure() {
  local name=$1 backend=$2 n=${ranks:-$3}
  shift 3
  echo "==== $name, $n ranks"
  mkdir -p "$out/$name"
  "$here/shardproof" "${command[@]}" --backend "$backend" --ranks "$n" \
    --time-budget "$budget" --json "$out/$name/results.json" "$@" "${flags[@]}"
  local ended=$?
  keep "$name"
  note "$ended"
}

# Kernels without ranks; the flags of `run` are not its.
echo '==== roofline'
mkdir -p "$out/roofline"
"$here/shardproof" roofline --time-budget "$budget" --json "$out/roofline/results.json" "${roofline[@]}"
ended=$?
keep roofline
note "$ended"

# Of one GPU, two virtual ranks: correctness, and a record that says so.
default=$((gpus < 2 ? 2 : gpus))
# The library under test alone: what the host does is measured elsewhere.
native=(--filter '^collectives/' --variant native)
measure cuda cuda "$default" "${native[@]}"
measure cuda-layers cuda "$default" --filter '^(layers|attention)/'
if grep -qE '^ +nccl .*; usable' <<<"$found"; then
  measure nccl nccl "$gpus" "${native[@]}" "${nccl_flags[@]}"
  # NCCL with a peer, each rank in a process of its own: its times say nothing.
  if ((gpus == 1)) && [[ -z $ranks ]]; then
    measure nccl-ranks nccl 2 "${native[@]}" "${nccl_flags[@]}"
  fi
else
  echo "==== nccl: left out; see doctor above"
fi

# What PyTorch reaches. With the libraries of the machine: torch brings its own.
measure_torch() {
  local name=$1 ended
  shift
  mkdir -p "$out/$name"
  timeout --foreground --signal=INT --kill-after=30 600 "$@" --json "$out/$name/results.json"
  ended=$?
  keep "$name"
  # Those of pytorch.py: 3 is no GPU for torch, which is no finding of this run. What
  # is wrong with PyTorch is none either, but the yardstick cannot be used.
  case $ended in
    3) echo "==== yardsticks: left out; see the line above" ;;
    0 | 124 | 130) note "$ended" ;;
    *) note 5 ;;
  esac
}

if ((yardsticks == 0)); then
  echo '==== yardsticks: left out, as --no-yardsticks says'
elif ((emulated)); then
  echo '==== yardsticks: left out: emulated GPUs have no speed'
elif ! why=$(python3 -c 'import torch' 2>&1); then
  echo "==== yardsticks: left out: python3 cannot import torch (${why##*$'\n'})"
else
  echo '==== yardsticks: PyTorch'
  measure_torch torch python3 "$here/yardsticks/pytorch.py"
  if ((gpus > 1)); then
    measure_torch torch-all-reduce python3 -m torch.distributed.run --standalone \
      --nproc-per-node "$gpus" "$here/yardsticks/pytorch.py"
  fi
fi
finish
