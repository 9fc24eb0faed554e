//! nbdkit and QEMU.

use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use aiv_nbd_client::{Error, NbdDisk, NbdOptions};
use aiv_volume_io::{Extent, ReadAt};

use crate::tools::{MIB, Proxy, Scratch, chain, check_same, options};

#[test]
fn nbdkit_gives_what_it_has_in_every_manner_of_reply() {
    let scratch = Scratch::new();
    let raw = scratch.raw("disk.raw", 6 * MIB);
    let policy = |sizes: &str| {
        let error = "blocksize-error-policy=error";
        format!("-r --filter=blocksize-policy file disk.raw {error} blocksize-{sizes}")
    };
    for (flags, has_holes) in [
        ("-r file disk.raw", true),
        ("-r --no-sr file disk.raw", false),
        ("-t 1 -r file disk.raw", true),
        (&*policy("minimum=4096 blocksize-maximum=1M"), true),
        (&*policy("minimum=64k blocksize-preferred=64k blocksize-maximum=64k"), true),
    ] {
        let server = scratch.serve(&format!("nbdkit -f -U SOCKET {flags}"));
        let disk = server.disk();
        check_same(&disk, &raw);
        let holes = disk.holes(Extent::new(0, disk.len())).unwrap();
        let total: u64 = holes.iter().map(|hole| hole.len).sum();
        assert_eq!(total > 4 * MIB, has_holes, "{flags}: {holes:?}");
        assert_eq!(disk.has_allocation(), has_holes);
        let part = disk.holes(Extent::new(3, 5 * MIB)).unwrap();
        let inside = |hole: &Extent| hole.start >= 3 && hole.end() <= 5 * MIB + 3;
        assert!(part.iter().all(inside) && part.is_empty() != has_holes);
        assert!(disk.is_read_only());
    }
}

#[test]
fn a_disk_that_is_no_multiple_of_a_sector_is_read_to_its_end() {
    let scratch = Scratch::new();
    let raw = scratch.raw("disk.raw", 3 * MIB + 77);
    let server = scratch.serve("nbdkit -f -U SOCKET -r file disk.raw");
    check_same(&server.disk(), &raw);
}

#[test]
fn qemu_gives_a_virtual_disk_with_its_holes_and_dirty_bitmaps() {
    let scratch = Scratch::new();
    let raw = scratch.raw("disk.raw", 6 * MIB);
    scratch.run("qemu-img convert -O qcow2 disk.raw disk.qcow2");
    scratch.run("qemu-img bitmap --add -g 64k disk.qcow2 since");
    let file = scratch.path("disk.qcow2");
    let write = ["-f", "qcow2", "-c", "write -P 7 1M 100k", "-c", "write -P 8 5M 1k"];
    let done = std::process::Command::new("qemu-io").args(write).arg(&file).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    scratch.run("qemu-img convert -O raw disk.qcow2 disk.raw");
    let line = "qemu-nbd -t -k SOCKET -r -e 8 -f qcow2 -x vm -B since disk.qcow2";
    let server = scratch.serve(line);
    let bitmap = |name: &str| NbdOptions { dirty_bitmap: Some(name.into()), ..options() };
    let disk = NbdDisk::connect(server.uri("vm"), bitmap("since")).unwrap();
    check_same(&disk, &raw);
    let dirty = disk.dirty(Extent::new(0, disk.len())).unwrap();
    assert_eq!(dirty, [Extent::new(MIB, 128 << 10), Extent::new(5 * MIB, 64 << 10)]);
    let part = disk.dirty(Extent::new(MIB + 5, 1000)).unwrap();
    assert_eq!(part, [Extent::new(MIB + 5, 1000)]);
    let all = NbdOptions { all_bitmaps: true, ..options() };
    let all = std::sync::Arc::new(NbdDisk::connect(server.uri("vm"), all).unwrap());
    let [tracker] = all.change_trackers().try_into().ok().unwrap();
    let facts = tracker.facts();
    assert_eq!((facts.kind, &*facts.name, &facts.unsound), ("nbd bitmap", "since", &None));
    assert_eq!(tracker.changed(Extent::new(0, all.len())).unwrap(), dirty);
    let error = NbdDisk::connect(server.uri("vm"), bitmap("other")).unwrap_err();
    assert_eq!(error.to_string(), "the server has no dirty bitmap 'other'");
    let without = NbdDisk::connect(server.uri("vm"), options()).unwrap();
    assert_eq!(without.dirty(Extent::new(0, 1)).unwrap_err().kind(), ErrorKind::Unsupported);
    let error = NbdDisk::connect(server.uri("wrong"), options()).unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("the server refuses the export 'wrong': it has no export of this name"),
        "{said}"
    );
}

#[test]
fn holes_are_what_another_client_calls_zeros() {
    let scratch = Scratch::new();
    scratch.raw("disk.raw", 6 * MIB);
    scratch.run("qemu-img convert -O qcow2 -o cluster_size=4k disk.raw disk.qcow2");
    for line in [
        "nbdkit -f -U SOCKET -r file disk.raw",
        "qemu-nbd -t -k SOCKET -r -e 8 -f qcow2 disk.qcow2",
    ] {
        let server = scratch.serve(line);
        let disk = server.disk();
        let map = scratch.run(&format!("nbdinfo --map {}", server.uri("")));
        let mut theirs: Vec<Extent> = Vec::new();
        for row in map.lines() {
            let numbers: Vec<u64> =
                row.split_whitespace().take(3).map(|word| word.parse().unwrap()).collect();
            let run = Extent::new(numbers[0], numbers[1]);
            match theirs.last_mut() {
                _ if numbers[2] & 2 == 0 => {}
                Some(last) if last.end() == run.start => last.len += run.len,
                _ => theirs.push(run),
            }
        }
        assert!(theirs.len() >= 2, "{map}");
        assert_eq!(disk.holes(Extent::new(0, disk.len())).unwrap(), theirs, "{line}");
    }
}

#[test]
fn a_server_for_one_client_is_not_asked_for_a_second_connection() {
    let scratch = Scratch::new();
    let raw = scratch.raw("disk.raw", 3 * MIB);
    let server = scratch.serve("qemu-nbd -t -k SOCKET -r -e 1 -f raw disk.raw");
    check_same(&server.disk(), &raw);
}

#[test]
fn tcp_is_as_good_as_a_socket() {
    let scratch = Scratch::new();
    let raw = scratch.raw("disk.raw", 3 * MIB);
    let server = scratch.serve("nbdkit -f -U SOCKET -r file disk.raw");
    let proxy = Proxy::to(&server.socket);
    let disk = NbdDisk::connect(proxy.uri(), options()).unwrap();
    check_same(&disk, &raw);
}

#[test]
fn what_a_server_demands_or_is_too_old_for_is_said_clearly() {
    let scratch = Scratch::new();
    scratch.raw("disk.raw", MIB);
    std::fs::write(scratch.path("keys"), "somebody:00112233445566778899aabbccddeeff\n").unwrap();
    for (flags, says) in [
        ("--tls=require --tls-psk=keys file disk.raw", "the server requires TLS"),
        ("-o file disk.raw", "it only knows a handshake of before 2011"),
    ] {
        let server = scratch.serve(&format!("nbdkit -f -U SOCKET -r {flags}"));
        let said = chain(&NbdDisk::connect(server.uri(""), options()).unwrap_err());
        assert!(said.contains(says), "{said}");
    }
    let server = scratch.serve("nbdkit -f -U SOCKET -r file disk.raw");
    let uri = server.uri("");
    server.stop();
    let error = NbdDisk::connect(uri, options()).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

#[test]
fn a_bad_sector_is_one_and_costs_no_connection() {
    let scratch = Scratch::new();
    scratch.raw("disk.raw", MIB);
    for flags in ["", "--no-sr"] {
        let line = "--filter=error file disk.raw error-pread=EIO error-pread-rate=1";
        let server = scratch.serve(&format!("nbdkit -f -U SOCKET -r {flags} {line}"));
        let disk = server.disk();
        for _ in 0..3 {
            let error = disk.read_exact_at(&mut [0; 4096], 0).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(5), "{error}");
        }
        let line = "--filter=error file disk.raw error-pread=ENOMEM error-pread-rate=1";
        let server = scratch.serve_at("t", &format!("nbdkit -f -U SOCKET -r {flags} {line}"));
        let error = server.disk().read_exact_at(&mut [0; 4096], 0).unwrap_err();
        assert!(error.to_string().contains("out of memory"), "{error}");
        assert_eq!(error.raw_os_error(), None);
    }
}

#[test]
fn a_broken_connection_is_made_again_once_and_to_the_same_disk_only() {
    let scratch = Scratch::new();
    let raw = scratch.raw("disk.raw", 2 * MIB);
    scratch.raw("other.raw", 3 * MIB);
    let line = "nbdkit -f -U SOCKET -r file disk.raw";
    let server = scratch.serve(line);
    let disk = server.disk();
    check_same(&disk, &raw);
    server.stop();
    let again = scratch.serve(line);
    check_same(&disk, &raw);
    again.stop();
    let other = scratch.serve("nbdkit -f -U SOCKET -r file other.raw");
    let error = disk.read_exact_at(&mut [0; 512], 0).unwrap_err();
    assert!(error.to_string().contains("the disk had 2097152 bytes and has 3145728"), "{error}");
    other.stop();
    let error = disk.read_exact_at(&mut [0; 512], 0).unwrap_err();
    assert!(error.to_string().contains("cannot connect to nbd+unix:///"), "{error}");
    assert_ne!(error.kind(), ErrorKind::UnexpectedEof, "not a source that shrank");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let scratch = Scratch::new();
    let socket = scratch.path("s");
    let _silent = UnixListener::bind(&socket).unwrap();
    let uri = format!("nbd+unix:///?socket={}", socket.display()).parse().unwrap();
    let timeout = Duration::from_millis(200);
    let error = NbdDisk::connect(uri, NbdOptions { timeout, ..options() }).unwrap_err();
    assert!(chain(&error).ends_with("the server did not answer in time"), "{error}");
}
