#!/bin/bash
# A cluster of 2 to 4 nodes on one machine: network namespaces joined by veth and a bridge, whose links have rates set by
# tc tbf, and mpirun across them over TCP. Nothing outside the namespaces is touched.
#
#     testbed.sh up [--nodes N] [--rate RATE] [--slow NODE=RATE]
#     testbed.sh run [--slots K] COMMAND...    mpirun across the nodes, K ranks on each (1)
#     testbed.sh down
#     testbed.sh demo SHARDPROOF               up, p2p, fit, scale, a check of each, down
#
# RATE is tc's (200mbit) and is that of each direction of a node's link. With --slow, that node's is another.
# Exit status: that of the command; 1: the demo found something else; 2: usage; 6: no root, no tc, no namespaces here.
set -u
# Where ip and tc are, which is in nobody's PATH but root's.
PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Two testbeds at a time have different prefixes.
prefix=${TESTBED_PREFIX:-sptb}
mtu=9000 burst=16kb
nodes=4 rate=200mbit slow_node='' slow_rate='' slots=1

die() {
  local status=$1
  shift
  echo "testbed: $*" >&2
  exit "$status"
}

need() {
  ((EUID == 0)) || die 6 "network namespaces need root: run it as root, or leave it out"
  local tool
  for tool in ip tc unshare mpirun; do
    command -v "$tool" >/dev/null || die 6 "$tool is not here (Debian: iproute2, util-linux, openmpi-bin)"
  done
  ip netns add "$prefix-probe" 2>/dev/null || die 6 "this machine allows no network namespaces (ip netns add fails)"
  local reason=''
  if ! ip -n "$prefix-probe" link add probe0 type veth peer name probe1 2>/dev/null; then
    reason="veth pairs"
  elif ! ip netns exec "$prefix-probe" tc qdisc add dev probe0 root tbf rate 1mbit burst 16kb latency 50ms 2>/dev/null; then
    reason="rate limits (tc tbf)"
  fi
  ip netns del "$prefix-probe"
  [[ -z $reason ]] || die 6 "the kernel of this machine has no $reason"
}

namespaces() { ip netns list 2>/dev/null | awk '{print $1}' | grep -E "^$prefix-(switch|node[0-9])$"; }

down() {
  local name
  for name in $(namespaces); do
    # What was left running in it would keep it alive.
    ip netns pids "$name" | xargs -r kill -9 2>/dev/null
    ip netns del "$name"
  done
}

# The rate of node $1, both ways: on its own end it limits what the node sends, on the switch's what it receives.
limit() {
  local of=$rate
  [[ $1 == "$slow_node" ]] && of=$slow_rate
  local shape=(root tbf rate "$of" burst "$burst" latency 200ms)
  ip netns exec "$prefix-node$1" tc qdisc add dev eth0 "${shape[@]}" &&
    ip netns exec "$prefix-switch" tc qdisc add dev "port$1" "${shape[@]}"
}

add_node() {
  local name=$prefix-node$1
  ip netns add "$name" &&
    ip -n "$name" link set lo up &&
    ip -n "$prefix-switch" link add "port$1" mtu "$mtu" type veth peer name eth0 mtu "$mtu" netns "$name" &&
    ip -n "$prefix-switch" link set "port$1" master bridge0 up &&
    ip -n "$name" addr add "10.77.0.$(($1 + 1))/24" dev eth0 &&
    ip -n "$name" link set eth0 up &&
    limit "$1"
}

up() {
  [[ -z $(namespaces) ]] || die 2 "a testbed is up already: testbed.sh down"
  if ! { ip netns add "$prefix-switch" &&
    ip -n "$prefix-switch" link add bridge0 mtu "$mtu" type bridge &&
    ip -n "$prefix-switch" link set bridge0 up; }; then
    down
    die 6 "cannot make a bridge in a network namespace"
  fi
  local i
  for ((i = 0; i < nodes; ++i)); do
    if ! add_node "$i"; then
      down
      die 6 "cannot join node $i to the bridge"
    fi
  done
}

# mpirun runs in node0, and reaches the others through agent.sh instead of ssh. Open MPI takes nodes for different ones by
# their host names.
run() {
  local present hosts='' i
  present=$(namespaces | grep -c node)
  ((present >= 2)) || die 2 "no testbed is up: testbed.sh up"
  for ((i = 0; i < present; ++i)); do hosts+=${hosts:+,}node$i:$slots; done
  local transports=tcp,self
  ((slots == 1)) || transports=vader,tcp,self
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
  export TESTBED_PREFIX=$prefix
  "$here/agent.sh" node0 exec mpirun --host "$hosts" -np "$((present * slots))" --bind-to none \
    --mca plm_rsh_agent "$here/agent.sh" --mca plm_rsh_no_tree_spawn 1 \
    --mca oob_tcp_if_include eth0 --mca btl "$transports" --mca btl_tcp_if_include eth0 \
    --mca mpi_yield_when_idle 1 --mca orte_abort_print_stack 0 -x OMP_NUM_THREADS "$(printf '%q ' "$@")"
}

# --- The demonstration ------------------------------------------------------------------------------------------------

check() { python3 "$here/check.py" "$@" || failed=1; }

step() {
  local title=$1
  shift
  echo
  echo "== $title"
  echo "\$ shardproof $* --json $json"
  run "$shardproof" "$@" --json "$json" || die 6 "shardproof $1 ended with $? on the testbed"
}

demo() {
  local shardproof folder json failed=0
  shardproof=$(realpath "$1") || die 2 "$1 is not there"
  [[ -x $shardproof ]] || die 2 "$1 is not a program"
  folder=$(mktemp -d /tmp/testbed.XXXXXX) || die 6 "no folder in /tmp"
  # shellcheck disable=SC2064
  trap "rm -rf '$folder'; down" EXIT
  trap 'exit 130' INT TERM
  json=$folder/results.json

  echo "# 4 nodes of 200 mbit/s (25 MB/s), node2 of 50 mbit/s"
  nodes=4 rate=200mbit slow_node=2 slow_rate=50mbit
  up
  step "p2p finds the slow link" p2p -b 32K -e 256K -f 8 -n 5 -w 1
  check slow_node "$json" 2 4
  down

  echo
  echo "# 3 nodes of 200 mbit/s"
  nodes=3 slow_node=''
  up
  step "fit recovers the rate that was set" fit --variant 'ring|recursive_doubling' -b 64K -e 1M -f 2 -n 5 -w 1
  check rate "$json" 25
  down

  echo
  echo "# 2 nodes of 2 ranks, which share a link of 200 mbit/s"
  nodes=2 slots=2
  up
  step "scale shows the bottleneck" scale -b 1M -e 1M -n 7 -w 1 --axis count=65536 --ranks 2,4
  check bottleneck "$json" 25
  down

  ((failed == 0)) || die 1 "the demonstration did not find what was set"
  echo
  echo "all found"
}

usage() { sed -n '2,12p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; }

command=${1-}
shift || true
while (($#)); do
  case $1 in
    --nodes) nodes=${2-} ;;
    --rate) rate=${2-} ;;
    --slow) slow_node=${2%%=*} slow_rate=${2#*=} ;;
    --slots) slots=${2-} ;;
    *) break ;;
  esac
  shift 2 || die 2 "$1 needs a value"
done
[[ $nodes =~ ^[2-4]$ ]] || die 2 "--nodes $nodes: 2 to 4"
[[ $slots =~ ^[1-9]$ ]] || die 2 "--slots $slots: 1 to 9"
[[ -z $slow_node || ($slow_node =~ ^[0-3]$ && $slow_node -lt $nodes && -n $slow_rate) ]] ||
  die 2 "--slow $slow_node=$slow_rate: a node of 0 to $((nodes - 1)) and a rate, such as 2=50mbit"

case $command in
  up | down)
    (($# == 0)) || die 2 "$command takes no \"$1\""
    need
    "$command"
    ;;
  run)
    (($#)) || die 2 "run what?"
    need
    run "$@"
    ;;
  demo)
    (($# == 1)) || die 2 "demo takes the program: testbed.sh demo bazel-bin/tools/shardproof"
    need
    demo "$1"
    ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
