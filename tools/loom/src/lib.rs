//! `src/team.rs`, model-checked: each test runs a small use of a team in every order in which its threads can take turns,
//! and with every value that a load may give. Where there are too many orders, preemptions of a running thread are bounded.
//!
//! `cargo test --release --manifest-path tools/loom/Cargo.toml -- --nocapture --test-threads 1` says how many orders it were.
//!
//! A model fails where two threads reach one cell without an order between them, where no thread can go on (a wake-up
//! that was lost), where an assertion fails, and where something is left undone when a team is dropped. loom takes
//! `SeqCst` for `AcqRel`, so what holds here needs no total order.

#[path = "../../../src/team.rs"]
pub mod team;

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use loom::{cell::UnsafeCell, model::Builder, sync::Arc, thread};

    use crate::team::Team;

    /// Every order, or every one with at most `switches` preemptions of a running thread.
    fn every_order(switches: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
        static ORDERS: AtomicUsize = AtomicUsize::new(0);
        let before = ORDERS.load(Ordering::Relaxed);
        let mut builder = Builder::new();
        builder.preemption_bound = switches;
        builder.max_branches = 10_000;
        builder.check(move || {
            ORDERS.fetch_add(1, Ordering::Relaxed);
            model();
        });
        println!("{} orders", ORDERS.load(Ordering::Relaxed) - before);
    }

    /// Cells that items write, one each, without a lock: loom sees who reaches one while another does.
    struct Cells(Vec<UnsafeCell<usize>>);

    // SAFETY: loom checks that no two threads reach one cell at once, which is what the models are about.
    unsafe impl Sync for Cells {}

    impl Cells {
        fn new(count: usize) -> Self {
            Self((0..count).map(|_| UnsafeCell::new(0)).collect())
        }
        fn add(&self, at: usize) {
            // SAFETY: as for `Sync`.
            self.0[at].with_mut(|cell| unsafe { *cell += 1 });
        }
        fn all(&self, expected: usize) {
            for cell in &self.0 {
                // SAFETY: as for `Sync`.
                assert_eq!(cell.with(|cell| unsafe { *cell }), expected, "each item runs once in each loop");
            }
        }
    }

    fn loops(team: &Team, items: usize, loops: usize) {
        for _ in 0..loops {
            // Cells of the loop's own: whoever reached one after the loop's end would race with its drop.
            let cells = Cells::new(items);
            team.for_each(items, |i| cells.add(i));
            cells.all(1);
        }
    }

    #[test]
    fn a_team_that_is_not_asked_ends() {
        every_order(Some(4), || drop(Team::new(3)));
    }

    #[test]
    fn a_loop_runs_each_item_once_and_is_over_when_it_returns() {
        every_order(None, || loops(&Team::new(2), 3, 1));
    }

    #[test]
    fn a_worker_that_sleeps_or_is_about_to_wakes_for_the_next_loop() {
        every_order(Some(4), || loops(&Team::new(2), 2, 2));
    }

    #[test]
    fn three_threads_share_a_loop() {
        every_order(Some(2), || loops(&Team::new(3), 3, 1));
    }

    #[test]
    fn a_panic_of_an_item_ends_its_loop_and_no_other() {
        every_order(Some(3), || {
            let team = Team::new(2);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                team.for_each(2, |i| {
                    if i == 1 {
                        std::panic::resume_unwind(Box::new("an item's panic"));
                    }
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"an item's panic"));
            loops(&team, 2, 1);
        });
    }

    #[test]
    fn two_callers_take_turns() {
        every_order(Some(3), || {
            let team = Arc::new(Team::new(2));
            let other = thread::spawn({
                let team = Arc::clone(&team);
                move || loops(&team, 2, 1)
            });
            loops(&team, 2, 1);
            other.join().unwrap();
        });
    }

    #[test]
    fn chunks_are_reached_by_one_thread_each() {
        every_order(None, || {
            let team = Team::new(2);
            let mut data = [0; 3];
            team.for_each_chunk(&mut data, 2, |i, chunk| chunk.fill(i + 1));
            assert_eq!(data, [1, 1, 2]);
        });
    }
}
