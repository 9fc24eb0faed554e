# Snapshots of logical volumes under write load: restored, they are one moment, and sound.
# Disks: one for the volumes, one for the images, one to restore to.
set -eu
images=/mnt/images live=/mnt/live back=/mnt/back
mkdir -p $images $live $back

fail() { echo "guest: $*"; exit 1; }
# A value of the first image in the last report.
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"]*\)\"\{0,1\}[,}].*/\1/p" /tmp/report | head -n 1; }
content() { yes "file $1" | head -c $((5000 + $1 % 7 * 3000)); }

# Files that are durable one after the other. The number of the last one is in /tmp/done.
write_files() {
    n=0
    while [ ! -e /tmp/stop ]; do
        content $n >/tmp/content
        dd if=/tmp/content of=$live/$n conv=fsync 2>/dev/null || fail "file $n cannot be written"
        echo $n >/tmp/done.new && mv /tmp/done.new /tmp/done
        n=$((n + 1))
    done
}
start_writing() {
    rm -f /tmp/stop /tmp/done $live/[0-9]*
    write_files &
    writer=$!
    until [ -e /tmp/done ] && [ "$(cat /tmp/done)" -ge 20 ]; do usleep 50000; done
}
stop_writing() { touch /tmp/stop; wait $writer; }

# What was restored is what the writer had made at one moment between the two numbers.
is_one_moment() {
    newest=0
    while [ -e $back/$((newest + 1)) ]; do newest=$((newest + 1)); done
    [ $newest -ge $1 ] || fail "$1 was durable, $newest is the newest"
    [ $newest -le $(($2 + 1)) ] || fail "$newest is newer than $2"
    [ "$(ls $back | grep -v lost+found | wc -l)" -eq $((newest + 1)) ] || fail "files are missing"
    for n in $(seq 0 $((newest - 1))); do
        content "$n" | cmp -s - $back/"$n" || fail "$n is torn"
    done
    echo "guest: files 0 to $newest, between $1 and $2"
}
no_snapshot_is_left() {
    [ -z "$(lvs --noheadings -o lv_name -S 'lv_tags={aivory-snapshot}' vg)" ] || fail "a snapshot is left"
}
images_there() { find $images -name '*.ai?' | wc -l; }

# back_up VOLUME OPTION...: under load, with a snapshot; then restored, checked, compared.
prove() {
    volume=$1 check=$2
    shift 2
    start_writing
    before=$(cat /tmp/done)
    aiv --json --quiet backup "/dev/vg/$volume" --to $images --snapshot "$@" >/tmp/report || fail "$(cat /tmp/report)"
    after=$(cat /tmp/done)
    stop_writing
    [ "$(field consistency)" = crash-consistent ] || fail "$(cat /tmp/report)"
    [ "$(field capture)" = used ] || fail "$(cat /tmp/report)"
    no_snapshot_is_left
    umount $live
    aiv --quiet restore "$(field image)" --to /dev/nvme2n1 --yes
    # The journal of a snapshot is empty: the check comes first, and changes nothing.
    [ "$check" = e2fsck ] && { e2fsck -fn /dev/nvme2n1 >/tmp/fsck 2>&1 || fail "$(cat /tmp/fsck)"; }
    mount /dev/nvme2n1 $back
    is_one_moment "$before" "$after"
    umount $back
    [ "$check" = e2fsck ] || { $check -n /dev/nvme2n1 >/tmp/fsck 2>&1 || fail "$(cat /tmp/fsck)"; }
    mount "/dev/vg/$volume" $live
}

uname -r
mkfs.ext4 -q /dev/nvme1n1 && mount /dev/nvme1n1 $images
vgcreate -qq vg /dev/nvme0n1

echo "guest: a snapshot with space of its own"
lvcreate -qq -y -Wn -L 96M -n thick vg
mkfs.ext4 -q /dev/vg/thick && mount /dev/vg/thick $live
prove thick e2fsck
prove thick e2fsck --pre-freeze 'echo before >/tmp/hooks' --post-thaw 'echo after >>/tmp/hooks'
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
there=$(images_there)
dd if=/dev/urandom of=$live/large bs=1M count=30 conv=fsync 2>/dev/null
(until find $images -name '*.part' | grep -q .; do usleep 20000; done
    dd if=/dev/urandom of=$live/large bs=1M count=30 conv=fsync,notrunc 2>/dev/null) &
status=0
aiv --json --quiet backup /dev/vg/thick --to $images --full --snapshot --snapshot-size 8M --rate-limit 1M \
    >/tmp/report || status=$?
wait
[ $status -eq 1 ] && grep -q '"code":"snapshot_overflow"' /tmp/report || fail "$status: $(cat /tmp/report)"
[ "$(images_there)" -eq "$there" ] || fail "an image was left"
[ -z "$(find $images -name '*.part')" ] || fail "a part of an image was left"
no_snapshot_is_left

echo "guest: what a killed backup leaves is removed by the next one, and not while it is in use"
aiv --quiet backup /dev/vg/thick --to $images --full --snapshot --rate-limit 256K &
killed=$!
until find $images -name '*.part' | grep -q .; do usleep 20000; done
mkdir -p /tmp/other
aiv --json --quiet backup /dev/vg/thick --to /tmp/other --snapshot >/tmp/report || fail "$(cat /tmp/report)"
[ "$(lvs --noheadings -o lv_name -S 'lv_tags={aivory-snapshot}' vg | wc -l)" -eq 1 ] || fail "not one snapshot"
kill -9 $killed
wait $killed || true
rm -f $images/*.part
aiv --json --quiet backup /dev/vg/thick --to $images --snapshot >/tmp/report || fail "$(cat /tmp/report)"
grep -q 'removed snapshot vg/aiv-' /tmp/report || fail "$(cat /tmp/report)"
no_snapshot_is_left
umount $live
lvremove -qq -y vg/thick

echo "guest: snapshots of thin volumes"
lvcreate -qq -y -L 200M -T vg/pool 2>/dev/null
lvcreate -qq -y -Wn -V 128M -T vg/pool -n thin 2>/dev/null
mkfs.ext4 -q /dev/vg/thin && mount /dev/vg/thin $live
prove thin e2fsck
umount $live
lvcreate -qq -y -Wn -V 320M -T vg/pool -n xfs 2>/dev/null
mkfs.xfs -q /dev/vg/xfs && mount /dev/vg/xfs $live
prove xfs xfs_repair
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
there=$(images_there)
(until find $images -name '*.part' | grep -q .; do usleep 20000; done
    dd if=/dev/urandom of=$live/more bs=1M count=60 conv=fsync 2>/dev/null) &
status=0
aiv --json --quiet backup /dev/vg/thin --to $images --full --snapshot --rate-limit 1M \
    >/tmp/report || status=$?
wait
[ $status -eq 1 ] && grep -q '"code":"snapshot_overflow"' /tmp/report || fail "$status: $(cat /tmp/report)"
[ "$(images_there)" -eq "$there" ] || fail "an image was left"
no_snapshot_is_left

echo "guest: what is no logical volume is refused"
status=0
aiv --json --quiet backup /dev/nvme2n1 --to $images --snapshot >/tmp/report || status=$?
[ $status -eq 5 ] && grep -q '"code":"no_snapshots"' /tmp/report || fail "$status: $(cat /tmp/report)"
