"""The report's figures, one per file: numbers in, a `<figure>` with its sentence, legend and SVG out."""

from kcm.report.figures.certificate_path import certificate_path
from kcm.report.figures.differences import differences
from kcm.report.figures.forgetting import forgetting
from kcm.report.figures.frontier import frontier
from kcm.report.figures.regret import regret
from kcm.report.figures.reliability import reliability
from kcm.report.figures.trials import trials

__all__ = ["certificate_path", "differences", "forgetting", "frontier", "regret", "reliability", "trials"]
