"""What llama.cpp's `llama-perplexity` makes of texts: what `redline perplexity` is held to.

    python llama_perplexity.py PROGRAM MODEL.gguf REFERENCE.json TEXT.txt... [--threads N]

The texts are measured as one, in the order given, as `cat TEXT.txt...` writes them. REFERENCE.json
gets the perplexity of the windows up to each (`so_far`), that of all with its standard error, and the
provenance. Weights as stored and not repacked, F16 keys and values, no flash attention: as in
`conformance.py`.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from llama_cpp_logits import sha256

CTX_SIZE = 128
FLAGS = ["-c", str(CTX_SIZE), "--no-repack", "-fa", "off"]


def run(program, *flags):
    """Both streams; a build's own libraries go before those it was linked with."""
    libraries = {"LD_LIBRARY_PATH": str(program.parent)}
    done = subprocess.run([program, *flags], env=os.environ | libraries, text=True, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=lambda path: Path(path).resolve())
    parser.add_argument("model", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    with tempfile.NamedTemporaryFile() as text:
        text.write(b"".join(path.read_bytes() for path in args.texts))
        text.flush()
        said = run(args.program, "-m", args.model, "-f", text.name, "-t", str(args.threads), *FLAGS)
    so_far = [float(value) for value in re.findall(r"\[\d+\]([\d.]+),", said)]
    perplexity, error = re.search(r"PPL = ([\d.]+) \+/- ([\d.]+)", said).groups()
    assert f"over {len(so_far)} chunks, n_ctx={CTX_SIZE}" in said, said
    reference = {
        "perplexity": float(perplexity),
        "standard_error": float(error),
        "ctx_size": CTX_SIZE,
        "so_far": so_far,
        "llama": "llama-perplexity " + " ".join(FLAGS),
        "llama_version": run(args.program, "--version").splitlines()[0],
        "llama_system_info": re.search(r"system_info: (.*)", said).group(1).strip(" |"),
        "model": args.model.name,
        "model_sha256": sha256(args.model),
        "texts_sha256": {path.name: sha256(path) for path in args.texts},
        "script": "xtask/golden/llama_perplexity.py",
        "script_sha256": sha256(__file__),
    }
    args.reference.write_text(json.dumps(reference, indent=2) + "\n")


if __name__ == "__main__":
    main()
