//! A gate between a build and its renderer: closed while somebody else, such as a shell, has the terminal.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Shared by both.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    /// `wanted` has become false.
    released: Condvar,
    /// The renderer has come to the gate, or has gone.
    stopped: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// There is a renderer.
    open: bool,
    /// How many ask it to stand still.
    wanted: usize,
    /// It does.
    waiting: bool,
}

/// The renderer writes nothing until this is dropped.
#[derive(Debug)]
pub struct Held(Arc<Gate>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().wanted -= 1;
        self.0.released.notify_all();
    }
}

impl Gate {
    /// Waits until the renderer stands still; at once if there is none.
    pub(super) async fn hold(self: &Arc<Gate>) -> Held {
        self.state().wanted += 1;
        let held = Held(self.clone());
        loop {
            let stopped = self.stopped.notified();
            {
                let state = self.state();
                if state.waiting || !state.open {
                    return held;
                }
            }
            stopped.await;
        }
    }

    /// A renderer begins.
    pub(super) fn open(&self) {
        self.state().open = true;
    }

    /// For the renderer, which ends when it drops this.
    pub(super) fn closing(self: &Arc<Gate>) -> impl Drop + use<> {
        struct Closing(Arc<Gate>);
        impl Drop for Closing {
            fn drop(&mut self) {
                self.0.state().open = false;
                self.0.stopped.notify_waiters();
            }
        }
        Closing(self.clone())
    }

    /// Whether the renderer is to stand still.
    pub(super) fn is_wanted(&self) -> bool {
        self.state().wanted > 0
    }

    /// The renderer stands still for as long as that is wanted.
    pub(super) fn wait(&self) {
        let mut state = self.state();
        state.waiting = true;
        self.stopped.notify_waiters();
        while state.wanted > 0 {
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::progress::{Mode, Progress, spawn};

    #[tokio::test]
    async fn holding_waits_for_the_renderer_and_for_no_one_else() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let progress = Progress::new(sender);
        drop(progress.gate().hold().await);
        let renderer = spawn(Mode::Quiet, receiver, progress.gate());
        let gate = progress.gate();
        let held = gate.hold().await;
        assert!(gate.state().waiting);
        let second = gate.hold().await;
        drop(held);
        assert!(gate.state().waiting);
        drop(second);
        drop(progress);
        renderer.join().unwrap();
        drop(gate.hold().await);
    }
}
