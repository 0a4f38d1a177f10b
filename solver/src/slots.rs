//! How many steps run at once, and which one is next: of those that wait the one on the longest path.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A number of places to run in.
pub(crate) struct Slots {
    state: Mutex<State>,
}

struct State {
    free: usize,
    next_ticket: u64,
    /// Priority; of equals the first that came.
    waiting: BinaryHeap<(u64, Reverse<u64>)>,
    /// Tickets that were given a place and have not looked yet.
    granted: Vec<u64>,
    wakers: HashMap<u64, Waker>,
}

/// A place; free again when dropped.
pub(crate) struct Slot<'a> {
    slots: &'a Slots,
}

impl Slots {
    /// So many places; at least one.
    pub(crate) fn new(count: usize) -> Slots {
        let (waiting, granted, wakers) = (BinaryHeap::new(), vec![], HashMap::new());
        Slots { state: Mutex::new(State { free: count.max(1), next_ticket: 0, waiting, granted, wakers }) }
    }

    /// Waits for a place. Whoever asks at the same time is heard before the places are given. `must_wait` is called if there
    /// is none at once.
    pub(crate) async fn take(&self, priority: u64, must_wait: impl FnOnce()) -> Slot<'_> {
        let ticket = {
            let mut state = self.state();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.waiting.push((priority, Reverse(ticket)));
            ticket
        };
        let abandoned = Abandon { slots: self, ticket };
        let mut yielded = false;
        let mut must_wait = Some(must_wait);
        poll_fn(|context| {
            if !std::mem::replace(&mut yielded, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut state = self.state();
            state.grant();
            if let Some(position) = state.granted.iter().position(|granted| *granted == ticket) {
                state.granted.swap_remove(position);
                state.wakers.remove(&ticket);
                return Poll::Ready(());
            }
            state.wakers.insert(ticket, context.waker().clone());
            drop(state);
            if let Some(must_wait) = must_wait.take() {
                must_wait();
            }
            Poll::Pending
        })
        .await;
        std::mem::forget(abandoned);
        Slot { slots: self }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives free places to those who wait.
    fn grant(&mut self) {
        while self.free > 0
            && let Some((_, Reverse(ticket))) = self.waiting.pop()
        {
            self.free -= 1;
            self.granted.push(ticket);
            if let Some(waker) = self.wakers.remove(&ticket) {
                waker.wake();
            }
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.free += 1;
        state.grant();
    }
}

/// Takes back a ticket that nobody waits for any more.
struct Abandon<'a> {
    slots: &'a Slots,
    ticket: u64,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.wakers.remove(&self.ticket);
        match state.granted.iter().position(|granted| *granted == self.ticket) {
            Some(position) => {
                state.granted.swap_remove(position);
                state.free += 1;
                state.grant();
            }
            None => state.waiting.retain(|(_, Reverse(ticket))| *ticket != self.ticket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;
    use futures::future::join_all;
    use std::sync::Mutex;

    #[test]
    fn the_most_urgent_is_next() {
        let slots = Slots::new(1);
        let order = Mutex::new(vec![]);
        block_on(join_all([3, 1, 5, 5, 4].into_iter().enumerate().map(|(number, priority)| {
            let (slots, order) = (&slots, &order);
            async move {
                let _slot = slots.take(priority, || {}).await;
                order.lock().unwrap().push(number);
            }
        })));
        assert_eq!(*order.lock().unwrap(), [2, 3, 4, 0, 1]);
    }

    #[test]
    fn who_gives_up_takes_no_place() {
        let slots = Slots::new(1);
        let held = block_on(slots.take(0, || {}));
        let mut waited = false;
        let mut waiting = Box::pin(slots.take(9, || waited = true));
        assert!(waiting.as_mut().now_or_never().is_none() && waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        assert!(waited);
        let mut given = Box::pin(slots.take(1, || {}));
        assert!(given.as_mut().now_or_never().is_none() && given.as_mut().now_or_never().is_none());
        drop(held);
        // It has a place, and goes before it looks.
        drop(given);
        block_on(slots.take(1, || {}));
    }
}
