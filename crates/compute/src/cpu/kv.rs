//! Paged keys and values in memory.

use crate::backend::PAGE_POSITIONS;
use crate::kernels::attention;
use crate::{AttentionShape, AttentionSpan, Isa, KvFormat, KvShape, KvSlot, PageId};

/// Keys and values of all layers: `[pages, layers, 2, kv_heads, PAGE_POSITIONS, head_dim]`, F16.
///
/// Pages that were never written take no memory: the system gives zeroed pages on first touch.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    data: Vec<u8>,
}

impl KvCache {
    pub(super) fn new(shape: KvShape) -> Self {
        let KvFormat::F16 = shape.format;
        Self {
            shape,
            data: vec![0; shape.pages * shape.page_bytes()],
        }
    }

    /// Bytes of one head's keys (or values) in one page.
    fn head_bytes(&self) -> usize {
        PAGE_POSITIONS * self.shape.head_dim * 2
    }

    fn offset(&self, layer: usize, page: PageId, values: usize, kv_head: usize) -> usize {
        let KvShape {
            layers, kv_heads, ..
        } = self.shape;
        assert!(
            layer < layers && kv_head < kv_heads,
            "layer {layer}, head {kv_head}"
        );
        (((page.0 as usize * layers + layer) * 2 + values) * kv_heads + kv_head) * self.head_bytes()
    }

    /// `[PAGE_POSITIONS, head_dim]` keys of a head, half precision.
    #[inline]
    pub(crate) fn keys(&self, layer: usize, page: PageId, kv_head: usize) -> &[u8] {
        &self.data[self.offset(layer, page, 0, kv_head)..][..self.head_bytes()]
    }

    /// `[PAGE_POSITIONS, head_dim]` values of a head, half precision.
    #[inline]
    pub(crate) fn values(&self, layer: usize, page: PageId, kv_head: usize) -> &[u8] {
        &self.data[self.offset(layer, page, 1, kv_head)..][..self.head_bytes()]
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
            kv_heads, head_dim, ..
        } = self.shape;
        let width = kv_heads * head_dim;
        assert!(
            k.len() == slots.len() * width && v.len() == k.len(),
            "one slot a row"
        );
        for (t, slot) in slots.iter().enumerate() {
            assert!(
                slot.offset < PAGE_POSITIONS,
                "offset {} in a page",
                slot.offset
            );
            for (values, source) in [k, v].into_iter().enumerate() {
                let row = &source[t * width..][..width];
                for (kv_head, x) in row.chunks_exact(head_dim).enumerate() {
                    let at =
                        self.offset(layer, slot.page, values, kv_head) + slot.offset * head_dim * 2;
                    attention::store_half(isa, x, &mut self.data[at..][..head_dim * 2]);
                }
            }
        }
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
