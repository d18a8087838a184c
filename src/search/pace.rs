//! How many trials are run together.

use std::time::Duration;

/// Trials that are run together at most: enough to fill the kernels' tiles.
const LARGEST: usize = 512;
/// Trials that are run together at least where each takes long by itself: they share what is read of the model.
const SHARED: usize = 4;
/// What a batch is to take. A run that is killed has lost at most about that much, and whoever watches sees it go on.
const BATCH: Duration = Duration::from_millis(500);
/// Where a trial takes longer than this by itself, records cannot come as often as they should, whatever a batch is.
const LONG: Duration = Duration::from_secs(1);

/// How many trials are run together, by how long those before took. No result depends on it.
///
/// The first trial is run by itself. From then on a batch has as many trials as half a second has room for, and at most four
/// times as many as the one before. Where a trial takes more than a second by itself, four are run together.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    batch: usize,
    least: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { batch: 1, least: 1 }
    }
}

impl Pace {
    /// Trials that the next batch may have.
    pub(super) const fn batch(&self) -> usize {
        self.batch
    }

    /// A batch of so many trials took so long.
    pub(super) fn took(&mut self, trials: usize, elapsed: Duration) {
        if trials == 1 && elapsed > LONG {
            self.least = SHARED;
        }
        let of_a_trial = elapsed.as_secs_f64() / trials as f64;
        if trials == 0 || of_a_trial == 0.0 {
            return;
        }
        // The float may be larger than any number of trials; then it is cut to the largest.
        let fits = (BATCH.as_secs_f64() / of_a_trial) as usize;
        self.batch = fits.min(4 * self.batch).clamp(self.least, LARGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_half_a_second_and_grows_by_degrees() {
        let millis = Duration::from_millis;
        for (batch, trials, elapsed, next) in [
            (64, 64, millis(500), 64),
            (64, 64, millis(1000), 32),
            (64, 64, millis(1), 256),
            (256, 256, millis(1), 512),
            (512, 512, millis(100), 512),
            (512, 512, millis(512 * 20), 25),
            (64, 64, millis(1_000_000), 1),
            (64, 3, millis(300), 5),
            (64, 0, millis(300), 64),
            (64, 64, Duration::ZERO, 64),
            (1, 1, millis(1), 4),
        ] {
            let mut pace = Pace { batch, ..Pace::default() };
            pace.took(trials, elapsed);
            assert_eq!(pace.batch(), next, "{batch} {trials} {elapsed:?}");
        }
    }

    #[test]
    fn records_come_every_second_where_trials_let_them_and_else_four_trials_share_what_is_read() {
        // A batch that reads the model in `reading`, and takes `each` for each of its trials.
        let longest = |reading: f64, each: f64| {
            let mut pace = Pace::default();
            let times = (0..40).map(|_| {
                let seconds = reading + each * pace.batch() as f64;
                pace.took(pace.batch(), Duration::from_secs_f64(seconds));
                seconds
            });
            (times.fold(0.0, f64::max), pace.batch())
        };
        for (reading, each) in [(0.0, 1e-5), (0.0, 0.003), (0.01, 0.05), (0.2, 0.2), (0.9, 0.01), (0.4, 0.45)] {
            let (seconds, batch) = longest(reading, each);
            assert!(seconds <= 1.3, "{reading} {each}: {seconds} s in a batch of up to {batch}");
        }
        assert_eq!(longest(3.0, 0.1).1, 4);
    }
}
