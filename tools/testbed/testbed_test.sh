#!/bin/bash
# The demonstration of the testbed as a test; skipped, with the reason, where there can be no testbed.
#
#     testbed_test.sh TESTBED SHARDPROOF
set -u

testbed=$1 shardproof=$2
report=${XML_OUTPUT_FILE:-/dev/null}
failures=0

# expect NAME STATUS PATTERN COMMAND...
expect() {
  local name=$1 status=$2 pattern=$3 output got
  shift 3
  output=$("$@" 2>&1)
  got=$?
  if ((got == status)) && grep -qE -- "$pattern" <<<"$output"; then
    echo "ok: $name"
  else
    echo "FAILED: $name: exit $got, not $status, or nothing matches \"$pattern\" in: $output"
    failures=$((failures + 1))
  fi
}

expect help 0 'demo SHARDPROOF' "$testbed" --help
expect 'no command' 2 'demo SHARDPROOF' "$testbed"
expect 'too many nodes' 2 'nodes 5: 2 to 4' "$testbed" up --nodes 5
expect 'a slow node that is not there' 2 'a node of 0 to 1' "$testbed" up --nodes 2 --slow 3=1mbit
expect 'no value' 2 'needs a value' "$testbed" up --nodes
expect 'nothing to run' 2 'run what' "$testbed" run

export TESTBED_PREFIX=sptest
output=$("$testbed" demo "$shardproof" 2>&1)
status=$?
echo "$output"
why=''
if ((status == 6)); then
  why=$(tail -n 1 <<<"$output")
  # Not an excuse for a command that failed on a testbed that is there.
  [[ $why != *'on the testbed'* ]] || why=''
fi
if [[ -n $why && $failures == 0 ]]; then
  echo "SKIPPED: $why"
  escaped=$(sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' -e 's/"/\&quot;/g' <<<"$why")
  cat >"$report" <<END
<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="testbed" tests="1" failures="0" errors="0" skipped="1">
<testcase name="demo" classname="testbed"><skipped message="$escaped"/></testcase>
</testsuite></testsuites>
END
  exit 0
fi
left=$(ip netns list 2>/dev/null | grep -c "^$TESTBED_PREFIX-")
((left == 0)) || { echo "FAILED: $left network namespaces are left behind" && failures=$((failures + 1)); }
((status == 0)) || failures=$((failures + 1))
exit $((failures > 0))
