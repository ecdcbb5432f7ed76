#!/bin/bash
# The program, with the libraries of the bundle: shardproof COMMAND FLAG...
#
# NCCL and cuBLASLt are looked for where the system has them (LD_LIBRARY_PATH first),
# and in the wheels of pip: site-packages/nvidia/*/lib of the python3 in PATH.
set -u

here=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")" && pwd) || exit 6
wheels=$(python3 -c '
import glob, site, sys
roots = site.getsitepackages() + [site.getusersitepackages()] + sys.path
found = [lib for root in dict.fromkeys(roots) for lib in sorted(glob.glob(root + "/nvidia/*/lib"))]
print(":".join(dict.fromkeys(found)))' 2>/dev/null)
export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}${wheels:+:$wheels}

# The compiler's own libraries are those of the machine if they are new enough: an NCCL
# that was built here may need newer ones than the bundle has.
if ! "$here/bin/shardproof" --help >/dev/null 2>&1; then
  LD_LIBRARY_PATH=$here/lib/compiler:$LD_LIBRARY_PATH
fi
exec "$here/bin/shardproof" "$@"
