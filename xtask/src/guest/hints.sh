# What dm-era and dm-thin of a running kernel say was written: increments that believe it are those
# that were made without, and metadata of another moment are refused, or found out.
# Disks: one for the devices, one for the images.
set -eu
. /common

# backup FOLDER DEVICE OPTION...: an image of the source `data`, whatever device it is on.
backup() {
    folder=$1 device=$2
    shift 2
    aiv --json --quiet backup "$device" --to "$images/$folder" --source-id data --block-size 64k "$@" >/tmp/report
}
used() { grep -q '"used":true' /tmp/report; }
not_read() { sed -n 's/.*"bytes_not_read":\([0-9]*\).*/\1/p' /tmp/report; }

# compare DEVICE OPTION...: two increments, one by hints and one without, are one state.
compare() {
    device=$1
    shift
    backup hinted "$device" "$@" || fail "$(cat /tmp/report)"
    used || fail "not used: $(cat /tmp/report)"
    root=$(field state_root)
    [ "$(field kind)" = incremental ] || fail "$(cat /tmp/report)"
    skipped=$(not_read) read=$(field bytes_read)
    cp /tmp/report /tmp/hinted
    backup plain "$device" --no-hints || fail "$(cat /tmp/report)"
    [ "$(field kind)" = incremental ] || fail "$(cat /tmp/report)"
    [ "$(field state_root)" = "$root" ] || fail "by hints the state is another one"
    [ "$read" -lt "$(field bytes_read)" ] || fail "nothing was saved: $(cat /tmp/hinted /tmp/report)"
    echo "guest: $read bytes read, $skipped not, $(field bytes_read) without hints"
}
# compare_unused DEVICE WHY OPTION...: this is not believed, and everything is read.
compare_unused() {
    device=$1 why=$2
    shift 2
    backup hinted "$device" "$@" || fail "$(cat /tmp/report)"
    ! used && grep -q "$why" /tmp/report || fail "$(cat /tmp/report)"
    root=$(field state_root)
    backup plain "$device" --no-hints || fail "$(cat /tmp/report)"
    [ "$(field state_root)" = "$root" ] || fail "the state is another one"
}

# judge DEVICE OPTION...: what is said is believed, and wrong: that is found out by the blocks whose turn it
# is to be compared, or the next text makes up for it, which goes back to where this one began. Sets
# `status`, and `plain`, the state without hints.
judge() {
    device=$1 status=0
    shift
    backup hinted "$device" "$@" || status=$?
    root=$(field state_root)
    cp /tmp/report /tmp/hinted
    backup plain "$device" --no-hints || fail "$(cat /tmp/report)"
    plain=$(field state_root)
    case $status in
    0) [ "$plain" != "$root" ] || fail "the lie hid nothing: $(cat /tmp/hinted)" ;;
    3) grep -q 'was not marked' /tmp/hinted && [ "$root" = "$plain" ] || fail "$(cat /tmp/hinted)" ;;
    *) fail "$status: $(cat /tmp/hinted)" ;;
    esac
}
# What is new in a block that was free is read without any hint: blocks of a file that is there hide.
write_over() { dd if=/dev/urandom of=$live/second bs=64k count="$1" conv=notrunc,fsync 2>/dev/null; }

uname -r
mkfs.ext4 -q /dev/nvme1n1 && mount /dev/nvme1n1 $images

echo "guest: dm-era below a filesystem"
metadata=32768 data=262144
dmsetup create metadata --table "0 $metadata linear /dev/nvme0n1 0"
dmsetup create below --table "0 $data linear /dev/nvme0n1 $metadata"
dmsetup create era --table "0 $data era /dev/mapper/metadata /dev/mapper/below 128"
era=/dev/mapper/era
# What was written until now, and the era in which nothing was yet: sets `current`. A suspend ends
# the era, and lets the tool see it; the tool opens neither the metadata of an active device nor a
# file in memory.
marks() {
    dmsetup suspend era
    dmsetup resume era
    # Meanwhile the kernel puts the era before together with the older ones. Else it would go on to
    # the next one, which then looks as if it were missing.
    sleep 1
    dmsetup suspend era
    dd if=/dev/mapper/metadata of=$images/metadata bs=1M iflag=direct 2>/dev/null
    dmsetup resume era
    era_dump $images/metadata >"$1" || fail "era_dump"
    current=$(sed -n 's/.*current_era="\([0-9]*\)".*/\1/p' "$1")
}
change() { dd if=/dev/urandom of="$live/$1" bs=64k count="$2" conv=fsync 2>/dev/null; }
mkfs.ext4 -q $era && mount $era $live
change first 320
change second 160
umount $live
marks /tmp/marks
backup hinted $era --marks /tmp/marks || fail "$(cat /tmp/report)"
backup plain $era || fail "$(cat /tmp/report)"

for round in 1 2 3; do
    then=$current
    mount $era $live
    change "new$round" 20
    rm -f $live/first
    umount $live
    marks /tmp/marks
    [ "$current" -gt "$then" ] || fail "no era began after $then"
    # The kernel's own list of what was written since, by the other tool and another way.
    dmsetup message era 0 take_metadata_snap
    era_invalidate --metadata-snapshot --written-since $((then + 1)) /dev/mapper/metadata >/tmp/blocks ||
        fail "era_invalidate"
    dmsetup message era 0 drop_metadata_snap
    grep -q block /tmp/blocks || fail "era_invalidate: $(cat /tmp/blocks)"
    compare $era --marks /tmp/marks --changes "era:$then"
    e2fsck -fn $era >/tmp/fsck 2>&1 || fail "$(cat /tmp/fsck)"
done

echo "guest: metadata of another moment"
cp /tmp/marks /tmp/old
then=$current
mount $era $live
change again 10
umount $live
compare_unused $era 'begins with its own text' --marks /tmp/old --changes "era:$then"
dd if=/dev/mapper/metadata of=$images/metadata bs=1M iflag=direct 2>/dev/null
era_dump $images/metadata >/tmp/active
status=0
backup hinted $era --marks /tmp/active || status=$?
[ $status -eq 1 ] && grep -q 'the current era is missing' /tmp/report || fail "$status: $(cat /tmp/report)"
marks /tmp/marks
backup hinted $era --marks /tmp/marks || fail "$(cat /tmp/report)"
# lie COUNT: nothing was written yet when the text is made, and so many blocks of a file are, where they are.
lie() {
    then=$current
    marks /tmp/early
    mount $era $live
    write_over "$1"
    umount $live
    judge $era --marks /tmp/early --changes "era:$then"
}
for attempt in 1 2 3 4 5 6; do
    lie 1
    [ $status -eq 3 ] || break
    echo "guest: a small lie was found out"
    # Nobody believes it again before a backup without it.
    marks /tmp/marks
    backup hinted $era --marks /tmp/marks || fail "$(cat /tmp/report)"
done
[ $status -eq 0 ] || fail "each of $attempt small lies was found out"
then=$current
marks /tmp/marks
backup hinted $era --marks /tmp/marks --changes "era:$then" || fail "$(cat /tmp/report)"
[ "$(field state_root)" = "$plain" ] || fail "the next text does not make up for a lie"
# One in thirty is compared, and these lie side by side.
lie 150
[ $status -eq 3 ] || fail "nobody noticed"
echo "guest: a small lie was made up for, a large one found out"
dmsetup remove era below metadata
rm -rf "${images:?}"/*

echo "guest: dm-thin below a filesystem that is written to without a pause"
dd if=/dev/zero of=/dev/nvme0n1 bs=1M count=1 conv=fsync 2>/dev/null
dmsetup create metadata --table "0 $metadata linear /dev/nvme0n1 0"
dmsetup create below --table "0 786432 linear /dev/nvme0n1 $metadata"
dmsetup create pool --table "0 786432 thin-pool /dev/mapper/metadata /dev/mapper/below 128 0"
dmsetup message pool 0 "create_thin 0"
dmsetup create thin --table "0 $data thin /dev/mapper/pool 0"
mkfs.ext4 -q /dev/mapper/thin && mount /dev/mapper/thin $live
change first 160
change second 160
# The next snapshot of the mounted volume, as LVM makes one: suspended, which freezes the filesystem.
# Its number is in `now`, its device in `snap`.
now=0
snapshot() {
    now=$((now + 1))
    snap=/dev/mapper/snap$now
    dmsetup suspend thin
    dmsetup message pool 0 "create_snap $now 0"
    dmsetup resume thin
    dmsetup create -r "snap$now" --table "0 $data thin /dev/mapper/pool $now"
}
# delta LEFT RIGHT FILE: what differs, by a copy of the metadata that the kernel makes.
delta() {
    dmsetup message pool 0 reserve_metadata_snap
    thin_delta --metadata-snap --snap1 "$1" --snap2 "$2" /dev/mapper/metadata >"$3" || fail "thin_delta"
    dmsetup message pool 0 release_metadata_snap
}
# Waits until the writer has made some files more.
some_more() {
    before=$(cat /tmp/done)
    until [ "$(cat /tmp/done)" -ge $((before + 10)) ]; do usleep 50000; done
}
start_writing
snapshot
delta 1 1 /tmp/marks
backup hinted $snap --marks /tmp/marks || fail "$(cat /tmp/report)"
backup plain $snap || fail "$(cat /tmp/report)"
for round in 1 2; do
    then=$now
    some_more
    snapshot
    delta $then $now /tmp/marks
    grep -q '<different' /tmp/marks || fail "nothing was written: $(cat /tmp/marks)"
    delta $now $now /tmp/own
    compare $snap --marks /tmp/marks --marks /tmp/own --changes "thin:$then"
    e2fsck -fn $snap >/tmp/fsck 2>&1 || fail "$(cat /tmp/fsck)"
done

echo "guest: a delta of another moment"
then=$now
some_more
snapshot
# The last one again, which told of what was written before.
compare_unused $snap 'did not see it' --marks /tmp/marks --changes "thin:$((then - 1))"
delta $now $now /tmp/own
backup hinted $snap --marks /tmp/own || fail "$(cat /tmp/report)"
stop_writing
# lie COUNT: the text ends with a snapshot that is older than the one that is read.
lie() {
    then=$now
    snapshot
    early=$now
    delta $then $early /tmp/marks
    delta $early $early /tmp/own
    write_over "$1"
    snapshot
    judge $snap --marks /tmp/marks --marks /tmp/own --changes "thin:$then"
}
for attempt in 1 2 3 4 5 6; do
    lie 1
    [ $status -eq 3 ] || break
    echo "guest: a small lie was found out"
    delta $now $now /tmp/own
    backup hinted $snap --marks /tmp/own || fail "$(cat /tmp/report)"
done
[ $status -eq 0 ] || fail "each of $attempt small lies was found out"
delta $early $now /tmp/marks
delta $now $now /tmp/own
backup hinted $snap --marks /tmp/marks --marks /tmp/own --changes "thin:$early" || fail "$(cat /tmp/report)"
[ "$(field state_root)" = "$plain" ] || fail "the next text does not make up for a lie"
lie 150
[ $status -eq 3 ] || fail "nobody noticed"
echo "guest: a small lie was made up for, a large one found out"
umount $live
