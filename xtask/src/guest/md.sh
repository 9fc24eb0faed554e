# Arrays that the kernel's md made, in every format of superblocks: their files, read from the disk their
# members are on, are those that were written through the array.
# Disks: one for the members, one for the images.
set -eu
. /common

disk=/dev/nvme0n1 array=/dev/md0
export MDADM_NO_UDEV=1
mkdir -p /run/mdadm

# assemble LEVEL FORMAT PARTITION...: an array with ext4 on it, mounted.
assemble() {
    level=$1 format=$2
    shift 2
    members=
    for number in "$@"; do members="$members ${disk}p$number"; done
    # shellcheck disable=SC2086
    mdadm --zero-superblock $members >/dev/null 2>&1 || true
    chunk=
    case $level in raid1) ;; linear) chunk=$rounding ;; *) chunk=--chunk=64 ;; esac
    # Whatever parity is, nothing is made from it here.
    case $level in raid0 | linear) whole= ;; *) whole=--assume-clean ;; esac
    # shellcheck disable=SC2086
    mdadm --create $array --run --level="$level" --metadata="$format" --raid-devices=$# $chunk $whole $members \
        >/tmp/mdadm 2>&1 || fail "$(cat /tmp/mdadm)"
    mkfs.ext4 -q $array
    mount $array $live
    for n in $(seq 40); do content "$n" >$live/"$n"; done
    dd if=/dev/urandom of=$live/large bs=1M count="$large" 2>/dev/null
}
# Its files, and the end of the array.
take_apart() {
    (cd $live && find . -type f | sort | xargs sha256sum) | sed 's, \./, ,' >/tmp/expected
    umount $live
    size=$(blockdev --getsize64 $array)
    mdadm --stop $array >/tmp/mdadm 2>&1 || fail "$(cat /tmp/mdadm)"
}
# files_of SOURCE VOLUME: their checksums as those above.
files_of() {
    aiv --quiet find "$1" "/$2" --type file --sha256 >/tmp/all || fail "find $1 $2"
    sed "s, $2/, ," /tmp/all | sort -k 2 >/tmp/found
}
# compare SOURCE VOLUME
compare() {
    files_of "$1" "$2"
    sort -k 2 /tmp/expected | cmp -s - /tmp/found || fail "$1 $2: $(diff /tmp/expected /tmp/found | head -n 4)"
}
# The volume has the length of the array.
long() {
    aiv --json --quiet ls $disk >/tmp/report
    tr '{' '\n' </tmp/report | grep "\"name\":\"$1\"" | grep -q "\"size\":$size[,}]" || fail "$size: $(cat /tmp/report)"
}

uname -r
mkfs.ext4 -q /dev/nvme1n1 && mount /dev/nvme1n1 $images
# Equal ones, and three of odd lengths.
printf 'size=24MiB\nsize=24MiB\nsize=24MiB\nsize=20001KiB\nsize=31MiB\nsize=17003KiB\n' |
    sfdisk -q --label gpt $disk

for format in 0.90 1.0 1.1 1.2; do
    for level in raid1 raid0 raid5 raid10 linear; do
        # Format 0.90 has no word for the layout of a RAID0: mdadm makes none any more.
        [ $format-$level != 0.90-raid0 ] || continue
        large=12 rounding=
        assemble $level $format 2 3 1
        mdadm --examine ${disk}p2 | sed -n 's/^ *\(Version\|Raid Level\|Chunk Size\|Rounding\|Layout\) : //p' |
            tr '\n' ' ' | sed 's/^/guest: /'
        echo
        take_apart
        compare $disk p1
        case $level in raid1) compare $disk p2; compare $disk p3 ;; esac
        long p1
    done
    # Lengths of their own, in chunks of their own.
    for rounding in "" --rounding=512; do
        large=45
        assemble linear $format 5 6 4
        take_apart
        compare $disk p4
        long p4
    done
    aiv --quiet backup $disk --to $images/$format >/dev/null
    compare "$images/$format@latest" p4

    # Of a mirror that went on without a member, that one is old, and says so.
    large=2
    assemble raid1 $format 1 2
    sync
    (cd $live && find . -type f | sort | xargs sha256sum) | sed 's, \./, ,' >/tmp/old
    mdadm $array --fail ${disk}p2 >/tmp/mdadm 2>&1 || fail "$(cat /tmp/mdadm)"
    for n in 41 42 43; do
        content $n >$live/$n
        sync
    done
    take_apart
    compare $disk p1
    aiv ls $disk >/tmp/report 2>&1
    grep -q 'p2: its mirror went on without it' /tmp/report || fail "$(cat /tmp/report)"
    ! grep -q 'p1: its mirror' /tmp/report || fail "$(cat /tmp/report)"
    files_of $disk p2
    sort -k 2 /tmp/old | cmp -s - /tmp/found || fail "p2: $(diff /tmp/old /tmp/found)"
done
