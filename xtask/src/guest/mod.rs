//! `cargo xtask guest`: what needs a kernel of its own, in a machine of its own.
//!
//! Device mapper, and with it LVM, and ZFS are not on every machine that tests run on, and a broken
//! snapshot must not take the machine with it. So a virtual machine boots Debian's kernel for
//! clouds, in software emulation, with an initial file system that holds a scenario: a shell
//! script, the programs it calls, their libraries and kernel modules. Its disks are new. What it
//! says comes over a serial line, and so does its exit status.
//!
//! A scenario is an entry in [`SCENARIOS`]; everything else here knows nothing of any of them.
//! [`boot`] is none of them: its machine starts from a disk, with the system that is on it.

mod archive;
mod boot;
mod initramfs;
mod kernel;
mod machine;
mod packages;
mod zfs;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Outcome, process, setup};
use initramfs::Initramfs;
use kernel::Kernel;
use machine::Machine;
use zfs::Zfs;

/// Something to be proven in a machine of its own.
struct Scenario {
    name: &'static str,
    /// Run by the guest's shell. Its exit status is the result.
    script: &'static str,
    /// Programs of this machine it calls, besides those of busybox and `aiv`.
    programs: &'static [&'static str],
    /// Kernel modules it needs; those they need themselves come along.
    modules: &'static [&'static str],
    /// Programs of ZFS, by their places below `/`; then there are its modules, too.
    zfs: &'static [&'static str],
    /// Lengths of its disks in MiB: `/dev/nvme0n1`, `/dev/nvme1n1` and so on.
    disks_mib: &'static [u64],
    /// The machine is stopped after this.
    limit: Duration,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "lvm",
        script: include_str!("lvm.sh"),
        programs: &[
            "lvm",
            "lvs",
            "vgs",
            "pvcreate",
            "vgcreate",
            "lvcreate",
            "lvchange",
            "lvremove",
            "dmsetup",
            "thin_check",
            "mkfs.ext4",
            "e2fsck",
            "mkfs.xfs",
            "xfs_repair",
            "fsfreeze",
        ],
        modules: &["dm-snapshot", "dm-thin-pool", "xfs"],
        zfs: &[],
        disks_mib: &[640, 512, 384],
        limit: Duration::from_secs(900),
    },
    Scenario {
        name: "zfs",
        script: include_str!("zfs.sh"),
        programs: &["sfdisk", "mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair", "fsfreeze"],
        modules: &["zfs", "xfs"],
        zfs: &["sbin/zfs", "sbin/zpool", "lib/udev/zvol_id"],
        disks_mib: &[640, 512, 384],
        limit: Duration::from_secs(1200),
    },
    Scenario {
        name: "hints",
        script: include_str!("hints.sh"),
        programs: &["dmsetup", "era_dump", "era_invalidate", "thin_delta", "mkfs.ext4", "e2fsck"],
        modules: &["dm-era", "dm-thin-pool"],
        zfs: &[],
        disks_mib: &[512, 512],
        limit: Duration::from_secs(1200),
    },
    Scenario {
        name: "md",
        script: include_str!("md.sh"),
        programs: &["mdadm", "sfdisk", "mkfs.ext4"],
        modules: &["linear", "raid0", "raid1", "raid10", "raid456"],
        zfs: &[],
        disks_mib: &[192, 512],
        limit: Duration::from_secs(1200),
    },
];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    setup::run(&["--guest".to_owned()])?;
    let wanted = match arguments {
        [] => None,
        [name] => Some(name.as_str()),
        _ => return Err("takes at most one argument, the name of a scenario".into()),
    };
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted == name);
    let scripts: Vec<_> = SCENARIOS.iter().filter(|scenario| is_wanted(scenario.name)).collect();
    if scripts.is_empty() && !is_wanted(boot::NAME) {
        let names = SCENARIOS.iter().map(|scenario| scenario.name).chain([boot::NAME]);
        return Err(format!("the scenarios are: {}", names.collect::<Vec<_>>().join(", ")));
    }
    process::run(process::cargo().args(["build", "--quiet", "--package", "aiv-cli"]))?;
    let folder = process::repository().join("target/guest");
    if !scripts.is_empty() {
        let mut kernel = Kernel::provide(&folder)?;
        let mut zfs = None;
        if scripts.iter().any(|scenario| !scenario.zfs.is_empty()) {
            let built = Zfs::provide(&folder, &kernel)?;
            kernel.add(&built.modules)?;
            zfs = Some(built);
        }
        for scenario in scripts {
            timed(scenario.name, || prove(scenario, &kernel, zfs.as_ref(), &folder))?;
        }
    }
    if is_wanted(boot::NAME) {
        timed(boot::NAME, || boot::prove(&folder))?;
    }
    Ok(())
}

fn timed(name: &str, prove: impl FnOnce() -> Outcome) -> Outcome {
    let begun = Instant::now();
    println!("guest: {name} begins");
    prove()?;
    println!("guest: {name} holds, {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn prove(scenario: &Scenario, kernel: &Kernel, zfs: Option<&Zfs>, folder: &Path) -> Outcome {
    let mut initramfs = Initramfs::new(kernel, scenario.modules)?;
    initramfs.program(&aiv()?)?;
    for name in scenario.programs {
        let found = process::find_program(name);
        initramfs.program(&found.ok_or_else(|| format!("there is no program '{name}'"))?)?;
    }
    if let Some(zfs) = zfs {
        for place in scenario.zfs {
            initramfs.program_below(&zfs.root, place)?;
        }
    }
    initramfs.text("scenario", scenario.script)?;
    let machine = Machine {
        kernel: &kernel.image,
        initramfs: initramfs.write(&folder.join(format!("{}.cpio", scenario.name)))?,
        disks_mib: scenario.disks_mib,
        limit: scenario.limit,
    };
    machine.run(&folder.join(scenario.name))
}

/// The program as it was built just now.
fn aiv() -> Result<PathBuf, String> {
    let built = process::repository().join("target/debug/aiv");
    if built.is_file() { Ok(built) } else { Err(format!("{} was not built", built.display())) }
}

/// Wraps an error of the system with what was being done to which file.
fn failed(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{op} {path}: {error}")
}
