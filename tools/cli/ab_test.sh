#!/bin/bash
# ab, calibrate, gate, history, report and compare from the outside, over launches whose times are known.
#
#     ab_test.sh SHARDPROOF FAKE_BENCH
set -u

shardproof=$(realpath "$1")
fake=$(realpath "$2")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/ab.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
export TMPDIR=$folder FAKE_COUNTER=$folder/counter SHARDPROOF_HISTORY=$folder/history.db
failures=0

# expect NAME STATUS PATTERN COMMAND...: the exit status, and a line of the output that matches.
expect() {
  local name=$1 status=$2 pattern=$3 got
  shift 3
  rm -f counter
  "$@" >out 2>err </dev/null
  got=$?
  if ((got != status)); then
    echo "FAILED: $name: exit $got, not $status"
  elif ! grep -qE -- "$pattern" out err; then
    echo "FAILED: $name: nothing matches \"$pattern\""
  else
    echo "ok: $name"
    return
  fi
  sed 's/^/    /' out err | tail -n 25
  failures=$((failures + 1))
}

# lacks NAME PATTERN: no line of the last output matches.
lacks() {
  if grep -qE -- "$2" out err; then
    echo "FAILED: $1: \"$2\" is there"
    failures=$((failures + 1))
  fi
}

# One after the other: the fake counts its launches.
ab() { "$shardproof" ab --base "$fake" --cand "$fake" --turns 0 "$@"; }

# --- ab -----------------------------------------------------------------------
expect 'ab: 10 percent slower' 3 '^12 regressed$' ab --cand-env FAKE_SCALE=1.10 --json ab.json
expect 'ab: 10 percent faster' 0 '^12 improved$' ab --cand-env FAKE_SCALE=0.90
expect 'ab: the same' 0 '^12 equivalent$' ab --cand-env FAKE_OTHER=1
expect 'ab: one of 12 is slower' 3 '^1 regressed, 11 equivalent$' ab --cand-env FAKE_SCALE=1.10 --cand-env FAKE_SLOW=1
grep -qE 'ring .* count=0 .*regressed' out || { echo "FAILED: another one was named"; failures=$((failures + 1)); }
expect 'ab: a wrong result is worse than a slow one' 1 'incorrect in the candidate' \
  ab --cand-env FAKE_MODE=wrong --cand-env FAKE_SCALE=1.10
expect 'ab: what the candidate lacks' 5 'in the base only' ab --cand-env FAKE_MODE=missing
expect 'ab: throttled all the time' 5 'throttle' ab --cand-env FAKE_MODE=throttled
expect 'ab: too noisy to tell' 0 'inconclusive' ab --cand-env FAKE_NOISE=0.3
expect 'ab --strict' 4 'inconclusive' ab --cand-env FAKE_NOISE=0.3 --strict
expect 'ab: flags that bench refuses' 2 'not expected: --nonsense' ab --cand-env FAKE_MODE=usage --nonsense
expect 'ab: a crash' 6 'rank 1 crashed' ab --cand-env FAKE_MODE=crash
expect 'ab: a hang' 124 'did not end within' ab --cand-env FAKE_MODE=hang --timeout 1
expect 'ab: twice the same' 2 'compares two things' ab
expect 'ab: no such binary' 2 'does not exist' "$shardproof" ab --base /no/such --cand "$fake"
ln -s "$fake" here
expect 'ab: a file of this folder' 0 '^12 equivalent$' \
  "$shardproof" ab --turns 0 --base here --cand here --cand-env FAKE_OTHER=1
expect 'ab: no environment' 2 'is not NAME=VALUE' ab --cand-env nonsense
expect 'ab: a file that cannot be written' 6 'cannot write' ab --cand-env FAKE_SCALE=1 --json /no/such/x.json
expect 'ab: the time is up' 0 'the time was up' ab --cand-env FAKE_SCALE=1.10 --time-budget 0.5 --pairs 50

rm -f counter
# Not the function: a signal must reach the program, and not a shell around it.
FAKE_MODE=hang "$shardproof" ab --base "$fake" --cand "$fake" --cand-env FAKE_SCALE=1 >out 2>err &
child=$!
sleep 1
kill -INT "$child"
wait "$child"
got=$?
((got == 130)) || { echo "FAILED: an interrupt of ab: exit $got"; sed 's/^/    /' out err; failures=$((failures + 1)); }

# --- calibrate ----------------------------------------------------------------
calibrate() {
  "$shardproof" calibrate --binary "$fake" --verdicts 24 --trials 12 --slow-downs 0.001,0.10 \
    --turns 0 "$@"
}
expect 'calibrate: finds 10 percent and not 0.1' 0 '^10 % +12 +12 ' calibrate --json calibration.json
grep -qE '^0.1 % +12 +0 ' out || { echo "FAILED: 0.1 percent was found"; failures=$((failures + 1)); }
grep -qE '^none +24 +0 false alarms' out || { echo "FAILED: false alarms"; failures=$((failures + 1)); }
expect 'ab goes by the calibration' 3 'on this machine the gate raises a false alarm' ab --cand-env FAKE_SCALE=1.10
expect 'calibrate: wrong results' 6 'did not pass' env FAKE_MODE=wrong \
  "$shardproof" calibrate --turns 0 --binary "$fake"
expect 'calibrate: a slow-down of nothing' 2 'slow-downs' calibrate --slow-downs 0

# --- gate ---------------------------------------------------------------------
# launches NAME N VARIABLE=VALUE..: N result files NAME1.json ...
launches() {
  local name=$1 n=$2 i
  shift 2
  for ((i = 1; i <= n; ++i)); do env "$@" python3 "$fake" bench --json "$name$i.json"; done
}
gate() { "$shardproof" gate "$@"; }
rm -f counter
launches base 6
launches same 6
launches slow 6 FAKE_SCALE=1.10
launches wrong 1 FAKE_MODE=wrong
launches lacks 6 FAKE_MODE=missing
launches hot 6 FAKE_MODE=throttled
expect 'gate: the same' 0 'exit 0' gate same?.json --baseline base?.json
expect 'gate: slower' 3 '12 regressed' gate slow?.json --baseline base?.json --junit gate.xml -o gate.html --summary summary.md
python3 -c 'import sys, xml.dom.minidom as x; x.parse("gate.xml")' || { echo "FAILED: gate.xml"; failures=$((failures + 1)); }
grep -q 'regressed' gate.html summary.md || { echo "FAILED: gate.html, summary.md"; failures=$((failures + 1)); }
expect 'gate: slower, by ab' 3 "shardproof bench .* --variant 'ring' --axis count=11" gate ab.json
expect 'gate: by ab, and not by the history besides' 3 '^12 regressed$' gate ab.json --history history.db
expect 'gate: one launch decides nothing' 0 'inconclusive' gate slow1.json --baseline base1.json
expect 'gate: a wrong result' 1 'incorrect' gate wrong1.json --baseline base?.json
expect 'gate: a wrong result, times aside' 1 'incorrect' gate wrong1.json --correctness-only
expect 'gate: what is missing is no pass' 5 'missing' gate lacks?.json --baseline base?.json
expect 'gate: throttled' 5 'throttle' gate hot?.json --baseline base?.json
expect 'gate: no baseline' 5 'INVALID: data is missing' gate same1.json
expect 'gate: no baseline needed' 0 'exit 0' gate same1.json --correctness-only
head -c 400 base1.json >torn.json
expect 'gate: a torn file among the others' 5 'torn.json is truncated' gate same?.json torn.json --baseline base?.json
sed 's/"schema": 1/"schema": 2/' same1.json >future.json
expect 'gate: a file from the future' 2 'newer shardproof' gate future.json --baseline base?.json
sed 's/"median": [0-9.]*/"median": "NaN"/g' same1.json >nan.json
expect 'gate: times that are none' 5 'its time is nan us, which is none' gate nan.json same2.json same3.json --baseline base?.json
sed 's/"host": "fake"/"host": "fake", "cpu": "another"/' base1.json >other.json
expect 'gate: mixed machines' 5 'machine' gate same?.json --baseline base?.json other.json
cat >gate.toml <<'TOML'
version = 1
[margins]
least = "20%"
TOML
expect 'gate: the margin of gate.toml' 0 'exit 0' gate slow?.json --baseline base?.json
cat >gate.toml <<'TOML'
version = 1
[margins]
leest = "20%"
TOML
expect 'gate: a misspelt key' 2 'gate.toml.*leest' gate slow?.json --baseline base?.json
cat >gate.toml <<TOML
version = 1
[[quarantine]]
filter = "all_reduce ring"
owner = "links@example.com"
reason = "ticket 17"
expires = $(date -d '+10 days' +%F)
TOML
expect 'gate: quarantined' 0 'quarantined.*ticket 17|ticket 17' gate slow?.json --baseline base?.json
sed -i "s/expires = .*/expires = $(date -d '-1 day' +%F)/" gate.toml
expect 'gate: a quarantine that is over' 3 'expired' gate slow?.json --baseline base?.json
rm gate.toml

# --- history ------------------------------------------------------------------
rm -f history.db
stamp() { sed "s/2026-01-01T00:00:00Z/2026-01-0${2}T0${3}:00:00Z/" "$1"; }
for i in 1 2 3 4 5 6; do stamp "base$i.json" 1 "$i" >"h$i.json"; stamp "slow$i.json" 2 "$i" >"i$i.json"; done
machine=(--machine all)
expect 'history: nothing yet' 6 'history.db' "$shardproof" history
expect 'history: import' 0 '12 new records' "$shardproof" history --import h?.json i?.json "${machine[@]}"
expect 'history: twice the same' 0 ' 0 new records' "$shardproof" history --import h1.json "${machine[@]}"
expect 'history: the change is found' 0 'count=3 +12 .*\+1?[0-9]\.[0-9] % at 2026-01-02T01' "$shardproof" history "${machine[@]}"
expect 'history: points' 0 'changed by' "$shardproof" history 'count=3$' --points "${machine[@]}" -o history.html
expect 'history: no such key' 2 'knows nothing of' "$shardproof" history nonsense "${machine[@]}"
expect 'history: a torn file is named, the others are kept' 5 'truncated' "$shardproof" history --import torn.json "${machine[@]}"
expect 'history: sound' 0 'is sound' "$shardproof" history --check "${machine[@]}"
echo 'not a database, but long enough to be taken for something' >text.db
expect 'history: no database' 2 'text.db' "$shardproof" history --history text.db
chmod 000 text.db
[[ $EUID == 0 ]] || expect 'history: not readable' 6 'text.db' "$shardproof" history --history text.db

# --- report and compare -------------------------------------------------------
expect 'report' 0 'written to page.html' "$shardproof" report ab.json calibration.json -o page.html --csv t.csv \
  --comparisons-csv c.csv --openmetrics m.txt --trace t.json --junit j.xml
for file in page.html t.csv c.csv m.txt t.json j.xml; do
  [[ -s $file ]] || { echo "FAILED: $file is empty"; failures=$((failures + 1)); }
done
expect 'report: the good files are shown' 5 'torn.json is truncated' "$shardproof" report torn.json ab.json -o kept.html
[[ -s kept.html ]] || { echo "FAILED: kept.html"; failures=$((failures + 1)); }
expect 'report: nothing to show' 5 'truncated' "$shardproof" report torn.json
expect 'report: no such folder' 6 'cannot write' "$shardproof" report ab.json -o /no/such/folder/x.html
expect 'report: a full disk' 5 'cannot write' "$shardproof" report ab.json -o /dev/full
expect 'report: to standard output' 0 '^launch,.*,param_count' "$shardproof" report base1.json --csv -
expect 'compare' 0 'slow1.json: \+' "$shardproof" compare base1.json slow1.json
expect 'compare: what became wrong' 1 'incorrect' "$shardproof" compare base1.json wrong1.json
expect 'compare: one file' 2 'two result files' "$shardproof" compare base1.json

((failures == 0)) || exit 1
