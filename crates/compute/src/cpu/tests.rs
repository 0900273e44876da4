//! Every verb on every ISA and thread count gives the bits of the scalar code on one thread, and
//! that is close to what plain F64 arithmetic gives.

mod experts;
mod feed_forward;
mod panels;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::RopeStyle;
use crate::quant;

mod attention;

/// Deterministic values in `-1..1`, with some zeros.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state.is_multiple_of(31) {
                0.0
            } else {
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            }
        })
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Asserts equality of bits; says where the first difference is.
#[track_caller]
fn assert_same(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    if let Some(i) = found.iter().zip(expected).position(differs) {
        panic!("{name}: {} at {i}, expected {}", found[i], expected[i]);
    }
}

/// Asserts that `verb` gives the same bits on every ISA, with 1 to 3 threads; gives the result.
fn same_everywhere(name: &str, verb: impl Fn(&mut Cpu) -> Vec<f32>) -> Vec<f32> {
    let scalar = verb(&mut Cpu::new(Isa::Scalar, 1));
    for isa in Isa::available() {
        for threads in 1..=3 {
            let other = verb(&mut Cpu::new(isa, threads));
            assert_same(
                &format!("{name}: {isa}, {threads} threads"),
                &other,
                &scalar,
            );
        }
    }
    scalar
}

fn filled(cpu: &mut Cpu, width: usize, data: &[f32]) -> Buffer {
    let tokens = data.len() / width;
    let mut buffer = cpu.buffer(tokens, width);
    buffer.set_tokens(tokens);
    buffer.data.copy_from_slice(data);
    buffer
}

fn product(
    cpu: &mut Cpu,
    (format, rows, cols): (Format, usize, usize),
    bytes: &[u8],
    x: &[f32],
    bias: Option<&Vec<f32>>,
) -> Vec<f32> {
    let weights = cpu.matrix(format, rows, cols, WeightBytes::owned(bytes.to_vec()));
    let input = filled(cpu, cols, x);
    let mut out = cpu.buffer(x.len() / cols, rows);
    cpu.matmul(
        &input,
        &mut [MatmulJob {
            weights: &weights,
            bias,
            out: &mut out,
        }],
        None,
    );
    out.data.to_vec()
}

/// Weights of every format, rows and tokens around the kernels' tiles, tails of float rows.
#[test]
fn matmul_gives_the_same_bits_everywhere() {
    for format in Format::ALL {
        let block = format.block_weights().max(32);
        let widths = if block == 256 {
            vec![256, 768]
        } else {
            // A block; vectors of four, or of two, and half of one.
            vec![block, 6 * block, 7 * block]
        };
        let odd = if format.block_weights() == 1 {
            vec![1, 15, 17, 50]
        } else {
            vec![]
        };
        for cols in widths.into_iter().chain(odd) {
            for (rows, tokens) in [(1, 1), (2, 1), (29, 1), (4, 2), (7, 5), (13, 9)] {
                let seed = (cols * rows * tokens) as u64;
                let values = noise(seed, rows * cols);
                let mut bytes = vec![0; rows * format.row_bytes(cols)];
                quant::quantize(format, &values, &mut bytes);
                let x = noise(seed + 1, tokens * cols);
                let bias = noise(seed + 2, rows);
                let shape = (format, rows, cols);
                let name = format!("{format} [{rows}, {cols}] x {tokens}");
                let out =
                    same_everywhere(&name, |cpu| product(cpu, shape, &bytes, &x, Some(&bias)));

                let mut weights = vec![0.0; rows * cols];
                quant::dequantize(format, &bytes, &mut weights);
                for (i, out) in out.iter().enumerate() {
                    let (t, r) = (i / rows, i % rows);
                    let (x, w) = (&x[t * cols..][..cols], &weights[r * cols..][..cols]);
                    let exact: f64 = x
                        .iter()
                        .zip(w)
                        .map(|(x, w)| f64::from(*x) * f64::from(*w))
                        .sum();
                    let error = (f64::from(*out) - exact - f64::from(bias[r])).abs();
                    // Activations carry 8 bits: a product is off by up to 1/254, at random.
                    assert!(
                        error <= 0.008 * (cols as f64).sqrt() + 1e-5,
                        "{name}: off by {error}"
                    );
                }
            }
        }
    }
}

/// Any bytes are some blocks: extreme scales, NaN-free by construction of the header bytes.
#[test]
fn matmul_of_arbitrary_blocks_gives_the_same_bits_everywhere() {
    let mut runner = TestRunner::new(Config {
        cases: 48,
        ..Config::default()
    });
    for format in Format::ALL
        .into_iter()
        .filter(|format| format.block_weights() > 1)
    {
        let cols = 512;
        let rows = 5;
        let strategy = (
            proptest::collection::vec(any::<u8>(), rows * format.row_bytes(cols)),
            proptest::collection::vec(-1e4_f32..1e4, 6 * cols),
        );
        runner
            .run(&strategy, |(mut bytes, x)| {
                finite_scales(format, &mut bytes);
                same_everywhere(format.name(), |cpu| {
                    product(cpu, (format, rows, cols), &bytes, &x, None)
                });
                Ok(())
            })
            .expect("the same bits everywhere");
    }
}

/// Clears an exponent bit of every half-precision scale, so that none is an infinity or a NaN.
fn finite_scales(format: Format, bytes: &mut [u8]) {
    let at: &[usize] = match format {
        Format::Q8_0 | Format::Q4_0 | Format::Q5_0 | Format::IQ4_NL | Format::IQ4_XS => &[1],
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[1, 3],
        Format::Q2_K => &[81, 83],
        Format::Q3_K => &[109],
        Format::Q6_K => &[209],
        Format::F32 | Format::F16 | Format::BF16 | Format::MXFP4 => &[],
    };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for at in at {
            block[*at] &= !0x40;
        }
    }
}

#[test]
fn matmul_of_extreme_activations() {
    let (rows, cols) = (4, 512);
    for format in Format::ALL {
        let mut bytes = vec![0; rows * format.row_bytes(cols)];
        quant::quantize(format, &vec![-1.0; rows * cols], &mut bytes);
        for x in [0.0, -0.0, 1e-31, -1.0, 3e33, f32::MIN_POSITIVE] {
            let x = vec![x; cols];
            same_everywhere(format.name(), |cpu| {
                product(cpu, (format, rows, cols), &bytes, &x, None)
            });
        }
    }
}

#[test]
fn several_jobs_of_one_dispatch_are_each_their_own() {
    let (cols, x) = (256, noise(5, 3 * 256));
    let formats = [Format::Q4_K, Format::Q8_0, Format::F16];
    let weights: Vec<Vec<u8>> = formats
        .iter()
        .map(|format| {
            let mut bytes = vec![0; 6 * format.row_bytes(cols)];
            quant::quantize(*format, &noise(9, 6 * cols), &mut bytes);
            bytes
        })
        .collect();
    let mut cpu = Cpu::new(Isa::detect(), 2);
    let input = filled(&mut cpu, cols, &x);
    let matrices: Vec<Matrix> = formats
        .iter()
        .zip(&weights)
        .map(|(format, bytes)| cpu.matrix(*format, 6, cols, WeightBytes::owned(bytes.clone())))
        .collect();
    // Of a single row the first of two threads has no part.
    let row = &weights[1][..Format::Q8_0.row_bytes(cols)];
    let row = cpu.matrix(Format::Q8_0, 1, cols, WeightBytes::owned(row.to_vec()));
    for next in [None, Some(&matrices[0]), Some(&row)] {
        let mut outs: Vec<Buffer> = (0..3).map(|_| cpu.buffer(3, 6)).collect();
        let mut jobs: Vec<MatmulJob<'_, Cpu>> = matrices
            .iter()
            .zip(&mut outs)
            .map(|(weights, out)| MatmulJob {
                weights,
                bias: None,
                out,
            })
            .collect();
        cpu.matmul(&input, &mut jobs, next);
        for ((format, bytes), out) in formats.iter().zip(&weights).zip(&outs) {
            let alone = product(&mut cpu, (*format, 6, cols), bytes, &x, None);
            assert_eq!(bits(&out.data), bits(&alone), "{format}");
        }
    }
}

#[test]
fn norms_give_the_same_bits_everywhere_and_follow_their_definitions() {
    for width in [1, 5, 16, 48, 63, 576] {
        let (x, weight, bias) = (noise(1, 3 * width), noise(2, width), noise(3, width));
        for (norm, bias) in [
            (Norm::Rms { eps: 1e-5 }, None),
            (Norm::Layer { eps: 1e-5 }, None),
            (Norm::Layer { eps: 1e-5 }, Some(&bias)),
        ] {
            let out = same_everywhere("norm", |cpu| {
                let input = filled(cpu, width, &x);
                let mut out = cpu.buffer(3, width);
                cpu.norm(norm, &weight, bias, &input, &mut out);
                out.data.to_vec()
            });
            for (x, out) in x.chunks(width).zip(out.chunks(width)) {
                let n = width as f64;
                let mean = match norm {
                    Norm::Rms { .. } => 0.0,
                    Norm::Layer { .. } => x.iter().map(|x| f64::from(*x)).sum::<f64>() / n,
                };
                let variance = x
                    .iter()
                    .map(|x| (f64::from(*x) - mean).powi(2))
                    .sum::<f64>()
                    / n;
                for (i, out) in out.iter().enumerate() {
                    let exact = (f64::from(x[i]) - mean) / (variance + 1e-5).sqrt()
                        * f64::from(weight[i])
                        + bias.map_or(0.0, |bias| f64::from(bias[i]));
                    assert!((f64::from(*out) - exact).abs() <= 1e-5 * exact.abs().max(1.0));
                }
            }
        }
        same_everywhere("norm_heads", |cpu| {
            let mut buffer = filled(cpu, width, &x);
            cpu.norm_heads(Norm::Rms { eps: 1e-6 }, &weight, &mut buffer);
            buffer.data.to_vec()
        });
    }
}

#[test]
fn rope_gives_the_same_bits_everywhere_and_rotates() {
    let (heads, head_dim) = (3, 10);
    for style in [RopeStyle::Interleaved, RopeStyle::Neox] {
        let frequencies = RopeTable::frequencies(10_000.0, 8);
        let table = RopeTable::new(style, 8, &frequencies, 1.0, 100);
        let x = noise(7, 4 * heads * head_dim);
        let positions = [0, 1, 50, 99];
        let out = same_everywhere("rope", |cpu| {
            let mut buffer = filled(cpu, heads * head_dim, &x);
            cpu.rope(&table, head_dim, &positions, &mut buffer);
            buffer.data.to_vec()
        });
        assert_eq!(
            &out[..heads * head_dim],
            &x[..heads * head_dim],
            "position 0 stays"
        );
        for (head, (x, out)) in x.chunks(head_dim).zip(out.chunks(head_dim)).enumerate() {
            assert_eq!(&x[8..], &out[8..], "elements past the rotated ones stay");
            let position = f64::from(positions[head / heads]);
            for (i, frequency) in frequencies.iter().enumerate() {
                let (a, b) = match style {
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                    RopeStyle::Neox => (i, i + 4),
                };
                let (sin, cos) = (position * frequency).sin_cos();
                let exact = f64::from(x[a]) * cos - f64::from(x[b]) * sin;
                assert!((f64::from(out[a]) - exact).abs() < 1e-5);
                let exact = f64::from(x[a]) * sin + f64::from(x[b]) * cos;
                assert!((f64::from(out[b]) - exact).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn gates_sums_and_embeddings_give_the_same_bits_everywhere() {
    let (gate, up) = (noise(1, 3 * 50), noise(2, 3 * 50));
    let activations = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::ClampedSwiglu,
    ];
    for activation in activations {
        same_everywhere("gate", |cpu| {
            let mut x = filled(cpu, 50, &gate);
            let up = filled(cpu, 50, &up);
            cpu.gated_activation(activation, &mut x, &up);
            cpu.add(&mut x, &up);
            x.data.to_vec()
        });
    }
    // The clamped one adds 1 to what it multiplies with.
    for activation in &activations[..3] {
        let activation = *activation;
        let alone = same_everywhere("activation", |cpu| {
            let mut x = filled(cpu, 50, &gate);
            cpu.activate(activation, &mut x);
            x.data.to_vec()
        });
        let gated = same_everywhere("a gate to ones", |cpu| {
            let mut x = filled(cpu, 50, &gate);
            let ones = filled(cpu, 50, &[1.0; 3 * 50]);
            cpu.gated_activation(activation, &mut x, &ones);
            x.data.to_vec()
        });
        assert_eq!(alone, gated, "{activation:?}");
    }
    for format in Format::ALL {
        // Whole vectors and a tail, where there may be one.
        let cols = if format.block_weights() == 1 {
            249
        } else {
            256
        };
        let mut bytes = vec![0; 9 * format.row_bytes(cols)];
        quant::quantize(format, &noise(3, 9 * cols), &mut bytes);
        let out = same_everywhere("embed", |cpu| {
            let table = cpu.matrix(format, 9, cols, WeightBytes::owned(bytes.clone()));
            let mut out = cpu.buffer(3, cols);
            cpu.embed(&table, &[8, 0, 3], 2.0, &mut out);
            let mut last = cpu.buffer(3, cols);
            cpu.select(&out, &[2, 0], &mut last);
            last.data.to_vec()
        });
        let mut row = vec![0.0; cols];
        quant::dequantize(
            format,
            &bytes[3 * format.row_bytes(cols)..][..format.row_bytes(cols)],
            &mut row,
        );
        assert!(
            out[..cols].iter().zip(row).all(|(out, x)| *out == 2.0 * x),
            "{format}"
        );
    }
}
