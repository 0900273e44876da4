//! The feed-forward verb is its three products and the activation, whatever a backend makes of them.

use super::*;

struct Network {
    activation: Activation,
    width: usize,
    hidden: usize,
    /// Gate, up and down.
    formats: [Format; 3],
    weights: [Vec<u8>; 3],
    bias: [Option<Vec<f32>>; 3],
}

impl Network {
    fn new(activation: Activation, formats: [Format; 3], hidden: usize, biased: bool) -> Self {
        let width =
            288_usize.next_multiple_of(formats[0].block_weights().max(formats[1].block_weights()));
        let shapes = [(hidden, width), (hidden, width), (width, hidden)];
        let part = |i: usize| {
            let (rows, cols) = shapes[i];
            let mut bytes = vec![0; rows * formats[i].row_bytes(cols)];
            quant::quantize(formats[i], &noise(i as u64 + 7, rows * cols), &mut bytes);
            bytes
        };
        let bias = |i: usize| biased.then(|| noise(i as u64 + 70, shapes[i].0));
        Self {
            activation,
            width,
            hidden,
            formats,
            weights: [0, 1, 2].map(part),
            bias: [0, 1, 2].map(bias),
        }
    }

    /// As one verb, or as the three and the activation.
    fn run(&self, cpu: &mut Cpu, x: &[f32], whole: bool) -> Vec<f32> {
        let shapes = [
            (self.hidden, self.width),
            (self.hidden, self.width),
            (self.width, self.hidden),
        ];
        let matrices = [0, 1, 2].map(|i| {
            let (rows, cols) = shapes[i];
            let bytes = WeightBytes::owned(self.weights[i].clone());
            cpu.matrix(self.formats[i], rows, cols, bytes)
        });
        let input = filled(cpu, self.width, x);
        let tokens = input.tokens();
        let [mut gate, mut up, mut out] = shapes.map(|(rows, _)| cpu.buffer(tokens, rows));
        let [a, b, c] = &matrices;
        let [bias_a, bias_b, bias_c] = self.bias.each_ref().map(Option::as_ref);
        if whole {
            let network = FeedForward {
                activation: self.activation,
                gate_up: [job(a, bias_a, &mut gate), job(b, bias_b, &mut up)],
                down: job(c, bias_c, &mut out),
            };
            cpu.feed_forward(&input, network, None);
        } else {
            cpu.matmul(
                &input,
                &mut [job(a, bias_a, &mut gate), job(b, bias_b, &mut up)],
                None,
            );
            cpu.gated_activation(self.activation, &mut gate, &up);
            cpu.matmul(&gate, &mut [job(c, bias_c, &mut out)], None);
        }
        out.data.to_vec()
    }

    #[track_caller]
    fn check(&self, tokens: usize) {
        let x = noise(tokens as u64, tokens * self.width);
        let name = format!("{:?}, hidden {}, x {tokens}", self.formats, self.hidden);
        let whole = same_everywhere(&name, |cpu| self.run(cpu, &x, true));
        let parts = self.run(&mut Cpu::new(Isa::Scalar, 1), &x, false);
        assert_same(&name, &whole, &parts);
    }
}

#[test]
fn it_is_its_parts_in_every_format() {
    for format in Format::ALL {
        let hidden = if format.block_weights() == 256 {
            256
        } else {
            160
        };
        for activation in [
            Activation::Silu,
            Activation::GeluTanh,
            Activation::ClampedSwiglu,
        ] {
            let network = Network::new(activation, [format; 3], hidden, true);
            for tokens in [1, 3, 26, 50] {
                network.check(tokens);
            }
        }
    }
}

/// Batches of slabs, threads with nothing to do, formats that differ.
#[test]
fn it_is_its_parts_for_any_sizes() {
    use Format::{F16, Q4_K, Q5_0, Q8_0};
    for (formats, hidden, tokens) in [
        ([Q5_0; 3], 32, 25),
        ([Q5_0; 3], 224, 65),
        ([Q8_0; 3], 64, 530),
        ([Q5_0, Q5_0, Q8_0], 96, 40),
        ([Q5_0, Q8_0, Q8_0], 96, 40),
        ([Q8_0, Q8_0, F16], 96, 40),
        ([F16, F16, Q8_0], 96, 40),
        ([Q8_0, Q8_0, Q4_K], 512, 40),
        ([Q4_K, Q4_K, Q8_0], 96, 40),
    ] {
        for biased in [false, true] {
            Network::new(Activation::Silu, formats, hidden, biased).check(tokens);
        }
    }
}

fn job<'a>(
    weights: &'a Matrix,
    bias: Option<&'a Vec<f32>>,
    out: &'a mut Buffer,
) -> MatmulJob<'a, Cpu> {
    MatmulJob { weights, bias, out }
}
