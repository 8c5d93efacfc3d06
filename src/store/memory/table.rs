//! A map whose values have a lock each, and the count of what they weigh.

use std::{
    borrow::Borrow,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Something that knows how much memory it takes.
pub(super) trait Weigh {
    /// Estimated bytes. O(1): asked before and after each use.
    fn bytes(&self) -> usize;
}

/// Values by key. Finding one takes no lock; using it locks that one only.
///
/// A value that was taken out is gone for everybody: whoever still holds its cell finds it empty, and looks again.
pub(super) struct Table<K, T> {
    cells: papaya::HashMap<K, Arc<Cell<T>>>,
    total: Arc<Total>,
}

/// `None` once the value was taken out, and the cell is out of the map or about to be.
type Cell<T> = Mutex<Option<T>>;

/// Estimated bytes of everything. Each part adds what it takes before it gives it back, so it never falls below 0.
#[derive(Default)]
pub(super) struct Total(AtomicUsize);

impl Total {
    /// What everything weighs.
    pub(super) fn bytes(&self) -> usize {
        // ORDERING: Relaxed, here and below. A limit that may be passed by what threads are adding at the moment.
        self.0.load(Ordering::Relaxed)
    }

    /// Something that weighed `before` weighs `after` now.
    pub(super) fn change(&self, before: usize, after: usize) {
        if after > before {
            self.0.fetch_add(after - before, Ordering::Relaxed);
        } else if after < before {
            self.0.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Uses something, and counts what that changes.
    pub(super) fn weigh<T: Weigh, R>(&self, value: &mut T, run: impl FnOnce(&mut T) -> R) -> R {
        let before = value.bytes();
        let result = run(value);
        self.change(before, value.bytes());
        result
    }
}

impl<K: Hash + Eq + Clone, T: Weigh> Table<K, T> {
    /// An empty table, whose values count into `total`.
    pub(super) fn new(total: &Arc<Total>) -> Self {
        Self { cells: papaya::HashMap::new(), total: Arc::clone(total) }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Uses a value, if there is one.
    pub(super) fn update<Q, R>(&self, key: &Q, run: impl FnOnce(&mut T) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        loop {
            let cell = self.find(key)?;
            let mut value = lock(&cell);
            if let Some(value) = value.as_mut() {
                return Some(self.total.weigh(value, run));
            }
            drop(value);
            self.forget(key, &cell);
        }
    }

    /// Uses a value, which is made if there is none.
    pub(super) fn update_or_make<R>(&self, key: &K, make: impl Fn() -> T, run: impl FnOnce(&mut T) -> R) -> R {
        loop {
            let cell = self.find(key).unwrap_or_else(|| self.insert(key, make()));
            let mut value = lock(&cell);
            if let Some(value) = value.as_mut() {
                return self.total.weigh(value, run);
            }
            drop(value);
            self.forget(key, &cell);
        }
    }

    /// Takes a value out if `decide` says so, by returning something. Nobody else uses the value meanwhile.
    pub(super) fn take_if<Q, R>(&self, key: &Q, decide: impl FnOnce(&mut T) -> Option<R>) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let cell = self.find(key)?;
        let mut value = lock(&cell);
        let decided = self.total.weigh(value.as_mut()?, decide)?;
        let taken = value.take();
        drop(value);
        self.total.change(taken.as_ref().map_or(0, T::bytes), 0);
        self.forget(key, &cell);
        Some(decided)
    }

    /// Uses each value, in no order. Those that are made or taken out meanwhile may be left out.
    pub(super) fn for_each(&self, mut run: impl FnMut(&K, &mut T)) {
        for (key, cell) in &self.cells.pin() {
            if let Some(value) = lock(cell).as_mut() {
                self.total.weigh(value, |value| run(key, value));
            }
        }
    }

    fn find<Q>(&self, key: &Q) -> Option<Arc<Cell<T>>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.cells.pin().get(key).cloned()
    }

    fn insert(&self, key: &K, value: T) -> Arc<Cell<T>> {
        // Counted before it can be found: whoever finds it may take it out, and count it off, before we go on.
        let bytes = value.bytes();
        self.total.change(0, bytes);
        let made = Arc::new(Mutex::new(Some(value)));
        let cell = Arc::clone(self.cells.pin().get_or_insert(key.clone(), Arc::clone(&made)));
        if !Arc::ptr_eq(&cell, &made) {
            self.total.change(bytes, 0);
        }
        cell
    }

    /// Takes an empty cell out of the map: whoever emptied it does, or whoever finds it empty, whoever comes first.
    fn forget<Q>(&self, key: &Q, cell: &Arc<Cell<T>>)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let _ = self.cells.pin().remove_if(key, |_, present| Arc::ptr_eq(present, cell));
    }
}

/// A panic while a lock was held was reported by the panic hook; what the lock guards is used on.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    struct Heavy(usize);

    impl Weigh for Heavy {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn what_values_weigh_is_counted() {
        let total = Arc::default();
        let table: Table<Box<str>, Heavy> = Table::new(&total);
        assert_eq!(table.update("a", |_| ()), None);
        assert_eq!(table.update_or_make(&"a".into(), || Heavy(10), |value| value.0), 10);
        table.update_or_make(&"b".into(), || Heavy(10), |value| value.0 += 5);
        assert_eq!((total.bytes(), table.len()), (25, 2));
        table.for_each(|_, value| value.0 -= 2);
        assert_eq!(total.bytes(), 21);
        assert_eq!(table.take_if("a", |_| None::<()>), None);
        assert_eq!(table.take_if("a", |value| Some(value.0)), Some(8));
        assert_eq!((total.bytes(), table.len()), (13, 1));
        assert_eq!(table.update("a", |_| ()), None);
        assert_eq!(table.update("b", |value| value.0 = 0), Some(()));
        assert_eq!(total.bytes(), 0);
    }

    /// What is added to a value must be found by whoever takes it out, although it comes and goes all the time.
    #[test]
    fn nothing_is_added_to_a_value_that_is_gone() {
        const ROUNDS: usize = 20_000;
        let total = Arc::default();
        let table: Table<u32, Heavy> = Table::new(&total);
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        table.update_or_make(&1, || Heavy(0), |value| value.0 += 1);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    taken.fetch_add(table.take_if(&1, |value| Some(value.0)).unwrap_or(0), Ordering::Relaxed);
                }
            });
        });
        let left = table.take_if(&1, |value| Some(value.0)).unwrap_or(0);
        assert_eq!(taken.into_inner() + left, 3 * ROUNDS);
        assert_eq!((total.bytes(), table.len()), (0, 0));
    }
}
