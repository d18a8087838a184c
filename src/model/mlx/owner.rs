//! The one thread that everything of MLX lives on.
//!
//! An array may be sent to another thread but not shared, and one that is not evaluated yet can only be evaluated where
//! it was made. Here no array ever leaves the thread that made it: the thread is sent requests, and numbers come back.

use std::{
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use super::failed;
use crate::model::BodyError;

type Request<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A thread with a state of its own, which never leaves it.
pub(super) struct Owner<S> {
    /// `None` once it is to end.
    requests: Option<Sender<Request<S>>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: 'static> Owner<S> {
    /// Starts the thread, on which `load` makes the state.
    ///
    /// # Errors
    /// What `load` reports; [`BodyError::Backend`] if there can be no thread or `load` panics.
    pub(super) fn start(load: impl FnOnce() -> Result<S, BodyError> + Send + 'static) -> Result<Self, BodyError> {
        let (requests, queue) = channel::<Request<S>>();
        let (loaded, wait) = channel();
        let run = move || {
            let mut state = match load() {
                Ok(state) => state,
                Err(error) => {
                    // Whoever asked waits for it.
                    let _ = loaded.send(Err(error));
                    return;
                }
            };
            let _ = loaded.send(Ok(()));
            while let Ok(request) = queue.recv() {
                request(&mut state);
            }
        };
        let thread = thread::Builder::new()
            .name("mlx".to_owned())
            .spawn(run)
            .map_err(|error| failed("start a thread", &error))?;
        // From here on the thread is waited for, whatever happens.
        let owner = Self { requests: Some(requests), thread: Some(thread) };
        wait.recv().unwrap_or_else(|_| Err(ended("load")))?;
        Ok(owner)
    }

    /// What `request` finds on the thread. Requests are done one at a time, in the order in which they were asked for.
    ///
    /// # Errors
    /// What the request reports; [`BodyError::Backend`] if it panics, or an earlier one did: the thread is gone then.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        request: impl FnOnce(&mut S) -> Result<T, BodyError> + Send + 'static,
    ) -> Result<T, BodyError> {
        let (answer, wait) = channel();
        self.tell(move |state| {
            let _ = answer.send(request(state));
        });
        wait.recv().unwrap_or_else(|_| Err(ended(operation)))
    }

    /// Has `request` done, and waits for nothing.
    pub(super) fn tell(&self, request: impl FnOnce(&mut S) + Send + 'static) {
        // Where the thread is gone, the request is dropped, and with it whatever it would have answered through.
        let _ = self.requests.as_ref().map(|requests| requests.send(Box::new(request)));
    }
}

impl<S> Drop for Owner<S> {
    fn drop(&mut self) {
        // The state is taken down on its own thread, and before the program ends.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ended(operation: &'static str) -> BodyError {
    failed(operation, &"its thread has ended, after a panic that stderr tells of; open the model again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_panics_is_an_error_then_and_ever_after() {
        let owner = Owner::start(|| Ok(41)).expect("a thread");
        assert_eq!(owner.ask("add", |n| Ok(*n + 1)).expect("an answer"), 42);
        let error = owner.ask::<()>("fall", |_| panic!("on purpose")).expect_err("a panic");
        assert!(matches!(error, BodyError::Backend { operation: "fall", .. }), "{error}");
        let error = owner.ask("add", |n| Ok(*n + 1)).expect_err("no thread");
        assert!(matches!(error, BodyError::Backend { operation: "add", .. }), "{error}");
    }

    #[test]
    fn what_loading_reports_comes_back() {
        let error = Owner::<()>::start(|| Err(failed("load", &"no"))).err().expect("an error");
        assert_eq!(error.to_string(), "mlx: load: no");
        assert!(Owner::<()>::start(|| panic!("on purpose")).is_err());
    }
}
