//! Working memory: activations, keys and values.

use std::alloc::{Layout, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use memmap2::MmapMut;

/// Bytes of the smallest pages there are.
const SMALL_PAGE: usize = 4096;

/// Values that begin as zeros, in pages of their own.
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
    /// Room for `capacity` values, none of which is there yet; the system gives a page when it is first
    /// touched. Without the memory the process ends, as for a `Vec`.
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

    /// The same, with all pages given at once: what every step may need is not asked for in one.
    pub(crate) fn resident(capacity: usize) -> Self {
        let mut memory = Self::with_capacity(capacity);
        for page in memory.map.chunks_mut(SMALL_PAGE) {
            page[0] = 0;
        }
        memory
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

/// Makes room for `capacity` elements and no more, as [`Memory::resident`] does.
pub(crate) fn grow<T: Clone + Default>(data: &mut Vec<T>, capacity: usize) {
    if capacity > data.capacity() {
        let len = data.len();
        data.reserve_exact(capacity - len);
        data.resize(capacity, T::default());
        data.truncate(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_as_zeros_and_stay() {
        for room in [Memory::with_capacity, Memory::resident] {
            let mut memory: Memory<f32> = room(1_000_000);
            assert!(memory.is_empty());
            memory.set_len(1_000_000);
            assert!(memory.iter().all(|x| *x == 0.0));
            memory[999_999] = 1.0;
            memory.set_len(3);
            assert_eq!(*memory, [0.0; 3]);
            memory.set_len(1_000_000);
            assert_eq!(memory[999_999], 1.0);
        }
        assert!(Memory::<u8>::with_capacity(0).is_empty());
    }

    #[test]
    fn what_grew_keeps_its_elements() {
        let mut data = vec![1_u32, 2];
        grow(&mut data, 1000);
        assert_eq!(data, [1, 2]);
        assert_eq!(data.capacity(), 1000);
        grow(&mut data, 5);
        assert_eq!((data.len(), data.capacity()), (2, 1000));
    }

    #[test]
    #[should_panic(expected = "5 values in room for 4")]
    fn there_is_no_more_than_was_asked_for() {
        Memory::<f32>::with_capacity(4).set_len(5);
    }
}
