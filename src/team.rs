//! A fixed team of threads that share one loop at a time.
//!
//! A forward pass asks for some hundred parallel loops of a few microseconds each. Waking a sleeping
//! thread costs more than such a loop, so a worker that has just finished one looks for the next for a
//! while before it goes to sleep. Which thread takes which item never changes a result: items write to
//! disjoint places, and no sum is split between threads.
//!
//! Nobody waits for a worker that has not come. On a machine with fewer free cores than threads a worker may get no
//! core for milliseconds, in which the caller does the whole of a thousand loops. So a worker *enters* a loop, the
//! caller takes whatever items are left, closes the loop, and waits for those that are within.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use primitives::{
    Arc, AtomicBool, AtomicUsize, Builder, JoinHandle, Mutex, Ordering, Patience, PoisonError, Thread, UnsafeCell, park,
};

/// What threads share, sleep and wait by. `tools/loom` compiles this file with loom's, which try every order of what
/// threads do.
#[cfg(not(loom))]
mod primitives {
    use std::time::{Duration, Instant};
    pub(super) use std::{
        sync::{
            Arc, Mutex, PoisonError,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        thread::{Builder, JoinHandle, Thread, park},
    };

    /// How long an idle worker looks for work before it sleeps.
    pub(super) const LOOK: Duration = Duration::from_micros(200);

    /// A cell, by loom's names.
    pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }
        pub(super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }
        pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// Of a thread that waits for another one.
    #[derive(Default)]
    pub(super) struct Patience {
        spins: u32,
        since: Option<Instant>,
    }

    impl Patience {
        /// Waits a moment. After a while the core is offered to others, for machines with fewer free cores than threads.
        pub(super) fn wait(&mut self) {
            self.spins = self.spins.wrapping_add(1);
            if self.spins.is_multiple_of(256) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }

        /// Waits a moment; whether it has waited for longer than [`LOOK`].
        pub(super) fn has_ended(&mut self) -> bool {
            self.wait();
            self.spins.is_multiple_of(1024) && self.since.get_or_insert_with(Instant::now).elapsed() > LOOK
        }

        /// Begins to count the time anew.
        pub(super) fn renew(&mut self) {
            self.since = None;
        }
    }
}

#[cfg(loom)]
mod primitives {
    pub(super) use loom::{
        cell::UnsafeCell,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        thread::{Builder, JoinHandle, Thread, park},
    };
    pub(super) use std::sync::PoisonError;

    /// Time does not pass in a model: who has looked once sleeps. A worker that looks for longer finds what one finds
    /// that looks for the first time.
    #[derive(Default)]
    pub(super) struct Patience {}

    impl Patience {
        pub(super) fn wait(&mut self) {
            loom::thread::yield_now();
        }
        pub(super) fn has_ended(&mut self) -> bool {
            true
        }
        pub(super) fn renew(&mut self) {}
    }
}

/// What each thread does in a loop, given its number. The lifetime is erased; see [`Team::run`] for why that is sound.
type Work = *const (dyn Fn(usize) + Sync);

/// What a thread panicked with.
type Payload = Box<dyn std::any::Any + Send>;

/// On cache lines of its own (two, as some processors fetch them in pairs): who waits for a change of one does not wait for
/// the others.
#[repr(align(128))]
struct Apart<T>(T);

/// A loop for the workers, all of it on one line, so that who sees the change has the rest.
struct Published {
    /// Which loop it is, whether it is closed, and how many workers are within: see [`gate`].
    gate: AtomicUsize,
    work: UnsafeCell<Option<Work>>,
}

/// The parts of the number that lets workers into a loop: the lowest bits count those within, one says that nobody may enter any
/// more, and those above number the loops, so that a loop's number never comes again while a worker looks at it.
mod gate {
    /// Nobody may enter.
    pub(super) const CLOSED: usize = 1 << 15;
    /// Workers within.
    pub(super) const WITHIN: usize = CLOSED - 1;
    /// Added for the next loop.
    pub(super) const NEXT: usize = CLOSED << 1;

    /// The loop's number.
    pub(super) const fn epoch(gate: usize) -> usize {
        gate / NEXT
    }
}

struct Shared {
    published: Apart<Published>,
    /// The next item of each thread's range.
    next: Vec<Apart<AtomicUsize>>,
    panicked: Mutex<Option<Payload>>,
    stop: AtomicBool,
    asleep: Vec<AtomicBool>,
}

// SAFETY: `Sync` asks that references on several threads do not race. `work` is the one part that is not `Sync` already.
// `Team::run` writes it, one call at a time, and only while the loop before is closed and nobody is within; workers read it
// within, and enter what that call opens afterwards. `tools/loom` checks both for every order of a few threads.
unsafe impl Sync for Shared {}
// SAFETY: `Send` asks that the value may be used and dropped on another thread. `work` is the one part that is not `Send`
// already: a pointer to what is `Sync`, so that any thread may call it, and dropping a pointer does nothing.
unsafe impl Send for Shared {}

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
        let extra = (threads.max(1) - 1).min(gate::WITHIN);
        let shared = Arc::new(Shared {
            published: Apart(Published { gate: AtomicUsize::new(gate::CLOSED), work: UnsafeCell::new(None) }),
            next: (0..=extra).map(|_| Apart(AtomicUsize::new(0))).collect(),
            panicked: Mutex::new(None),
            stop: AtomicBool::new(false),
            asleep: (0..extra).map(|_| AtomicBool::new(false)).collect(),
        });
        let workers = (0..extra)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let handle =
                    Builder::new().name(format!("headroom-{index}")).spawn(move || worker(&shared, index)).ok()?;
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
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (threads, next) = (self.threads(), &self.shared.next);
        let first = |range: usize| range * count / threads;
        // A few items a claim keep the counters out of the way. The first ones are the caller's own without a claim.
        let claim = (count / (threads * 16)).max(1);
        for (range, next) in next.iter().enumerate() {
            next.0.store(first(range) + if range == 0 { claim } else { 0 }, Ordering::Relaxed);
        }
        let thrown = self.run(&|own| {
            for range in (own..threads).chain(0..own) {
                let (next, end) = (&next[range].0, first(range + 1));
                let mut start = if own + range == 0 { 0 } else { next.fetch_add(claim, Ordering::Relaxed) };
                while start < end {
                    (start..(start + claim).min(end)).for_each(&item);
                    start = next.fetch_add(claim, Ordering::Relaxed);
                }
            }
        });
        drop(turn);
        if let Some(payload) = thrown {
            resume_unwind(payload);
        }
    }

    /// Calls `item(i, chunk)` once for each chunk of `size` elements of `data` (the last may be shorter),
    /// as [`Team::for_each`] does.
    ///
    /// # Panics
    /// If `size` is 0, or an item panics.
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], size: usize, item: impl Fn(usize, &mut [T]) + Sync) {
        struct Start<T>(*mut T);
        // SAFETY: `Sync` asks that shared references do not race. Items reach disjoint chunks through one, of elements that may
        // be sent to another thread.
        unsafe impl<T: Send> Sync for Start<T> {}
        impl<T> Start<T> {
            const fn get(&self) -> *mut T {
                self.0
            }
        }
        let (len, start) = (data.len(), Start(data.as_mut_ptr()));
        self.for_each(len.div_ceil(size), |i| {
            let first = i * size;
            // SAFETY: `add` asks for an offset within one allocation, `from_raw_parts_mut` for initialized elements that no other
            // reference reaches. `first` is below `len`, since `i` is below `len.div_ceil(size)`, and the length stops at the end
            // of `data`, which is borrowed mutably until all items have returned; `for_each` runs each `i` once.
            let chunk = unsafe { std::slice::from_raw_parts_mut(start.get().add(first), size.min(len - first)) };
            item(i, chunk);
        });
    }

    /// Runs `body` on this thread, and on each worker that comes while it runs here. It returns when all have returned, with the
    /// payload of one that panicked. The caller has the turn.
    fn run(&self, body: &(dyn Fn(usize) + Sync)) -> Option<Payload> {
        let shared = &*self.shared;
        let Published { gate, work: place } = &shared.published.0;
        // SAFETY: `transmute` asks for types of one layout: only the lifetime changes. That nobody reaches `body` after its end is
        // seen to below: workers use the pointer between entering this loop and leaving it, and this function does not return,
        // not even by a panic, before the loop is closed and nobody is within.
        let work = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(body)
        };
        // SAFETY: writing through a pointer asks that nobody else reads or writes. Whoever has the turn is the only one to write
        // here, and workers read within a loop only: the last one is closed and nobody is within, as the gate, acquired, has said.
        place.with_mut(|place| unsafe { *place = Some(work) });
        let opened = (gate::epoch(gate.load(Ordering::Relaxed)) + 1) * gate::NEXT;
        // A swap, as `fetch_add` was one: it reads what workers swapped, and releases what was written for this loop.
        gate.swap(opened, Ordering::SeqCst);
        for (asleep, (_, thread)) in shared.asleep.iter().zip(&self.workers) {
            if asleep.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| body(0)));
        let mut within = gate.fetch_or(gate::CLOSED, Ordering::AcqRel);
        let mut patience = Patience::default();
        while within & gate::WITHIN > 0 {
            patience.wait();
            within = gate.load(Ordering::Acquire);
        }
        let theirs = shared.panicked.lock().unwrap_or_else(PoisonError::into_inner).take();
        own.err().or(theirs)
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

fn worker(shared: &Shared, index: usize) {
    let Published { gate, work } = &shared.published.0;
    // The number of the last loop that was entered or came too late for.
    let mut seen = 0;
    loop {
        let mut patience = Patience::default();
        let mut at = gate.load(Ordering::SeqCst);
        while gate::epoch(at) == seen || at & gate::CLOSED != 0 {
            seen = gate::epoch(at);
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            if patience.has_ended() {
                // Announce sleep, then look once more: a loop opened before the announcement is
                // seen here, one opened after it unparks this thread. A swap, so that it reads what
                // the other swapped before it, and with that sees the gate that was opened before.
                shared.asleep[index].swap(true, Ordering::SeqCst);
                if gate::epoch(gate.load(Ordering::SeqCst)) == seen && !shared.stop.load(Ordering::SeqCst) {
                    park();
                }
                shared.asleep[index].store(false, Ordering::SeqCst);
                patience.renew();
            }
            at = gate.load(Ordering::SeqCst);
        }
        // Another worker that enters or leaves changes the gate, too: then this one looks again.
        if gate.compare_exchange(at, at + 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            continue;
        }
        seen = gate::epoch(at);
        // SAFETY: reading through a pointer asks that nobody writes meanwhile. It was written before this loop was opened, and
        // it is not written again before this worker has left.
        let work = work.with(|place| unsafe { *place });
        if let Some(work) = work {
            // SAFETY: a reference asks for a value that lives. `Team::run` keeps it alive until this worker has left, and calls
            // through it are allowed on any thread, since it is `Sync`.
            let work = unsafe { &*work };
            // The caller is the first thread.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(index + 1))) {
                *shared.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
        }
        gate.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{primitives::LOOK, *};

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
