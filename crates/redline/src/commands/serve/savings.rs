//! What would make a server smaller.

use redline_gguf::Gguf;
use redline_model::{LoadOptions, Properties, pages_for};

use super::{Args, generating, pages_in};
use crate::commands::{Context, embed};
use crate::room::{LEAST_CONTEXT, Saving};

/// The flags by which less memory is needed than `options` need, of a model with these properties.
pub(super) fn of(
    args: &Args,
    options: &LoadOptions,
    properties: &Properties,
    gguf: &Gguf<'_>,
    context: &Context,
) -> Vec<Saving> {
    let positions = options.context.unwrap_or(properties.context_length);
    if !properties.head {
        let shorter = |positions| embed::load_options(properties, positions, context);
        return vec![Saving::halves(
            "--context",
            positions,
            LEAST_CONTEXT,
            shorter,
        )];
    }
    let running = &args.running;
    let mut savings = Vec::new();
    match (running.kv_pages, running.kv_memory, options.kv_pages) {
        // As much memory, whatever a page takes.
        (_, Some(mib), _) => savings.push(Saving::halves("--kv-memory", mib as usize, 1, |mib| {
            LoadOptions {
                kv_pages: pages_in(mib as u64, gguf, options).ok(),
                ..options.clone()
            }
        })),
        (given, None, Some(pages)) => {
            savings.push(Saving::kv(options));
            if given.is_none() {
                let shorter = |positions| {
                    let shorter = generating(args, positions, gguf, context);
                    shorter.unwrap_or_else(|_| options.clone())
                };
                savings.push(Saving::halves(
                    "--context",
                    positions,
                    LEAST_CONTEXT,
                    shorter,
                ));
            }
            // With fewer, the context would be what they hold.
            let least = pages_for(positions);
            savings.push(Saving::halves("--kv-pages", pages, least, |pages| {
                LoadOptions {
                    kv_pages: Some(pages),
                    ..options.clone()
                }
            }));
        }
        (_, None, None) => {}
    }
    let guesses = options.max_logit_rows - running.max_running;
    savings.push(Saving::halves(
        "--max-running",
        running.max_running,
        1,
        |running| LoadOptions {
            max_logit_rows: running + guesses,
            ..options.clone()
        },
    ));
    savings.push(Saving::chunk(options));
    savings
}
