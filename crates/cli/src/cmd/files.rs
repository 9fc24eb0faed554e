//! `ls`, `cat`, `find`, `extract`, `diff`: files of a recovery point.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aiv_browse::{Disk, Links, Path as FilePath, Place};
use aiv_jobs::{Bytes, Look, Opened, RecoverJob, RecoverTo, compare_disks, open_disk};
use aiv_report::{Failure, Outcome, diff, files};
use aiv_restore_engine::recover::RecoverOptions;
use aiv_terminal::{LuksFiles, SecretFiles, Session, is_root, print_bytes, random};
use aiv_words::{Cat, Diff, Extract, Find, Ls, OpenArgs};
use serde_json::json;

fn path(text: &Path) -> Result<FilePath, Failure> {
    let parsed = FilePath::parse(text.as_os_str().as_bytes());
    Ok(parsed.map_err(aiv_browse::Error::Path)?)
}

const fn reader(session: &Session) -> files::Reader {
    if session.json { files::Reader::Script } else { files::Reader::Person }
}

fn with_disk<T>(
    image: &Path,
    (unlock, luks, open): (&SecretFiles, &LuksFiles, &OpenArgs),
    session: &Session,
    work: impl Fn(&Disk) -> Result<T, Failure>,
) -> Result<T, Failure> {
    session.with_keys(&[image], unlock, |keys| {
        session.with_luks(luks, |luks| {
            work(&open_disk(session, image, &open.options(), (keys, luks), session.job())?.disk)
        })
    })
}

pub(crate) fn ls(args: &Ls, session: &Session) -> Result<Outcome, Failure> {
    let path = path(&args.path)?;
    with_disk(&args.image, (&args.unlock, &args.luks, &args.open), session, |disk| {
        match disk.resolve(&path, Links::Keep, session.job())? {
            place @ (Place::Top | Place::Volumes(_)) if !args.recursive => {
                Ok(files::volumes(disk, &disk.volumes_at(&place)))
            }
            place => {
                let depth = if args.recursive { usize::MAX } else { 0 };
                let look = Look { depth, ..Look::default() };
                listing(&look, disk, &place, args.recursive, session)
            }
        }
    })
}

pub(crate) fn cat(args: &Cat, session: &Session) -> Result<Outcome, Failure> {
    let path = path(&args.path)?;
    with_disk(&args.image, (&args.unlock, &args.luks, &args.open), session, |disk| {
        let bytes = Bytes::open(disk, &path, session.job())?;
        if session.json {
            let (text, hex) = bytes.in_memory(session.job())?;
            return Ok(Outcome::answer(json!({"text": text, "hex": hex}), String::new()));
        }
        print_bytes(|out: &mut dyn io::Write| bytes.copy(out, session.job()))??;
        Ok(Outcome::answer(json!({}), String::new()))
    })
}

pub(crate) fn find(args: &Find, session: &Session) -> Result<Outcome, Failure> {
    let path = path(&args.path)?;
    with_disk(&args.image, (&args.unlock, &args.luks, &args.open), session, |disk| {
        let place = disk.resolve(&path, Links::Keep, session.job())?;
        let look = Look { filter: args.filter.filter(), sha256: args.sha256, ..Look::default() };
        if !args.sha256 {
            return listing(&look, disk, &place, true, session);
        }
        session.show_list("entries", "", |list| {
            let mut left_out = 0;
            let seen = look.at(disk, &place, session.job(), &mut |file| {
                match files::checksum(file, reader(session)) {
                    Some(line) => return list.push(&line),
                    None => left_out += 1,
                }
                Ok(())
            })?;
            if !session.json {
                files::beside_checksums(&seen).iter().for_each(|note| session.say(note));
            }
            Ok(files::checksums(&seen, left_out))
        })
    })
}

fn listing(
    look: &Look,
    disk: &Disk,
    place: &Place,
    whole_paths: bool,
    session: &Session,
) -> Result<Outcome, Failure> {
    session.show_list("entries", &files::listed_head(), |list| {
        let seen = look.at(disk, place, session.job(), &mut |file| {
            list.push(&files::listed(file, whole_paths, reader(session)))
        })?;
        Ok(files::seen(&seen))
    })
}

pub(crate) fn extract(args: &Extract, session: &Session) -> Result<Outcome, Failure> {
    let paths = args.paths.iter().map(|text| path(text)).collect::<Result<Vec<_>, _>>()?;
    let to = match (&args.to, &args.tar, &args.zip) {
        (_, Some(tar), _) => RecoverTo::Tar(tar.clone()),
        (_, _, Some(zip)) => RecoverTo::Zip(zip.clone()),
        (folder, _, _) => RecoverTo::Folder(folder.clone().unwrap_or_default()),
    };
    let options = RecoverOptions {
        existing: args.existing,
        owners: is_root() && !args.no_owners,
        verify: args.verify,
        seed: u64::from_le_bytes(random()?),
    };
    let job = RecoverJob { paths, filter: args.filter.filter(), to, options };
    with_disk(&args.image, (&args.unlock, &args.luks, &args.open), session, |disk| {
        let report = job.run(disk, session.job())?;
        Ok(files::recovered(&report, job.to.path()))
    })
}

pub(crate) fn diff(args: &Diff, session: &Session) -> Result<Outcome, Failure> {
    let path = path(&args.path)?;
    let images = [&*args.old, &*args.new];
    let (old, new, unkeyed) = session.with_keys(&images, &args.unlock, |keys| {
        // The key may be that of one of them only; what has none is told.
        let keys = keys.clone().not_required();
        let (old, new) = session.with_luks(&args.luks, |luks| {
            let open = |image: &Path| {
                open_disk(session, image, &args.open.options(), (&keys, luks), session.job())
            };
            let both = (open(&args.old)?, open(&args.new)?);
            // Whether a volume is locked shows here, where its passphrase is asked for.
            for one in [&both.0, &both.1] {
                one.disk.resolve(&path, Links::Keep, session.job())?;
            }
            Ok(both)
        })?;
        let has_none = |opened: &Opened| !keys.is_empty() && opened.is_unkeyed_point();
        let both = images.into_iter().zip([&old, &new]);
        let unkeyed: Vec<&Path> = both.filter(|(_, one)| has_none(one)).map(|(it, _)| it).collect();
        Ok((old, new, unkeyed))
    })?;
    let found = compare_disks(&old, &new, &path, session.job())?;
    session.show_list("volumes", "", |list| {
        if !session.json {
            list.push(&diff::compared_head(&found))?;
        }
        for volume in &found.volumes {
            list.push("")?;
            diff::volume_compared(volume, args.top, reader(session), &mut |text| list.more(text))?;
        }
        let outcome = diff::compared(&found);
        Ok(unkeyed.iter().fold(outcome, |all, image| all.with(diff::without_key(image))))
    })
}
