use std::collections::BTreeMap;
use std::sync::Mutex;

use aiv_restore_engine::{Error, RestorePlan, RestoreReport};
use aiv_volume_io::{Cancel, Job, Progress, Step};

use crate::build::{Built, Disk, noise, threads};
use crate::targets::{TestTarget, device};

/// Remembers what it was told, and presses the button at the n-th advance.
#[derive(Default)]
struct Watch<'a> {
    button: Option<(&'a Cancel, usize)>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    advances: usize,
    totals: Vec<(Step, u64)>,
    done: BTreeMap<&'static str, u64>,
    ended: Vec<Step>,
}

impl Progress for Watch<'_> {
    fn begin(&self, step: Step, total: u64) {
        self.seen.lock().unwrap().totals.push((step, total));
    }

    fn advance(&self, step: Step, bytes: u64) {
        let mut seen = self.seen.lock().unwrap();
        let name = if step == Step::WriteTarget { "write" } else { "verify" };
        *seen.done.entry(name).or_default() += bytes;
        seen.advances += 1;
        if let Some((cancel, at)) = self.button
            && at == seen.advances
        {
            cancel.cancel();
        }
    }

    fn end(&self, step: Step) {
        self.seen.lock().unwrap().ended.push(step);
    }
}

fn restore(
    built: &Built,
    target: &TestTarget,
    count: usize,
    watch: &Watch<'_>,
    cancel: &Cancel,
) -> Result<RestoreReport, Error> {
    let view = built.view();
    let job = Job::new(watch, cancel);
    RestorePlan::new(&view, &device(built.len()), threads(count), job)?.apply(&view, target, job)
}

#[test]
fn a_restore_can_be_canceled_at_every_advance() {
    let built = Disk::sample().build();
    for count in [1, 3] {
        let mut at = 1;
        loop {
            let cancel = Cancel::new();
            let watch = Watch { button: Some((&cancel, at)), ..Watch::default() };
            let target = TestTarget::holding(noise(built.len()));
            match restore(&built, &target, count, &watch, &cancel) {
                // Pressed when all was done.
                Ok(report) => {
                    assert!(report.verified && at >= watch.seen.lock().unwrap().advances);
                    break;
                }
                Err(error) => assert!(matches!(error, Error::Canceled(_)), "{error}"),
            }
            // Only what the threads had in hand was still finished.
            assert!(watch.seen.lock().unwrap().advances < at + count);
            at += 1;
        }
        assert!(at > 5, "only {at} advances");
    }
}

#[test]
fn a_restore_canceled_beforehand_touches_nothing() {
    let built = Disk::sample().build();
    let cancel = Cancel::new();
    cancel.cancel();
    let target = TestTarget::holding(noise(built.len()));
    let error = restore(&built, &target, 2, &Watch::default(), &cancel).expect_err("canceled");
    assert!(matches!(error, Error::Canceled(_)), "{error}");
    assert!(target.ops().is_empty());
}

#[test]
fn progress_ends_where_it_said_it_would() {
    let built = Disk::sample().build();
    let watch = Watch::default();
    let target = TestTarget::holding(noise(built.len()));
    restore(&built, &target, 3, &watch, &Cancel::new()).unwrap();
    let seen = watch.seen.into_inner().unwrap();
    let (behind_head, all) = (built.len() - (1 << 20), built.len());
    assert_eq!(seen.totals, [(Step::WriteTarget, behind_head), (Step::VerifyTarget, all)]);
    assert_eq!(seen.done, BTreeMap::from([("write", behind_head), ("verify", all)]));
    assert_eq!(seen.ended, [Step::WriteTarget, Step::VerifyTarget]);
}
