#!/bin/bash
# What Open MPI starts instead of ssh (plm_rsh_agent): agent.sh NODE COMMAND... runs the command in that node's network
# namespace, under that node's host name.
set -u

node=$1
shift
# shellcheck disable=SC2016
exec ip netns exec "${TESTBED_PREFIX:-sptb}-$node" unshare --uts -- \
  bash -c 'hostname "$1"; shift; eval "$*"' testbed "$node" "$@"
