#!/bin/sh
# The first program of a guest: makes the machine usable, runs the scenario, says how it ended.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
# Nobody runs udev here: LVM makes its device nodes itself.
export DM_DISABLE_UDEV=1
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
# What the kernel says of devices that are broken on purpose is not for the reader.
dmesg -n 1
mkdir -p /run/lock/lvm /etc/lvm
ln -sf /proc/self/mounts /etc/mtab
while read -r module; do insmod "$module" || echo "guest: $module was not loaded"; done </modules/order
sh /scenario </dev/null 2>&1
echo "guest: ended $?"
sync
poweroff -f
