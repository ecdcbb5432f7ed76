#!/bin/bash
# Runs nvcc, keeps what ptxas says of each kernel, and fails if a kernel spills registers.
#
#     nvcc.sh NVCC REPORT FLAG...        the flags contain -Xptxas=-v
#
# A spill is a register that is kept in memory because there are not enough: slower, and never noticed otherwise. Remedies:
# fewer threads in __launch_bounds__, fewer elements for each thread, fewer branches in unrolled loops.
set -u

nvcc=$1 report=$2
shift 2

# A folder of its own: nvcc names its files after its process id, which begins anew in each of Bazel's sandboxes, and
# /tmp is that of the machine, so that two at a time would write into the same file.
TMPDIR=$(mktemp -d) || exit 1
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

if ! "$nvcc" "$@" >"$report" 2>&1; then
  grep -Ev '^ptxas info|bytes stack frame' "$report" >&2
  exit 1
fi

# "Compiling entry function 'f' for 'sm_80'", then its "8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads".
spills=$(awk -v quote="'" '
  /Compiling entry function/ { split($0, part, quote); name = part[2] " for " part[4] }
  /bytes spill stores/ {
    seen = 1
    match($0, /[0-9]+ bytes spill stores/); stores = substr($0, RSTART) + 0
    match($0, /[0-9]+ bytes spill loads/); loads = substr($0, RSTART) + 0
    if (stores + loads > 0) print "    " name ": " stores " bytes stored, " loads " loaded"
  }
  END { if (!seen) print "    no kernel is reported: is -Xptxas=-v among the flags?" }
' "$report")
if [[ -n $spills ]]; then
  if command -v c++filt >/dev/null; then spills=$(c++filt <<<"$spills"); fi
  echo "Kernels spill registers:" >&2
  echo "$spills" >&2
  exit 1
fi
