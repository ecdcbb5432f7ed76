#!/bin/bash
# p2p, fit and scale as a person meets them, and `auto` with a table that fit wrote.
#
#     interconnect_test.sh SHARDPROOF
set -u

shardproof=$(realpath "$1")
folder=$(mktemp -d "${TEST_TMPDIR:-/tmp}/interconnect.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
export TMPDIR=/tmp OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
export OMPI_MCA_btl_vader_backing_directory=$folder OMPI_MCA_osc_sm_backing_directory=$folder
unset SHARDPROOF_TUNING
failures=0

fail() {
  echo "FAILED: $1"
  sed 's/^/    /' out err | tail -n 20
  failures=$((failures + 1))
}

# expect NAME STATUS PATTERN COMMAND...
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
brief() {
  if (($(wc -l <err) > 1)); then fail "$1: more than one line on stderr"; fi
}
# holds NAME FILE EXPRESSION: of the result file, as r.
holds() {
  python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)' "$2" "$3" ||
    fail "$1: not so in $2: $3"
}
mpi() {
  local n=$1
  shift
  mpirun -np "$n" --oversubscribe --bind-to none "$@"
}

quick=(-n 7 -w 1)

for command in p2p fit scale; do
  expect "$command --help" 0 'Usage' "$shardproof" "$command" --help
  expect "$command: not a size" 2 '"many" is not a size' "$shardproof" "$command" -b many
  brief "$command: not a size"
  expect "$command: sizes go up" 2 'by a factor of at least 2' "$shardproof" "$command" -b 64 -e 8
  [[ -e /dev/nvidia0 ]] ||
    expect "$command: no such backend" 6 'CUDA|GPU' "$shardproof" "$command" --backend cuda
done

# --- p2p --------------------------------------------------------------------------------------------------------------
expect 'p2p: several numbers of ranks' 2 'one number of ranks' "$shardproof" p2p --ranks 2,3
expect 'p2p: one rank' 2 'at least 2' "$shardproof" p2p --ranks 1
brief 'p2p: one rank'
expect 'p2p' 0 'one way, 64 KiB' "$shardproof" p2p --ranks 3 -b 4K -e 64K -f 16 "${quick[@]}" --json p2p.json
holds 'p2p' p2p.json '[(m["bytes"], m["bidirectional"]) for m in r["p2p"]] ==
  [(8, False), (4096, False), (65536, False), (4096, True), (65536, True)]'
holds 'p2p: the diagonal' p2p.json 'all((i % 4 == 0) == (t == "NaN") for m in r["p2p"] for i, t in enumerate(m["median_us"]))'
holds 'p2p: positive' p2p.json 'all(t == "NaN" or t > 0 for m in r["p2p"] for t in m["median_us"])'
holds 'p2p: places' p2p.json 'all(len(m["places"]) == 3 for m in r["p2p"])'
holds 'p2p: findings' p2p.json 'len(r["findings"]) > 0 and r["complete"]'
expect 'p2p: two ranks are too few to compare' 0 'fewer than 3 links same node' \
  "$shardproof" p2p --ranks 2 -b 64K -e 64K "${quick[@]}"
cores=$(nproc --all)
if ((cores < 9)); then
  expect 'p2p: more ranks than cores' 0 "$((cores + 1)) ranks share the .* of a node" \
    "$shardproof" p2p --ranks $((cores + 1)) -b 4K -e 4K "${quick[@]}"
fi
expect 'p2p: no records, but a file' 0 '^written to two.json$' \
  "$shardproof" p2p --ranks 2 -b 4K -e 4K "${quick[@]}" --json two.json
expect 'p2p: no time' 0 '17 of 18 measurements of pairs left out \(out of time\)' \
  "$shardproof" p2p --ranks 4 --time-budget 0.000001 -b 1K "${quick[@]}" --json late.json
expect 'p2p on mpi' 0 'one way, 64 KiB' mpi 3 "$shardproof" p2p -b 64K -e 64K "${quick[@]}" --json mpi.json
holds 'p2p on mpi' mpi.json 'all(m["backend"] == "mpi" and m["ranks"] == 3 for m in r["p2p"]) and len(r["p2p"]) == 3'

# --- fit --------------------------------------------------------------------------------------------------------------
sizes=(-b 1K -e 64K -f 4)
expect 'fit: two sizes' 2 'at least 3 sizes, and these are 2' "$shardproof" fit -b 1K -e 2K
expect 'fit: no case with sizes' 2 'has an axis "count"' "$shardproof" fit --filter '^collectives/barrier$'
expect 'fit: two types' 2 'one at a time' "$shardproof" fit --dtype f32,f64
expect 'fit: a count' 2 'from -b -e -f' "$shardproof" fit --axis count=7
expect 'fit' 0 'fastest is' "$shardproof" fit --ranks 2 "${sizes[@]}" "${quick[@]}" --json fit.json --tuning table
holds 'fit: machine' fit.json '[(f["case"], f["variant"]) for f in r["fits"][:3]] ==
  [("messages", "one_way"), ("messages", "shift"), ("memory", "meeting")]'
holds 'fit: every variant' fit.json '{f["variant"] for f in r["fits"] if f["case"] == "collectives/all_reduce"} ==
  {"auto", "direct", "one_shot", "two_shot", "ring", "recursive_doubling", "rabenseifner", "hierarchical"}'
holds 'fit: predictions' fit.json 'all((f["variant"] == "auto") == (f["worst_prediction_error"] == "NaN")
  for f in r["fits"] if f["case"] == "collectives/all_reduce")'
holds 'fit: points' fit.json 'all([p["bytes"] for p in f["points"]] == [1024, 4096, 16384, 65536] for f in r["fits"])'
holds 'fit: one record of each' fit.json 'len(r["records"]) == 9 * 4'
head -n 1 table | grep -qx '# shardproof tuning 1' || fail 'fit: no table'
grep -qE '^all_reduce shared 2 0 [a-z_]+$' table || fail 'fit: no row from 0 on'
expect 'fit: nowhere to write' 2 'cannot write /nowhere/table' "$shardproof" fit --ranks 2 "${sizes[@]}" "${quick[@]}" \
  --variant ring --tuning /nowhere/table
# shellcheck disable=SC2016
expect 'fit: nothing to tune' 2 'whose `auto` reads it' "$shardproof" fit --filter '^collectives/all_gather_v$' --ranks 2 \
  "${sizes[@]}" "${quick[@]}" --tuning none

# --- scale ------------------------------------------------------------------------------------------------------------
expect 'scale' 0 'of ideal weak scaling at 4 ranks' "$shardproof" scale --ranks 1,2,4 -b 64K "${quick[@]}" \
  --axis count=4096 --json scale.json
holds 'scale' scale.json '[(s["kind"], s["variant"], s["ranks"]) for s in r["scaling"]] ==
  [(k, "auto", n) for k in ("strong", "weak") for n in (2, 4)] +
  [("pairs", v, n) for v in ("one_way", "exchange") for n in (2, 4)]'
holds 'scale: the first is ideal' scale.json 'all(s["efficiency"] == 1 for s in r["scaling"] if s["kind"] != "pairs" and s["ranks"] == 2)'
holds 'scale: strong divides' scale.json \
  '[p["count"] for x in r["records"] for p in [x["params"]]] == [4096, 2048, 4096, 4096]'
holds 'scale: bottleneck' scale.json 'any("bottleneck" in f for f in r["findings"])'
expect 'scale: one rank' 0 'layers/mlp' "$shardproof" scale --ranks 1 --filter '^layers/mlp$' --variant auto \
  --axis tokens=4 --axis hidden=64 --axis intermediate=64 "${quick[@]}"
expect 'scale on mpi' 0 'pairs' mpi 2 "$shardproof" scale -b 64K "${quick[@]}" --axis count=4096

# --- Tables -----------------------------------------------------------------------------------------------------------
# Which algorithm `auto` takes shows in what it sends.
messages() {
  local name=$1 variant=$2
  shift 2
  expect "$name" 0 '1 passed' env "$@" "$shardproof" bench --filter '^collectives/all_reduce$' --variant "$variant" \
    --axis count=1000 --dtype f32 --axis op=sum --ranks 3 "${quick[@]}" --json auto.json >&2
  python3 -c 'import json; print(json.load(open("auto.json"))["records"][0]["traffic"]["messages"])'
}
one_of() {
  cat >table <<END
# shardproof tuning 1
all_reduce shared 3 0 direct
all_reduce shared 3 4000 $1
END
}
plain=$(messages 'auto without a table' auto SHARDPROOF_TUNING=)
doubling=$(messages 'recursive_doubling' recursive_doubling SHARDPROOF_TUNING=)
[[ $plain != "$doubling" ]] || fail "both send $plain messages: the test sees nothing"
one_of recursive_doubling
[[ $(messages 'auto as recursive_doubling' auto SHARDPROOF_TUNING=table) == "$doubling" ]] ||
  fail 'auto does not take what the table says'
one_of two_shot
[[ $(messages 'auto as two_shot' auto SHARDPROOF_TUNING=table) == "$plain" ]] || fail 'two_shot is not the default'

refused() {
  expect "table: $1" 2 "$2" env SHARDPROOF_TUNING=table "$shardproof" verify --filter '^collectives/all_reduce$' \
    --variant auto --axis count=7 --dtype f32
  brief "table: $1"
}
one_of spiral
refused 'unknown variant' 'all_reduce has no variant "spiral" to choose: it has direct'
one_of native
refused 'the library' 'no variant "native"'
echo 'all_reduce shared 3 0 ring' >table
refused 'no title' 'table is not a tuning table'
printf '# shardproof tuning 1\nall_reduce shared three 0 ring\n' >table
refused 'malformed' 'table, line 2: "all_reduce shared three 0 ring" is not'
printf '# shardproof tuning 1\nsend_recv shared 3 0 direct\n' >table
refused 'a primitive without' 'no primitive "send_recv"'
rm table
refused 'missing' 'cannot read the tuning table table'

# shellcheck disable=SC2016
differs='if ((OMPI_COMM_WORLD_RANK == 1)); then export SHARDPROOF_TUNING=table; fi; exec "$@"'
one_of ring
expect 'table: ranks differ' 2 'ranks 0 and 1 read different tables' mpi 2 bash -c "$differs" - "$shardproof" verify \
  --filter '^collectives/all_reduce$' --variant auto --axis count=7 --dtype f32
echo nonsense >table
expect 'table: malformed on one rank' 2 'rank 1: SHARDPROOF_TUNING: table is not' mpi 2 bash -c "$differs" - "$shardproof" \
  verify --filter '^collectives/all_reduce$' --variant auto --axis count=7 --dtype f32

if ((failures > 0)); then
  echo "$failures checks failed"
  exit 1
fi
