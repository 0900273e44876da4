//! A row of the embedding table, widened and scaled.

use super::rows_float::FloatFormat;
use crate::Format;
use crate::quant::{self, BFloat, Float, Half};
use crate::simd::{Isa, Kernel, Simd, dispatch};

/// `to = scale · row`, the row in `bytes` as it is stored.
pub(crate) fn embed(isa: Isa, format: Format, bytes: &[u8], scale: f32, to: &mut [f32]) {
    assert_eq!(bytes.len(), format.row_bytes(to.len()), "a row of {format}");
    dispatch(
        isa,
        Embed {
            format,
            bytes,
            scale,
            to,
        },
    );
}

struct Embed<'a> {
    format: Format,
    bytes: &'a [u8],
    scale: f32,
    to: &'a mut [f32],
}

impl<S: Simd> Kernel<S> for Embed<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self {
            bytes, scale, to, ..
        } = self;
        match self.format {
            Format::F32 => widen::<Float, S>(s, bytes, scale, to),
            Format::F16 => widen::<Half, S>(s, bytes, scale, to),
            Format::BF16 => widen::<BFloat, S>(s, bytes, scale, to),
            format => {
                quant::dequantize(format, bytes, to);
                for x in to {
                    *x *= scale;
                }
            }
        }
    }
}

#[inline(always)]
fn widen<F: FloatFormat, S: Simd>(s: S, bytes: &[u8], scale: f32, to: &mut [f32]) {
    let scale = s.splat(scale);
    let sixteen = 16 * size_of::<F>();
    for (bytes, to) in bytes.chunks(sixteen).zip(to.chunks_mut(16)) {
        match to.first_chunk_mut() {
            Some(to) => s.store(s.mul(F::sixteen(s, bytes), scale), to),
            None => {
                let mut padded = [0; 64];
                padded[..bytes.len()].copy_from_slice(bytes);
                let x = F::sixteen(s, &padded[..sixteen]);
                s.store_partial(s.mul(x, scale), to);
            }
        }
    }
}
