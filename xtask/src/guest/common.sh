# What scenarios share: a writer, and what of it has to be there after a restore.
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
images_there() { find $images -name '*.ai?' | wc -l; }
part_there() { find $images -name '*.part' | grep -q .; }
# Each scenario with snapshots says by `snapshots` which there are of backups.
no_snapshot_is_left() { [ -z "$(snapshots)" ] || fail "a snapshot is left: $(snapshots)"; }

# prove DEVICE CHECK OPTION...: backed up under load, with a snapshot; then restored, checked, compared.
prove() {
    volume=$1 check=$2
    shift 2
    start_writing
    before=$(cat /tmp/done)
    aiv --json --quiet backup "$volume" --to $images --snapshot "$@" >/tmp/report || fail "$(cat /tmp/report)"
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
    mount "$volume" $live
}

# runs_over DEVICE OPTION...: a backup while a function `overwrite` takes all the room there is.
runs_over() {
    there=$(images_there)
    (until part_there; do usleep 20000; done
        overwrite) &
    status=0
    # On a machine where others work it has to be there long enough.
    aiv --json --quiet backup "$@" --to $images --full --snapshot --rate-limit 256K >/tmp/report || status=$?
    wait
    [ $status -eq 1 ] && grep -q '"code":"snapshot_overflow"' /tmp/report || fail "$status: $(cat /tmp/report)"
    [ "$(images_there)" -eq "$there" ] || fail "an image was left"
    ! part_there || fail "a part of an image was left"
    no_snapshot_is_left
}

# leftovers DEVICE: what a killed backup leaves is removed by the next one, and not while it is in use,
# whether it is read or waits for a command of the user.
leftovers() {
    mkdir -p /tmp/other /tmp/slow
    rm -f /tmp/waits /tmp/go
    aiv --quiet backup "$1" --to /tmp/slow --full --snapshot \
        --post-thaw 'touch /tmp/waits; until [ -e /tmp/go ]; do usleep 50000; done' &
    slow=$!
    until [ -e /tmp/waits ]; do usleep 20000; done
    others=$(snapshots)
    aiv --json --quiet backup "$1" --to /tmp/other --snapshot >/tmp/report || fail "$(cat /tmp/report)"
    ! grep -q 'removed snapshot\|was not removed' /tmp/report || fail "$(cat /tmp/report)"
    [ "$(snapshots)" = "$others" ] || fail "not the same: $(snapshots)"
    touch /tmp/go
    wait $slow || fail "its snapshot was taken away"
    aiv --quiet backup "$1" --to $images --full --snapshot --rate-limit 256K &
    killed=$!
    until part_there; do usleep 20000; done
    aiv --json --quiet backup "$1" --to /tmp/other --snapshot >/tmp/report || fail "$(cat /tmp/report)"
    # Of ZFS, one is two: a snapshot and its clone.
    [ "$(snapshots | grep -o 'aiv-[0-9a-f]*$' | sort -u | wc -l)" -eq 1 ] || fail "not one: $(snapshots)"
    kill -9 $killed || fail "it had ended"
    wait $killed || true
    rm -rf $images/*.part /tmp/slow /tmp/other
    aiv --json --quiet backup "$1" --to $images --snapshot >/tmp/report || fail "$(cat /tmp/report)"
    grep -q 'removed snapshot [^ ].*aiv-' /tmp/report || fail "$(cat /tmp/report)"
    no_snapshot_is_left
}
