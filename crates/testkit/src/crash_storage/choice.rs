//! Where the decisions of a crash come from: corner cases, chance, or all of them in turn.

use crate::random::Random;

/// Answers questions of the kind "which of these n?".
pub(super) trait Choice {
    /// A number below `options`, which is at least one.
    fn pick(&mut self, options: usize) -> usize;

    /// In how many pieces a tail of so many sectors is torn.
    fn pieces(&self, sectors: usize) -> usize;

    /// The same, for a question asked about every directory operation or every file: a source
    /// of corner cases answers all of them alike.
    fn pick_alike(&mut self, _question: Question, options: usize) -> usize {
        self.pick(options)
    }
}

/// The questions corner cases have one answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Did this directory operation happen?
    Entry,
    /// What became of this tail?
    Tail,
    /// What became of what was written over?
    Over,
}

/// All directory operations happened or none; all tails met the same fate; no names doubled.
pub(super) struct Corner {
    pub(super) entry: usize,
    pub(super) tail: usize,
}

impl Choice for Corner {
    fn pick(&mut self, _options: usize) -> usize {
        0
    }

    fn pieces(&self, sectors: usize) -> usize {
        sectors
    }

    fn pick_alike(&mut self, question: Question, options: usize) -> usize {
        match question {
            Question::Entry => self.entry % options,
            Question::Tail | Question::Over => self.tail % options,
        }
    }
}

/// Chance, from a seed.
pub(super) struct Sampled(pub(super) Random);

impl Choice for Sampled {
    fn pick(&mut self, options: usize) -> usize {
        self.0.below(options)
    }

    fn pieces(&self, sectors: usize) -> usize {
        sectors
    }
}

/// All combinations in turn, as an odometer whose wheels appear as questions are asked: the
/// last question is turned first, and a wheel that comes round takes the one before it along.
#[derive(Debug, Default)]
pub(super) struct Odometer {
    /// Answer and number of options of each question of the present combination.
    wheels: Vec<(usize, usize)>,
    asked: usize,
}

/// Pieces a tail is torn in when all combinations are wanted: 3^6 times 7 lengths.
const PIECES_MAX: usize = 6;

impl Odometer {
    /// Goes on to the next combination; `false` when that was the last.
    pub(super) fn advance(&mut self) -> bool {
        self.asked = 0;
        while let Some((answer, options)) = self.wheels.pop() {
            if answer + 1 < options {
                self.wheels.push((answer + 1, options));
                return true;
            }
        }
        false
    }
}

impl Choice for Odometer {
    fn pick(&mut self, options: usize) -> usize {
        if self.asked == self.wheels.len() {
            self.wheels.push((0, options));
        }
        let (answer, _) = self.wheels[self.asked];
        self.asked += 1;
        answer
    }

    fn pieces(&self, sectors: usize) -> usize {
        sectors.min(PIECES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odometer_visits_every_combination_once_even_when_questions_depend_on_answers() {
        let mut odometer = Odometer::default();
        let mut seen = Vec::new();
        loop {
            let first = odometer.pick(3);
            let rest = (0..first).map(|_| odometer.pick(2));
            seen.push((first, rest.collect::<Vec<_>>()));
            if !odometer.advance() {
                break;
            }
        }
        let expected = [
            (0, vec![]),
            (1, vec![0]),
            (1, vec![1]),
            (2, vec![0, 0]),
            (2, vec![0, 1]),
            (2, vec![1, 0]),
            (2, vec![1, 1]),
        ];
        assert_eq!(seen, expected);
    }
}
