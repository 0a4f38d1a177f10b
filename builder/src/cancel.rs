//! A switch that stops a build: set once, seen by all.

use tokio::sync::watch;

/// Cheap to clone; all clones are one switch.
#[derive(Clone, Debug)]
pub struct Cancel(watch::Sender<bool>);

impl Default for Cancel {
    fn default() -> Self {
        Cancel(watch::Sender::new(false))
    }
}

impl Cancel {
    /// Asks everything to stop.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether everything was asked to stop.
    pub fn is_canceled(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when everything is asked to stop; at once if it was already.
    pub async fn canceled(&self) {
        // The sender is `self`, so the channel cannot close while this waits.
        let _ = self.0.subscribe().wait_for(|canceled| *canceled).await;
    }
}
