"""What a study keeps: descriptor maps, records and its folder."""
