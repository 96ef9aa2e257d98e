"""Storage: descriptor maps, records and the study's folder."""
