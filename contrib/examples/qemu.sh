#!/bin/sh
# Boot a virtual machine from a target: qemu.sh /mnt/aoe/1.0/data [more arguments of QEMU]
# cache=none opens the file with O_DIRECT, which keeps nothing in memory twice; aio=native keeps many requests outstanding,
# where threads would wait for one each.
# discard=unmap passes the guest's TRIM on, where the target promises zeros after it.
set -eu
[ $# -ge 1 ] || { echo "usage: $0 FILE [QEMU-ARGUMENT...]" >&2; exit 2; }
disk=$1
shift
exec qemu-system-x86_64 -m 1G -nographic \
	-drive "file=$disk,format=raw,if=virtio,cache=none,aio=native,discard=unmap" "$@"
