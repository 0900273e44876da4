//! Mixtures of experts against one token, one expert at a time.

use super::*;
use crate::simd::{Kernel, Simd, dispatch, tree_sum};
use crate::{ExpertJob, ExpertRows, Mapping, RouteShape, Routing, kernels::math};

/// A mixture `[hidden] → [inner] → [hidden]` with random weights, and tokens for it.
#[derive(Debug, Clone)]
struct Mixture {
    format: Format,
    experts: usize,
    per_token: usize,
    routing: Routing,
    hidden: usize,
    inner: usize,
    /// `[experts]`: gate, up and down matrices in `format`, and a bias of the gate
    weights: Vec<[Vec<u8>; 3]>,
    bias: Vec<Vec<f32>>,
    /// `[tokens, experts]`
    logits: Vec<f32>,
    /// `[tokens, hidden]`
    x: Vec<f32>,
}

impl Mixture {
    fn new(
        format: Format,
        (experts, per_token): (usize, usize),
        routing: Routing,
        tokens: usize,
    ) -> Self {
        let block = format.block_weights().max(32);
        let (hidden, inner) = if block == 256 { (256, 512) } else { (96, 64) };
        let matrix = |seed, rows: usize, cols: usize| {
            let mut bytes = vec![0; rows * format.row_bytes(cols)];
            quant::quantize(format, &noise(seed, rows * cols), &mut bytes);
            bytes
        };
        let weights = (0..experts as u64)
            .map(|expert| {
                [
                    matrix(3 * expert + 1, inner, hidden),
                    matrix(3 * expert + 2, inner, hidden),
                    matrix(3 * expert + 3, hidden, inner),
                ]
            })
            .collect();
        // Few levels: many logits are equal.
        let logits = noise(71, tokens * experts)
            .into_iter()
            .map(|x| (4.0 * x).round())
            .collect();
        Self {
            format,
            experts,
            per_token,
            routing,
            hidden,
            inner,
            weights,
            bias: (0..experts as u64).map(|e| noise(91 + e, inner)).collect(),
            logits,
            x: noise(73, tokens * hidden),
        }
    }

    /// The result by the verbs, in steps of `step` tokens.
    fn run(&self, cpu: &mut Cpu, step: usize) -> Vec<f32> {
        let Self {
            format,
            hidden,
            inner,
            ..
        } = *self;
        let matrices: [Vec<Matrix>; 3] = std::array::from_fn(|part| {
            let (rows, cols) = if part == 2 {
                (hidden, inner)
            } else {
                (inner, hidden)
            };
            let bytes = self.weights.iter().map(|parts| parts[part].clone());
            bytes
                .map(|bytes| cpu.matrix(format, rows, cols, WeightBytes::owned(bytes)))
                .collect()
        });
        let mut mixture = Verbs::new(cpu, self.shape(step), inner);
        let mut result = Vec::new();
        for (logits, x) in self
            .logits
            .chunks(step * self.experts)
            .zip(self.x.chunks(step * hidden))
        {
            let logits = filled(cpu, self.experts, logits);
            let x = filled(cpu, hidden, x);
            cpu.route_experts(self.routing, &logits, &mut mixture.routes);
            result.extend_from_slice(mixture.apply(cpu, &matrices, &self.bias, &x));
        }
        result
    }

    fn shape(&self, max_tokens: usize) -> RouteShape {
        RouteShape {
            max_tokens,
            experts: self.experts,
            per_token: self.per_token,
            width: self.hidden,
        }
    }

    /// The result as the definition says it, for one token.
    fn plainly(&self, token: usize) -> Vec<f32> {
        let Self { hidden, inner, .. } = *self;
        let cpu = &mut Cpu::new(Isa::Scalar, 1);
        let logits = &self.logits[token * self.experts..][..self.experts];
        let mut order: Vec<usize> = (0..self.experts).collect();
        order.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).unwrap().then(a.cmp(b)));
        let mut chosen = order[..self.per_token].to_vec();
        chosen.sort_unstable();
        let p = |expert: usize| exp(logits[expert] - logits[order[0]]);
        let mut chains = [0.0_f32; 16];
        match self.routing {
            Routing::SoftmaxOfChosen => {
                for (at, expert) in chosen.iter().enumerate() {
                    chains[at % 16] += p(*expert);
                }
            }
            Routing::SoftmaxOfAll => {
                for expert in 0..self.experts {
                    chains[expert % 16] += p(expert);
                }
            }
        }
        let x = &self.x[token * hidden..][..hidden];
        let mut result = vec![0.0_f32; hidden];
        for expert in chosen {
            let [gate, up, down] = &self.weights[expert];
            let wide = (self.format, inner, hidden);
            let gate = product(cpu, wide, gate, x, Some(&self.bias[expert]));
            let up = product(cpu, wide, up, x, None);
            let (mut gate, up) = (filled(cpu, inner, &gate), filled(cpu, inner, &up));
            cpu.gated_activation(Activation::Silu, &mut gate, &up);
            let y = product(cpu, (self.format, hidden, inner), down, &gate.data, None);
            let weight = p(expert) / tree_sum(&chains);
            for (result, y) in result.iter_mut().zip(y) {
                *result = weight.mul_add(y, *result);
            }
        }
        result
    }
}

/// The canonical exponential of one number.
fn exp(x: f32) -> f32 {
    struct Exp(f32);
    impl<S: Simd> Kernel<S> for Exp {
        type Output = f32;
        fn run(self, s: S) -> f32 {
            let mut out = [0.0; 16];
            s.store(math::exp(s, s.splat(self.0)), &mut out);
            out[0]
        }
    }
    dispatch(Isa::Scalar, Exp(x))
}

/// Everything the verbs write.
struct Verbs {
    routes: Routes,
    gate: Buffer,
    up: Buffer,
    pairs: Buffer,
    out: Buffer,
}

impl Verbs {
    fn new(cpu: &mut Cpu, shape: RouteShape, inner: usize) -> Self {
        Self {
            gate: cpu.buffer(shape.max_pairs(), inner),
            up: cpu.buffer(shape.max_pairs(), inner),
            pairs: cpu.buffer(shape.max_pairs(), shape.width),
            out: cpu.buffer(shape.max_tokens, shape.width),
            routes: cpu.routes(shape),
        }
    }

    /// `Σ weight · down(silu(gate(x) + bias) · up(x))` over the routed experts.
    fn apply(
        &mut self,
        cpu: &mut Cpu,
        [gate, up, down]: &[Vec<Matrix>; 3],
        bias: &[Vec<f32>],
        x: &Buffer,
    ) -> &[f32] {
        let mut jobs = [
            ExpertJob {
                weights: gate,
                bias: Some(bias),
                out: &mut self.gate,
            },
            ExpertJob {
                weights: up,
                bias: None,
                out: &mut self.up,
            },
        ];
        cpu.expert_matmul(&mut self.routes, ExpertRows::Tokens, x, &mut jobs);
        cpu.gated_activation(Activation::Silu, &mut self.gate, &self.up);
        let job = ExpertJob {
            weights: down,
            bias: None,
            out: &mut self.pairs,
        };
        cpu.expert_matmul(&mut self.routes, ExpertRows::Pairs, &self.gate, &mut [job]);
        cpu.combine_experts(&self.routes, &self.pairs, &mut self.out);
        &self.out.data
    }
}

#[test]
fn mixtures_give_the_same_bits_everywhere() {
    let routings = [Routing::SoftmaxOfChosen, Routing::SoftmaxOfAll];
    // One format of each kind: matmul's own test has them all.
    for format in [
        Format::F16,
        Format::Q8_0,
        Format::Q5_1,
        Format::Q4_K,
        Format::Q6_K,
    ] {
        // Up to a dozen tokens of one expert: past where panels begin.
        let shapes = [(1, 1, 1), (19, 17, 2), (5, 2, 24)];
        for (i, (experts, per_token, tokens)) in shapes.into_iter().enumerate() {
            let experts = (experts, per_token);
            let mixture = Mixture::new(format, experts, routings[i % 2], tokens);
            let name = format!("{format}, {experts:?} experts, {tokens} tokens");
            let together = same_everywhere(&name, |cpu| mixture.run(cpu, tokens));
            let apart = mixture.run(&mut Cpu::new(Isa::detect(), 2), 1);
            assert_eq!(bits(&apart), bits(&together), "{name}: one by one");
            let some = mixture.run(&mut Cpu::new(Isa::detect(), 2), 7);
            assert_eq!(bits(&some), bits(&together), "{name}: by sevens");
            for (token, found) in together.chunks(mixture.hidden).enumerate() {
                let plain = mixture.plainly(token);
                assert_eq!(bits(found), bits(&plain), "{name}: token {token}");
            }
        }
    }
}

#[test]
fn routing_gives_the_same_bits_everywhere() {
    let mut runner = TestRunner::new(Config {
        cases: 64,
        ..Config::default()
    });
    let number = prop_oneof![
        8 => -20.0_f32..20.0,
        2 => (-2_i8..2).prop_map(f32::from),
        1 => Just(f32::NEG_INFINITY),
    ];
    let strategy = (2_usize..70).prop_flat_map(|experts| {
        (
            Just(experts),
            1..=experts.min(crate::MAX_EXPERTS_PER_TOKEN),
            proptest::collection::vec(number.clone(), 3 * experts),
        )
    });
    let case = |(experts, per_token, mut logits): (usize, usize, Vec<f32>)| {
        logits[0] = 1.0;
        logits[experts] = -0.0;
        logits[2 * experts + 1] = 0.0;
        for routing in [Routing::SoftmaxOfChosen, Routing::SoftmaxOfAll] {
            let weights = same_everywhere("routing", |cpu| {
                let mut routes = cpu.routes(RouteShape {
                    max_tokens: 3,
                    experts,
                    per_token,
                    width: 1,
                });
                let logits = filled(cpu, experts, &logits);
                cpu.route_experts(routing, &logits, &mut routes);
                let ids = routes.ids().iter().map(|id| *id as f32);
                ids.chain(routes.weights().iter().copied()).collect()
            });
            let (ids, weights) = weights.split_at(3 * per_token);
            for (token, logits) in logits.chunks(experts).enumerate() {
                let range = token * per_token..(token + 1) * per_token;
                let (ids, weights) = (&ids[range.clone()], &weights[range]);
                assert!(ids.is_sorted_by(|a, b| a < b), "ascending, each once");
                let chosen = |expert: usize| ids.contains(&(expert as f32));
                let least = ids
                    .iter()
                    .map(|id| logits[*id as usize])
                    .fold(f32::INFINITY, f32::min);
                for (expert, logit) in logits.iter().enumerate() {
                    assert!(chosen(expert) || *logit <= least, "the largest");
                    let later = (expert + 1..experts).any(|e| chosen(e) && logits[e] == *logit);
                    assert!(chosen(expert) || !later, "the lower id among equals");
                }
                let exact = |logit: &f32| f64::from(*logit).exp();
                let sum: f64 = match routing {
                    Routing::SoftmaxOfChosen => {
                        ids.iter().map(|id| exact(&logits[*id as usize])).sum()
                    }
                    Routing::SoftmaxOfAll => logits.iter().map(exact).sum(),
                };
                for (id, weight) in ids.iter().zip(weights) {
                    let expected = exact(&logits[*id as usize]) / sum;
                    assert!((f64::from(*weight) - expected).abs() < 1e-6);
                }
            }
        }
        Ok(())
    };
    runner.run(&strategy, case).unwrap();
}

#[test]
fn a_number_is_more_than_none() {
    for cpu in [Cpu::new(Isa::Scalar, 1), Cpu::new(Isa::detect(), 2)] {
        let mut cpu = cpu;
        let mut routes = cpu.routes(RouteShape {
            max_tokens: 1,
            experts: 5,
            per_token: 2,
            width: 1,
        });
        let logits = filled(&mut cpu, 5, &[f32::NAN, -3.0, f32::NAN, -7.0, -9.0]);
        cpu.route_experts(Routing::SoftmaxOfChosen, &logits, &mut routes);
        assert_eq!(routes.ids(), [1, 3]);
    }
}

/// The bytes of experts that no token chose do not exist: reading one would be a SIGBUS.
#[test]
#[cfg(target_os = "linux")]
fn experts_without_a_token_are_not_read() {
    const CHOSEN: usize = 3;
    for (format, tokens) in [(Format::Q4_K, 1), (Format::Q8_0, 1), (Format::Q6_K, 20)] {
        // An expert is a whole number of memory pages, so that the file can end behind one.
        let (rows, cols, experts) = (256, 2048, 8);
        let expert_bytes = rows * format.row_bytes(cols);
        assert!(expert_bytes.is_multiple_of(4096));
        let mut bytes = vec![0; experts * expert_bytes];
        quant::quantize(format, &noise(5, rows * cols), &mut bytes[..expert_bytes]);
        for expert in 1..CHOSEN {
            bytes.copy_within(..expert_bytes, expert * expert_bytes);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let mapping = std::sync::Arc::new(Mapping::open(file.path()).unwrap());
        file.as_file()
            .set_len((CHOSEN * expert_bytes) as u64)
            .unwrap();

        let mut cpu = Cpu::new(Isa::detect(), 2);
        let weights: Vec<Matrix> = (0..experts)
            .map(|expert| {
                let range = expert * expert_bytes..(expert + 1) * expert_bytes;
                cpu.matrix(format, rows, cols, WeightBytes::new(mapping.clone(), range))
            })
            .collect();
        let mut routes = cpu.routes(RouteShape {
            max_tokens: tokens,
            experts,
            per_token: CHOSEN,
            width: cols,
        });
        let logits: Vec<f32> = (0..tokens * experts)
            .map(|i| if i % experts < CHOSEN { 1.0 } else { 0.0 })
            .collect();
        let logits = filled(&mut cpu, experts, &logits);
        cpu.route_experts(Routing::SoftmaxOfChosen, &logits, &mut routes);
        let x = filled(&mut cpu, cols, &noise(6, tokens * cols));
        let mut out = cpu.buffer(tokens * CHOSEN, rows);
        let job = ExpertJob {
            weights: &weights,
            bias: None,
            out: &mut out,
        };
        cpu.expert_matmul(&mut routes, ExpertRows::Tokens, &x, &mut [job]);
        assert_eq!(out.data[..rows], out.data[tokens * rows..][..rows]);
        assert!(out.data.iter().any(|x| *x != 0.0));
    }
}
