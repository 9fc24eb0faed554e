# Snapshots of volumes of ZFS under write load: restored, they are one moment, and sound.
# Disks: one for the pools, one for the images, one to restore to.
set -eu
. /common

pool='tank' parent='tank/a b'
snapshots() { zfs list -H -t snapshot,volume -o name | grep -E '[/@]aiv-[0-9a-f]{8}$'; }
# Sets `volume_device` to the link that udev would make for a volume.
find_device() {
    volume_device=/dev/zvol/$1
    for attempt in $(seq 100); do
        for node in /sys/class/block/zd*; do
            node=/dev/${node##*/}
            [ "$(/lib/udev/zvol_id "$node" 2>/dev/null | tr + ' ')" = "$1" ] || continue
            mkdir -p "${volume_device%/*}"
            ln -sf "$node" "$volume_device"
            return
        done
        usleep 100000
    done
    fail "no device of $1 appeared"
}
frozen_was_live() { grep -q "\"frozen\":\[\"$live\"\]" /tmp/report || fail "$(cat /tmp/report)"; }
# What a backup must not change.
properties() { zfs get -H -o property,value,source snapdev,readonly,volmode,refreservation "$1"; }

uname -r
zfs version
mkfs.ext4 -q /dev/nvme1n1 && mount /dev/nvme1n1 $images
# With whole disks zpool waits for udev.
printf 'size=480MiB\nsize=96MiB\n' | sfdisk -q --label gpt /dev/nvme0n1
zpool create -O mountpoint=none -O compression=lz4 $pool /dev/nvme0n1p1
zfs create "$parent"

echo "guest: ext4 on a volume with a name that would hurt in a shell"
name="$parent/-rf x:y..z"
zfs create -s -V 96M "$name"
zfs set snapdev=hidden "$name"
find_device "$name"
thorny=$volume_device
mkfs.ext4 -q "$thorny" && mount "$thorny" $live
before_it=$(properties "$name")
zfs snapshot "$name@daily"
prove "$thorny" e2fsck
frozen_was_live
grep -q "\"snapshot\":\"$name@aiv-" /tmp/report || fail "$(cat /tmp/report)"
prove "$(readlink "$thorny")" e2fsck --pre-freeze 'echo before >/tmp/hooks' --post-thaw 'echo after >>/tmp/hooks'
[ "$(tr '\n' ' ' </tmp/hooks)" = "before after " ] || fail "hooks: $(cat /tmp/hooks)"
[ "$(field kind)" = incremental ] || fail "$(cat /tmp/report)"
[ "$(properties "$name")" = "$before_it" ] || fail "properties: $(properties "$name"), $before_it"

echo "guest: what a killed backup leaves is removed by the next one, and not while it is in use"
dd if=/dev/urandom of=$live/large bs=1M count=30 conv=fsync 2>/dev/null
leftovers "$thorny"
[ "$(zfs list -H -t snapshot -o name)" = "$name@daily" ] || fail "a snapshot of others is gone"

echo "guest: without the programs of ZFS there is no backup, and a next step"
mv /sbin/zfs /tmp/zfs
status=0
aiv --json --quiet backup "$thorny" --to $images --snapshot >/tmp/report || status=$?
mv /tmp/zfs /sbin/zfs
[ $status -eq 1 ] && grep -q '"code":"no_zfs"' /tmp/report || fail "$status: $(cat /tmp/report)"
grep -q zfsutils-linux /tmp/report || fail "$(cat /tmp/report)"
umount $live

echo "guest: XFS on a volume of a fixed size"
zfs create -s -V 320M $pool/xfs
find_device $pool/xfs
mkfs.xfs -q "$volume_device" && mount "$volume_device" $live
prove "$volume_device" xfs_repair
frozen_was_live
umount $live

echo "guest: a part of a volume is refused, all of it is not"
zfs create -s -V 32M $pool/parts
find_device $pool/parts
printf 'start=2048, type=83\n' | sfdisk -q --label dos "$volume_device"
part=$(readlink "$volume_device")p1
for attempt in $(seq 50); do [ -b "$part" ] || usleep 100000; done
mkfs.ext4 -q "$part" && mount "$part" $live
status=0
aiv --json --quiet backup "$part" --to $images --snapshot >/tmp/report || status=$?
[ $status -eq 5 ] && grep -q '"code":"no_snapshots"' /tmp/report || fail "$status: $(cat /tmp/report)"
aiv --json --quiet backup "$volume_device" --to $images --snapshot >/tmp/report || fail "$(cat /tmp/report)"
frozen_was_live
no_snapshot_is_left
umount $live

echo "guest: a pool that runs full leaves no image"
# Half of so small a pool is kept free by ZFS for itself.
zpool create -O mountpoint=none -O compression=lz4 small /dev/nvme0n1p2
zfs create -s -V 256M small/thin
find_device small/thin
mkfs.ext4 -q -E nodiscard,lazy_itable_init=0 "$volume_device" && mount "$volume_device" $live
dd if=/dev/urandom of=$live/large bs=1M count=20 conv=fsync 2>/dev/null
overwrite() { dd if=/dev/urandom of=$live/more bs=1M count=60 conv=fsync 2>/dev/null; }
runs_over "$volume_device"
