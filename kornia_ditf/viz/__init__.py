"""Pictures of matches and channels."""
