"""One self-contained page about a run: `write(run)`."""

from maskedmodel.report.page import write as write
