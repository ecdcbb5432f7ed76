#!/bin/bash
# Gives count_tests.py the records of small runs, and looks at its last line and exit status.
set -u

program=$1
folder=$TEST_TMPDIR

# label, kind of rule
configured() {
  echo "{\"id\":{\"targetConfigured\":{\"label\":\"$1\"}},\"configured\":{\"targetKind\":\"${2:-cc_test} rule\"}}"
}

# label, status, report, shard, run
result() {
  echo "{\"id\":{\"testResult\":{\"label\":\"$1\",\"run\":${5:-1},\"shard\":${4:-1}}},\"testResult\":{\"status\":\"$2\"," \
    "\"testActionOutput\":[{\"name\":\"test.xml\",\"uri\":\"file://$folder/$3\"}]}}"
}

# what, the last line expected, the exit status expected, Bazel's exit status; the events come from stdin
expect() {
  local last status
  cat >"$folder/events"
  python3 "$program" "$folder/events" "$4" >"$folder/output"
  status=$?
  last=$(tail -n 1 "$folder/output")
  cat "$folder/output" >>"$folder/log"
  [[ $last == "$2" && $status == "$3" ]] && return
  echo "$1: expected \"$2\" and status $3, got \"$last\" and status $status"
  touch "$folder/wrong"  # Not a variable: a pipe ends in a shell of its own.
}

cat >"$folder/good.xml" <<'END'
<testsuites><testsuite name="S">
<testcase name="A" status="run" classname="S"/>
<testcase name="B" status="run" result="skipped" classname="S"><skipped message="f.cc:3&#x0A;no GPU"/></testcase>
<testcase name="DISABLED_C" status="notrun" result="suppressed" classname="S"/>
</testsuite></testsuites>
END
cat >"$folder/bad.xml" <<'END'
<testsuites><testsuite name="S"><testcase name="A" classname="S"><failure message="f.cc:3&#x0A;1 is not 2"/></testcase>
<testcase name="B" classname="S"/></testsuite></testsuites>
END
cat >"$folder/other kinds.xml" <<'END'
<testsuites><testsuite name="S"><testcase name="A" classname="S"><error message="it crashed"/></testcase>
<testcase name="B" status="run" result="skipped" classname="S"/></testsuite></testsuites>
END
echo '<testsuites/>' >"$folder/empty.xml"
echo '<testsuites><testsu' >"$folder/torn.xml"

{ configured //a; result //a PASSED good.xml; } | expect "a pass and a skip" "1 passed, 0 failed, 1 skipped" 0 0
{ configured //a; result //a FAILED bad.xml; } | expect "a failed case" "1 passed, 1 failed, 0 skipped" 1 3
{ configured //a; result //a FAILED good.xml; } |
  expect "a target that fails after its cases passed" "1 passed, 1 failed, 1 skipped" 1 3
{ configured //a; result //a PASSED empty.xml; } | expect "a target without a case" "0 passed, 1 failed, 0 skipped" 1 0
{ configured //a; result //a PASSED torn.xml; } | expect "a torn report" "0 passed, 1 failed, 0 skipped" 1 0
{ configured //a; result //a FAILED missing.xml; } | expect "no report" "0 passed, 1 failed, 0 skipped" 1 3
{ configured //a; configured //b; configured //c; result //a PASSED good.xml; } |
  expect "two targets that were not built" "1 passed, 2 failed, 1 skipped" 1 1
{ configured //a; result //a PASSED good.xml; } | expect "a broken build" "1 passed, 1 failed, 1 skipped" 1 1
{ configured //a; result //a FAILED bad.xml; result //a PASSED good.xml; } |
  expect "the last attempt counts" "1 passed, 0 failed, 1 skipped" 0 0
{
  configured //a
  echo '{"id":{"targetCompleted":{"label":"//a"}},"aborted":{"reason":"SKIPPED"}}'
  configured //b
  result //b PASSED good.xml
} | expect "a target not for this machine" "1 passed, 0 failed, 2 skipped" 0 0
{ configured //a; result //a FLAKY good.xml; } | expect "a second attempt passed" "1 passed, 0 failed, 1 skipped" 0 0
{ configured //a; result //a FAILED other%20kinds.xml; } |
  expect "an error, a skip without a reason, a file with a space" "0 passed, 1 failed, 1 skipped" 1 3
{ configured //a; result //a PASSED good.xml 1; result //a PASSED good.xml 2; } |
  expect "each shard counts" "2 passed, 0 failed, 2 skipped" 0 0
{ configured //a; result //a FAILED bad.xml 1 1; result //a PASSED good.xml 1 2; } |
  expect "each run counts" "2 passed, 1 failed, 1 skipped" 1 3
{ configured //a; configured //l cc_library; result //a PASSED good.xml; } |
  expect "what is no test need not run" "1 passed, 0 failed, 1 skipped" 0 0
expect "there was nothing to run" "0 passed, 0 failed, 0 skipped" 1 4 </dev/null
expect "nothing ran" "0 passed, 0 failed, 0 skipped" 1 0 </dev/null

grep -q 'FAILED: //a: FAILED, although' "$folder/log" || { echo "a failed target is not named" && touch "$folder/wrong"; }
grep -q 'SKIPPED: //a S.B: no GPU' "$folder/log" || { echo "the reason of a skip is not shown" && touch "$folder/wrong"; }
grep -q 'FAILED: //a S.A: 1 is not 2' "$folder/log" || { echo "the message of a failure is not shown" && touch "$folder/wrong"; }
[[ ! -e $folder/wrong ]]
