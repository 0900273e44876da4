//! The routes, before a model that spells and an engine that runs it.

mod embeddings;
mod errors;
mod streams;
mod structured;
mod world;
