"""Definition: the YAML file, its configurations, and jobs."""
