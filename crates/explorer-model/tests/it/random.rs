//! Whatever happens in whatever order: nothing panics, and every state can be left.

use crate::player::play;

#[test]
fn no_sequence_of_events_panics_or_ends_where_nobody_gets_out() {
    let deepest = (1..=3000).map(play).max();
    // The player gets somewhere: folders in a volume of a disk of a point of a set.
    assert!(deepest >= Some(6), "{deepest:?}");
}
