//! The child's side: frames in, frames out, until the parent is gone.

use std::{
    io::{self, Write},
    panic::PanicHookInfo,
    sync::mpsc,
    thread,
};

use super::{PANICKED, frame, limits};

/// Stack of the thread that works, so that it does not depend on what the system gives a first thread.
const STACK: usize = 16 << 20;

/// Answers each frame of the standard input by `answer` on the standard output. A panic ends the process, as does the end of
/// the standard input, whatever `answer` is doing then.
#[expect(clippy::exit, reason = "a child ends with its parent, and there is nobody to return to")]
pub(crate) fn serve(mut answer: impl FnMut(Vec<u8>) -> Option<Vec<u8>> + Send + 'static) -> ! {
    limits::begin();
    std::panic::set_hook(Box::new(panicked));
    let (requests, queue) = mpsc::channel::<Vec<u8>>();
    let work = move || {
        let mut stdout = io::stdout().lock();
        for request in queue {
            if let Some(answer) = answer(request)
                && frame::write(&mut stdout, &answer).is_err()
            {
                break;
            }
        }
        std::process::exit(0);
    };
    if thread::Builder::new().name("worker".to_owned()).stack_size(STACK).spawn(work).is_err() {
        std::process::exit(1);
    }
    let mut stdin = io::stdin().lock();
    // The parent, which is trusted, says how long its frames are.
    while let Ok(Some(request)) = frame::read(&mut stdin, usize::MAX) {
        if requests.send(request).is_err() {
            break;
        }
    }
    std::process::exit(0)
}

/// Says what happened in one line for the parent, and ends.
#[expect(clippy::exit, reason = "what a panic left behind is not to be used")]
fn panicked(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("for a reason that is no text");
    // Nobody is left to be told where this fails.
    drop(io::stderr().write_all(message.as_bytes()));
    std::process::exit(PANICKED);
}
