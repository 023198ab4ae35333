//! A sorted map whose copies share what they have in common.

use std::borrow::Borrow;
use std::fmt::Debug;
use std::ops::Bound;

use rpds::RedBlackTreeMapSync;

/// A sorted map; a copy costs the same for any size, a change `O(log n)`.
#[derive(Clone, Debug)]
pub(super) struct PersistentMap<K: Ord, V>(RedBlackTreeMapSync<K, V>);

impl<K: Ord, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self(RedBlackTreeMapSync::new_sync())
    }
}

impl<K: Ord + Clone, V: Clone> PersistentMap<K, V> {
    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.0.insert_mut(key, value);
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.0.remove_mut(key);
    }

    pub(super) fn len(&self) -> usize {
        self.0.size()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values()
    }

    /// What comes behind this key.
    pub(super) fn after(&self, key: K) -> impl Iterator<Item = (&K, &V)> {
        self.0.range((Bound::Excluded(key), Bound::Unbounded))
    }

    /// What begins at this key.
    pub(super) fn from(&self, key: K) -> impl Iterator<Item = (&K, &V)> {
        self.0.range((Bound::Included(key), Bound::Unbounded))
    }

    pub(super) fn last(&self) -> Option<(&K, &V)> {
        self.0.last()
    }
}
