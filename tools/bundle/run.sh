#!/bin/bash
# Conformance and speed of the collectives on the GPUs of this machine, from the
# bundle: nothing is installed, and neither Bazel nor a CUDA toolkit is needed.
#
#     ./run.sh [--out FOLDER] [FLAG...]
#
# Says what is usable (doctor), then verifies and measures the kernels of the cuda
# backend, and NCCL where there is one: FOLDER/cuda.json, FOLDER/nccl.json and a
# report of each. Other flags go to `shardproof run`: --ranks 2, --time-budget 60,
# --nccl-library /opt/nccl.so, or, without a GPU, --emulate-gpus 2.
#
# NCCL and cuBLASLt are looked for where the system has them, and in the wheels of
# pip: site-packages/nvidia/*/lib of the python3 in PATH.
#
# Exit status: that of shardproof, the worst of its runs (6: no GPU).
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 6
out=shardproof-results ranks='' budget=120 emulated=0
flags=() doctor=(--require-gpu)
while (($# > 0)); do
  case $1 in
    --out | --ranks | --time-budget | --emulate-gpus | --nccl-library)
      if (($# < 2)); then
        echo "run.sh: $1 needs a value" >&2
        exit 2
      fi
      ;;&
    --out) out=$2 && shift 2 ;;
    --ranks) ranks=$2 && shift 2 ;;
    --time-budget) budget=$2 && shift 2 ;;
    --emulate-gpus)
      emulated=1 doctor=("$1" "$2") flags+=("$1" "$2")
      shift 2
      ;;
    --nccl-library)
      export SHARDPROOF_NCCL_LIBRARY=$2
      shift 2
      ;;
    -h | --help) sed -n '2,/^set -u/{/^set -u/d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
    *) flags+=("$1") && shift ;;
  esac
done

libraries=$here/lib
wheels=$(python3 -c '
import glob, site, sys
roots = site.getsitepackages() + [site.getusersitepackages()] + sys.path
found = [lib for root in dict.fromkeys(roots) for lib in sorted(glob.glob(root + "/nvidia/*/lib"))]
print(":".join(dict.fromkeys(found)))' 2>/dev/null)
export LD_LIBRARY_PATH=$libraries${wheels:+:$wheels}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

nccl_flags=()
if [[ -n ${SHARDPROOF_NCCL_LIBRARY:-} ]]; then
  nccl_flags=(--nccl-library "$SHARDPROOF_NCCL_LIBRARY")
fi

found=$("$here/shardproof" doctor "${doctor[@]}" "${nccl_flags[@]}")
status=$?
echo "$found"
((status == 0)) || exit "$status"
gpus=$(grep -cE '^ +GPU [0-9]+ \(' <<<"$found")

mkdir -p "$out" || exit 2
echo "$found" >"$out/doctor.txt"

# The worse of two statuses, as shardproof orders them.
worse() {
  local s
  for s in 130 2 1 124 6 5 3 4; do
    if (($1 == s || $2 == s)); then
      echo "$s"
      return
    fi
  done
  echo 0
}

# Emulated GPUs have no speed.
command=(run --no-history)
((emulated)) && command=(verify)

# The library under test alone: what the host does is measured elsewhere.
measure() {
  local backend=$1 default=$2
  shift 2
  echo "==== $backend, ${ranks:-$default} ranks"
  mkdir -p "$out/$backend"
  "$here/shardproof" "${command[@]}" --backend "$backend" \
    --ranks "${ranks:-$default}" --filter '^collectives/' --variant native \
    --time-budget "$budget" --json "$out/$backend/results.json" "$@" "${flags[@]}"
  status=$(worse "$status" $?)
}

# Of one GPU, two virtual ranks: correctness, and a record that says so.
measure cuda $((gpus < 2 ? 2 : gpus))
if grep -qE '^ +nccl .*; usable' <<<"$found"; then
  measure nccl "$gpus" "${nccl_flags[@]}"
elif ((emulated == 0)); then
  echo "==== nccl: left out; see doctor above"
fi
echo "results in $out"
exit "$status"
