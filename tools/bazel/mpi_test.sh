#!/bin/bash
# Runs a GoogleTest binary under mpirun, once for each number of ranks, as one Bazel test.
#
#     mpi_test.sh WHY_NOT RANKS[,RANKS...] BINARY [ARGUMENT...]
#
# WHY_NOT is empty, or the reason why this cannot run: then the test is reported as skipped, with that reason. Only rank
# 0 writes result files. Every test case is reported once per number of ranks, in a suite called `np2/Suite`.
set -u

if [[ ${1-} == --rank ]]; then
  shift
  if ((${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}} != 0)); then
    unset XML_OUTPUT_FILE GTEST_OUTPUT TEST_PREMATURE_EXIT_FILE TEST_UNDECLARED_OUTPUTS_DIR
  fi
  exec "$@"
fi

why_not=$1
IFS=, read -ra ranks <<<"$2"
binary=$3
shift 3
report=${XML_OUTPUT_FILE:-/dev/null}

escape() { sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' -e 's/"/\&quot;/g'; }

if [[ -z $why_not ]] && ! command -v mpirun >/dev/null; then
  why_not="mpirun is not in PATH (Debian: openmpi-bin)"
fi
if [[ -n $why_not ]]; then
  echo "SKIPPED: $why_not"
  cat >"$report" <<END
<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="mpi" tests="1" failures="0" errors="0" skipped="1">
<testcase name="${binary##*/}" classname="mpi"><skipped message="$(escape <<<"$why_not")"/></testcase>
</testsuite></testsuites>
END
  exit 0
fi

# Open MPI puts its sockets into TMPDIR, and the test's own folder can exceed the length of a socket's name.
scratch=$(mktemp -d /tmp/mpi_test.XXXXXX) || exit 1
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Open MPI names its shared memory after the process id of mpirun. In the sandbox those begin anew, and /dev/shm is that
# of the machine: two tests at a time, of one checkout or of two, would write into the same file.
export OMPI_MCA_btl_vader_backing_directory=$scratch OMPI_MCA_osc_sm_backing_directory=$scratch

failed=0
for n in "${ranks[@]}"; do
  echo "==== mpirun -np $n $binary $*"
  XML_OUTPUT_FILE=$scratch/np$n.xml mpirun -np "$n" --oversubscribe --bind-to none "$0" --rank "$binary" "$@"
  status=$?
  ((status)) && failed=1 && echo "==== $n ranks: exit status $status"
  if [[ ! -s $scratch/np$n.xml ]]; then
    failed=1
    cat >"$scratch/np$n.xml" <<END
<testsuites>
<testsuite name="run" tests="1" failures="1" errors="0"><testcase name="${binary##*/}" classname="run">
<failure message="$n ranks: no report from rank 0; exit status $status"/></testcase></testsuite>
</testsuites>
END
  fi
done

{
  echo '<?xml version="1.0" encoding="UTF-8"?>'
  echo '<testsuites>'
  for n in "${ranks[@]}"; do
    sed -E -e '/<\?xml|<\/?testsuites/d' -e "s/(<testsuite name=\"|classname=\")/\1np$n\//g" "$scratch/np$n.xml"
  done
  echo '</testsuites>'
} >"$report"
exit "$failed"
