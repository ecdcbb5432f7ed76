#!/bin/bash
# Packs the bundle for machines with GPUs: make.sh OUTPUT PROGRAM FILE...
#
# The program, the libraries that it needs besides those of glibc, and the files beside
# it (shardproof.sh, run.sh, README.md, and the *.py of the yardsticks), in one archive of
# at most 60 MiB. A program that needs MPI is refused.
set -eu

output=$1 program=$2
shift 2
most=$((60 << 20))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bundle=$folder/shardproof-gpu
mkdir -p "$bundle/bin" "$bundle/lib/compiler" "$bundle/yardsticks"

install -m 755 "$program" "$bundle/bin/shardproof"
strip --strip-unneeded "$bundle/bin/shardproof"
for file in "$@"; do
  case $file in
    */shardproof.sh) install -m 755 "$file" "$bundle/shardproof" ;;
    *.sh) install -m 755 "$file" "$bundle" ;;
    *.py) install -m 644 "$file" "$bundle/yardsticks" ;;
    *) install -m 644 "$file" "$bundle" ;;
  esac
done

needed=$(ldd "$bundle/bin/shardproof")
if grep -qE 'libmpi|libopen-rte' <<<"$needed"; then
  echo "make.sh: the bundle must run where there is no MPI: build it with NO_MPI=1" >&2
  exit 1
fi
if grep 'not found' <<<"$needed" >&2; then exit 1; fi
while read -r library path; do
  case $library in
    # Of the machine that it runs on: glibc, of 2.36 or later.
    libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | ld-linux*) ;;
    libstdc++.so.* | libgcc_s.so.*) install -m 644 "$path" "$bundle/lib/compiler/$library" ;;
    *) install -m 644 "$path" "$bundle/lib/$library" ;;
  esac
done < <(awk '$2 == "=>" { print $1, $3 }' <<<"$needed")

tar -C "$folder" --sort=name --owner=0 --group=0 --mtime=@0 -cJf "$output" shardproof-gpu
size=$(stat -c %s "$output")
if ((size > most)); then
  echo "make.sh: the bundle has $size bytes, and may have $most" >&2
  exit 1
fi
echo "$size bytes, of at most $most"
