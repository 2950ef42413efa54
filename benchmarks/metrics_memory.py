"""Peak memory of KID and of precision and recall on 50 000 features a side: `python benchmarks/metrics_memory.py`.

Each runs in a process of its own, with random features in place of a detector's. Takes some ten minutes on two cores.
"""

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COUNT, WIDTHS = 50_000, dict(kid50k_full=2048, pr50k3_full=4096)  # of the reference's detectors


def main():
    for metric, width in WIDTHS.items():
        done = subprocess.run([sys.executable, __file__, metric], capture_output=True, text=True, check=True)
        print(f"{metric}: {COUNT} × {width} features a side, peak {float(done.stdout):.2f} GB", flush=True)


def measure(metric):
    sys.path.insert(0, str(ROOT / "stylegan2_ada"))
    import torch

    from metrics import metric_main, metric_utils

    def random_features(opts, detector_url, detector_kwargs, rel_lo=0, rel_hi=1, max_items=None, **kwargs):
        stats = metric_utils.FeatureStats(max_items=COUNT, **kwargs)
        while not stats.is_full():
            stats.append_torch(torch.rand(500, WIDTHS[metric]))
        return stats

    metric_utils.compute_feature_stats_for_dataset = random_features
    metric_utils.compute_feature_stats_for_generator = random_features
    metric_main.calc_metric(metric, device="cpu", seed=0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
