"""Videos: their frames read one by one, and described alone or as clips."""
