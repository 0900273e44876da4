//! Paged keys and values in memory.

use crate::backend::PAGE_POSITIONS;
use crate::kernels::kv::{self, Slab};
use crate::memory::Memory;
use crate::{AttentionShape, AttentionSpan, Isa, KvShape, KvSlot, PageId};

/// Keys and values of all layers: `[pages, layers, 2, kv_heads]` slabs of [`PAGE_POSITIONS`]
/// positions, which `kernels/kv.rs` describes.
///
/// Pages that were never written take no memory.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    data: Memory<u8>,
}

impl KvCache {
    pub(super) fn new(shape: KvShape) -> Self {
        let bytes = shape.pages * shape.page_bytes();
        let mut data = Memory::with_capacity(bytes);
        data.set_len(bytes);
        Self { shape, data }
    }

    fn slab_bytes(&self) -> usize {
        PAGE_POSITIONS * self.shape.format.vector_bytes(self.shape.head_dim)
    }

    fn offset(&self, layer: usize, page: PageId, values: bool, kv_head: usize) -> usize {
        let KvShape {
            layers, kv_heads, ..
        } = self.shape;
        assert!(
            layer < layers && kv_head < kv_heads,
            "layer {layer}, head {kv_head}"
        );
        let slab = ((page.0 as usize * layers + layer) * 2 + usize::from(values)) * kv_heads;
        (slab + kv_head) * self.slab_bytes()
    }

    #[inline]
    fn slab(&self, layer: usize, page: PageId, values: bool, kv_head: usize) -> Slab<'_> {
        let offset = self.offset(layer, page, values, kv_head);
        Slab {
            format: self.shape.format,
            head_dim: self.shape.head_dim,
            bytes: &self.data[offset..][..self.slab_bytes()],
        }
    }

    /// Keys of a head in a page.
    #[inline]
    pub(crate) fn keys(&self, layer: usize, page: PageId, kv_head: usize) -> Slab<'_> {
        self.slab(layer, page, false, kv_head)
    }

    /// Values of a head in a page.
    #[inline]
    pub(crate) fn values(&self, layer: usize, page: PageId, kv_head: usize) -> Slab<'_> {
        self.slab(layer, page, true, kv_head)
    }

    /// Stores row `t` of `k` and `v` (`[tokens, kv_heads · head_dim]`) into `slots[t]`.
    pub(super) fn append(
        &mut self,
        isa: Isa,
        layer: usize,
        slots: &[KvSlot],
        k: &[f32],
        v: &[f32],
    ) {
        let KvShape {
            kv_heads,
            head_dim,
            format,
            ..
        } = self.shape;
        let width = kv_heads * head_dim;
        assert!(
            k.len() == slots.len() * width && v.len() == k.len(),
            "one slot a row"
        );
        let bytes = self.slab_bytes();
        for (t, slot) in slots.iter().enumerate() {
            let KvSlot { page, offset } = *slot;
            assert!(offset < PAGE_POSITIONS, "offset {offset} in a page");
            for (is_value, source) in [(false, k), (true, v)] {
                let at = self.offset(layer, page, is_value, 0);
                let slabs = &mut self.data[at..][..kv_heads * bytes];
                let row = &source[t * width..][..width];
                kv::store(isa, (format, is_value), head_dim, offset, (row, slabs));
            }
        }
    }

    /// Copies page `from` to page `to`.
    pub(super) fn copy_page(&mut self, from: PageId, to: PageId) {
        let bytes = self.shape.page_bytes();
        let start = from.0 as usize * bytes;
        self.data
            .copy_within(start..start + bytes, to.0 as usize * bytes);
    }

    /// Asserts that the cache has this shape and the spans' pages.
    pub(super) fn assert_holds(&self, shape: AttentionShape, spans: &[AttentionSpan<'_>]) {
        assert!(
            self.shape.kv_heads == shape.kv_heads && self.shape.head_dim == shape.head_dim,
            "a cache of this shape"
        );
        for span in spans {
            let positions = span.position + span.rows;
            assert!(
                positions <= span.pages.len() * PAGE_POSITIONS,
                "a page for every position"
            );
            assert!(
                span.pages
                    .iter()
                    .all(|page| (page.0 as usize) < self.shape.pages),
                "pages of this cache"
            );
        }
    }
}
