//! A fixed team of threads that share one loop at a time.
//!
//! A forward pass asks for some hundred parallel loops of a few microseconds each. Waking a sleeping
//! thread costs more than such a loop, so a worker that has just finished one looks for the next for a
//! while before it goes to sleep. Which thread takes which item never changes a result: items write to
//! disjoint places, and no sum is split between threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::{Duration, Instant},
};

/// How long an idle worker looks for work before it sleeps.
const LOOK: Duration = Duration::from_micros(200);

/// The body of a parallel loop, given the number of the worker that runs it. The lifetime is erased;
/// see [`Team::run`] for why that is sound.
#[derive(Clone, Copy)]
struct Work(*const (dyn Fn() + Sync));

// SAFETY: the pointee is `Sync`, and `Team::run` keeps it alive while any worker can reach it.
unsafe impl Send for Work {}

struct Shared {
    /// Counts the loops published so far; a change tells workers that `work` is new.
    epoch: AtomicUsize,
    work: Mutex<Option<Work>>,
    /// Workers that have not yet finished the current loop.
    pending: AtomicUsize,
    panicked: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    stop: AtomicBool,
    asleep: Vec<AtomicBool>,
}

/// The next item of a thread's range, on a cache line that other threads leave alone while they have items of their own (two
/// lines, as some processors fetch them in pairs).
#[repr(align(128))]
struct Next(AtomicUsize);

/// Threads that run parallel loops together with the thread that asks.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    /// One loop at a time: a second caller waits here.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({} threads)", self.threads())
    }
}

impl Team {
    /// A team of `threads` threads, the caller included; 0 counts as 1. Threads that the system
    /// refuses to start are done without: results do not depend on their number.
    pub fn new(threads: usize) -> Self {
        let extra = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            work: Mutex::new(None),
            pending: AtomicUsize::new(0),
            panicked: Mutex::new(None),
            stop: AtomicBool::new(false),
            asleep: (0..extra).map(|_| AtomicBool::new(false)).collect(),
        });
        let workers = (0..extra)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let handle = std::thread::Builder::new()
                    .name(format!("headroom-{index}"))
                    .spawn(move || worker(&shared, index))
                    .ok()?;
                let thread = handle.thread().clone();
                Some((handle, thread))
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// A team as large as the machine has cores for this process.
    pub fn of_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Threads of the team, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `item(i)` once for each `i` below `count`, on any thread and in any order, and returns
    /// when all have returned. An item must not ask the same team for a loop of its own: it would wait
    /// for itself.
    ///
    /// # Panics
    /// If an item panics: with its payload, after all threads have stopped.
    pub fn for_each(&self, count: usize, item: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || count <= 1 {
            (0..count).for_each(item);
            return;
        }
        // Each thread has a range of its own, whose items it runs one after the other: what they read lies together, and
        // reading ahead of one is reading the next. Whoever has finished helps with the others', so that ends are even.
        let threads = self.threads();
        let end = |range: usize| (range + 1) * count / threads;
        let next: Vec<Next> = (0..threads).map(|range| Next(AtomicUsize::new(range * count / threads))).collect();
        // A few items a claim keep the counters out of the way.
        let claim = (count / (threads * 16)).max(1);
        let arrived = AtomicUsize::new(0);
        self.run(&|| {
            let own = arrived.fetch_add(1, Ordering::Relaxed);
            for range in (own..threads).chain(0..own) {
                loop {
                    let start = next[range].0.fetch_add(claim, Ordering::Relaxed);
                    if start >= end(range) {
                        break;
                    }
                    (start..(start + claim).min(end(range))).for_each(&item);
                }
            }
        });
    }

    /// Calls `item(i, chunk)` once for each chunk of `size` elements of `data` (the last may be shorter),
    /// as [`Team::for_each`] does.
    ///
    /// # Panics
    /// If `size` is 0, or an item panics.
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], size: usize, item: impl Fn(usize, &mut [T]) + Sync) {
        struct Start<T>(*mut T);
        // SAFETY: items reach disjoint chunks only, of elements that may be sent to another thread.
        unsafe impl<T: Send> Sync for Start<T> {}
        impl<T> Start<T> {
            const fn get(&self) -> *mut T {
                self.0
            }
        }
        let (len, start) = (data.len(), Start(data.as_mut_ptr()));
        self.for_each(len.div_ceil(size), |i| {
            let first = i * size;
            // SAFETY: chunk `i` lies within `data`, which is borrowed mutably until all items have
            // returned, and `for_each` runs each `i` once, so no other reference reaches it.
            let chunk = unsafe { std::slice::from_raw_parts_mut(start.get().add(first), size.min(len - first)) };
            item(i, chunk);
        });
    }

    /// Runs `body` once on every thread of the team and returns when all have returned.
    fn run(&self, body: &(dyn Fn() + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Workers reach the pointer only between the change of
        // `epoch` below and their decrement of `pending`, and this function does not return, not even
        // by a panic, before `pending` is back at 0.
        let work = Work(unsafe {
            std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync + 'static)>(body)
        });
        *shared.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        shared.pending.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (asleep, (_, thread)) in shared.asleep.iter().zip(&self.workers) {
            if asleep.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(body));
        let mut spins = 0_u32;
        while shared.pending.load(Ordering::Acquire) > 0 {
            relax(&mut spins);
        }
        let theirs = shared.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = own.err().or(theirs) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (handle, thread) in self.workers.drain(..) {
            thread.unpark();
            // A worker catches what its items throw, so there is nothing left to report here.
            drop(handle.join());
        }
    }
}

/// Spins politely: after a while the core is offered to others, for machines with fewer free cores
/// than threads.
fn relax(spins: &mut u32) {
    *spins = spins.wrapping_add(1);
    if spins.is_multiple_of(256) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

fn worker(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0_u32;
        let mut since = None;
        while shared.epoch.load(Ordering::SeqCst) == seen {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            relax(&mut spins);
            if spins.is_multiple_of(1024) && since.get_or_insert_with(Instant::now).elapsed() > LOOK {
                // Announce sleep, then look once more: a loop published before the announcement is
                // seen here, one published after it unparks this thread.
                shared.asleep[index].store(true, Ordering::SeqCst);
                if shared.epoch.load(Ordering::SeqCst) == seen && !shared.stop.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                shared.asleep[index].store(false, Ordering::SeqCst);
                since = None;
            }
        }
        seen = seen.wrapping_add(1);
        let work = *shared.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Work(body)) = work {
            // SAFETY: `Team::run` keeps `body` alive until this worker has decremented `pending`.
            let body = unsafe { &*body };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
                *shared.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
        }
        shared.pending.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_runs_exactly_once() {
        for threads in [0, 1, 2, 3, 7] {
            let team = Team::new(threads);
            for count in [0, 1, 2, 63, 1000] {
                let hits: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                team.for_each(count, |i| {
                    hits[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} threads, {count} items");
            }
        }
    }

    #[test]
    fn chunks_are_disjoint_and_cover_everything() {
        let team = Team::new(3);
        let mut data = vec![0_u32; 1003];
        team.for_each_chunk(&mut data, 10, |i, chunk| chunk.iter_mut().for_each(|x| *x += i as u32 + 1));
        assert!(data.iter().enumerate().all(|(at, &x)| x == at as u32 / 10 + 1));
    }

    #[test]
    fn a_team_that_slept_wakes_up() {
        let team = Team::new(3);
        for _ in 0..3 {
            std::thread::sleep(LOOK * 5);
            let hits = AtomicUsize::new(0);
            team.for_each(100, |_| {
                hits.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(hits.into_inner(), 100);
        }
    }

    #[test]
    fn a_panic_in_an_item_reaches_the_caller_and_the_team_works_on() {
        let team = Team::new(3);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            team.for_each(100, |i| assert!(i != 57, "item 57"));
        }));
        assert!(caught.is_err());
        let hits = AtomicUsize::new(0);
        team.for_each(10, |_| {
            hits.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(hits.into_inner(), 10);
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let team = Team::new(2);
        let hits = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        team.for_each(20, |_| {
                            hits.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(hits.into_inner(), 4000);
    }
}
