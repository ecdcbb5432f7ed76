#!/bin/bash
# The mains of conformance tests and benchmarks, on variants whose verdicts are known: a failure that is counted and not
# reported, or a skip that counts as a pass, would make every test of a case one that cannot fail.
#
#     mains_test.sh TEST BENCH SMOKE_TEST_SH
set -u

test=$1
bench=$2
smoke_test=$3
output=$(mktemp "$TEST_TMPDIR/output.XXXXXX") || exit 1
# Those are for the report of this test. Every instance counts.
unset XML_OUTPUT_FILE GTEST_OUTPUT TEST_PREMATURE_EXIT_FILE TEST_SHARD_INDEX TEST_TOTAL_SHARDS TESTBRIDGE_TEST_ONLY
unset SHARDPROOF_TEST_EVERY
failures=0

fail() {
  echo "FAILED: $1"
  sed 's/^/    /' "$output"
  failures=$((failures + 1))
}

# expect NAME STATUS PATTERN COMMAND...: the exit status, 0 or not, and a line of the output.
expect() {
  local name=$1 status=$2 pattern=$3 got
  shift 3
  "$@" >"$output" 2>&1
  got=$?
  if (((got == 0) != (status == 0))); then
    fail "$name: exit status $got"
  elif ! grep -qE -- "$pattern" "$output"; then
    fail "$name: nothing matches \"$pattern\""
  fi
}

# absent NAME PATTERN: nothing of that in the last output.
absent() {
  if grep -qE -- "$2" "$output"; then fail "$1: \"$2\" is there"; fi
}

of() { echo "--gtest_filter=toy/planted.$1"; }

expect 'what is right' 0 '\[  PASSED  \] 1 test' "$test" --ranks=2 "$(of right/ranks2)"
expect 'what is wrong' 1 'incorrect: count=100: .* 1 of 100 elements are wrong' "$test" --ranks=2 "$(of wrong/ranks2)"
expect 'what is wrong, to be seen again' 1 'shardproof verify .*--variant wrong' "$test" --ranks=2 "$(of wrong/ranks2)"
expect 'what is refused' 0 '\[  SKIPPED \] 1 test' "$test" --ranks=2 "$(of refused/ranks2)"
absent 'what is refused' '\[       OK \]'
expect 'why it is refused' 0 'the moon is full' "$test" --ranks=2 "$(of refused/ranks2)"
expect 'a planted bug that is found' 0 '\[  PASSED  \] 1 test' "$test" --ranks=2 "$(of mutant/harmful)"
expect 'a planted bug that survives' 1 'survived 1 instances' "$test" --ranks=2 "$(of mutant/harmless)"

smoke=(--ranks=2 --smoke)
expect 'a benchmark that is right' 0 '/right/.* us .*algbw_GB/s' \
  "$smoke_test" "$bench" "${smoke[@]}" --benchmark_filter=/right/
expect 'a benchmark that is wrong' 1 "/wrong/.*ERROR OCCURRED: 'incorrect: .* 1 of 100 elements are wrong" \
  "$smoke_test" "$bench" "${smoke[@]}" --benchmark_filter=/wrong/
absent 'a benchmark that is wrong' 'algbw'
expect 'a benchmark that is refused' 0 '/right/' "$smoke_test" "$bench" "${smoke[@]}" --benchmark_filter='/(right|refused)/'
absent 'a benchmark that is refused' '/refused/.* us '
expect 'a benchmark that says nothing' 1 'no output' "$smoke_test" true

exit $((failures > 0))
