#!/bin/sh
# Boot a virtual machine from a target, without FUSE in between: qemu-vhost.sh /mnt/aoe/1.0 [more arguments of QEMU]
# MEMORY=4G in the environment gives it more memory than 1G.
# A socket that is there already is used, as one of a line of /etc/aoefs.conf, which comes back when aoefs is started
# again:
#   1.0 vhost /run/aoefs-1.0.sock
# QEMU goes on by itself then: it tries to connect again each second.
set -eu
[ $# -ge 1 ] || { echo "usage: $0 TARGET-DIRECTORY [QEMU-ARGUMENT...]" >&2; exit 2; }
unit=${1%/}
shift
memory=${MEMORY:-1G}
[ -S "$unit/vhost" ] || echo "vhost ${XDG_RUNTIME_DIR:-/run}/aoefs-${unit##*/}.sock" >"$unit/ctl"
# QEMU has another word for it from 9.2 on.
again=$(qemu-system-x86_64 --version | awk '{ split($4, v, "."); print v[1] * 100 + v[2] < 902 ? "reconnect=1" : "reconnect-ms=1000"; exit }')
# The daemon reads and writes the machine's memory itself, so that has to be shared.
exec qemu-system-x86_64 -m "$memory" -smp 2 -nographic -machine memory-backend=ram \
	-object "memory-backend-memfd,id=ram,size=$memory,share=on" \
	-chardev "socket,id=aoe,path=$unit/vhost,$again" \
	-device vhost-user-blk-pci,chardev=aoe,num-queues=2 "$@"
