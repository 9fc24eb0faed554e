//! The points of a set as a picture of time.

use aiv_chain::ImageKind;

use crate::rows::{PointRow, Truth};

/// What is seen of a point in the picture.
pub(crate) fn sign(point: &PointRow) -> char {
    match (&point.truth, point.kind) {
        (Truth::Lost(_), _) => 'x',
        (Truth::Locked, _) => '?',
        (Truth::Flawed(_), _) => '!',
        (Truth::Restorable, ImageKind::Full) => 'F',
        (Truth::Restorable, ImageKind::Incremental) => 'i',
        (Truth::Restorable, ImageKind::Differential) => 'd',
    }
}

/// Of several points in one place the one that is most worth seeing.
fn weight(sign: char) -> usize {
    "-id?F!x".chars().position(|c| c == sign).unwrap_or_default()
}

/// The places of `points` on a line of `width` characters, oldest to newest, and the place of the
/// one at `selected`.
pub(crate) fn timeline(
    points: &[PointRow],
    selected: usize,
    width: usize,
) -> (Vec<char>, Option<usize>) {
    let mut line = vec!['-'; width];
    let times = || points.iter().map(|point| point.time_unix_ms);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return (line, None) };
    let span = u128::from((last - first).max(1));
    let place = |point: &PointRow| {
        let at = u128::from(point.time_unix_ms - first) * width.saturating_sub(1) as u128 / span;
        usize::try_from(at).unwrap_or_default()
    };
    for point in points {
        if let Some(cell) = line.get_mut(place(point))
            && weight(sign(point)) > weight(*cell)
        {
            *cell = sign(point);
        }
    }
    let selected = points.get(selected).filter(|_| width > 0).map(place);
    (line, selected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::point;

    #[test]
    fn points_stand_where_their_time_is_and_bad_ones_in_front() {
        let mut points: Vec<PointRow> = [0, 50, 51, 100].map(|time| point("p", time)).to_vec();
        points[0].kind = ImageKind::Full;
        points[2].truth = Truth::Lost("gone".into());
        let (line, at) = timeline(&points, 3, 11);
        assert_eq!((line.iter().collect::<String>().as_str(), at), ("F----x----i", Some(10)));
    }

    #[test]
    fn one_point_none_and_no_room_at_all_are_pictures_too() {
        assert_eq!(timeline(&[], 0, 3), (vec!['-'; 3], None));
        assert_eq!(timeline(&[point("p", u64::MAX)], 0, 2), (vec!['i', '-'], Some(0)));
        assert_eq!(timeline(&[point("p", 7)], 0, 0), (Vec::new(), None));
    }
}
