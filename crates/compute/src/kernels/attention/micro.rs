//! The two inner loops: scores of sixteen positions, and weighted sums of values.

use super::CHUNK;
use crate::kernels::kv::Values;
use crate::simd::Simd;

/// Sixteen scores each of `N` queries: dot products by sixteen chains over the head's elements and
/// the canonical tree, a lane for each position, so that the tree is additions of whole vectors.
///
/// `q[j][i]` are elements `16 i..` of query j, `k[i][c]` element `16 i + c` of sixteen keys.
#[inline(always)]
pub(super) fn scores<S: Simd, const N: usize>(
    s: S,
    q: [&[[f32; 16]]; N],
    k: &[[[f32; 16]; 16]],
) -> [S::F32; N] {
    // A length that is known leaves no loop.
    match k.len() {
        4 => scores_of(s, q, &k[..4]),
        6 => scores_of(s, q, &k[..6]),
        8 => scores_of(s, q, &k[..8]),
        16 => scores_of(s, q, &k[..16]),
        _ => scores_of(s, q, k),
    }
}

#[inline(always)]
fn scores_of<S: Simd, const N: usize>(
    s: S,
    q: [&[[f32; 16]]; N],
    k: &[[[f32; 16]; 16]],
) -> [S::F32; N] {
    let even = add(s, group(s, q, k, 0), group(s, q, k, 2));
    let odd = add(s, group(s, q, k, 1), group(s, q, k, 3));
    add(s, even, odd)
}

/// The sum of chains `4 g .. 4 g + 4`.
#[inline(always)]
fn group<S: Simd, const N: usize>(
    s: S,
    q: [&[[f32; 16]]; N],
    k: &[[[f32; 16]; 16]],
    g: usize,
) -> [S::F32; N] {
    let even = add(s, chain(s, q, k, 4 * g), chain(s, q, k, 4 * g + 2));
    let odd = add(s, chain(s, q, k, 4 * g + 1), chain(s, q, k, 4 * g + 3));
    add(s, even, odd)
}

#[inline(always)]
fn chain<S: Simd, const N: usize>(
    s: S,
    q: [&[[f32; 16]]; N],
    k: &[[[f32; 16]; 16]],
    c: usize,
) -> [S::F32; N] {
    let q = q.map(|q| &q[..k.len()]);
    let mut acc = [s.zero(); N];
    for i in 0..k.len() {
        let k = s.load(&k[i][c]);
        for j in 0..N {
            acc[j] = s.fma(s.splat(q[j][i][c]), k, acc[j]);
        }
    }
    acc
}

#[inline(always)]
fn add<S: Simd, const N: usize>(s: S, mut a: [S::F32; N], b: [S::F32; N]) -> [S::F32; N] {
    for j in 0..N {
        a[j] = s.add(a[j], b[j]);
    }
    a
}

/// `acc[j] = fma(p[j][first + t], v[t], acc[j])` for ascending t, on `V` vectors of output dimensions
/// from `vector` on.
#[inline(always)]
pub(super) fn mix<S: Simd, const N: usize, const V: usize>(
    s: S,
    (p, first): (&[[f32; CHUNK]; N], usize),
    v: impl Values,
    vector: usize,
    acc: [&mut [[f32; 16]]; N],
) {
    assert!(first + v.positions() <= CHUNK, "weights of a chunk");
    let acc = acc.map(|acc| &mut acc[..V]);
    let mut sums = [[s.zero(); V]; N];
    for j in 0..N {
        for i in 0..V {
            sums[j][i] = s.load(&acc[j][i]);
        }
    }
    for t in 0..v.positions() {
        v.ask(s, t, vector);
        let mut values = [s.zero(); V];
        for i in 0..V {
            values[i] = v.load(s, t, vector + i);
        }
        for j in 0..N {
            let p = s.splat(p[j][first + t]);
            for i in 0..V {
                sums[j][i] = s.fma(p, values[i], sums[j][i]);
            }
        }
    }
    for j in 0..N {
        for i in 0..V {
            s.store(sums[j][i], &mut acc[j][i]);
        }
    }
}
