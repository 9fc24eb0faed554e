//! A disk of LVM2: what is restored has the volume group, and a sound filesystem in it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use aiv_backup_engine::{MapNote, PlanNote};
use aiv_image_format::meta::Capture;
use aiv_volume_io::FileDisk;

use crate::common::{backup, options};
use crate::filesystems::restore_over_noise;
use crate::tools::{Mounted, files_below, fill_with_noise, make_files, run};

const MIB: u64 = 1 << 20;

/// Runs an LVM command on one disk as if there were no others, and no device-mapper.
fn lvm(system: &str, device: &str, command: &str) -> String {
    let text = format!(
        "devices {{ dir=\"/dev\" scan=[\"/dev\"] filter=[\"a|^{device}$|\",\"r|.*|\"]\n\
         use_devicesfile=0 hints=\"none\" obtain_device_list_from_udev=0 sysfs_scan=0\n\
         external_device_info_source=\"none\" md_component_detection=0 }}\n\
         global {{ locking_dir=\"{system}/locks\" use_lvmpolld=0 event_activation=0 }}\n\
         backup {{ backup=0 archive=0 }}\n\
         activation {{ monitoring=0 udev_sync=0 udev_rules=0 }}\n"
    );
    fs::write(format!("{system}/lvm.conf"), text).unwrap();
    let system = format!("LVM_SYSTEM_DIR={system}");
    let mut words = vec![system.as_str(), "LVM_SUPPRESS_FD_WARNINGS=1"];
    words.extend(command.split_whitespace());
    words.insert(3, "--driverloaded=n");
    run("env", &words)
}

/// A file as a device, for as long as a value lives.
struct Loop(String);

impl Loop {
    fn over(file: &str) -> Self {
        Self(run("losetup", &["--find", "--show", file]).trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.0]);
    }
}

#[test]
fn a_used_block_image_of_a_volume_group_restores_with_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (disk, filesystem, system) = (path("disk"), path("filesystem"), path("system"));
    fs::create_dir(&system).unwrap();
    fill_with_noise(&File::create_new(&disk).unwrap(), 64 * MIB);
    fill_with_noise(&File::create_new(&filesystem).unwrap(), 40 * MIB);
    run("mkfs.ext4", &["-q", "-E", "nodiscard", &filesystem]);
    let mounted = Mounted::new(filesystem.as_ref(), 0, 40 * MIB, "rw");
    make_files(mounted.path());
    let expected = files_below(mounted.path());
    drop(mounted);

    let device = Loop::over(&disk);
    lvm(&system, &device.0, &format!("pvcreate -y -ff {}", device.0));
    lvm(&system, &device.0, &format!("vgcreate -s 1m vg {}", device.0));
    lvm(&system, &device.0, "lvcreate -an -Zn -Wn -y -n root -l 40 vg");
    let told = lvm(&system, &device.0, "lvs --noheadings -o lv_name,lv_uuid,seg_pe_ranges vg");
    let told = told.replace(&device.0, "disk");
    drop(device);
    // The first extent is a mebibyte from the front.
    let bytes = fs::read(&filesystem).unwrap();
    File::options().write(true).open(&disk).unwrap().write_all_at(&bytes, MIB).unwrap();

    let made = backup(&FileDisk::open_source(&disk).unwrap(), options());
    let volume = made.view.image().meta().disk.regions[0].volume.clone().unwrap();
    assert_eq!((volume.capture, volume.reason.as_str()), (Capture::Used, ""));
    assert_eq!(volume.filesystem, "LVM2_member");
    let [PlanNote::Filesystem { volume: 0, note: MapNote::LogicalVolume { name, .. } }] =
        made.report.notes.as_slice()
    else {
        panic!("{:?}", made.report.notes)
    };
    assert_eq!(name, "vg/root");
    // What is stored: the records of LVM, and the used blocks of the filesystem.
    assert!(volume.used_bytes < 30 * MIB, "{volume:?}");

    let target = path("target");
    restore_over_noise(&made.view, target.as_ref());
    let device = Loop::over(&target);
    let after = lvm(&system, &device.0, "lvs --noheadings -o lv_name,lv_uuid,seg_pe_ranges vg");
    assert_eq!(after.replace(&device.0, "disk"), told);
    lvm(&system, &device.0, &format!("pvck {}", device.0));
    drop(device);
    let mut bytes = vec![0; usize::try_from(40 * MIB).unwrap()];
    File::open(&target).unwrap().read_exact_at(&mut bytes, MIB).unwrap();
    fs::write(&filesystem, bytes).unwrap();
    run("e2fsck", &["-fn", &filesystem]);
    let mounted = Mounted::new(filesystem.as_ref(), 0, 40 * MIB, "ro");
    assert!(files_below(mounted.path()) == expected, "the files differ");
}
