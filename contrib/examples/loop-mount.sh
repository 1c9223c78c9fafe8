#!/bin/sh
# Mount the file system on a target, or take it away again.
#   loop-mount.sh up   /mnt/aoe/1.0/data /mnt/disk
#   loop-mount.sh down /mnt/aoe/1.0/data /mnt/disk
set -eu
[ $# = 3 ] || { echo "usage: $0 up|down FILE DIRECTORY" >&2; exit 2; }

case $1 in
up)
	# Two devices over one disk would destroy its file system.
	[ -z "$(losetup --noheadings --output NAME --associated "$2")" ] || { echo "$0: $2 is attached already" >&2; exit 1; }
	# Direct I/O: many requests at a time, errors that reach the file system, no page kept twice.
	loop=$(losetup --find --show --direct-io=on "$2")
	# In direct mode it is the loop device that reads ahead (KiB).
	echo 1024 >"/sys/block/${loop#/dev/}/queue/read_ahead_kb"
	mount "$loop" "$3" || { losetup --detach "$loop"; exit 1; }
	;;
down)
	loop=$(losetup --noheadings --output NAME --associated "$2")
	umount "$3"
	losetup --detach "$loop"
	;;
*)
	echo "usage: $0 up|down FILE DIRECTORY" >&2
	exit 2
	;;
esac
