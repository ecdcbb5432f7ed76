#!/bin/bash
# Packs the bundle for machines with GPUs: make.sh SHARDPROOF RUN_SH README OUTPUT
#
# The program, the libraries that it needs besides those of glibc, and run.sh, in
# one archive of at most 60 MiB. A program that needs MPI is refused.
set -eu

program=$1 run=$2 readme=$3 output=$4
most=$((60 << 20))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bundle=$folder/shardproof-gpu
mkdir -p "$bundle/lib"

cp "$program" "$bundle/shardproof"
cp "$run" "$bundle/run.sh"
cp "$readme" "$bundle/README.md"
chmod 755 "$bundle/shardproof" "$bundle/run.sh"
chmod 644 "$bundle/README.md"
strip --strip-unneeded "$bundle/shardproof"

needed=$(ldd "$bundle/shardproof")
if grep -qE 'libmpi|libopen-rte' <<<"$needed"; then
  echo "make.sh: the bundle must run where there is no MPI: build it with NO_MPI=1" >&2
  exit 1
fi
if grep 'not found' <<<"$needed" >&2; then exit 1; fi
while read -r library path; do
  case $library in
    # Of the machine that it runs on: glibc, of 2.36 or later.
    libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | ld-linux*) ;;
    *)
      cp -L "$path" "$bundle/lib/$library"
      chmod 644 "$bundle/lib/$library"
      ;;
  esac
done < <(awk '$2 == "=>" { print $1, $3 }' <<<"$needed")

tar -C "$folder" --sort=name --owner=0 --group=0 --mtime=@0 -cJf "$output" shardproof-gpu
size=$(stat -c %s "$output")
if ((size > most)); then
  echo "make.sh: the bundle has $size bytes, and may have $most" >&2
  exit 1
fi
echo "$size bytes, of at most $most"
