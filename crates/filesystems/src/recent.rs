//! What was used last, to be used again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Result;

/// Some things that were used last.
pub(crate) struct Recent<T> {
    kept: Mutex<VecDeque<(u64, Arc<T>)>>,
    most: usize,
}

impl<T> Recent<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    /// What is known as `key`, made when it is not there.
    pub(crate) fn get(&self, key: u64, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = lock();
            if let Some(at) = kept.iter().position(|(known, _)| *known == key)
                && let Some(found) = kept.remove(at)
            {
                kept.push_back(found.clone());
                return Ok(found.1);
            }
        }
        let made = Arc::new(make()?);
        let mut kept = lock();
        if kept.len() >= self.most {
            kept.pop_front();
        }
        kept.push_back((key, Arc::clone(&made)));
        Ok(made)
    }
}
