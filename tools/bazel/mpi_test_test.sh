#!/bin/bash
# Runs mpi_test.sh with an mpirun that only starts processes, and looks at its report and exit status.
set -u

program=$(realpath "$1")
folder=$TEST_TMPDIR
unset XML_OUTPUT_FILE GTEST_OUTPUT OMPI_COMM_WORLD_RANK PMI_RANK
cd "$folder" || exit 1
mkdir -p bin

# mpirun -np N FLAG... PROGRAM ARGUMENT...: FLAGs are --oversubscribe and --bind-to none.
cat >bin/mpirun <<'END'
#!/bin/bash
n=$2
shift 2
while [[ $1 == --* ]]; do
  [[ $1 == --bind-to ]] && shift
  shift
done
status=0
for ((r = 0; r < n; ++r)); do OMPI_COMM_WORLD_RANK=$r "$@" || status=$?; done
exit "$status"
END

# A test that notes what it was given, and reports one case. FAIL_ON and MUTE_ON: the numbers of ranks with which it
# fails, and reports nothing.
cat >bin/toy <<'END'
#!/bin/bash
report=${XML_OUTPUT_FILE-}
echo "rank ${OMPI_COMM_WORLD_RANK} report ${report:+yes} arguments $*" >>"$LOG"
echo "$TMPDIR" >>"$LOG.tmpdir"
[[ $report == *"np${MUTE_ON-none}.xml" ]] && exit 0
[[ -n $report ]] && cat >"$report" <<XML
<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="1" name="AllTests">
<testsuite name="S" tests="1">
<testcase name="A" classname="S"/>
</testsuite>
</testsuites>
XML
[[ $report == *"np${FAIL_ON-none}.xml" ]] && exit 3
exit 0
END
chmod +x bin/mpirun bin/toy
export PATH=$folder/bin:$PATH LOG=$folder/log
toy=$folder/bin/toy

failures=0
fail() {
  echo "FAILED: $1"
  failures=$((failures + 1))
}
# what, exit status expected, ARGUMENT...
run() {
  local what=$1 wanted=$2
  shift 2
  rm -f "$LOG" "$LOG.tmpdir" report.xml
  PATH=${SEARCHED-$PATH} XML_OUTPUT_FILE=$folder/report.xml "$BASH" "$program" "$@" >output 2>&1
  local status=$?
  ((status == wanted)) || fail "$what: exit status $status, not $wanted"
  grep -c . report.xml >/dev/null || fail "$what: no report"
}
# what, number, pattern, file
times() {
  local found
  found=$(grep -cE -- "$3" "$4")
  ((found == $2)) || fail "$1: \"$3\" is $found times in $4, not $2"
}

run 'two numbers of ranks' 0 '' 2,3 "$toy" --filter x
times 'every rank runs' 5 'arguments --filter x$' "$LOG"
times 'rank 0 alone reports' 2 '^rank 0 report yes' "$LOG"
times 'rank 0 alone reports' 3 '^rank [12] report +arguments' "$LOG"
times 'suites are told apart' 1 'testsuite name="np2/S"' report.xml
times 'suites are told apart' 1 'classname="np3/S"' report.xml
times 'the report is one' 2 '</?testsuites>' report.xml
times 'the report is one' 1 '<\?xml' report.xml
while read -r scratch; do
  [[ -e $scratch ]] && fail "$scratch was left behind"
done <"$LOG.tmpdir"

FAIL_ON=2 run 'the first number fails' 1 '' 2,3 "$toy"
times 'it is said' 1 '2 ranks: exit status 3' output
times 'the others run' 1 'testsuite name="np3/S"' report.xml
FAIL_ON=3 run 'the last number fails' 1 '' 2,3 "$toy"

MUTE_ON=2 run 'no report of rank 0' 1 '' 2,3 "$toy"
times 'that is a failure' 1 '<failure message="2 ranks: no report from rank 0; exit status 0"' report.xml
times 'that is a failure' 1 'classname="np2/run"' report.xml

run 'a reason why not' 0 'no <MPI> & "none"' 2 "$toy"
times 'it is a skip' 1 '<skipped message="no &lt;MPI&gt; &amp; &quot;none&quot;"/>' report.xml
times 'it is a skip' 1 'tests="1" failures="0" errors="0" skipped="1"' report.xml
[[ -e $LOG ]] && fail 'it ran in spite of the reason'

rm bin/mpirun
for tool in cat sed; do ln -s "$(command -v "$tool")" "bin/$tool"; done
SEARCHED=$folder/bin run 'no mpirun' 0 '' 2 "$toy"
times 'that is a skip' 1 '<skipped message="mpirun is not in PATH' report.xml

((failures == 0))
