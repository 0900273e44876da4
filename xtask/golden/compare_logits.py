"""How far apart two sets of logits are, over the whole vocabulary.

    python compare_logits.py REFERENCE.npy OURS.npy

Both [positions, vocabulary]. Prints top-1 agreement and the KL divergence, in nats, of OURS from
REFERENCE (expectation under REFERENCE), and what the text's own next tokens cost under each.
Optionally reads REFERENCE.ids.json for that cost.
"""

import json
import sys
from pathlib import Path

import numpy as np


def log_softmax(logits):
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return wide - np.log(np.exp(wide).sum())


def main():
    reference, ours = (np.load(path, mmap_mode="r") for path in sys.argv[1:3])
    assert reference.shape == ours.shape, f"{reference.shape} against {ours.shape}"
    ids_path = Path(sys.argv[1]).with_suffix(".ids.json")
    ids = json.loads(ids_path.read_text()) if ids_path.exists() else None
    kl, same, costs, disagreements = [], 0, [], []
    for position, (p_row, q_row) in enumerate(zip(reference, ours)):
        p, q = log_softmax(p_row), log_softmax(q_row)
        kl.append(float((np.exp(p) * (p - q)).sum()))
        best, mine = int(p.argmax()), int(q.argmax())
        same += best == mine
        if best != mine:
            disagreements.append((position, best, mine, float(p[best] - p[mine])))
        if ids and position + 1 < len(ids):
            costs.append((-p[ids[position + 1]], -q[ids[position + 1]]))
    report = {
        "positions": len(kl),
        "vocabulary": reference.shape[1],
        "top1_agreement": same / len(kl),
        "kl_mean": float(np.mean(kl)),
        "kl_median": float(np.median(kl)),
        "kl_p99": float(np.quantile(kl, 0.99)),
        "kl_max": float(np.max(kl)),
        "logit_difference_max": float(max(np.abs(a - b).max() for a, b in zip(reference, ours))),
        # The reference's lead of its own choice over ours, where they differ: small means a near tie.
        "largest_lost_lead": max((lead for *_, lead in disagreements), default=0.0),
    }
    if costs:
        report["perplexity_reference"], report["perplexity_ours"] = (
            float(x) for x in np.exp(np.mean(costs, axis=0))
        )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
