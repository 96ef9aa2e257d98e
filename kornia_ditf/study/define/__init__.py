"""What a study is: its YAML file, experiments and jobs."""
