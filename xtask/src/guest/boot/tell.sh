# Written into the root filesystem between the full backup and the increment, and run by the
# restored system: what it says is what a kernel that booted from the restored disk sees.
if [ -d /sys/firmware/efi ]; then echo "tell: firmware UEFI"; else echo "tell: firmware BIOS"; fi
echo "tell: filesystem of $(($(stat -f -c '%b * %S' /))) bytes"
cd /root && sha256sum --check --status changed.sha256 && echo "tell: changed file is whole"
[ -e /root/removed ] || echo "tell: removed file is gone"
[ -s /boot/efi/EFI/BOOT/BOOTX64.EFI ] && echo "tell: EFI system partition is mounted"
touch /root/written && sync && echo "tell: root filesystem can be written"
echo "tell: system is $(systemctl is-system-running --wait)"
echo "tell: end"
