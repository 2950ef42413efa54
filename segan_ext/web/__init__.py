"""The page: explore a generator's dimensions, edit images by painting, train extractors by annotating, in a browser."""
