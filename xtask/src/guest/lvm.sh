# Snapshots of logical volumes under write load: restored, they are one moment, and sound.
# Disks: one for the volumes, one for the images, one to restore to.
set -eu
. /common

snapshots() { lvs --noheadings -o lv_name -S 'lv_tags={aivory-snapshot}' vg; }

uname -r
mkfs.ext4 -q /dev/nvme1n1 && mount /dev/nvme1n1 $images
vgcreate -qq vg /dev/nvme0n1

echo "guest: a snapshot with space of its own"
lvcreate -qq -y -Wn -L 96M -n thick vg
mkfs.ext4 -q /dev/vg/thick && mount /dev/vg/thick $live
prove /dev/vg/thick e2fsck
prove /dev/vg/thick e2fsck --pre-freeze 'echo before >/tmp/hooks' --post-thaw 'echo after >>/tmp/hooks'
[ "$(tr '\n' ' ' </tmp/hooks)" = "before after " ] || fail "hooks: $(cat /tmp/hooks)"
[ "$(field kind)" = incremental ] || fail "$(cat /tmp/report)"

echo "guest: the disk below is frozen through its volumes"
start_writing
aiv --json --quiet backup /dev/nvme0n1 --to /tmp --freeze >/tmp/report || fail "$(cat /tmp/report)"
stop_writing
grep -q "\"frozen\":\[\"$live\"\]" /tmp/report || fail "$(cat /tmp/report)"
[ "$(field consistency)" = crash-consistent ] || fail "$(cat /tmp/report)"
aiv --quiet verify /tmp >/dev/null

echo "guest: a snapshot that runs over leaves no image"
dd if=/dev/urandom of=$live/large bs=1M count=30 conv=fsync 2>/dev/null
overwrite() { dd if=/dev/urandom of=$live/large bs=1M count=30 conv=fsync,notrunc 2>/dev/null; }
runs_over /dev/vg/thick --snapshot-size 8M

echo "guest: what a killed backup leaves is removed by the next one, and not while it is in use"
leftovers /dev/vg/thick
umount $live
lvremove -qq -y vg/thick

echo "guest: snapshots of thin volumes"
lvcreate -qq -y -L 200M -T vg/pool 2>/dev/null
lvcreate -qq -y -Wn -V 128M -T vg/pool -n thin 2>/dev/null
mkfs.ext4 -q /dev/vg/thin && mount /dev/vg/thin $live
prove /dev/vg/thin e2fsck
umount $live
lvcreate -qq -y -Wn -V 320M -T vg/pool -n xfs 2>/dev/null
mkfs.xfs -q /dev/vg/xfs && mount /dev/vg/xfs $live
prove /dev/vg/xfs xfs_repair
umount $live

echo "guest: files of thin volumes and their snapshots, read from the disk below"
lvcreate -qq -y -s -kn -n old vg/thin 2>/dev/null
mount /dev/vg/thin $live
echo changed >$live/0
rm $live/1
umount $live
lvchange -qq -an vg/old vg/thin vg/xfs vg/pool
sync
blockdev --flushbufs /dev/nvme0n1
is_content() { content "$2" | cmp -s - "$1" || fail "file $2 in $1"; }
for n in 2 3 5 8 13 19; do
    for volume in thin old xfs; do
        aiv --quiet cat /dev/nvme0n1 /p0/vg/$volume/$n >/tmp/file || fail "$volume/$n"
        is_content /tmp/file $n
    done
done
[ "$(aiv --quiet cat /dev/nvme0n1 /p0/vg/thin/0)" = changed ] || fail "the changed file"
aiv --quiet cat /dev/nvme0n1 /p0/vg/old/1 >/tmp/file || fail "the removed file"
is_content /tmp/file 1
aiv --quiet cat /dev/nvme0n1 /p0/vg/thin/1 >/tmp/file 2>&1 && fail "a removed file is there"

echo "guest: a pool that runs full leaves no image"
lvremove -qq -y vg/xfs vg/thin vg/pool
lvcreate -qq -y -L 64M --errorwhenfull y -T vg/small 2>/dev/null
lvcreate -qq -y -Wn -V 256M -T vg/small -n thin 2>/dev/null
mkfs.ext4 -q -E nodiscard,lazy_itable_init=0 /dev/vg/thin && mount /dev/vg/thin $live
dd if=/dev/urandom of=$live/large bs=1M count=20 conv=fsync 2>/dev/null
overwrite() { dd if=/dev/urandom of=$live/more bs=1M count=60 conv=fsync 2>/dev/null; }
runs_over /dev/vg/thin

echo "guest: what is no logical volume is refused"
status=0
aiv --json --quiet backup /dev/nvme2n1 --to $images --snapshot >/tmp/report || status=$?
[ $status -eq 5 ] && grep -q '"code":"no_snapshots"' /tmp/report || fail "$status: $(cat /tmp/report)"
