#!/bin/bash
# support_table.py over ledgers made here, and over the repository's own.
#
#     support_table_test.sh SCRIPT README
set -u

script=$(realpath "$1") readme=$(realpath "$2")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/ledger.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

expect() {
  local what=$1 wanted=$2 status
  shift 2
  "$@" >out 2>&1
  status=$?
  if ((status != wanted)); then
    echo "FAILED: $what: exit $status, not $wanted"
    cat out
    failures=$((failures + 1))
  fi
}
says() {
  grep -qF -- "$1" out && return
  echo "FAILED: it does not say \"$1\":"
  cat out
  failures=$((failures + 1))
}

# What the README says today is what the ledger holds.
expect 'the README' 0 "$script" --check --readme "$readme"

mkdir empty one
expect 'an empty ledger' 0 "$script" --ledger empty
says 'no result of a GPU yet'

record() { echo "{\"case\": \"$1\", \"backend\": \"$2\", \"verdict\": \"$3\", \"emulated\": true}"; }
command='shardproof verify'
result() {
  local environment=$1
  shift
  local IFS=,
  echo "{\"schema\": 1, \"command\": \"$command\", \"started\": \"2026-12-01T10:00:00Z\", \"environment\": $environment, \"records\": [$*]}"
}
h200='{"gpus": [{"name": "NVIDIA H200"}, {"name": "NVIDIA H200"}], "driver": "580.1", "nccl": "2.28.9"}'
result "$h200" "$(record collectives/all_reduce cuda passed)" "$(record collectives/barrier cuda wrong)" \
  "$(record collectives/gather cuda unsupported)" "$(record layers/mlp nccl passed)" \
  "$(record layers/mlp thread passed)" >one/a.json
command='shardproof verify --emulate-gpus 2' result "$h200" "$(record pipeline/gpipe cuda passed)" >one/b.json
result '{"gpus": []}' "$(record attention/ring cuda passed)" >one/c.json
expect 'a ledger' 0 "$script" --ledger one
says '| collectives | cuda | 2 NVIDIA H200 | 1 | 1 | 1 | driver 580.1 | 2026-12-01 |'
says '| layers | nccl | 2 NVIDIA H200 | 1 | 0 | 0 | driver 580.1, NCCL 2.28.9 | 2026-12-01 |'
if grep -qE 'thread|pipeline|attention' out; then
  echo 'FAILED: threads or emulated GPUs count'
  failures=$((failures + 1))
fi

cp "$readme" mine.md
expect 'another README' 1 "$script" --ledger one --readme mine.md --check
expect 'writing' 0 "$script" --ledger one --readme mine.md --write
expect 'what was written' 0 "$script" --ledger one --readme mine.md --check
grep -q 'NVIDIA H200' mine.md || failures=$((failures + 1))
expect 'writing again' 0 "$script" --ledger one --readme mine.md --write
expect 'what was written twice' 0 "$script" --ledger one --readme mine.md --check
echo 'no markers' >other.md
expect 'no markers' 4 "$script" --ledger one --readme other.md --check

for bad in '{' '[]' '{"schema": 2}' '{"schema": 1}' 'null'; do
  mkdir -p bad
  echo "$bad" >bad/b.json
  expect "$bad" 4 "$script" --ledger bad
  says 'b.json'
done
exit $((failures > 0))
