"""Reports: scores, statistics, charts and pages."""
