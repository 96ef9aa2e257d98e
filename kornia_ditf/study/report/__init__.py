"""What a finished study says: scores, statistics and pages."""
