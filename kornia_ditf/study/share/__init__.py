"""Results that travel: bundles, merged and compared studies, and leaderboards of them."""
