//! Attention equals, bit for bit, the definition of `docs/arithmetic.md` written down as plainly as
//! can be, and that is close to the softmax of F64 arithmetic.

use super::*;
use crate::{KvFormat, PAGE_POSITIONS, PageId};

/// Sequences whose keys and values are already stored, and the attention of their last tokens.
struct Attended {
    shape: AttentionShape,
    /// `[heads]`
    sinks: Option<Vec<f32>>,
    format: KvFormat,
    sequences: Vec<Sequence>,
}

struct Sequence {
    positions: usize,
    queries: usize,
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
}

impl Attended {
    /// Sequences of so many `(positions, queries)`.
    fn new(shape: AttentionShape, sequences: &[(usize, usize)]) -> Self {
        let width = shape.kv_heads * shape.head_dim;
        let sequence = |(seed, (positions, queries)): (usize, &(usize, usize))| {
            let noise = |part, len| noise((10 * seed + part) as u64 + 11, len);
            let q = noise(2, queries * shape.heads * shape.head_dim);
            Sequence {
                positions: *positions,
                queries: *queries,
                k: noise(0, positions * width),
                v: noise(1, positions * width),
                q: q.iter().map(|x| 4.0 * x).collect(),
            }
        };
        Self {
            shape,
            sinks: None,
            format: KvFormat::F16,
            sequences: sequences.iter().enumerate().map(sequence).collect(),
        }
    }

    /// All sequences in every step, each `step` queries further, on pages in reverse order that
    /// held something else before. Gives `[sequences][queries, width]`.
    fn run(&self, cpu: &mut Cpu, step: usize) -> Vec<f32> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let counts = self
            .sequences
            .iter()
            .map(|s| s.positions.div_ceil(PAGE_POSITIONS));
        let mut free: Vec<PageId> = (0..counts.clone().sum::<usize>() as u32)
            .map(PageId)
            .collect();
        let mut cache = cpu.kv_cache(KvShape {
            layers: 2,
            pages: free.len(),
            kv_heads,
            head_dim,
            format: self.format,
        });
        let pages: Vec<Vec<PageId>> = counts
            .map(|count| (0..count).map(|_| free.pop().unwrap()).collect())
            .collect();
        for (sequence, pages) in self.sequences.iter().zip(&pages) {
            let slots: Vec<KvSlot> = (0..pages.len() * PAGE_POSITIONS)
                .map(|p| KvSlot {
                    page: pages[p / PAGE_POSITIONS],
                    offset: p % PAGE_POSITIONS,
                })
                .collect();
            let width = kv_heads * head_dim;
            let rest = filled(cpu, width, &vec![f32::INFINITY; slots.len() * width]);
            cpu.append_kv(&mut cache, 1, &slots, &rest, &rest);
            let (k, v) = (
                filled(cpu, width, &sequence.k),
                filled(cpu, width, &sequence.v),
            );
            cpu.append_kv(&mut cache, 1, &slots[..sequence.positions], &k, &v);
        }
        let width = heads * head_dim;
        let mut out = vec![Vec::new(); self.sequences.len()];
        let most = self.sequences.iter().map(|s| s.queries).max().unwrap();
        for done in (0..most).step_by(step) {
            let (mut spans, mut q, mut taken) = (Vec::new(), Vec::new(), Vec::new());
            for (i, (sequence, pages)) in self.sequences.iter().zip(&pages).enumerate() {
                let rows = sequence.queries.saturating_sub(done).min(step);
                if rows > 0 {
                    spans.push(AttentionSpan {
                        row: q.len() / width,
                        rows,
                        position: sequence.positions - sequence.queries + done,
                        pages,
                    });
                    q.extend_from_slice(&sequence.q[done * width..(done + rows) * width]);
                    taken.push(i);
                }
            }
            let q = filled(cpu, width, &q);
            let mut buffer = cpu.buffer(q.tokens(), width);
            let job = AttentionJob {
                shape: self.shape,
                sinks: self.sinks.as_ref(),
            };
            cpu.attention(&cache, job, &spans, &q, &mut buffer);
            for (span, i) in spans.iter().zip(taken) {
                out[i].extend_from_slice(&buffer.data[span.row * width..][..span.rows * width]);
            }
        }
        out.concat()
    }

    /// Each sequence, query and head.
    fn cases(&self) -> impl Iterator<Item = (&Sequence, usize, usize)> {
        self.sequences.iter().flat_map(move |sequence| {
            (0..sequence.queries).flat_map(move |query| {
                (0..self.shape.heads).map(move |head| (sequence, query, head))
            })
        })
    }

    /// The positions that a query sees, with their keys and values as stored.
    fn seen(
        &self,
        sequence: &Sequence,
        query: usize,
        head: usize,
    ) -> Vec<(usize, Vec<f32>, Vec<f32>)> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            window,
            causal,
            ..
        } = self.shape;
        let end = match causal {
            true => sequence.positions - sequence.queries + query + 1,
            false => sequence.positions,
        };
        let row = |x: &[f32], p: usize| -> Vec<f32> {
            let at = (p * kv_heads + head / (heads / kv_heads)) * head_dim;
            self.stored(&x[at..at + head_dim])
        };
        (window.map_or(0, |window| end.saturating_sub(window))..end)
            .map(|p| (p, row(&sequence.k, p), row(&sequence.v, p)))
            .collect()
    }

    fn stored(&self, x: &[f32]) -> Vec<f32> {
        match self.format {
            KvFormat::F16 => x
                .iter()
                .map(|x| quant::Half::from_f32(*x).to_f32())
                .collect(),
            KvFormat::F32 => x.to_vec(),
            KvFormat::Q8_0 => x.chunks(32).flat_map(quantized).collect(),
        }
    }

    fn query<'a>(&self, sequence: &'a Sequence, query: usize, head: usize) -> &'a [f32] {
        let AttentionShape {
            heads, head_dim, ..
        } = self.shape;
        &sequence.q[(query * heads + head) * head_dim..][..head_dim]
    }

    /// The definition.
    fn plainly(&self, (sequence, query, head): (&Sequence, usize, usize)) -> Vec<f32> {
        let q = self.query(sequence, query, head);
        let seen = self.seen(sequence, query, head);
        let mut state: Option<(f32, f32, Vec<f32>)> = None;
        for chunk in seen.chunk_by(|a, b| a.0 / 256 == b.0 / 256) {
            let scores: Vec<f32> = chunk
                .iter()
                .map(|(_, k, _)| {
                    let mut chains = [0.0_f32; 16];
                    for (d, (q, k)) in q.iter().zip(k).enumerate() {
                        chains[d % 16] = q.mul_add(*k, chains[d % 16]);
                    }
                    tree(chains) * self.shape.scale
                })
                .collect();
            let m_c = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let (mut sums, mut o_c) = ([0.0_f32; 16], vec![0.0_f32; q.len()]);
            for ((position, _, v), score) in chunk.iter().zip(scores) {
                let p = exp(score - m_c);
                sums[position % 16] += p;
                for (o, v) in o_c.iter_mut().zip(v) {
                    *o = p.mul_add(*v, *o);
                }
            }
            let l_c = tree(sums);
            state = Some(match state {
                None => (m_c, l_c, o_c),
                Some((m, l, o)) => {
                    let larger = m.max(m_c);
                    let (a, b) = (exp(m - larger), exp(m_c - larger));
                    let merged = o.iter().zip(o_c).map(|(o, o_c)| o_c.mul_add(b, o * a));
                    (larger, l_c.mul_add(b, l * a), merged.collect())
                }
            });
        }
        let (m, l, o) = state.expect("a query sees itself");
        let Some(sinks) = &self.sinks else {
            return o.iter().map(|o| o / l).collect();
        };
        let larger = m.max(sinks[head]);
        let (a, b) = (exp(m - larger), exp(sinks[head] - larger));
        o.iter().map(|o| o * a / (l * a + b)).collect()
    }

    /// Softmax in F64.
    fn exactly(&self, (sequence, query, head): (&Sequence, usize, usize)) -> Vec<f64> {
        let q = self.query(sequence, query, head);
        let seen = self.seen(sequence, query, head);
        let scores: Vec<f64> = seen
            .iter()
            .map(|(_, k, _)| {
                let products = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k));
                products.sum::<f64>() * f64::from(self.shape.scale)
            })
            .collect();
        let sink = self.sinks.as_ref().map(|sinks| f64::from(sinks[head]));
        let all = || scores.iter().copied().chain(sink);
        let largest = all().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = all().map(|s| (s - largest).exp()).sum();
        let mut out = vec![0.0; q.len()];
        for ((_, _, v), score) in seen.iter().zip(&scores) {
            for (out, v) in out.iter_mut().zip(v) {
                *out += (score - largest).exp() / sum * f64::from(*v);
            }
        }
        out
    }

    /// Checks every format.
    fn check(mut self) {
        for format in KvFormat::ALL {
            self.format = format;
            self.check_format();
        }
    }

    /// Checks the results of whole prompts against the definition, and of smaller steps against them.
    fn check_format(&self) {
        let name = format!("{:?} {:?}", self.format, self.shape);
        let most = self.sequences.iter().map(|s| s.queries).max().unwrap();
        let out = same_everywhere(&name, |cpu| self.run(cpu, most));
        for (out, case) in out.chunks(self.shape.head_dim).zip(self.cases()) {
            let (sequence, query, head) = case;
            let name = format!("{name}, {}, query {query}, head {head}", sequence.positions);
            assert_same(&name, out, &self.plainly(case));
            for (out, exact) in out.iter().zip(self.exactly(case)) {
                assert!(
                    (f64::from(*out) - exact).abs() < 2e-6,
                    "{name}: {out}, {exact}"
                );
            }
        }
        let steps: &[(usize, usize)] = match self.shape.causal {
            true => &[(1, 2), (3, 1), (50, 3)],
            false => &[(most, 2), (most, 3)],
        };
        for &(step, threads) in steps {
            let stepped = self.run(&mut Cpu::new(Isa::detect(), threads), step);
            assert_same(&format!("{name}: steps of {step}"), &stepped, &out);
        }
    }
}

/// A group as Q8_0 stores it.
fn quantized(x: &[f32]) -> Vec<f32> {
    let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    if largest < 1e-30 {
        return vec![0.0; x.len()];
    }
    let scale = quant::Half::from_f32((largest / 127.0).min(65504.0)).to_f32();
    let quant = |x: &f32| (x * (127.0 / largest)).round_ties_even();
    x.iter().map(|x| quant(x) * scale).collect()
}

fn exp(x: f32) -> f32 {
    struct Exp(f32);
    impl<S: crate::simd::Simd> crate::simd::Kernel<S> for Exp {
        type Output = f32;
        #[inline(always)]
        fn run(self, s: S) -> f32 {
            let mut lanes = [0.0; 16];
            s.store(crate::kernels::math::exp(s, s.splat(self.0)), &mut lanes);
            lanes[0]
        }
    }
    crate::simd::dispatch(Isa::Scalar, Exp(x))
}

fn tree(x: [f32; 16]) -> f32 {
    let group = |g: usize| (x[4 * g] + x[4 * g + 2]) + (x[4 * g + 1] + x[4 * g + 3]);
    (group(0) + group(2)) + (group(1) + group(3))
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize, window: Option<usize>) -> AttentionShape {
    AttentionShape {
        layer: 1,
        heads,
        kv_heads,
        head_dim,
        scale: 0.3,
        window,
        causal: true,
    }
}

#[test]
fn attention_gives_the_same_bits_everywhere_and_is_softmax() {
    for (heads, kv_heads, head_dim) in [
        (1, 1, 64),
        (6, 2, 80),
        (4, 1, 256),
        (3, 3, 10),
        (7, 1, 96),
        (2, 1, 128),
    ] {
        for window in [None, Some(1), Some(100), Some(300)] {
            for positions in [1, 64, 65, 600] {
                let shape = shape(heads, kv_heads, head_dim, window);
                Attended::new(shape, &[(positions, positions.min(5))]).check();
            }
        }
    }
}

/// Sinks that are nothing beside the scores, like them, and so large that nothing else counts.
#[test]
fn sinks_take_their_part_of_the_softmax() {
    for (heads, kv_heads, head_dim) in [(1, 1, 64), (6, 2, 80), (5, 5, 10), (8, 1, 64)] {
        for window in [None, Some(100)] {
            let shape = shape(heads, kv_heads, head_dim, window);
            let mut attended = Attended::new(shape, &[(600, 5), (40, 40)]);
            let sinks = [-80.0, 0.5, 3.0, 60.0, -1.0, f32::NEG_INFINITY, 9.0, 0.0];
            attended.sinks = Some(sinks.iter().copied().cycle().take(heads).collect());
            attended.check();
        }
    }
    let mut attended = Attended::new(shape(1, 1, 16, None), &[(2100, 1)]);
    attended.sinks = Some(vec![5.0]);
    attended.check();
}

/// Keys and values of every magnitude, as far as half precision and quants go.
#[test]
fn extreme_keys_and_values() {
    let shape = shape(3, 1, 48, None);
    for scale in [0.0, 1e-31, 1e-9, 6e4] {
        let mut attended = Attended::new(shape, &[(40, 2)]);
        for format in KvFormat::ALL {
            attended.format = format;
            for sequence in &mut attended.sequences {
                sequence.k = noise(3, 40 * 48).iter().map(|x| x * scale).collect();
                sequence.v = sequence.k.clone();
            }
            let out = same_everywhere("extremes", |cpu| attended.run(cpu, 2));
            for (out, case) in out.chunks(48).zip(attended.cases()) {
                assert_same("extremes", out, &attended.plainly(case));
            }
        }
    }
}

#[test]
fn many_rows_and_sequences_give_the_bits_of_one() {
    for (heads, kv_heads, head_dim) in [(2, 2, 16), (4, 2, 8), (5, 1, 16), (14, 2, 4)] {
        for window in [None, Some(37), Some(270)] {
            let shape = shape(heads, kv_heads, head_dim, window);
            Attended::new(shape, &[(300, 290), (520, 1), (17, 3), (513, 40)]).check();
        }
    }
}

#[test]
fn without_causality_all_rows_of_a_span_see_all_of_it() {
    for (heads, kv_heads, head_dim) in [(4, 4, 32), (5, 1, 16), (3, 3, 10)] {
        let shape = AttentionShape {
            causal: false,
            ..shape(heads, kv_heads, head_dim, None)
        };
        Attended::new(shape, &[(300, 300), (1, 1), (64, 64), (17, 17)]).check();
        Attended::new(shape, &[(600, 5), (257, 257)]).check();
    }
}

/// More query heads share a key head than a tile has room for.
#[test]
fn a_crowd_of_query_heads() {
    Attended::new(shape(131, 1, 16, None), &[(70, 2)]).check();
    Attended::new(shape(264, 1, 16, None), &[(70, 2)]).check();
}

/// One key head and one query: threads share a row chunk by chunk.
#[test]
fn threads_share_a_long_row() {
    for window in [None, Some(1000)] {
        Attended::new(shape(1, 1, 16, window), &[(2100, 1)]).check();
        Attended::new(shape(3, 1, 16, window), &[(1500, 2), (2100, 1), (40, 1)]).check();
    }
}
