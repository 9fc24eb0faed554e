//! The thread that does it.

use std::sync::Arc;
use std::time::Duration;

use aiv_chain::Keys;
use aiv_explorer_model::{Answer, Event, Problem, Work};
use aiv_explorer_work::Worker;

use crate::made::{Made, Outside};

type Answered = Result<Answer, Problem>;

/// Waits for the answer with this ticket, and looks at it.
fn wait(worker: &mut Worker, wanted: u64, is_it: fn(&Answered) -> bool) {
    for _ in 0..6000 {
        for event in worker.news().expect("the thread lives") {
            if let Event::Answer { ticket, answer } = event
                && ticket == wanted
            {
                assert!(is_it(&answer), "{answer:?}");
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no answer came");
}

#[test]
fn answers_come_with_their_tickets_and_what_was_stopped_does_not_go_on() {
    let made = Made::new();
    let image = made.back_up(None);
    let mut worker = Worker::start(Arc::new(Outside::new()), false);
    worker.begin(1, Work::Scan { folder: made.images() }, Keys::none());
    wait(&mut worker, 1, |answer| matches!(answer, Ok(Answer::Sets(..))));

    for ticket in 2..50 {
        worker.begin(ticket, Work::Verify { what: image.clone(), set: None }, Keys::none());
    }
    worker.stop();
    wait(&mut worker, 49, |answer| answer.as_ref().is_err_and(|problem| problem.canceled));
    // What comes after it is done as ever.
    worker.begin(50, Work::Open { what: image }, Keys::none());
    wait(&mut worker, 50, |answer| matches!(answer, Ok(Answer::Disk(_))));
}
