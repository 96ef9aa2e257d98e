"""Running a study: planning, workers and engines."""
