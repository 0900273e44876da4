//! Matrix products of many tokens: every size around panels, slabs, pieces, steps and batches.

use super::*;

/// Quantised formats, each with numbers of columns: one block, whole pieces of 256, tails.
fn widths() -> Vec<(Format, Vec<usize>)> {
    Format::ALL
        .into_iter()
        .map(|format| match format.block_weights() {
            1 => (format, vec![16, 49, 256, 1049]),
            32 => (format, vec![32, 256, 416, 544]),
            _ => (format, vec![256, 768]),
        })
        .collect()
}

#[test]
fn many_tokens_give_the_same_bits_everywhere() {
    for (format, widths) in widths() {
        for cols in widths {
            for (rows, tokens) in [
                (1, 6),
                (40, 3),
                (290, 3),
                (16, 16),
                (33, 17),
                (35, 24),
                (34, 33),
                (35, 48),
                (70, 49),
                (17, 530),
            ] {
                let mut bytes = vec![0; rows * format.row_bytes(cols)];
                quant::quantize(format, &noise(cols as u64, rows * cols), &mut bytes);
                let x = noise(tokens as u64, tokens * cols);
                let name = format!("{format} [{rows}, {cols}] x {tokens}");
                same_everywhere(&name, |cpu| {
                    product(cpu, (format, rows, cols), &bytes, &x, None)
                });
            }
        }
    }
}

/// The largest and smallest sums of integers there can be.
#[test]
fn many_tokens_of_extreme_integers_give_the_same_bits_everywhere() {
    extreme_integers(20);
}

/// The same of the kernels for a few tokens.
#[test]
fn a_token_of_extreme_integers_gives_the_same_bits_everywhere() {
    extreme_integers(1);
}

fn extreme_integers(tokens: usize) {
    let (rows, cols) = (3, 512);
    let rows_of = |value: fn(usize) -> f32| -> Vec<f32> { (0..tokens * cols).map(value).collect() };
    let inputs = [
        rows_of(|_| 1.0),
        rows_of(|_| -1.0),
        rows_of(|i| if i % 2 == 0 { 1.0 } else { -1.0 }),
        rows_of(|i| if i / 16 % 2 == 0 { 1.0 } else { -1.0 }),
    ];
    for format in Format::ALL {
        if format.block_weights() == 1 {
            continue;
        }
        for fill in [0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0] {
            let mut bytes = vec![fill; rows * format.row_bytes(cols)];
            finite_scales(format, &mut bytes);
            for x in &inputs {
                let name = format!("{format} of {fill:#x}");
                same_everywhere(&name, |cpu| {
                    product(cpu, (format, rows, cols), &bytes, x, None)
                });
            }
        }
    }
}
