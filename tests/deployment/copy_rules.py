"""Write `k8s/components/monitoring/prometheusrule.yaml` and `k8s/chart/files/rules.yml` from `docker/prometheus/rules.yml`.

    .venv/bin/python -m tests.deployment.copy_rules

Neither kustomize nor Helm takes files from outside its folder, so there are three copies; tests compare them.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docker" / "prometheus" / "rules.yml"
PROMETHEUS_RULE = ROOT / "k8s" / "components" / "monitoring" / "prometheusrule.yaml"
CHART_RULES = ROOT / "k8s" / "chart" / "files" / "rules.yml"
HEAD = """\
# The groups of docker/prometheus/rules.yml, for the Prometheus operator. Change them there and run
# python -m tests.deployment.copy_rules (a test compares).
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: parseq-service
  labels:
    app.kubernetes.io/name: parseq-service
    app.kubernetes.io/instance: stable
    app.kubernetes.io/part-of: parseq
spec:
"""


def main() -> None:
    """Copy, for kustomize two steps further in, comments and all."""
    CHART_RULES.write_bytes(RULES.read_bytes())
    lines = RULES.read_text(encoding="utf-8").splitlines()
    body = "\n".join(f"  {line}" if line.strip() else "" for line in lines)
    PROMETHEUS_RULE.write_text(f"{HEAD}{body}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
