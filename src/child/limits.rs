//! The limits of a child, which it sets for itself before it reads what is not to be trusted.

use std::time::Duration;

use super::memory;

/// Sets a soft limit, as far as the hard one lets it. A macro, since systems disagree on the type of a resource's number.
#[cfg(unix)]
macro_rules! set {
    ($resource:expr, $value:expr) => {{
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a valid `rlimit` to be written, then to be read; other resources are not touched.
        unsafe {
            if libc::getrlimit($resource, &raw mut limit) == 0 {
                limit.rlim_cur = limit.rlim_max.min($value as libc::rlim_t);
                libc::setrlimit($resource, &raw const limit);
            }
        }
    }};
}
/// Address space beyond the memory that may be taken: the program, its libraries, stacks, and what an allocator sets aside.
#[cfg(all(target_os = "linux", not(fuzzing)))]
const BESIDES: u64 = 1 << 30;

/// What no request changes: no core file, and no end by the signals that tell the parent to end, since the parent still asks
/// while it ends. What ends the child then is that its standard input closes.
pub(super) fn begin() {
    #[cfg(unix)]
    {
        set!(libc::RLIMIT_CORE, 0);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: `signal` asks for the number of a signal and for a handler; to ignore one is a handler.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

/// Makes a pipe that nobody reads any more an error of the write into it, as the runtime of a Rust program does. For programs whose
/// `main` is not Rust's, as that of a fuzzer is not: a child that ends would end them, too.
pub fn outlive_closed_pipes() {
    #[cfg(unix)]
    // SAFETY: `signal` asks for the number of a signal and for a handler; to ignore one is a handler.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN)
    };
}

/// Allows `memory` bytes in all, and `processor` from now on. A child that takes more ends.
pub(crate) fn allow(memory: usize, processor: Duration) {
    memory::limit(memory);
    #[cfg(unix)]
    {
        // The sanitizer of a fuzzer maps terabytes.
        #[cfg(all(target_os = "linux", not(fuzzing)))]
        set!(libc::RLIMIT_AS, memory as u64 + BESIDES);
        // Counted in whole seconds from the start of the process; the signal comes at the soft limit, which may be raised.
        set!(libc::RLIMIT_CPU, used().as_secs() + 1 + processor.as_secs());
    }
    #[cfg(not(unix))]
    let _ = processor;
}

/// Processor time that this process has taken.
#[cfg(unix)]
fn used() -> Duration {
    // SAFETY: all zeros are an `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid `rusage` to be written.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
