#!/bin/bash
# Shows check_tree.py one file at a time, good and bad.
set -u

program=$1

# what, the message expected or nothing, path; the text comes from stdin
expect() {
  local output status
  mkdir -p "$TEST_TMPDIR/${3%/*}"
  cat >"$TEST_TMPDIR/$3"
  output=$(python3 "$program" "$TEST_TMPDIR" "$3")
  status=$?
  if [[ -z $2 ]]; then
    ((status == 0)) && return
  else
    ((status == 1)) && [[ $output == *"$2"* ]] && return
  fi
  echo "$1: expected \"$2\", got status $status and: $output"
  touch "$TEST_TMPDIR/wrong"
}

include() { expect "$3 in $2" "$1" "$2" <<<"#include \"$3\""; }

include '' reference/a.cc reference/b.h
include '' collectives/scan/ring.cc reference/b.h
include '' collectives/scan/case.cc tools/harness/case.h
include '' layers/pairing/layer_case.cc tools/harness/case.h
include '' collectives/backend/mpi/mpi_world.cc mpi.h
include '' tools/harness/world.cc collectives/communicator.h
include '' tools/harness/world.cc collectives/backend/thread/thread_world.h
include '' reports/record.cc reference/status.h
include '' pipeline/train_step/step.cc attention/ring/ring.h
include 'may include only' reference/a.cc collectives/communicator.h
include 'may include only' reports/record.cc reference/tensor.h
include 'may include only' collectives/scan/ring.cc tools/harness/case.h
include 'may include only' layers/mlp/mlp.cc tools/harness/case.h
include 'may include only' collectives/scan/ring.cc layers/mlp/mlp.h
include 'may include only' pipeline/validate/validate.cc attention/ring/ring.h
include 'belongs under backend/' collectives/scan/native.cc mpi.h
include 'knows the communicator and no primitive' tools/harness/world.cc collectives/scan/scan.h

printf '#ifndef SHARDPROOF_REFERENCE_A_H_\n#define SHARDPROOF_REFERENCE_A_H_\n#endif\n' | expect "a guard" '' reference/a.h
printf '#ifndef A_H\n#define A_H\n#endif\n' | expect "another guard" 'SHARDPROOF_REFERENCE_A_H_' reference/a.h
yes '//' | head -n 500 | expect "500 lines" '' reference/long.cc
yes '//' | head -n 501 | expect "501 lines" 'the most is 500' reference/long.cc

[[ ! -e $TEST_TMPDIR/wrong ]]
