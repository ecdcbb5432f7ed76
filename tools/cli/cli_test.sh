#!/bin/bash
# The binary as a person meets it: bad input, interrupts, hangs, crashes, full
# disks, and what is left on disk afterwards.
#
#     cli_test.sh SHARDPROOF NCCL BROKEN_NCCL
#
# The last two are libraries with NCCL's interface, of which the second lacks
# ncclAllGather.
set -u

shardproof=$(realpath "$1")
nccl=$(realpath "$2")
broken_nccl=$(realpath "$3")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/cli.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
export TMPDIR=/tmp OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS=1
failures=0

fail() {
  echo "FAILED: $1"
  sed 's/^/    /' out err | tail -n 20
  failures=$((failures + 1))
}

# expect NAME STATUS PATTERN COMMAND...: the exit status, and a line on standard
# error (or output) that matches PATTERN.
expect() {
  local name=$1 status=$2 pattern=$3 got
  shift 3
  "$@" >out 2>err </dev/null
  got=$?
  if ((got != status)); then
    fail "$name: exit $got, not $status"
  elif ! grep -qE -- "$pattern" out err; then
    fail "$name: nothing matches \"$pattern\""
  else
    echo "ok: $name"
  fi
}

# One sentence, not a page.
brief() {
  if (($(wc -l <err) > 1)); then fail "$1: more than one line on stderr"; fi
}

valid_json() {
  if ! python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$2"; then
    fail "$1: $2 is not valid JSON"
  fi
}

tiny=(--filter '^collectives/all_reduce$' --axis count=64 --axis dtype=f32
  --axis op=sum --axis in_place=false --ranks 3)

# --- Usage --------------------------------------------------------------------
expect help 0 'Exit codes' "$shardproof" --help
for command in list run verify bench explain mutants doctor; do
  expect "$command --help" 0 'Usage' "$shardproof" "$command" --help
done
for command in list draw trace check mesh; do
  expect "pipeline $command --help" 0 'Usage' "$shardproof" pipeline "$command" --help
done
expect 'no command' 2 'shardproof: .*subcommand' "$shardproof"
expect 'another word' 2 'there is no command "verfy": did you mean verify' "$shardproof" verfy
expect 'unknown flag' 2 'not-a-flag' "$shardproof" verify --not-a-flag
brief 'unknown flag'
expect 'unknown command' 2 'shardproof:' "$shardproof" frobnicate
expect 'filter matches nothing' 2 'did you mean .*collectives/all_reduce' \
  "$shardproof" verify --filter al_reduce
brief 'filter matches nothing'
expect 'filter is not a pattern' 2 'not a regular expression' \
  "$shardproof" verify --filter '['
expect 'unknown axis' 2 'no chosen case has an axis "colour"' \
  "$shardproof" verify --filter all_reduce --axis colour=red
expect 'unknown value' 2 'purple' "$shardproof" verify --filter all_reduce \
  --axis dtype=purple
expect 'negative value' 2 'is negative' "$shardproof" verify \
  --filter layers/mlp --axis tokens=-1
expect 'malformed axis' 2 'name=value' "$shardproof" verify --axis count
expect 'unknown variant' 2 'matches none of' "$shardproof" verify "${tiny[@]}" \
  --variant rings
expect 'zero ranks' 2 'ranks' "$shardproof" verify --ranks 0
expect 'more ranks than fit' 2 'at most' "$shardproof" verify --ranks 4000
expect 'a size that does not fit' 5 'memory|GiB' "$shardproof" verify \
  "${tiny[@]}" --axis count=1000000000000 --variant ring
expect 'unknown backend' 2 'backend' "$shardproof" verify --backend carrier
if [[ ! -e /dev/nvidia0 ]]; then
  expect 'no GPU' 6 'shardproof: (no CUDA driver|no GPU|this program was built without CUDA)' \
    "$shardproof" verify --backend cuda
  brief 'no GPU'
fi
expect 'explain an unknown case' 2 'collectives' "$shardproof" explain nothing

# --- Meshes -------------------------------------------------------------------
train=(--filter train_step_llama --dtype f32 --axis steps=1)
expect 'a mesh' 0 'train_step_llama +mesh +4 ' "$shardproof" verify "${train[@]}" \
  --mesh tp=2,pp=2
expect 'a mesh in another order' 0 'at 4 ranks .*mesh=pp2xtp2' "$shardproof" \
  explain train_step_llama --mesh pp=2,tp=2 --axis steps=1
grep -qE 'pp=2,tp=2 sends .* between nodes of 2 ranks; tp=2,pp=2, .* sends ' out ||
  fail 'a mesh in another order: not compared with the usual one'
for command in verify bench; do
  expect "$command: a mesh in another order" 0 'note: a step of llama on pp=2,tp=2 sends ' \
    "$shardproof" "$command" "${train[@]}" --mesh pp=2,tp=2
done
expect 'a mesh that is none' 2 '"tp2" .* is not name=size' "$shardproof" \
  verify "${train[@]}" --mesh tp2
brief 'a mesh that is none'
expect 'a dimension that is none' 2 'no dimension "qp"; there are tp, cp' \
  "$shardproof" bench "${train[@]}" --mesh qp=2
for command in verify bench mutants; do
  expect "$command: a mesh of other ranks" 2 'is of 4 ranks, and there are 8' \
    "$shardproof" "$command" "${train[@]}" --mesh tp=2,pp=2 --ranks 8
  brief "$command: a mesh of other ranks"
done
expect 'explain: a mesh of other ranks' 2 'is of 4 ranks, and there are 8' \
  "$shardproof" explain train_step_llama --mesh tp=2,pp=2 --ranks 8
expect 'a mesh and no case for it' 2 'no chosen case has an axis "mesh"' \
  "$shardproof" verify --filter all_reduce --mesh tp=2
expect 'a mesh that its model has not' 2 \
  'instead of mesh=ep2, the rest goes with mesh=dp2, pp2, cp2, tp2' \
  "$shardproof" verify "${train[@]}" --mesh ep=2
brief 'a mesh that its model has not'
expect 'more stages than blocks' 2 '16 stages of a model of [0-9]+ blocks' \
  "$shardproof" verify "${train[@]}" --mesh pp=16
brief 'more stages than blocks'
expect 'a schedule that is not in the sample' 2 '--axis matrix=all has it' \
  "$shardproof" verify "${train[@]}" --mesh tp=2,pp=4 --axis schedule=chimera \
  --axis zero=3 --axis sequence_parallel=true
expect 'other numbers of ranks' 2 'no instance .* 4 ranks: .*--ranks 2 has it' \
  "$shardproof" verify "${train[@]}" --axis mesh=tp2

# --- Models -------------------------------------------------------------------
expect 'unknown model' 2 'llama-3.1-8b' "$shardproof" bench --model lama
echo '{"model_type": "llama", "hidden_size": 4096' >truncated.json
expect 'truncated model' 2 'truncated.json' "$shardproof" run \
  --model ./truncated.json
echo '{"model_type": "llama", "hidden_size": 4096}' >missing.json
expect 'missing key' 2 'missing.json.*(num_|intermediate_|vocab_)' \
  "$shardproof" run --model ./missing.json
expect 'layout does not fit' 2 'tp|heads' "$shardproof" bench \
  --model llama-3.1-8b --tp 7

# --- The main job -------------------------------------------------------------
# What verify has passed is looked at twice more: 341 of 512 rows of 2 outputs,
# before the clock starts and after it.
expect 'main job' 0 ' passed$' "$shardproof" run --model gpt2 --sequence 512 \
  --ranks 2 --filter '^layers/dropout$' --axis layout=replicated --no-history \
  --json main.json
if ! python3 - main.json <<'END'; then
import json, sys
records = json.load(open(sys.argv[1]))['records']
timed = [r for r in records if 'time_us' in r]
assert len(records) > 1 and len(timed) == 1, (len(records), len(timed))
assert timed[0]['error']['compared'] == 2 * 341 * 768 * 2, timed[0]['error']
END
  fail 'main job: what was verified is verified again'
fi

# --- Results ------------------------------------------------------------------
expect verify 0 'passed' "$shardproof" verify "${tiny[@]}" --json good.json
valid_json verify good.json
expect 'results are kept' 0 'passed' "$shardproof" verify "${tiny[@]}" \
  --json good.json
[[ -s good.json.previous ]] || fail 'results are kept: no good.json.previous'
echo 'a letter' >letter.txt
expect 'another file is not overwritten' 2 'not a result file' \
  "$shardproof" verify "${tiny[@]}" --json letter.txt
grep -q 'a letter' letter.txt || fail 'another file was overwritten'
expect 'no such folder' 6 'cannot write' "$shardproof" verify "${tiny[@]}" \
  --json no/such/folder.json
expect 'full disk' 5 'No space left' "$shardproof" verify "${tiny[@]}" \
  --json /dev/full
expect list 0 'variants' "$shardproof" list
"$shardproof" list --json >list.json || fail 'list --json'
valid_json 'list --json' list.json
expect doctor 0 'thread' "$shardproof" doctor
expect 'doctor of a library' 0 "nccl +NCCL 2\.28\.9 at $nccl; " \
  "$shardproof" doctor --nccl-library "$nccl"
expect 'what a library lacks' 0 'lacks: .*several ranks on one GPU \(2\.30\.0\)' \
  "$shardproof" doctor --nccl-library "$nccl"
expect 'several ranks on one GPU' 0 'several ranks on one GPU: in a process each' \
  "$shardproof" doctor --nccl-library "$nccl"
expect 'a library for emulated GPUs' 0 "at $nccl; for emulated GPUs only: --emulate-gpus$" \
  "$shardproof" doctor --nccl-library "$nccl"
expect 'no such library' 6 'shardproof: .*/nowhere\.so cannot be loaded' \
  "$shardproof" doctor --nccl-library /nowhere.so
brief 'no such library'
expect 'no NCCL library' 6 'shardproof: libm\.so\.6 is not an NCCL library' \
  "$shardproof" doctor --nccl-library libm.so.6
brief 'no NCCL library'
expect 'a library without a function' 6 'shardproof: .* has no ncclAllGather' \
  "$shardproof" doctor --nccl-library "$broken_nccl"
brief 'a library without a function'
expect explain 0 'rank' "$shardproof" explain collectives/all_reduce --ranks 3 \
  --axis count=12 --variant ring
expect bench 0 'GB/s' "$shardproof" bench "${tiny[@]}" --json bench.json
expect 'flags of nccl-tests' 0 'count=256' "$shardproof" bench -b 1K -e 1K -g 2 \
  -n 5 -w 2 -d float -o sum --filter '^collectives/all_reduce$' --variant ring
# Bytes of the whole operation: the result of all_gather, what a rank sends in
# all_to_all. Sizes below an element come to one, and a case without sizes is
# there once.
expect 'a size of the whole operation' 0 'count=128 ' "$shardproof" bench -b 1K \
  -g 2 -n 5 -w 2 -d float --filter '^collectives/all_gather$' --variant ring
expect 'a size of all that a rank sends' 0 'count=64 ' "$shardproof" bench -b 1K \
  -g 4 -n 5 -w 2 -d float --filter '^collectives/all_to_all$' --variant pairwise
expect 'sizes below an element' 0 '3 records' "$shardproof" bench -b 1 -e 8 -g 2 \
  -n 5 -w 2 -d float --filter '^collectives/(all_reduce|barrier)$' \
  --variant 'ring|dissemination' --axis observed=false --axis op=sum \
  --axis in_place=false --json small.json

# --- Faults, hangs, interrupts, crashes -------------------------------------
expect 'a wrong number' 1 'incorrect' "$shardproof" verify "${tiny[@]}" \
  --fault wrong_scale
expect 'unknown fault' 2 'wrong_scale' "$shardproof" verify "${tiny[@]}" \
  --fault gremlins
expect hang 124 'rank' "$shardproof" verify "${tiny[@]}" --variant ring \
  --fault never_arrive --timeout 0.5 --json hang.json
valid_json hang hang.json
expect 'hang in a group' 124 'in a group of ranks [0-9, ]*: rank .*never entered' \
  "$shardproof" verify --filter '^layers/tensor_parallel_2d$' --ranks 4 \
  --variant auto --axis dtype=f32 --axis in=52 --axis out=40 \
  --fault never_arrive --timeout 0.5
grep -q '"failed"' hang.json || fail 'hang: no record of it'

"$shardproof" verify --filter collectives --ranks 2,3,4,5,7,8 \
  --json interrupted.json >out 2>err &
pid=$!
sleep 2
kill -INT "$pid"
wait "$pid"
status=$?
((status == 130)) || fail "interrupt: exit $status, not 130"
valid_json interrupt interrupted.json
grep -q '"interrupted":true' interrupted.json || fail 'interrupt: not marked'

"$shardproof" verify --filter collectives --ranks 2,3,4,5,7,8 \
  --json killed.json >out 2>err &
pid=$!
sleep 2
kill -KILL "$pid"
wait "$pid" 2>/dev/null
valid_json 'kill -9' killed.json

"$shardproof" verify --filter collectives --ranks 2,3,4,5,7,8 \
  --json crashed.json >out 2>err &
pid=$!
sleep 1
kill -SEGV "$pid"
wait "$pid"
status=$?
((status == 6)) || fail "crash: exit $status, not 6"
grep -q 'crashed (SIGSEGV' err || fail 'crash: not named'
valid_json crash crashed.json

# --- MPI ----------------------------------------------------------------------
if command -v mpirun >/dev/null && "$shardproof" doctor | grep -q 'Open MPI'; then
  mpi=(mpirun --oversubscribe --bind-to none -np 3)
  unset 'tiny[-1]' 'tiny[-1]'
  expect 'mpi verify' 0 'passed' "${mpi[@]}" "$shardproof" verify "${tiny[@]}" \
    --json mpi.json
  valid_json 'mpi verify' mpi.json
  expect 'ranks that disagree' 2 'different arguments' mpirun --oversubscribe \
    --bind-to none -np 1 "$shardproof" verify "${tiny[@]}" : \
    -np 1 "$shardproof" verify "${tiny[@]}" --seed 7
  expect 'mpi hang' 124 'rank' "${mpi[@]}" "$shardproof" verify "${tiny[@]}" \
    --variant ring --fault never_arrive --timeout 1
  expect 'more ranks than started' 2 'mpirun started 3' "${mpi[@]}" \
    "$shardproof" verify "${tiny[@]}" --ranks 4
  expect 'a mesh of more ranks than started' 2 'is of 4 ranks, and there are 3' \
    "${mpi[@]}" "$shardproof" verify "${train[@]}" --mesh tp=2,pp=2
  expect 'mpi mesh' 0 'train_step_llama +mesh +2 ' mpirun --oversubscribe \
    --bind-to none -np 2 "$shardproof" verify "${train[@]}" --mesh pp=2
fi

# --- Pipeline schedules -------------------------------------------------------
expect 'pipeline list' 0 '^zb_h2 .*2401.10241' "$shardproof" pipeline list
expect 'pipeline draw' 0 'idle 11.1 % of the time of all ranks' \
  "$shardproof" pipeline draw --schedule zb_h1 --stages 4 --microbatches 8 -o zb.svg
if ! python3 -c 'import xml.dom.minidom, sys; xml.dom.minidom.parse(sys.argv[1])' zb.svg; then
  fail 'pipeline draw: zb.svg is no XML'
fi
expect 'pipeline draw: a limit' 0 'a rank holds .* to 7 activations' \
  "$shardproof" pipeline draw --schedule zb_auto --stages 4 --microbatches 8 --memory-limit 7
expect 'pipeline draw: over the limit' 2 'zb_h2: rank 0 holds 7, more than 4' \
  "$shardproof" pipeline draw --schedule zb_h2 --stages 4 --microbatches 8 --memory-limit 4
brief 'pipeline draw: over the limit'
expect 'pipeline draw: pairs' 0 '^rank 0 .* F3.0&B5.1 .*' \
  "$shardproof" pipeline draw --schedule dualpipe --stages 4 --microbatches 8 --overlapped 2
expect 'pipeline draw: two pipelines are no table' 2 'dualpipe has 2 pipelines' \
  "$shardproof" pipeline draw --schedule dualpipe --stages 4 --microbatches 8 -o dual.csv
expect 'pipeline draw: table' 0 'wrote zb.csv' \
  "$shardproof" pipeline draw --schedule zb_h1 --stages 4 --microbatches 8 -o zb.csv
expect 'pipeline draw: table of pairs' 0 'wrote pairs.csv' \
  "$shardproof" pipeline draw --schedule dualpipe_v --stages 2 --microbatches 6 -o pairs.csv
expect 'pipeline check: pairs' 0 '^rank 1 .* F3.0&B1.1 ' \
  "$shardproof" pipeline check pairs.csv --overlapped 2
expect 'pipeline trace' 0 'wrote zb.json' "$shardproof" pipeline trace \
  --schedule zb_h1 --stages 4 --microbatches 8 --forward 2 -o zb.json
valid_json 'pipeline trace' zb.json
if ! python3 - zb.json <<'END'; then
import json, sys
events = json.load(open(sys.argv[1]))['traceEvents']
slices = [e for e in events if e['ph'] == 'X']
assert len(slices) == 4 * 8 * 3, len(slices)
assert {e['tid'] for e in slices} == {1, 2, 3, 4}
first = slices[0]
assert (first['name'], first['ts'], first['dur']) == ('F0', 0, 2000), first
END
  fail 'pipeline trace: zb.json is not the schedule'
fi
expect 'pipeline trace: measured' 0 '^a step took .* ms were predicted: [+-].* %' \
  "$shardproof" pipeline trace --measure --unit 200us --schedule zb_v --stages 3 \
  --microbatches 6 -o both.json
if ! python3 - both.json <<'END'; then
import json, sys
events = json.load(open(sys.argv[1]))['traceEvents']
names = [(e['pid'], e['args']['name']) for e in events if e['name'] == 'process_name']
assert names == [(1, 'predicted'), (2, 'measured')], names
lanes = {}
for e in events:
    if e['ph'] == 'X':
        lanes.setdefault((e['pid'], e['tid']), []).append(e)
assert set(lanes) == {(pid, tid) for pid in (1, 2) for tid in (1, 2, 3)}, lanes.keys()
for (pid, tid), slices in lanes.items():
    assert len(slices) == 6 * 2 * 3, len(slices)
    assert [e['name'] for e in slices] == [e['name'] for e in lanes[1, tid]]
    for before, after in zip(slices, slices[1:]):
        assert before['ts'] + before['dur'] <= after['ts'], (before, after)
for pid in (1, 2):
    assert min(e['ts'] for e in events if e['ph'] == 'X' and e['pid'] == pid) == 0
# A forward pass of one of two chunks is half a unit, of 200 microseconds.
assert lanes[1, 1][0]['dur'] == 100, lanes[1, 1][0]
END
  fail 'pipeline trace: both.json is not the schedule twice'
fi
trace_refused() {
  expect "pipeline trace: $1" 2 "$2" "$shardproof" pipeline trace -o x.json "${@:3}"
  brief "pipeline trace: $1"
}
trace_refused 'no unit' '--unit 5: not a time' --unit 5
trace_refused 'an empty unit' '--unit 0ms: not a time' --unit 0ms
trace_refused 'a unit that is no number' '--unit nanms: not a time' --unit nanms
trace_refused 'too long' '4 steps of 880 s are more than 600 s' --measure --unit 20s \
  --microbatches 41 --schedule one_f_one_b --weight 0 --input 0
trace_refused 'pairs at once' '--overlapped and --measure' --measure \
  --schedule dualpipe --overlapped 2
trace_refused 'a latency' '--latency and --measure' --measure --latency 1
trace_refused 'too many threads' 'at most 64 of them, not 65' --measure --stages 65
trace_refused 'no costs' 'nothing takes time' --measure --forward 0 --input 0 --weight 0
expect 'pipeline trace: no file' 2 'output is required' \
  "$shardproof" pipeline trace --schedule zb_h1
expect 'pipeline trace: refused' 2 'zb_h2 needs 7 micro-batches for 4 ranks, not 6' \
  "$shardproof" pipeline trace --schedule zb_h2 --stages 4 --microbatches 6 -o x.json
expect 'pipeline trace: nowhere to write' 5 'cannot write /nowhere/zb.json' \
  "$shardproof" pipeline trace -o /nowhere/zb.json
expect 'pipeline check' 0 'grouped messages: runs' "$shardproof" pipeline check zb.csv
expect 'pipeline check: over the limit' 2 'zb.csv: rank 0 holds 4, more than 3' \
  "$shardproof" pipeline check zb.csv --memory-limit 3
sed -i 's/1F3,//' zb.csv
expect 'pipeline check: an action is missing' 5 'zb.csv: rank 1 never does F3, of stage 1' \
  "$shardproof" pipeline check zb.csv
brief 'pipeline check: an action is missing'
expect 'pipeline check: no file' 5 'cannot read nowhere.csv' \
  "$shardproof" pipeline check nowhere.csv
expect 'pipeline draw: unknown schedule' 2 'there is no schedule "x"; there are' \
  "$shardproof" pipeline draw --schedule x
expect 'pipeline draw: refused' 2 'zb_h2 needs 7 micro-batches for 4 ranks, not 6' \
  "$shardproof" pipeline draw --schedule zb_h2 --stages 4 --microbatches 6
expect 'pipeline draw: unknown file' 2 'ends neither in .svg nor in .csv' \
  "$shardproof" pipeline draw -o zb.pdf
expect 'pipeline draw: nowhere to write' 5 'cannot write /nowhere/zb.svg' \
  "$shardproof" pipeline draw -o /nowhere/zb.svg

expect 'pipeline mesh' 0 'tp +4 +2 .* 50.0 %' "$shardproof" pipeline mesh \
  --mesh pp=2,tp=4 --nodes-of 4
grep -qE '^pp=2,tp=4 sends .* between nodes of 4 ranks; tp=4,pp=2, .* sends ' out ||
  fail 'pipeline mesh: not compared with the usual order'
grep -q '^llama-3.1-8b on pp=2,tp=4, 8 ranks: 32 blocks of 4096' out ||
  fail 'pipeline mesh: of which model'
expect 'pipeline mesh: experts' 0 'depends on the routing' "$shardproof" \
  pipeline mesh --mesh ep=4,tp=2 --model mixtral
expect 'pipeline mesh: none' 2 'mesh is required' "$shardproof" pipeline mesh
mesh_refused() {
  expect "pipeline mesh: $1" 2 "$2" "$shardproof" pipeline mesh --mesh "${@:3}"
  brief "pipeline mesh: $1"
}
mesh_refused malformed '"tp2" .* is not name=size' tp2
mesh_refused 'twice the same' 'tp comes twice' tp=2,tp=4
mesh_refused 'a dimension that is none' 'no dimension "qp"; there are tp, cp' qp=2
mesh_refused 'too many ranks' 'more than 4096 ranks' tp=65536,pp=65536,dp=9
mesh_refused 'too few heads' '32 heads for 64 ranks along tp' tp=64
mesh_refused 'too few blocks' '64 stages of a model of 32 blocks' pp=64
mesh_refused 'no experts' 'experts for 2 ranks along ep' ep=2
mesh_refused 'no such stage of ZeRO' '--zero' tp=2 --zero 4
mesh_refused 'no node' '--nodes-of' tp=2 --nodes-of 0
mesh_refused 'no such model' 'llama-3.1-8b' tp=2 --model lama
mesh_refused 'a model of another kind' 'no latent attention' tp=2 --model deepseek-v3
mesh_refused 'no such schedule' 'there is no schedule "x"' pp=2 --schedule x

if ((failures > 0)); then
  echo "$failures checks failed"
  exit 1
fi
