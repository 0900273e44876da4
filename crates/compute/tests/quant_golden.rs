//! Quantisation and dequantisation against the reference implementations, bit for bit.
//!
//! The data and how they were made: `data/quant_golden.py`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use redline_compute::Format;
use redline_compute::quant::{dequantize, quantize};

const GOLDEN: &[u8] = include_bytes!("data/quant_golden.bin");
/// Values quantised in every format.
const VALUES: usize = 14 * 256;
/// Weights of arbitrary blocks dequantised in every format.
const RAW: usize = 6 * 256;

struct Case {
    format: Format,
    quantized: &'static [u8],
    raw: &'static [u8],
    dequantized: Vec<f32>,
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (words, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    words.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

fn golden() -> (Vec<f32>, Vec<Case>) {
    let mut rest = GOLDEN;
    let mut take = |bytes: usize| {
        let (head, tail) = rest.split_at(bytes);
        rest = tail;
        head
    };
    let values = floats(take(VALUES * 4));
    let cases = Format::ALL
        .into_iter()
        .filter(|&format| format != Format::F32)
        .map(|format| Case {
            format,
            quantized: take(format.row_bytes(VALUES)),
            raw: take(format.row_bytes(RAW)),
            dequantized: floats(take(RAW * 4)),
        })
        .collect();
    assert!(rest.is_empty(), "{} bytes beyond the last case", rest.len());
    (values, cases)
}

#[test]
fn quantizes_as_the_reference() {
    let (values, cases) = golden();
    for case in cases {
        let mut out = vec![0; case.quantized.len()];
        quantize(case.format, &values, &mut out);
        let block = case.format.block_bytes();
        for (i, (ours, theirs)) in out
            .chunks(block)
            .zip(case.quantized.chunks(block))
            .enumerate()
        {
            assert_eq!(ours, theirs, "{} block {i}", case.format);
        }
    }
}

#[test]
fn dequantizes_as_the_reference() {
    for case in golden().1 {
        // At an odd address: blocks need no alignment.
        let mut shifted = vec![0];
        shifted.extend_from_slice(case.raw);
        let mut out = vec![0.0; RAW];
        dequantize(case.format, &shifted[1..], &mut out);
        for (i, (ours, theirs)) in out.iter().zip(&case.dequantized).enumerate() {
            assert_eq!(
                ours.to_bits(),
                theirs.to_bits(),
                "{} weight {i}",
                case.format
            );
        }
    }
}

#[test]
fn f32_is_stored_as_it_is() {
    let values = [
        0.0,
        -0.0,
        1.5,
        f32::MIN_POSITIVE / 2.0,
        f32::MAX,
        f32::NEG_INFINITY,
    ];
    let mut bytes = [0; 24];
    quantize(Format::F32, &values, &mut bytes);
    let mut back = [1.0; 6];
    dequantize(Format::F32, &bytes, &mut back);
    assert_eq!(back.map(f32::to_bits), values.map(f32::to_bits));
}

#[test]
fn a_scale_without_a_reciprocal_counts_as_zero() {
    let values = [1e-39; 256];
    for format in Format::ALL
        .into_iter()
        .filter(|format| format.block_weights() > 1)
    {
        let mut bytes = vec![0; format.row_bytes(256)];
        quantize(format, &values, &mut bytes);
        let mut back = [1.0; 256];
        dequantize(format, &bytes, &mut back);
        assert!(
            back.iter().all(|&weight| weight == 0.0),
            "{format}: {back:?}"
        );
    }
}

#[test]
fn what_is_not_finite_spoils_its_own_block_only() {
    for format in Format::ALL {
        for spoiler in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values: Vec<f32> = (0..512).map(|i| (i as f32 * 0.7).sin()).collect();
            let mut clean = vec![0; format.row_bytes(512)];
            quantize(format, &values, &mut clean);
            values[0] = spoiler;
            let mut spoiled = vec![0; clean.len()];
            quantize(format, &values, &mut spoiled);
            let block = format.block_bytes();
            assert!(clean[block..] == spoiled[block..], "{format} {spoiler}");
        }
    }
}

#[test]
fn the_error_of_each_format_is_what_its_bits_allow() {
    // Signal-to-noise of a Gaussian, dB; the bounds are a little under the reference's figures.
    let bounds = [
        (Format::BF16, 54.0),
        (Format::F16, 72.0),
        (Format::Q8_0, 44.0),
        (Format::Q4_0, 20.0),
        (Format::Q4_1, 21.0),
        (Format::Q5_0, 26.0),
        (Format::Q5_1, 27.5),
        (Format::IQ4_NL, 21.0),
        (Format::MXFP4, 18.0),
        (Format::Q2_K, 9.0),
        (Format::Q3_K, 15.5),
        (Format::Q4_K, 21.5),
        (Format::Q5_K, 28.0),
        (Format::Q6_K, 34.0),
        (Format::IQ4_XS, 21.0),
    ];
    let mut state = 1_u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let values: Vec<f32> = (0..65536)
        .map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
        .collect();
    for (format, bound) in bounds {
        let mut bytes = vec![0; format.row_bytes(values.len())];
        quantize(format, &values, &mut bytes);
        let mut back = vec![0.0; values.len()];
        dequantize(format, &bytes, &mut back);
        let noise: f64 = values
            .iter()
            .zip(&back)
            .map(|(v, b)| f64::from(v - b).powi(2))
            .sum();
        let signal: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        let ratio = 10.0 * (signal / noise).log10();
        assert!(
            ratio > bound,
            "{format}: {ratio:.1} dB, at least {bound} expected"
        );
        assert!(
            ratio < bound + 4.0,
            "{format}: {ratio:.1} dB is better than its bits allow"
        );
    }
}
