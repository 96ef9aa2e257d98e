"""deep-image-matching's lists of what a configuration may name."""

confs = {"sift+kornia_matcher": {"extractor": {"name": "sift"}, "matcher": {"name": "x"}}}
opt_zoo = {"extractors": ["sift"], "matchers": ["kornia_matcher"]}


class Config:
    def __init__(self, general, extractor):
        self.general, self.extractor = general, extractor
