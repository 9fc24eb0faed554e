//! A few connections that threads take turns with.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::connection::{Connection, Failure};
use crate::error::Result;

pub(crate) struct Pool {
    state: Mutex<State>,
    freed: Condvar,
    /// Connections at the same time.
    limit: usize,
}

struct State {
    idle: Vec<Connection>,
    /// All there are, the busy ones included.
    open: usize,
}

impl Pool {
    pub(crate) fn new(first: Connection, limit: usize) -> Self {
        let state = State { idle: vec![first], open: 1 };
        Self { state: Mutex::new(state), freed: Condvar::new(), limit: limit.max(1) }
    }

    /// Does `work` with a connection; with a new one once more when it is lost meanwhile.
    pub(crate) fn with<T>(
        &self,
        connect: impl Fn() -> Result<Connection>,
        mut work: impl FnMut(&mut Connection) -> std::result::Result<T, Failure>,
    ) -> io::Result<T> {
        let mut was_lost = false;
        loop {
            let mut connection = self.take(&connect)?;
            match work(&mut connection) {
                Ok(done) => {
                    self.give_back(connection);
                    return Ok(done);
                }
                Err(Failure::Refused(error)) => {
                    self.give_back(connection);
                    return Err(error);
                }
                Err(Failure::Lost(error)) => {
                    self.forget(1);
                    if was_lost {
                        return Err(error);
                    }
                    // What broke one has broken those that wait as well.
                    let idle = std::mem::take(&mut self.lock().idle);
                    self.forget(idle.len());
                    was_lost = true;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, connect: &impl Fn() -> Result<Connection>) -> io::Result<Connection> {
        let mut state = self.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(connection);
            }
            if state.open < self.limit {
                state.open += 1;
                drop(state);
                return connect().map_err(|error| {
                    self.forget(1);
                    error.into()
                });
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, connection: Connection) {
        self.lock().idle.push(connection);
        self.freed.notify_one();
    }

    fn forget(&self, count: usize) {
        self.lock().open -= count;
        self.freed.notify_all();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.idle.drain(..).for_each(Connection::leave);
    }
}
