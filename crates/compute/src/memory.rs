//! Working memory: activations, keys and values.

use std::alloc::{Layout, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use memmap2::MmapMut;

/// Values that begin as zeros, in pages of their own; a page that was never touched takes no memory.
///
/// The system is asked for pages of 2 MiB: rows of activations lie kilobytes apart, so that with
/// pages of 4 KiB a product of many tokens looks up a page for each line that it writes.
#[derive(Debug)]
pub(crate) struct Memory<T> {
    map: MmapMut,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Pod> Memory<T> {
    /// Room for `capacity` values, none of which is there yet. Without the memory the process ends,
    /// as for a `Vec`.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let layout = Layout::array::<T>(capacity).expect("no more bytes than there are addresses");
        let Ok(map) = MmapMut::map_anon(layout.size().max(1)) else {
            handle_alloc_error(layout)
        };
        // Advice may be refused: then the pages are small ones.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Self {
            map,
            len: 0,
            values: PhantomData,
        }
    }

    /// Makes it `len` values long. Those that appear are zeros or what was there before.
    ///
    /// # Panics
    /// If there is no room.
    pub(crate) fn set_len(&mut self, len: usize) {
        let capacity = self.map.len() / size_of::<T>();
        assert!(len <= capacity, "{len} values in room for {capacity}");
        self.len = len;
    }
}

impl<T: Pod> Deref for Memory<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.map[..self.len * size_of::<T>()])
    }
}

impl<T: Pod> DerefMut for Memory<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map[..self.len * size_of::<T>()])
    }
}

/// Makes room for `capacity` elements and no more.
pub(crate) fn grow<T>(data: &mut Vec<T>, capacity: usize) {
    data.reserve_exact(capacity.saturating_sub(data.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_as_zeros_and_stay() {
        let mut memory = Memory::<f32>::with_capacity(1_000_000);
        assert!(memory.is_empty());
        memory.set_len(1_000_000);
        assert!(memory.iter().all(|x| *x == 0.0));
        memory[999_999] = 1.0;
        memory.set_len(3);
        assert_eq!(*memory, [0.0; 3]);
        memory.set_len(1_000_000);
        assert_eq!(memory[999_999], 1.0);
        assert!(Memory::<u8>::with_capacity(0).is_empty());
    }

    #[test]
    #[should_panic(expected = "5 values in room for 4")]
    fn there_is_no_more_than_was_asked_for() {
        Memory::<f32>::with_capacity(4).set_len(5);
    }
}
