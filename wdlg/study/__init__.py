"""Studies: many attacks on the same private images, networks and dummies, and what they add up to."""

from wdlg.study.cases import Cases, Design, draw
from wdlg.study.labels import compare_rules
from wdlg.study.paired import Outcome, run_paired

__all__ = ["Cases", "Design", "Outcome", "compare_rules", "draw", "run_paired"]
